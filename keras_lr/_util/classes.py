"""The classes of targets, and orders of rows that keep their proportions."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["classes", "ranked"]

MOST_CLASSES = 1000  # of whole numbers that count as classes


def ranked(y: Any, rows: int, seed: int) -> np.ndarray:
    """All rows in an order of which every beginning has the classes in their proportions.

    Within a class the order is random. The i-th of its n rows stands at (i + 1/2) / n of the
    whole, so a beginning of any length holds the share of each class to within one row.
    """
    generator = np.random.default_rng(seed)
    labels = classes(y, rows)
    order = generator.permutation(rows)
    if labels is None:
        return order
    place = np.empty(rows)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Of equal places the random order decides, not the class.
    return order[np.argsort(place[order], kind="stable")]


def classes(y: Any, rows: int) -> np.ndarray | None:
    """The class of each row, for targets that are classes: whole numbers, or one of n."""
    if y is None or isinstance(y, (dict, list, tuple)) or not hasattr(y, "shape"):
        return None
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] > 1:
        one_of = np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()
        return values.argmax(axis=1) if one_of else None
    if values.size != rows or values.dtype.kind not in "biuf":
        return None
    values = values.reshape(rows)
    if values.dtype.kind == "f" and not (values == np.round(values)).all():
        return None
    found = np.unique(values)
    return values if len(found) <= min(MOST_CLASSES, rows // 2) else None
