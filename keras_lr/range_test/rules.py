"""From a curve to a learning rate: our rule, the rules of other libraries, and Smith's bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from keras_lr.range_test.confirm import Confirmation

FEWEST_POINTS = 8
BANDWIDTH = 0.7  # of the smoother, in decades to each side
LAG = 3.0  # updates between a rate that is too high and the loss that shows it
RISE_SHARE = 0.08  # of the rate at which a curve breaks that never fell
SPIKES = 0.7  # weight of the spikes seen so far in the noise that a blow-up must exceed
SURE = 6.0  # standard errors that a fall or a rise must exceed to be one
UNEVEN = 1 / 3  # of the fall, standard error with spikes counted from which an answer is unsure
SHARE = 0.6  # of the middle landmark that a whole training run can bear
SPREAD = 2.0  # an interval reaches at least this factor up and down


@dataclass(frozen=True)
class Suggestion:
    """A learning rate to train with, and what it rests on.

    Attributes:
        learning_rate: The rate, above 0.
        low: Lower end of the interval that the evidence leaves open; at most `learning_rate`.
        high: Its upper end; at least `learning_rate`.
        method: Name of the rule.
        reason: One sentence: where the rate comes from.
        warnings: What makes the answer less sure, one sentence each.
    """

    learning_rate: float
    low: float
    high: float
    method: str
    reason: str
    warnings: tuple[str, ...] = ()


class NoSuggestion(ValueError):
    """The curve supports no answer; the message says why and what to do about it."""


class SuggestionWarning(UserWarning):
    """What makes a suggestion less sure; `RangeTest.suggest` warns of it."""


# The curve and its smoothing


class Curve(NamedTuple):
    """One recorded curve up to its first loss that is not finite, and what smoothing shows."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    slope: np.ndarray  # of the smoothed loss in ln lr
    start: float  # the loss before the rate mattered
    bottom: int  # index of the smoothed minimum
    noise: float  # standard deviation of a batch loss around the curve, spikes left out
    spread: float  # the same, spikes counted
    ended: bool  # the record ends in a loss that is not finite

    @property
    def fall(self) -> float:
        return self.start - float(self.smoothed[self.bottom])


def _local_lines(x: np.ndarray, y: np.ndarray, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Level and slope of a robust straight line through the neighbours of each point.

    Tricube weights on both sides, so the line has no lag; three rounds of bisquare weights, so
    a spike has no say (Cleveland 1979, LOWESS, with a width in x instead of a count).
    """
    apart = np.abs(x[:, None] - x[None, :])
    nearest = np.sort(apart, axis=1)[:, min(3, len(x) - 1)]
    width = np.maximum(bandwidth, 1.001 * nearest)[:, None]
    near = np.maximum(0.0, 1.0 - np.minimum(apart / width, 1.0) ** 3) ** 3
    trust = np.ones(len(x))
    centred = x[None, :] - x[:, None]
    level, slope = y, np.zeros(len(x))
    for _ in range(4):
        w = near * np.maximum(trust, 1e-9)
        w0, w1, w2 = w.sum(1), (w * centred).sum(1), (w * centred**2).sum(1)
        wy, wxy = w @ y, (w * centred) @ y
        determinant = w0 * w2 - w1**2
        solid = determinant > 1e-9 * w0 * w2
        slope = np.where(solid, (w0 * wxy - w1 * wy) / np.where(solid, determinant, 1.0), 0.0)
        level = wy / w0 - slope * w1 / w0
        residual = np.abs(y - level)
        # Where there is hardly any noise, a bend of the curve must not count as a spike.
        scale = max(6.0 * float(np.median(residual)), 0.1 * float(np.ptp(y)))
        if scale <= 1e-12 * float(np.abs(y).max()):
            break
        trust = np.maximum(0.0, 1.0 - (residual / scale) ** 2) ** 2
    return level, slope


def _blown_up(y: np.ndarray, start: float, noise: float) -> int | None:
    """First index of a rise above the first losses that more than one loss shows.

    A mean of five, each counted up to four times the fall above the start: one spike cannot
    pass, two can, unless spikes came before. After such a rise a network may lie dead at a low
    loss, which is not a minimum.
    """
    best = np.inf
    start = max(start, float(np.median(y[:5])))  # a curve may fall from its first step on
    spikes = np.maximum(y - np.maximum(_middles(y), start), 0.0)
    seen_so_far = SPIKES * np.sqrt(np.cumsum(spikes**2) / np.arange(1, len(y) + 1))
    for i in range(2, len(y) - 2):
        best = min(best, float(np.median(y[i - 2 : i + 1])))
        usual = max(noise, float(seen_so_far[i - 3])) if i >= 3 else noise
        fall = max(start - best, 0.0) + usual
        seen = np.minimum(y[i - 2 : i + 3], start + 4.0 * fall)
        if seen.mean() > start + 0.5 * fall + 2.0 * usual and not _comes_back(y[i - 2 :], start):
            # Where nothing fell before, a loss that stays about its start afterwards was not
            # blown up either. After a fall, it may be that of a network that died.
            after = y[i + 3 :]
            calm = len(after) >= 10 and float(np.median(after[:20])) < start + 2.0 * noise
            if start - best > 2.0 * noise or not calm:
                return i
    return None


def _middles(y: np.ndarray) -> np.ndarray:
    """Median of five around each loss."""
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(y, 2, "edge"), 5), axis=1)


def _died(y: np.ndarray, start: float, noise: float) -> int | None:
    """Index of a spike after which the loss never again has half of the fall that it had before.

    One step at too high a rate can end a network, which then stays at the loss of an untrained
    one. A spike from a rare row leaves the loss where it was.
    """
    for i in range(3, len(y) - 2):
        low = float(y[i - 3 : i].min())
        fall = start - low
        if fall > 4.0 * noise and y[i] > start + 4.0 * fall:
            if y[i + 1 :].min() > low + 0.5 * fall and np.median(y[i + 1 :]) > start - 0.25 * fall:
                return i
    return None


def _comes_back(y: np.ndarray, start: float) -> bool:
    """Whether the loss ends up further below the start than it rose above it on the way.

    A rise of a few uneven batches does, a blow-up does not.
    """
    calm = np.median(np.lib.stride_tricks.sliding_window_view(y, 5), axis=1)
    lowest = int(calm.argmin())
    return bool(start - calm[lowest] > y[: lowest + 3].max() - start)


def _noise(y: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(np.diff(y)))) / float(np.sqrt(2))


def _curve(learning_rates: np.ndarray, losses: np.ndarray, bandwidth: float = BANDWIDTH) -> Curve:
    broken = np.flatnonzero(~np.isfinite(losses))
    count = int(broken[0]) if len(broken) else len(losses)
    rates, kept = learning_rates[:count], losses[:count]
    unit = float(np.abs(kept).max()) or 1.0  # keeps squares of huge losses finite
    y = kept / unit
    start = float(np.median(y[: max(3, count // 8)]))
    least = 1e-6 * abs(start)  # a loss without noise still needs a scale
    early = max(_noise(y[: max(3, count // 3)]), least)
    ends = [at for at in (_blown_up(y, start, early), _died(y, start, early)) if at is not None]
    end = min(ends, default=None)
    whole = count if end is None else end + 1
    calm = np.array([np.median(y[max(0, i - 1) : i + 2]) for i in range(whole)])
    noise = max(_noise(y[: max(int(calm.argmin()) + 2, count // 3)]), least)
    # What lies far above the start says only "diverged": how far must not bend the curve below.
    ceiling = start + max(start - float(calm.min()), 0.0) / 2 + 4.0 * noise
    ceiling = max(ceiling, float(y[0]), float(calm[: max(3, count // 8)].max()))
    capped = np.minimum(y, ceiling)
    capped[whole:] = ceiling
    level, slope = _local_lines(np.log(rates), capped, bandwidth * np.log(10.0))
    bottom = int(level[:whole].argmin())
    # Up to the minimum, and as long as most losses are as low as there.
    low = float(level[bottom])
    steady = _middles(y) < low + 0.25 * max(start - low, 0.0)
    steady[whole:] = False
    steady[: max(bottom + 1, min(whole, count // 3))] = True
    return Curve(
        rates,
        kept,
        level * unit,
        slope * unit,
        start * unit,
        bottom,
        noise * unit,
        max(noise, _spread((y - level)[steady])) * unit,
        bool(len(broken)) or end is not None,
    )


def _spread(residuals: np.ndarray) -> float:
    """Root mean square without the largest, since one batch is no evidence."""
    squares = np.sort(residuals**2)[:-1]
    return float(np.sqrt(squares.mean())) if len(squares) else 0.0


def smooth(learning_rates: Any, losses: Any, *, bandwidth: float = BANDWIDTH) -> np.ndarray:
    """The curve without its noise and without lag.

    A robust straight line through the neighbours of each point, `bandwidth` to both sides, in
    ln lr. Moving averages look only back, which moves every feature of the curve to higher
    rates. Losses far above the start count as a ceiling, half of the fall above it, so that a
    blow-up does not leak into the part below it.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,).
        bandwidth: Half-width of the neighbourhood in decades.

    Returns:
        Shape (steps,); NaN from the first loss that is not finite.

    >>> bool(np.allclose(smooth([1e-3, 1e-2, 1e-1, 1.0], [4.0, 3.0, 2.0, 1.0]), [4, 3, 2, 1]))
    True
    """
    rates, rows = _checked(learning_rates, losses)
    return _padded(rates, rows[0], bandwidth, "smoothed")


def log_slope(learning_rates: Any, losses: Any, *, bandwidth: float = BANDWIDTH) -> np.ndarray:
    """Change of the smoothed loss per unit of ln lr; see `smooth` for arguments and NaN."""
    rates, rows = _checked(learning_rates, losses)
    return _padded(rates, rows[0], bandwidth, "slope")


def _padded(rates: np.ndarray, losses: np.ndarray, bandwidth: float, part: str) -> np.ndarray:
    result = np.full(len(losses), np.nan)
    if np.isfinite(losses[:1]).all() and len(losses):
        values = getattr(_curve(rates, losses, bandwidth), part)
        result[: len(values)] = values
    return result


def _checked(learning_rates: Any, losses: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rates (steps,) and losses (repeats, steps) as float64."""
    rates = np.asarray(learning_rates, dtype=np.float64)
    rows = np.asarray(losses, dtype=np.float64)
    if rates.ndim != 1:
        raise ValueError(f"learning_rates must have one axis; got shape {rates.shape}.")
    if rows.ndim not in (1, 2) or rows.shape[-1:] != rates.shape:
        raise ValueError(
            "losses must have shape (steps,) or (repeats, steps) with one loss for each of the "
            f"{len(rates)} learning rates; got shape {rows.shape}."
        )
    if not (np.isfinite(rates).all() and (rates > 0).all() and (np.diff(rates) > 0).all()):
        raise ValueError("learning_rates must be above 0, finite and increasing.")
    return rates, np.atleast_2d(rows)


def _enough(losses: np.ndarray, fewest: int) -> None:
    broken = np.flatnonzero(~np.isfinite(losses))
    count = int(broken[0]) if len(broken) else len(losses)
    if count == 0 and len(losses):
        raise NoSuggestion(
            "The loss was not finite from the first step. Check the data and the loss for NaN "
            "and for values of huge scale; a lower rate cannot help here."
        )
    if count < fewest:
        raise NoSuggestion(
            f"At least {fewest} finite losses are needed; got {count}. "
            "Take more steps, or begin at a lower start_lr."
        )


# Our rule

_RAISE_END = "; raise end_lr."
_STILL_FALLING = "The loss was still at its lowest at the end of the ramp" + _RAISE_END


def _rate_at(curve: Curve, position: float) -> float:
    """The learning rate at a fractional index, also before the first step."""
    logs = np.log(curve.rates)
    if position < 0:
        return float(np.exp(logs[0] + position * (logs[1] - logs[0])))
    return float(np.exp(np.interp(position, np.arange(len(logs)), logs)))


def _landmarks(curve: Curve) -> np.ndarray:
    """Indices at which half of the fall is done, nearly all of it, and half of it is lost again.

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


# The landmarks lie about this far from their common middle, as factors of the rate.
_USUAL_PLACES = np.array([0.25, 1.0, 4.0])


def _curve_rule(rates: np.ndarray, losses: np.ndarray) -> Suggestion:
    _enough(losses, FEWEST_POINTS)
    curve = _curve(rates, losses, BANDWIDTH)
    if _fell(curve):
        # Spikes say nothing about where the curve lies, but they are part of the loss. Where
        # their standard error exceeds the fall, the curve misses most of what the model learns.
        unevenness = _unevenness(curve)
        open_end = curve.bottom == len(curve.rates) - 1
        spiky = curve.spread > 4.0 * curve.noise
        if unevenness > 1.0 or ((open_end or spiky) and unevenness > UNEVEN):
            raise _too_uneven(curve)
        unsure = unevenness > (UNEVEN / 3.0 if spiky else UNEVEN)
        return _from_landmarks(curve, uneven=unsure)
    if _more_batch(curve) > 1.0 and curve.spread > 2.0 * curve.noise:
        raise _too_uneven(curve)
    if _rose(curve):
        return _from_rise(curve)
    if _more_batch(curve) > 1.0 and curve.spread > 0.5 * abs(float(curve.losses.mean())):
        raise _too_uneven(curve)
    raise NoSuggestion(
        "The curve is flat: the loss never left its start by more than its noise. Raise end_lr, "
        "take more steps, and check that the model can learn from this data."
    )


def _unevenness(curve: Curve) -> float:
    return _doubt(curve, curve.spread) / curve.fall


class TooUneven(NoSuggestion):
    """Refused for the spread of the losses; `factor` times the batch size would do."""

    def __init__(self, factor: float, batch_size: int | None = None) -> None:
        self.factor = factor
        super().__init__(
            "The batch losses are too uneven for an answer: some lie so far above the others "
            "(rare classes with large weights, or targets with a few huge values) that the "
            f"curve cannot show what training gains. Use {_larger(factor, batch_size)}, lower "
            "the weights or clip the targets, or take more steps."
        )


def _too_uneven(curve: Curve) -> NoSuggestion:
    return TooUneven(_enough_batch(curve))


def _enough_batch(curve: Curve) -> float:
    """As `_more_batch`, from the first half, where the rate has hardly changed the loss."""
    early = curve.losses[: max(FEWEST_POINTS, len(curve.losses) // 2)]
    level = max(abs(float(early.mean())), 1e-300)
    return float(min(SURE * _doubt(curve, float(early.std())) / level, 1e6) ** 2)


UNEVEN_NOTE = (
    "The batch losses are uneven, so the curve shows only part of what training gains, and the "
    "best rate may lie far from this one. Use {}."
)


def _larger(factor: float, batch_size: int | None) -> str:
    """A batch size, in a power of two times the present one."""
    times = 2 ** int(np.ceil(np.log2(min(max(factor, 2.0), 1024.0))))
    if batch_size is None:
        return f"about {times} times the batch size"
    return f"a batch size of about {times * batch_size} (now {batch_size})"


def _more_batch(curve: Curve) -> float:
    """Times the batch size at which a fall as large as the loss would be beyond doubt.

    The standard deviation of the mean over a batch falls with the square root of its size.
    """
    early = curve.losses[: max(FEWEST_POINTS, len(curve.losses) // 3)]
    reach = max(curve.fall, abs(float(early.mean())), 1e-300)
    return float(min(SURE * _doubt(curve, curve.spread) / reach, 1e6) ** 2)


def _from_landmarks(curve: Curve, uneven: bool = False) -> Suggestion:
    places = _landmarks(curve)
    estimates = np.log([_rate_at(curve, place - LAG) for place in places])
    estimates -= np.log(_USUAL_PLACES)
    rate = SHARE * float(np.exp(estimates.mean()))
    low = min(SHARE * float(np.exp(estimates.min())), rate / SPREAD)
    high = max(SHARE * float(np.exp(estimates.max())), rate * SPREAD)
    notes = []
    if curve.bottom == len(curve.rates) - 1:
        notes.append(_STILL_FALLING)
        high = max(high, float(curve.rates[-1]))
    elif not (_rose(curve) or curve.smoothed[-1] > curve.start - 0.5 * curve.fall):
        notes.append("The curve never diverged, so a higher rate may do better" + _RAISE_END)
        high = max(high, float(curve.rates[-1]))
    if uneven:
        low, high = min(low, rate / 30.0), max(high, rate * 30.0)
        notes.append(UNEVEN_NOTE.format(_larger(_enough_batch(curve), None)))
    if np.ptp(estimates) > np.log(10.0):
        notes.append(
            "The landmarks of the curve disagree by more than a decade; take more steps, or "
            "confirm the rate with short runs."
        )
    return Suggestion(rate, low, high, "curve", _story(curve, places), tuple(notes))


def _from_rise(curve: Curve) -> Suggestion:
    """For a curve that shows where training breaks, but not where it works."""
    above = np.flatnonzero(curve.smoothed > curve.start + SURE * _doubt(curve, curve.noise))
    place = int(above[0]) if len(above) else len(curve.rates) - 1
    if place < len(curve.rates) / 4:
        raise NoSuggestion(
            "The loss rises from the start and never fell, so no rate can be preferred. Begin "
            "at a lower start_lr, and check that the model still has something to learn."
        )
    broken = _rate_at(curve, place - LAG)
    rate = broken * RISE_SHARE
    return Suggestion(
        rate,
        rate / 10.0,
        broken,
        "curve",
        f"The loss never fell clearly but breaks at {broken:.1e}; this is well below that.",
        (
            "The loss never fell below its start by more than its noise, so this rests on the "
            "upper limit alone; take more steps, or confirm the rate with short runs.",
        ),
    )


def _story(curve: Curve, places: np.ndarray) -> str:
    half, bottom, back_up = (_rate_at(curve, place) for place in places)
    return (
        f"The loss has done half of its fall at {half:.1e}, nearly all at {bottom:.1e} and "
        f"has lost half again at {back_up:.1e}; a whole run bears about half of their middle, "
        "less what the loss lags behind the ramp."
    )


def _doubt(curve: Curve, noise: float) -> float:
    """Standard error of the smoothed loss, from the standard deviation of a batch loss."""
    decades = float(np.log10(curve.rates[-1] / curve.rates[0]))
    count = len(curve.rates)
    averaged = min(max(3.0, BANDWIDTH * count / max(decades, BANDWIDTH)), count / 2)
    rounding = 1e-9 * float(np.abs(curve.losses[: curve.bottom + 1]).max())
    return max(noise / float(np.sqrt(averaged)), rounding)


def _rose(curve: Curve) -> bool:
    top = float(curve.smoothed[curve.bottom :].max())
    return curve.ended or top > curve.start + SURE * _doubt(curve, curve.noise)


def _fell(curve: Curve) -> bool:
    """Whether the curve has a minimum that its noise does not explain.

    A lowest point among the first losses, of which the start is the median, is none.
    """
    return curve.fall > SURE * _doubt(curve, curve.noise) and curve.bottom >= len(curve.rates) // 8


def _over_repeats(
    name: str,
    rule: Callable[[np.ndarray, np.ndarray], Suggestion],
    rates: np.ndarray,
    rows: np.ndarray,
) -> Suggestion:
    """The middle of the repeats' answers in ln lr, and an interval that holds all of them."""
    found, refused = [], None
    for losses in rows:
        try:
            found.append(rule(rates, losses))
        except NoSuggestion as error:
            refused = error
    if not found:
        assert refused is not None  # noqa: S101
        raise refused
    if len(rows) == 1:
        return found[0]
    answers = [one.learning_rate for one in found]
    middle = float(np.exp(np.median(np.log(answers))))
    notes = list(dict.fromkeys(note for one in found for note in one.warnings))
    if len(found) < len(rows):
        notes.append(f"{len(rows) - len(found)} of {len(rows)} repeats support no answer.")
    if max(answers) > 10 * min(answers):
        notes.append("The repeats disagree by more than a decade.")
    return Suggestion(
        middle,
        min([one.low for one in found] + [middle]),
        max([one.high for one in found] + [middle]),
        name,
        f"The middle of {len(found)} repeats, which gave {min(answers):.1e} to {max(answers):.1e}.",
        tuple(notes),
    )


# The rules of other libraries


def _moving_average(losses: np.ndarray, beta: float) -> np.ndarray:
    """Exponential moving average, corrected for its start at zero."""
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses, start=1):
        average = beta * average + (1.0 - beta) * loss
        smoothed.append(average / (1.0 - beta**i))
    return np.array(smoothed)


def _before_stop(smoothed: np.ndarray, factor: float) -> np.ndarray:
    """What a finder records that stops right after `factor` times the best smoothed loss."""
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
    """One curve tells these rules nothing about their spread, so the interval is the rate."""
    return Suggestion(float(rate), float(rate), float(rate), name, reason)


def _fastai(name: str, rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What fastai's `lr_find` hands to its rules: smoothed by .98, trimmed, cut at a NaN."""
    smoothed = _before_stop(_moving_average(losses, 0.98), 4.0)
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
    smoothed = _before_stop(_moving_average(losses, 0.98), 4.0)
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
    smoothed = _before_stop(_moving_average(losses, 0.98), 4.0)
    smoothed = smoothed[np.isfinite(smoothed)]
    falling = smoothed[32 : smoothed.argmin()] if len(smoothed) else smoothed
    _rule_needs(len(falling) >= 2, "ktrain", "34 points up to its minimum")
    rate = rates[np.gradient(falling).argmin()]
    return _answer("ktrain", rate, "The steepest fall, read 32 steps too early (ktrain).")


METHODS: Mapping[str, Callable[[np.ndarray, np.ndarray], Suggestion]] = {
    "auto": _curve_rule,
    "curve": _curve_rule,
    "valley": _valley,
    "slide": _slide,
    "steep": _steep,
    "minimum": _minimum,
    "lightning": _lightning,
    "torch_lr_finder": _torch_lr_finder,
    "ignite": _ignite,
    "ktrain": _ktrain,
}


def suggest(
    learning_rates: Any,
    losses: Any,
    method: str = "auto",
    *,
    validation: Mapping[str, Any] | None = None,
    confirmation: Confirmation | None = None,
    stop_reason: str = "",
    batch_size: int | None = None,
) -> Suggestion:
    """A learning rate from a recorded range test.

    Our own rule, "curve", looks for three landmarks of the smoothed curve: where half of the
    fall is done, where nearly all of it is, and where half of it is lost again. Any one of
    them can be misplaced by noise or by an odd curve; their middle in ln lr moves little. A
    rate that is too high takes some updates to show in the loss, while the ramp goes on, so the
    landmarks are read a few steps early. Half of that middle is what a whole run bears.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,) or (repeats, steps). What follows a loss that
            is not finite is left out. Several repeats give the middle of their answers, and an
            interval that holds all of theirs.
        method: "auto" answers from the confirmation if there is one, else as "curve"; "curve"
            from the curve alone. The other names of `METHODS` are rules of other libraries, on
            the same true batch losses, with their own smoothing, trimming and stop rule, and
            with their own slips.
        validation: "learning_rates" and "loss" of a held-out sample along the ramp; "auto" and
            "curve" then weigh that curve like the one of the batches.
        confirmation: Short runs at constant rates, from `confirm`.
        stop_reason: Why the record ended, as in `RangeTest`; "" if that is unknown.
        batch_size: Examples in a batch. Where the losses are too uneven, the message names the
            batch size that would do; without this, as a multiple of the present one.

    Raises:
        NoSuggestion: If the curve supports no answer. The message says why: no step recorded, a
            loss that was never finite, data that ended too soon, too few steps, a constant loss,
            a flat curve, losses that are too uneven.
        ValueError: If there is no such method, or shapes do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; the methods are: {', '.join(METHODS)}.")
    rates, rows = _checked(learning_rates, losses)
    if method == "auto" and confirmation is not None:
        return _confirmed(confirmation)
    refusal = _ended_early(rows, stop_reason)
    if refusal is not None:
        raise refusal
    rule = METHODS[method]
    try:
        with np.errstate(all="ignore"):
            found = _over_repeats(method, rule, rates, rows)
            if method in ("auto", "curve"):
                found = replace(_with_validation(found, validation), method=method)
    except TooUneven as error:
        raise TooUneven(error.factor, batch_size) from None
    except NoSuggestion as error:
        raise (_data_ended(rates) if stop_reason == "data_ended" else error) from None
    if stop_reason == "data_ended":
        # The smoother sees no shape in a record that is narrower than its neighbourhood.
        narrow = np.log10(rates[-1] / rates[0]) < 2.0 * BANDWIDTH
        if narrow or _STILL_FALLING in found.warnings:
            raise _data_ended(rates)
        notes = [note for note in found.warnings if not note.endswith(_RAISE_END)]
        return replace(found, warnings=(str(_data_ended(rates)), *notes))
    return found


def _data_ended(rates: np.ndarray) -> NoSuggestion:
    return NoSuggestion(
        f"The data ended after {len(rates)} steps, at a learning rate of {rates[-1]:.2g}, so "
        "higher rates were never tried. Pass data that can be repeated (arrays, a data set, a "
        "generator without end), or take fewer steps."
    )


def _ended_early(rows: np.ndarray, stop_reason: str) -> NoSuggestion | None:
    """Why a record is too short, or constant, for any rule; None if it is neither."""
    counts = np.cumprod(np.isfinite(rows), axis=1).sum(axis=1).astype(int)  # up to the first NaN
    steps = int(counts.max(initial=0))
    if steps == 0 and (rows.shape[1] or stop_reason == "non_finite"):
        return NoSuggestion(
            "The loss was not finite from the first step. Check the data and the loss for NaN "
            "and for values of huge scale; a lower rate cannot help here."
        )
    if steps == 0:
        return NoSuggestion("The range test recorded no step. Check that the data has batches.")
    if stop_reason == "non_finite" and steps < FEWEST_POINTS:
        return NoSuggestion(
            f"The loss was no longer finite after {steps} steps, at rates that hardly change the "
            "weights. Check the data for NaN or infinity and for values of huge scale, or begin "
            "at a lower start_lr."
        )
    kept = rows[int(counts.argmax()), :steps]
    if steps >= FEWEST_POINTS and np.ptp(kept) == 0.0:
        return NoSuggestion(
            f"The curve is flat: the loss is {kept[0]:.6g} at every step. Check that the loss "
            "depends on the weights that are trained: that layers are trainable, that no "
            "gradient is cut off, and that not all sample weights are zero."
        )
    return None


def _with_validation(found: Suggestion, validation: Mapping[str, Any] | None) -> Suggestion:
    """The middle in ln lr of the batches' answer and the held-out sample's."""
    if validation is None or validation.get("loss") is None:
        return found
    rates, rows = _checked(validation["learning_rates"], validation["loss"])
    try:
        held_out = _over_repeats("curve", _curve_rule, rates, rows)
    except NoSuggestion:
        return found
    rate = float(np.sqrt(found.learning_rate * held_out.learning_rate))
    return replace(
        found,
        learning_rate=rate,
        low=min(found.low, held_out.low, rate),
        high=max(found.high, held_out.high, rate),
        reason=f"{found.reason} The held-out sample alone would give {held_out.learning_rate:.1e}.",
    )


def _confirmed(confirmation: Confirmation) -> Suggestion:
    count, rate = len(confirmation.learning_rates), confirmation.learning_rate
    if not np.isfinite(rate):
        raise NoSuggestion(
            f"All {count} candidates diverged, the lowest at "
            f"{min(confirmation.learning_rates):.1e}. Begin at a lower start_lr, and check the "
            "scale of the data."
        )
    return Suggestion(
        rate,
        min(confirmation.low, rate),
        max(confirmation.high, rate),
        "auto",
        f"Of {count} rates tried for {max(confirmation.steps)} updates each, those around this "
        "one ended with the lowest held-out loss.",
        tuple(confirmation.warnings),
    )


# Smith's bounds


def bounds(learning_rates: Any, losses: Any, accuracy: Any | None = None) -> tuple[float, float]:
    """Smith's `(base_lr, max_lr)` for a cyclic or one-cycle schedule.

    Smith 2015 (arXiv 1506.01186), section 3.3: the accuracy starts to improve at `base_lr`, and
    slows, gets ragged or falls at `max_lr`. Here: a tenth of the smoothed rise, and nine tenths
    of it, read a few steps early because the loss of a rate shows later; `base_lr` is at most
    a quarter of `max_lr`, the paper's rule of thumb.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,) or (repeats, steps).
        accuracy: Read in place of the losses if given; same shape.

    Raises:
        NoSuggestion: If the curve supports no answer.
        ValueError: If shapes do not fit.
    """
    rates, rows = _checked(learning_rates, losses)
    if accuracy is not None:
        rows = -_checked(learning_rates, accuracy)[1]
    found, refused = [], None
    for row in rows:
        try:
            found.append(_bounds_one(rates, row))
        except NoSuggestion as error:
            refused = error
    if not found:
        raise refused or NoSuggestion("The range test recorded no step.")
    base, top = np.exp(np.log(found).mean(axis=0))
    return float(base), float(top)


def _bounds_one(rates: np.ndarray, row: np.ndarray) -> tuple[float, float]:
    _enough(row, FEWEST_POINTS)
    with np.errstate(all="ignore"):
        curve = _curve(rates, row)
        if not _fell(curve):
            raise NoSuggestion(
                "Nothing improved along the ramp by more than its noise, so there are no bounds "
                "to read. Take more steps, or raise end_lr if nothing got worse either."
            )
        level = curve.smoothed[: curve.bottom + 1]
        starts, slows = (
            np.flatnonzero(level > curve.start - share * curve.fall) for share in (0.1, 0.9)
        )
        top = _rate_at(curve, (slows[-1] if len(slows) else 0) - LAG)
        base = _rate_at(curve, starts[-1] if len(starts) else 0)
    return min(base, top / 4), top
