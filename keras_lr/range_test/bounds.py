"""Smith's bounds of a cyclic schedule, from a recorded range test."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lr.range_test import smoothing
from keras_lr.range_test.landmarks import (
    FEWEST_POINTS,
    check_length,
    fell,
    rate_at,
    rate_before_lag,
)
from keras_lr.range_test.smoothing import checked, read_curve
from keras_lr.range_test.suggestion import NoSuggestion


def bounds(learning_rates: Any, losses: Any, accuracy: Any | None = None) -> tuple[float, float]:
    """Smith's `(base_lr, max_lr)` for a cyclic schedule.

    Smith 2015 (arXiv 1506.01186), section 3.3: the accuracy starts to improve at `base_lr`, and
    slows down, becomes ragged or falls at `max_lr`. Here: a tenth of the smoothed rise, and nine
    tenths of it, read a few steps early because the loss lags behind the rate; `base_lr` is at
    most a quarter of `max_lr`, the paper's rule of thumb.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,) or (repeats, steps).
        accuracy: Read instead of the losses if given; same shape.

    Raises:
        NoSuggestion: If the curve supports no bounds.
        ValueError: If shapes do not fit.
    """
    rates, rows = checked(learning_rates, losses)
    if accuracy is not None:
        rows = -checked(learning_rates, accuracy)[1]
    found, refused = [], None
    for row in rows:
        try:
            found.append(_bounds_of_one(rates, row))
        except NoSuggestion as error:
            refused = error
    if not found:
        raise refused or NoSuggestion("The range test recorded no step.")
    base, top = np.exp(np.log(found).mean(axis=0))
    return float(base), float(top)


def _bounds_of_one(rates: np.ndarray, row: np.ndarray) -> tuple[float, float]:
    check_length(row, FEWEST_POINTS)
    with np.errstate(all="ignore"):
        curve = read_curve(rates, row, smoothing.BANDWIDTH)
        if not fell(curve):
            raise NoSuggestion(
                "Nothing improved along the ramp by more than its noise, so there are no bounds "
                "to read. Take more steps, or raise end_lr if nothing got worse either."
            )
        level = curve.smoothed[: curve.bottom + 1]
        starts, slows = (
            np.flatnonzero(level > curve.start - share * curve.fall) for share in (0.1, 0.9)
        )
        top = rate_before_lag(curve, slows[-1] if len(slows) else 0)
        base = rate_at(curve, starts[-1] if len(starts) else 0)
    return min(base, top / 4), top
