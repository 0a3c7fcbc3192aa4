"""Statistics of a curve, used by the rules: NumPy arrays in, numbers out."""

from __future__ import annotations

import numpy as np

__all__ = ["level", "noise", "relative", "rolling_median", "scaled", "slope", "slope_kept", "trend"]


def relative(values: np.ndarray) -> np.ndarray:
    """Logarithm of the curve, so that equal ratios are equal differences.

    A loss can be 0 or negative (log-densities, distances). Such a curve is first shifted to start
    slightly above 0.
    """
    low, high = float(np.min(values)), float(np.max(values))
    floor = 0.0 if low > 0 else low - 0.05 * ((high - low) or 1.0)
    return np.log(values - floor)


def scaled(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """A part of a curve on the scale of its noise: the logarithm, or shares of the span.

    The logarithm of a shifted curve would enlarge the noise of a loss near its lowest value.
    """
    return np.log(values) if (whole > 0).all() else values / (float(np.ptp(whole)) or 1.0)


def noise(values: np.ndarray) -> float:
    """Standard deviation of the values around a smooth curve, from the median second difference.

    For independent noise of variance s², x[i-1] - 2 x[i] + x[i+1] has variance 6 s². A linear
    trend cancels, and single jumps do not affect the median.
    """
    if len(values) < 3:
        return 0.0
    bends = np.abs(np.diff(values, 2))
    return float(1.4826 * np.median(bends) / np.sqrt(6.0))


def level(values: np.ndarray, count: int) -> float:
    """Median of the last values."""
    return float(np.median(values[-count:]))


def slope(values: np.ndarray) -> float:
    """Slope of the least-squares line through the values, per index step."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def slope_kept(values: np.ndarray) -> float:
    """Slope in the last third divided by the slope in the first third: 1 for a straight line."""
    third = max(2, round(len(values) / 3))
    first, last = slope(values[: third + 1]), slope(values[-third - 1 :])
    return last / first if first else 0.0


def rolling_median(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Median of each value and its neighbours; fewer at the ends."""
    half = width // 2
    return np.array(
        [np.median(values[max(0, row - half) : row + half + 1]) for row in range(len(values))]
    )


def trend(values: np.ndarray) -> float:
    """Slope of the least-squares line divided by its standard error: Student's t."""
    places = np.arange(len(values)) - (len(values) - 1) / 2
    gain = slope(values)
    left = values - values.mean() - gain * places
    error = np.sqrt((left**2).sum() / max(1, len(values) - 2) / (places**2).sum())
    return float(gain / error) if error else np.inf * np.sign(gain) if gain else 0.0
