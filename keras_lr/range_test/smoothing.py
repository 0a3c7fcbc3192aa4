"""The smoothed curve of a range test: the one that the rules read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BANDWIDTH = 0.7  # half-width of the smoother's neighbourhood, in decades
SPIKES = 0.7  # weight of earlier spikes in the noise that a divergence must exceed


class Curve(NamedTuple):
    """One recorded curve up to its first loss that is not finite, with its smoothed values."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    slope: np.ndarray  # of the smoothed loss in ln lr
    start: float  # the loss before the rate has an effect
    bottom: int  # index of the smoothed minimum
    noise: float  # standard deviation of a batch loss around the curve, without spikes
    spread: float  # the same, with spikes
    ended: bool  # the record ends in a divergence or in a loss that is not finite

    @property
    def fall(self) -> float:
        return self.start - float(self.smoothed[self.bottom])


def read_curve(learning_rates: np.ndarray, losses: np.ndarray, bandwidth: float) -> Curve:
    """Smooth one curve and find its start, its minimum, its noise and its end."""
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
    # A loss far above the start only shows a divergence; its size must not bend the curve below.
    ceiling = start + max(start - float(calm.min()), 0.0) / 2 + 4.0 * noise
    ceiling = max(ceiling, float(y[0]), float(calm[: max(3, count // 8)].max()))
    capped = np.minimum(y, ceiling)
    capped[whole:] = ceiling
    level, slope = _local_lines(np.log(rates), capped, bandwidth * np.log(10.0))
    bottom = int(level[:whole].argmin())
    # The residuals up to the minimum, and after it while most losses are as low as there.
    low = float(level[bottom])
    steady = _running_median(y) < low + 0.25 * max(start - low, 0.0)
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


def smooth(learning_rates: Any, losses: Any, *, bandwidth: float = BANDWIDTH) -> np.ndarray:
    """The curve without its noise and without lag.

    A robust straight line through the neighbours of each point, `bandwidth` to both sides, in
    ln lr. A moving average only looks back, which shifts every feature of the curve to higher
    rates. Losses far above the start are capped, at half of the fall above it, so that a
    divergence does not distort the curve below it.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,).
        bandwidth: Half-width of the neighbourhood in decades.

    Returns:
        Shape (steps,); NaN from the first loss that is not finite.

    >>> bool(np.allclose(smooth([1e-3, 1e-2, 1e-1, 1.0], [4.0, 3.0, 2.0, 1.0]), [4, 3, 2, 1]))
    True
    """
    rates, rows = checked(learning_rates, losses)
    result = np.full(len(rates), np.nan)
    if np.isfinite(rows[0, :1]).all() and len(rates):
        values = read_curve(rates, rows[0], bandwidth).smoothed
        result[: len(values)] = values
    return result


def median_of_repeats(rows: Any) -> np.ndarray:
    """Median over repeats, where a repeat that has ended counts as worse than any that runs."""
    table = np.array(rows, dtype=float)
    table[~np.isfinite(table)] = np.inf
    middle = np.sort(table, axis=0)[[(len(table) - 1) // 2, len(table) // 2]].mean(axis=0)
    return np.where(np.isfinite(middle), middle, np.nan)


def moving_average(losses: np.ndarray, beta: float) -> np.ndarray:
    """Exponential moving average, corrected for its start at zero."""
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses, start=1):
        average = beta * average + (1.0 - beta) * loss
        smoothed.append(average / (1.0 - beta**i))
    return np.array(smoothed)


def checked(learning_rates: Any, losses: Any) -> tuple[np.ndarray, np.ndarray]:
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


def _local_lines(x: np.ndarray, y: np.ndarray, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Level and slope of a robust straight line through the neighbours of each point.

    Tricube weights on both sides, so the line has no lag; three rounds of bisquare weights, so
    a spike has no influence (Cleveland 1979, LOWESS, with a width in x instead of a count).
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
        # With hardly any noise, a bend of the curve must not count as a spike.
        scale = max(6.0 * float(np.median(residual)), 0.1 * float(np.ptp(y)))
        if scale <= 1e-12 * float(np.abs(y).max()):
            break
        trust = np.maximum(0.0, 1.0 - (residual / scale) ** 2) ** 2
    return level, slope


def _blown_up(y: np.ndarray, start: float, noise: float) -> int | None:
    """First index of a rise above the first losses that several losses confirm.

    A mean of five, each capped at four times the fall above the start: one spike is not enough,
    two are, unless there were spikes before. After such a rise a network may have died at a low
    loss, which is not a minimum.
    """
    best = np.inf
    start = max(start, float(np.median(y[:5])))  # a curve may fall from its first step on
    spikes = np.maximum(y - np.maximum(_running_median(y), start), 0.0)
    seen_so_far = SPIKES * np.sqrt(np.cumsum(spikes**2) / np.arange(1, len(y) + 1))
    for i in range(2, len(y) - 2):
        best = min(best, float(np.median(y[i - 2 : i + 1])))
        usual = max(noise, float(seen_so_far[i - 3])) if i >= 3 else noise
        fall = max(start - best, 0.0) + usual
        seen = np.minimum(y[i - 2 : i + 3], start + 4.0 * fall)
        if seen.mean() > start + 0.5 * fall + 2.0 * usual and not _comes_back(y[i - 2 :], start):
            # Without a fall before, a loss that stays about its start afterwards did not diverge
            # either. After a fall, it may be that of a network that died.
            after = y[i + 3 :]
            calm = len(after) >= 10 and float(np.median(after[:20])) < start + 2.0 * noise
            if start - best > 2.0 * noise or not calm:
                return i
    return None


def _died(y: np.ndarray, start: float, noise: float) -> int | None:
    """Index of a spike after which the loss never again has half of the fall that it had before.

    One step at too high a rate can destroy a network, which then stays at the loss of an
    untrained one. A spike from a rare row leaves the loss where it was.
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

    It does after a few uneven batches, and does not after a divergence.
    """
    calm = np.median(np.lib.stride_tricks.sliding_window_view(y, 5), axis=1)
    lowest = int(calm.argmin())
    return bool(start - calm[lowest] > y[: lowest + 3].max() - start)


def _running_median(y: np.ndarray) -> np.ndarray:
    """Median of the five losses around each one."""
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(y, 2, "edge"), 5), axis=1)


def _noise(y: np.ndarray) -> float:
    """Standard deviation of the noise, from the median step between neighbours."""
    return float(1.4826 * np.median(np.abs(np.diff(y)))) / float(np.sqrt(2))


def _spread(residuals: np.ndarray) -> float:
    """Root mean square without the largest residual: a single batch is not evidence."""
    squares = np.sort(residuals**2)[:-1]
    return float(np.sqrt(squares.mean())) if len(squares) else 0.0
