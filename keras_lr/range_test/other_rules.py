"""The rules of other libraries, as they ship: each with its smoothing, trimming and stop rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from keras_lr.range_test.smoothing import moving_average
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

Rule = Callable[[np.ndarray, np.ndarray], Suggestion]


def _before_stop(smoothed: np.ndarray, factor: float) -> np.ndarray:
    """The losses that a finder records if it stops above `factor` times the best smoothed loss."""
    best = np.inf
    for i, loss in enumerate(smoothed):
        if i and loss > factor * best:
            return smoothed[: i + 1]
        best = min(best, loss)
    return smoothed


def _rule_needs(holds: bool, name: str, needs: str) -> None:
    if not holds:
        raise NoSuggestion(
            f"The rule {name!r} needs {needs}, which this curve does not have. Take more steps, "
            "run the ramp further, or use method='auto'."
        )


def _answer(name: str, rate: float, reason: str) -> Suggestion:
    """A suggestion whose interval is the rate itself: these rules estimate no spread."""
    return Suggestion(float(rate), float(rate), float(rate), name, reason)


def _fastai(name: str, rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve that fastai passes to its rules: smoothed by .98, trimmed, cut at NaN."""
    smoothed = _before_stop(moving_average(losses, 0.98), 4.0)
    trim = slice(len(losses) // 10, -5)
    kept, smoothed = rates[: len(smoothed)][trim], smoothed[trim]
    broken = np.flatnonzero(np.isnan(smoothed))
    if len(broken):
        kept, smoothed = kept[: broken[0]], smoothed[: broken[0]]
    _rule_needs(len(kept) >= 2, name, "2 points between the first tenth and the last 5")
    return kept, smoothed


def _longest_valley(losses: np.ndarray) -> int:
    """fastai's index: a length of a falling subsequence, read as a window of that length.

    As shipped, which lets the window begin at -1.
    """
    lengths = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    sections = (end - start) / 3
    return start + int(sections) + int(sections / 2)


def _valley(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """fastai's default: in the middle of the longest falling stretch."""
    kept, smoothed = _fastai("valley", rates, losses)
    rate = kept[_longest_valley(smoothed)]
    return _answer("valley", rate, "In the middle of the longest falling stretch (fastai).")


def _slide(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """fastai: walk left from the end, 15 steps apart, until the two slopes agree to .005."""
    kept, smoothed = _fastai("slide", rates, losses)
    _rule_needs(len(kept) >= 16, "slide", "16 points between the first tenth and the last 5")
    slope = np.gradient(smoothed)
    right, left = -1, -16
    rate = kept[left]
    while left >= -len(kept) and abs(slope[right] - slope[left]) > 0.005:
        rate = kept[left]
        right, left = right - 1, left - 1
    return _answer("slide", rate, "Left of where the slope, seen from the end, settles (fastai).")


def _minimum(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """fastai: a tenth of the rate at the smoothed minimum."""
    kept, smoothed = _fastai("minimum", rates, losses)
    rate = kept[smoothed.argmin()] / 10
    return _answer("minimum", rate, "A tenth of the rate at the smoothed minimum (fastai).")


def _steep(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """fastai: the steepest fall in ln lr."""
    kept, smoothed = _fastai("steep", rates, losses)
    rate = kept[(np.diff(smoothed) / np.diff(np.log(kept))).argmin()]
    return _answer("steep", rate, "Where the smoothed loss falls fastest (fastai).")


def _lightning(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """Lightning since 2.5.3: the steepest fall of the loss in lr itself, not in ln lr.

    At low rates the spacing is tiny, so the noise there wins (Lightning #21141). Smoothing is
    a bias-corrected average of .98, as Lightning documents it; its callback corrects one step
    too far (1 - .98 ** (i + 1) for the i-th loss), which halves the first loss and which this
    rule leaves out.
    """
    smoothed = _before_stop(moving_average(losses, 0.98), 4.0)
    kept, smoothed = rates[: len(smoothed)][10:-1], smoothed[10:-1]
    finite = np.isfinite(smoothed)
    kept, smoothed = kept[finite], smoothed[finite]
    _rule_needs(len(kept) >= 2, "lightning", "2 finite points behind the first 10")
    rate = kept[np.gradient(smoothed, kept).argmin()]
    return _answer("lightning", rate, "Where the loss falls fastest per unit of lr (Lightning).")


def _torch_average(losses: np.ndarray) -> np.ndarray:
    """The average of pytorch-lr-finder and ignite: starts at the first loss, new weight .05."""
    smoothed = losses[:1].tolist()
    for loss in losses[1:]:
        smoothed.append(0.05 * loss + 0.95 * smoothed[-1])
    return _before_stop(np.array(smoothed), 5.0)


def _torch_lr_finder(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """pytorch-lr-finder: the steepest fall per step, without the first 10 and the last 5."""
    smoothed = _torch_average(losses)[10:-5]
    finite = np.isfinite(smoothed)
    smoothed = smoothed[finite]
    _rule_needs(len(smoothed) >= 2, "torch_lr_finder", "17 recorded losses")
    rate = rates[10:][np.flatnonzero(finite)[np.gradient(smoothed).argmin()]]
    return _answer("torch_lr_finder", rate, "Where the loss falls fastest (pytorch-lr-finder).")


def _ignite(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """ignite: the steepest fall per step on the way down to the minimum."""
    smoothed = _torch_average(losses)
    smoothed = smoothed[np.isfinite(smoothed)]
    falling = smoothed[: smoothed.argmin() + 1] if len(smoothed) else smoothed
    _rule_needs(len(falling) >= 3, "ignite", "3 points up to its minimum")
    rate = rates[(0.5 * (falling[2:] - falling[:-2])).argmin() + 1]
    return _answer("ignite", rate, "The steepest fall before the minimum (ignite).")


def _ktrain(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """ktrain's numerical gradient: the steepest fall between point 32 and the minimum.

    As shipped in 0.41.4: the index is not moved back by the 32 points left out, so the rate
    lies 32 steps below the point that the rule found.
    """
    smoothed = _before_stop(moving_average(losses, 0.98), 4.0)
    smoothed = smoothed[np.isfinite(smoothed)]
    falling = smoothed[32 : smoothed.argmin()] if len(smoothed) else smoothed
    _rule_needs(len(falling) >= 2, "ktrain", "34 points up to its minimum")
    rate = rates[np.gradient(falling).argmin()]
    return _answer("ktrain", rate, "The steepest fall, read 32 steps too early (ktrain).")


OTHER_RULES: Mapping[str, Rule] = {
    "valley": _valley,
    "slide": _slide,
    "steep": _steep,
    "minimum": _minimum,
    "lightning": _lightning,
    "torch_lr_finder": _torch_lr_finder,
    "ignite": _ignite,
    "ktrain": _ktrain,
}
