"""Stratified sampling: orders of rows in which every class keeps its share."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["class_labels", "stratified_order"]

MOST_CLASSES = 1000  # with more, integer targets do not count as classes


def stratified_order(y: Any, rows: int, seed: int) -> np.ndarray:
    """Order all rows so that the first k hold each class in its share, for every k.

    Within a class the order is random. The i-th of its n rows is placed at (i + 1/2) / n of the
    whole, so the first k rows hold the share of each class to within one row.
    """
    generator = np.random.default_rng(seed)
    labels = class_labels(y, rows)
    order = generator.permutation(rows)
    if labels is None:
        return order
    place = np.empty(rows)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    # The sort is stable: the random order decides between equal places, not the class.
    return order[np.argsort(place[order], kind="stable")]


def class_labels(y: Any, rows: int) -> np.ndarray | None:
    """The class of each row, if the targets are integers or one-hot rows; otherwise None."""
    if y is None or isinstance(y, (dict, list, tuple)) or not hasattr(y, "shape"):
        return None
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] > 1:
        one_hot = np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()
        return values.argmax(axis=1) if one_hot else None
    if values.size != rows or values.dtype.kind not in "biuf":
        return None
    values = values.reshape(rows)
    if values.dtype.kind == "f" and not (values == np.round(values)).all():
        return None
    found = np.unique(values)
    return values if len(found) <= min(MOST_CLASSES, rows // 2) else None
