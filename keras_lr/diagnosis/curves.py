"""What rules ask of a curve; NumPy in, numbers out."""

from __future__ import annotations

import numpy as np

__all__ = ["level", "noise", "relative", "slope", "slope_kept"]


def relative(values: np.ndarray) -> np.ndarray:
    """The curve on a scale where equal ratios are equal steps: its logarithm if it is positive.

    Losses at or below 0 exist (log-densities, distances): those are counted from a little below
    the lowest, so that the scale has no end.
    """
    low, high = float(np.min(values)), float(np.max(values))
    floor = 0.0 if low > 0 else low - 0.05 * ((high - low) or 1.0)
    return np.log(values - floor)


def noise(values: np.ndarray) -> float:
    """Standard deviation of the values around a smooth curve, by the median of second differences.

    For independent noise of variance s², x[i-1] - 2 x[i] + x[i+1] has variance 6 s²; a line drops
    out, and a jump here or there does not move a median.
    """
    if len(values) < 3:
        return 0.0
    bends = np.abs(np.diff(values, 2))
    return float(1.4826 * np.median(bends) / np.sqrt(6.0))


def level(values: np.ndarray, count: int) -> float:
    """Median of the last values."""
    return float(np.median(values[-count:]))


def slope(values: np.ndarray) -> float:
    """Slope of the straight line through the values, a step of the index being 1."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def slope_kept(values: np.ndarray) -> float:
    """Slope in the last third as a share of that in the first: 1 for a straight line."""
    third = max(2, round(len(values) / 3))
    first, last = slope(values[: third + 1]), slope(values[-third - 1 :])
    return last / first if first else 0.0
