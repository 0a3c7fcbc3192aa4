"""Find the turning points of a curve."""

from __future__ import annotations

import numpy as np

__all__ = ["close", "turns"]

_NOISE = 2.0**-21  # relative; float32 rounds by 2**-24
_SHORTEST = 0.01  # of the run, for a flat stretch
_SMALLEST = 1e-3  # of the curve's height, for a rise or a fall
_MOST = 100  # reversals; if there are more, they are not phases


def close(values: np.ndarray, level: float) -> np.ndarray:
    """Which values equal `level`, up to float32 rounding."""
    return np.abs(values - level) <= _NOISE * abs(level)


def turns(values: np.ndarray) -> list[int]:
    """Return the steps at which a curve reverses, and at which flat stretches begin and end.

    Ignored are rises and falls of less than a thousandth of the curve's height, flat stretches
    of less than a hundredth of the run, and all reversals if there are more than a hundred. A
    jump between two levels counts at the first step of the second level. The first and the last
    step of the run are not included.
    """
    flats = _flats(values)
    firsts = {first for first, _ in flats}
    found = firsts | {last for _, last in flats if last + 1 not in firsts}
    reversals = _reversals(values)
    for first, last in reversals if len(reversals) <= _MOST else []:
        turn = _turning_point(values, first, last)
        if not any(first <= turn <= last for first, last in flats):
            found.add(turn)
    return sorted(found - {0, len(values) - 1})


def _flats(values: np.ndarray) -> list[tuple[int, int]]:
    """First and last step of each stretch on one level."""
    least = max(2, int(_SHORTEST * len(values)))
    size = least // 2  # a stretch of at least `least` steps contains a whole block of this size
    starts = np.arange(0, len(values), size)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    flats: list[tuple[int, int]] = []
    end = -1
    for start in starts[high - low <= _NOISE * np.abs(high)]:
        if start <= end:
            continue
        same = close(values, float(values[start]))
        first, end = _run(same, int(start))
        if end - first + 1 >= least:
            flats.append((first, end))
    return flats


def _run(true: np.ndarray, start: int) -> tuple[int, int]:
    """The stretch of true entries around `start`."""
    before, after = ~true[start::-1], ~true[start:]
    first = start - int(before.argmax()) + 1 if before.any() else 0
    last = start + int(after.argmax()) - 1 if after.any() else len(true) - 1
    return first, last


def _reversals(values: np.ndarray) -> list[tuple[int, int]]:
    """First and last step of the equal values at each peak and each valley."""
    changes = np.flatnonzero(np.diff(values))
    firsts, lasts = np.append(0, changes + 1), np.append(changes, len(values) - 1)
    levels = values[firsts]
    up = np.diff(levels) > 0
    peaks = np.concatenate([[0], np.flatnonzero(up[1:] != up[:-1]) + 1, [len(levels) - 1]])
    threshold = _SMALLEST * (values.max() - values.min())
    found: list[int] = []
    rising: bool | None = None
    low = high = 0
    for peak in peaks.tolist():
        low = peak if levels[peak] < levels[low] else low
        high = peak if levels[peak] > levels[high] else high
        fell, rose = levels[high] - levels[peak], levels[peak] - levels[low]
        if rising is not False and fell > threshold:
            found += [high] if rising else []
            rising, low, high = False, peak, peak
        elif rising is not True and rose > threshold:
            found += [low] if rising is False else []
            rising, low, high = True, peak, peak
    return [(int(firsts[place]), int(lasts[place])) for place in found]


def _turning_point(values: np.ndarray, first: int, last: int) -> int:
    """Estimate where the curve turns within a run of values that are equal in float32.

    The slower side of the curve contributes more of these values; how slow each side is shows
    further away from them.
    """
    if first == last:
        return first
    reach = max(2, len(values) // 20)
    sides = values[max(0, first - reach) : first][::-1], values[last + 1 : last + 1 + reach]
    away = [np.abs(side - values[first]) > 64 * _NOISE * abs(values[first]) for side in sides]
    before, after = (int(far.argmax()) + 1 if far.any() else reach for far in away)
    return first + round((last - first) * before / (before + after))
