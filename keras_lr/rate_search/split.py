"""Which rows are held out, and which rows a run on a part of the data uses."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lr._util.stratify import stratified_order

LEAST_ROWS = 2000  # of the default part of the data, if there are as many


def held_out(
    y: Any, rows: int, share: float, seed: int, by: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out, each in rising order.

    Held-out rows are stratified by class; each class keeps at least one row to train on. The
    number of held-out rows is a multiple of `by`.
    """
    order = stratified_order(y, rows, seed)
    count = min(_rounded(share * rows, by), rows - by)
    return np.sort(order[count:]), np.sort(order[:count])


def part(y: Any, rows: int, fraction: float, seed: int, by: int = 1) -> np.ndarray:
    """A share of the rows, in rising order; a larger share of the same seed contains it.

    If the share is below 1, the number of rows is a multiple of `by`.
    """
    if fraction >= 1.0:
        return np.arange(rows)
    return np.sort(stratified_order(y, rows, seed)[: _rounded(fraction * rows, by)])


def _rounded(count: float, by: int) -> int:
    return max(by, by * round(count / by))


def usual_fraction(rows: int) -> float:
    """A fifth of the data, or 2,000 rows if that is more."""
    return min(1.0, max(0.2, float(f"{LEAST_ROWS / rows:.3g}")))
