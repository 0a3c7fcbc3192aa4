"""Our rule: from one curve to a learning rate, by three landmarks of the smoothed loss."""

from __future__ import annotations

import numpy as np

from keras_lr.range_test import smoothing
from keras_lr.range_test.landmarks import (
    FEWEST_POINTS,
    SURE,
    check_length,
    fell,
    landmarks,
    rate_at,
    rate_before_lag,
    rose,
    standard_error,
)
from keras_lr.range_test.smoothing import Curve, read_curve
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

SHARE = 0.6  # of the landmarks' geometric mean: the rate that a whole training run tolerates
SPREAD = 2.0  # the interval extends at least this factor up and down
RISE_SHARE = 0.08  # of the rate at which a curve diverges that never fell
UNEVEN = 1 / 3  # standard error with spikes, as a share of the fall, that makes an answer unsure
# The landmarks usually lie this far from their geometric mean, as factors of the rate.
_USUAL_PLACES = np.array([0.25, 1.0, 4.0])

RAISE_END = "; raise end_lr."
STILL_FALLING = "The loss was still at its lowest at the end of the ramp" + RAISE_END
UNEVEN_NOTE = (
    "The batch losses are uneven: the curve shows only part of what training gains, and the "
    "best rate may lie far from this one. Use {}."
)
UNEVEN_START = UNEVEN_NOTE.partition(",")[0]


class TooUneven(NoSuggestion):
    """The losses spread too far; `factor` times the batch size would do."""

    def __init__(self, factor: float, batch_size: int | None = None) -> None:
        self.factor = factor
        super().__init__(
            "The batch losses are too uneven for a suggestion: some lie so far above the others "
            "(rare classes with large weights, or targets with a few huge values) that the "
            f"curve cannot show what training gains. Use {_larger(factor, batch_size)}, lower "
            "the weights or clip the targets, or take more steps."
        )


def curve_rule(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    """The suggestion of one curve; `rules.suggest` explains the rule.

    Raises:
        NoSuggestion: If the curve supports none.
    """
    check_length(losses, FEWEST_POINTS)
    curve = read_curve(rates, losses, smoothing.BANDWIDTH)
    if fell(curve):
        # Spikes do not say where the curve lies, but they are part of the loss. If their
        # standard error exceeds the fall, the curve misses most of what the model learns.
        unevenness = standard_error(curve, curve.spread) / curve.fall
        open_end = curve.bottom == len(curve.rates) - 1
        spiky = curve.spread > 4.0 * curve.noise
        if unevenness > 1.0 or ((open_end or spiky) and unevenness > UNEVEN):
            raise TooUneven(_enough_batch(curve))
        unsure = unevenness > (UNEVEN / 3.0 if spiky else UNEVEN)
        return _from_landmarks(curve, uneven=unsure)
    if _more_batch(curve) > 1.0 and curve.spread > 2.0 * curve.noise:
        raise TooUneven(_enough_batch(curve))
    if rose(curve):
        return _from_rise(curve)
    if _more_batch(curve) > 1.0 and curve.spread > 0.5 * abs(float(curve.losses.mean())):
        raise TooUneven(_enough_batch(curve))
    raise NoSuggestion(
        "The curve is flat: the loss never left its start by more than its noise. Raise end_lr, "
        "take more steps, and check that the model can learn from this data."
    )


def _from_landmarks(curve: Curve, uneven: bool = False) -> Suggestion:
    places = landmarks(curve)
    estimates = np.log([rate_before_lag(curve, place) for place in places])
    estimates -= np.log(_USUAL_PLACES)
    rate = SHARE * float(np.exp(estimates.mean()))
    low = min(SHARE * float(np.exp(estimates.min())), rate / SPREAD)
    high = max(SHARE * float(np.exp(estimates.max())), rate * SPREAD)
    notes = []
    if curve.bottom == len(curve.rates) - 1:
        notes.append(STILL_FALLING)
        high = max(high, float(curve.rates[-1]))
    elif not (rose(curve) or curve.smoothed[-1] > curve.start - 0.5 * curve.fall):
        notes.append("The curve never diverged, so a higher rate may do better" + RAISE_END)
        high = max(high, float(curve.rates[-1]))
    if uneven:
        low, high = min(low, rate / 30.0), max(high, rate * 30.0)
        notes.append(UNEVEN_NOTE.format(_larger(_enough_batch(curve), None)))
    if np.ptp(estimates) > np.log(10.0):
        notes.append(
            "The landmarks of the curve disagree by more than a decade; take more steps, or "
            "confirm the rate with short runs."
        )
    half, bottom, back_up = named = tuple(rate_at(curve, place) for place in places)
    climbed = curve.smoothed[int(places[2])] > curve.start - 0.5 * curve.fall
    reason = (
        f"Averaged over {smoothing.BANDWIDTH:g} decades to each side, the loss had fallen halfway "
        f"at {half:.2g}, was near its lowest at {bottom:.2g} and "
        f"{'was' if climbed else 'not yet'} halfway back up at {back_up:.2g}; the suggestion is "
        "about half the geometric mean of these rates, corrected for the lag of the loss."
    )
    return Suggestion(
        rate, low, high, "curve", reason, tuple(notes), landmarks=named[: 2 + climbed]
    )


def _from_rise(curve: Curve) -> Suggestion:
    """For a curve that shows which rates diverge, but not which ones work."""
    sure = SURE * standard_error(curve, curve.noise)
    above = np.flatnonzero(curve.smoothed > curve.start + sure)
    place = int(above[0]) if len(above) else len(curve.rates) - 1
    if place < len(curve.rates) / 4:
        raise NoSuggestion(
            "The loss rises from the start and never fell, so no rate can be preferred. Begin "
            "at a lower start_lr, and check that the model still has something to learn."
        )
    broken = rate_before_lag(curve, place)
    rate = broken * RISE_SHARE
    return Suggestion(
        rate,
        rate / 10.0,
        broken,
        "curve",
        f"The loss never clearly fell and diverges at {broken:.2g}; the suggestion is "
        f"{RISE_SHARE:.0%} of that rate.",
        (
            "The loss never fell below its start by more than its noise, so only the rate of the "
            "divergence is known; take more steps, or confirm the rate with short runs.",
        ),
    )


def _enough_batch(curve: Curve) -> float:
    """As `_more_batch`, from the first half, where the rate has hardly changed the loss."""
    early = curve.losses[: max(FEWEST_POINTS, len(curve.losses) // 2)]
    level = max(abs(float(early.mean())), 1e-300)
    return float(min(SURE * standard_error(curve, float(early.std())) / level, 1e6) ** 2)


def _more_batch(curve: Curve) -> float:
    """Factor on the batch size at which a fall as large as the loss would be certain.

    The standard deviation of the mean over a batch falls with the square root of its size.
    """
    early = curve.losses[: max(FEWEST_POINTS, len(curve.losses) // 3)]
    largest = max(curve.fall, abs(float(early.mean())), 1e-300)
    return float(min(SURE * standard_error(curve, curve.spread) / largest, 1e6) ** 2)


def _larger(factor: float, batch_size: int | None) -> str:
    """A batch size, as a power of two times the present one."""
    times = 2 ** int(np.ceil(np.log2(min(max(factor, 2.0), 1024.0))))
    if batch_size is None:
        return f"about {times} times the batch size"
    return f"a batch size of about {times * batch_size} (now {batch_size})"
