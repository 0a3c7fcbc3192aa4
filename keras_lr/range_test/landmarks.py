"""What a smoothed curve shows: whether it fell, whether it rose, and at which rates."""

from __future__ import annotations

import numpy as np

from keras_lr.range_test import smoothing
from keras_lr.range_test.smoothing import Curve
from keras_lr.range_test.suggestion import NoSuggestion

FEWEST_POINTS = 8
LAG = 3.0  # updates between a rate that is too high and the loss that shows it
SURE = 6.0  # standard errors that a fall or a rise must exceed to count

NOT_FINITE = (
    "The loss was not finite from the first step. Check the data and the loss for NaN and for "
    "very large values; a lower learning rate cannot help here."
)


def check_length(losses: np.ndarray, fewest: int) -> None:
    """Refuse a curve of too few finite losses.

    Raises:
        NoSuggestion: If there are fewer than `fewest` before the first that is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(losses))
    count = int(broken[0]) if len(broken) else len(losses)
    if count == 0 and len(losses):
        raise NoSuggestion(NOT_FINITE)
    if count < fewest:
        raise NoSuggestion(
            f"At least {fewest} finite losses are needed; got {count}. "
            "Take more steps, or begin at a lower start_lr."
        )


def rate_at(curve: Curve, position: float) -> float:
    """The learning rate at a fractional index, also before the first step."""
    logs = np.log(curve.rates)
    if position < 0:
        return float(np.exp(logs[0] + position * (logs[1] - logs[0])))
    return float(np.exp(np.interp(position, np.arange(len(logs)), logs)))


def rate_before_lag(curve: Curve, position: float) -> float:
    """The learning rate that caused the loss at a fractional index."""
    return rate_at(curve, position - LAG)


def landmarks(curve: Curve) -> np.ndarray:
    """Indices where the loss has done half of its fall, nearly all of it, and lost half again.

    The last one is the end of the record if that comes first.
    """
    level, bottom = curve.smoothed, curve.bottom
    lowest = float(level[bottom])

    def last_above(share: float) -> int:
        above = np.flatnonzero(level[: bottom + 1] > lowest + share * curve.fall)
        return min(int(above[-1]) + 1, bottom) if len(above) else 0

    lost = np.flatnonzero(level[bottom:] > lowest + 0.5 * curve.fall)
    back_up = bottom + int(lost[0]) if len(lost) else len(level) - 1
    return np.array([last_above(0.5), last_above(0.05), back_up], dtype=float)


def standard_error(curve: Curve, noise: float) -> float:
    """Standard error of the smoothed loss, from the standard deviation of a batch loss."""
    bandwidth = smoothing.BANDWIDTH
    decades = float(np.log10(curve.rates[-1] / curve.rates[0]))
    count = len(curve.rates)
    averaged = min(max(3.0, bandwidth * count / max(decades, bandwidth)), count / 2)
    rounding = 1e-9 * float(np.abs(curve.losses[: curve.bottom + 1]).max())
    return max(noise / float(np.sqrt(averaged)), rounding)


def fell(curve: Curve) -> bool:
    """Whether the curve has a minimum that its noise does not explain.

    A minimum among the first losses does not count: the start is their median.
    """
    sure = SURE * standard_error(curve, curve.noise)
    return curve.fall > sure and curve.bottom >= len(curve.rates) // 8


def rose(curve: Curve) -> bool:
    """Whether the loss climbs above its start after the minimum, by more than its noise."""
    top = float(curve.smoothed[curve.bottom :].max())
    return curve.ended or top > curve.start + SURE * standard_error(curve, curve.noise)
