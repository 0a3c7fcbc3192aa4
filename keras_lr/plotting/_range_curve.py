"""The numbers that the pictures of a range test show, in matplotlib and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.range_test.smoothing import median_of_repeats, smooth

if TYPE_CHECKING:
    from keras_lr.range_test.result import RangeTest

__all__ = ["DrawnCurve", "Probe", "drawn_line", "running_line"]

_NEIGHBOURS = 1 / 32  # half-width of the line's windows, as a share of the steps


@dataclass(frozen=True)
class Probe:
    """One short run at a constant rate; `loss` is its held-out loss, inf if it was cut off."""

    rate: float
    loss: float
    steps: int


class DrawnCurve:
    """A range test as the pictures draw it: line, divergence, probes, and the losses to show.

    The line is not the average that the rule reads (`keras_lr.range_test.smoothing`): that one
    reads slopes from 0.7 decades on both sides, so that a blow-up bends it before it happens.
    Where the rule names landmarks, `average` shows what they were read from.
    """

    def __init__(self, test: RangeTest) -> None:
        self.test = test
        self.rates = np.asarray(test.learning_rates, dtype=float)
        self.losses = np.atleast_2d(np.asarray(test.losses, dtype=float))
        self._levels = _Levels(median_of_repeats(self.losses))
        self.probes = _probes(test)
        self.probe_start = None if test.probes is None else test.probes.start
        self.low, self.high = self._view()
        pad = 0.06 * (self.high - self.low)
        self.frame = (self.low - pad, self.high + 3 * pad)  # room for the name of the suggestion
        lines = [drawn_line(row) for row in self.losses]
        self.line = self._inside(median_of_repeats(lines))
        self.lines = [self._inside(line) for line in lines]

    @property
    def diverges_at(self) -> float | None:
        """The rate from which the loss stays above its valley; None if it never does."""
        edge, count = self._levels.edge, self._levels.count
        if count < 3:
            return None
        if edge < count:
            return float(self.rates[edge])
        ended_early = self.test.stop_reason in ("diverged", "non_finite")
        return float(self.rates[count - 1]) if ended_early else None

    @property
    def slope(self) -> np.ndarray:
        """Change of the line per unit of ln lr, up to the divergence; NaN behind it."""
        slope = np.full(len(self.line), np.nan)
        before = int(np.isfinite(self.line[: self._levels.edge]).cumprod().sum())
        if before >= 3:
            rough = np.gradient(self.line[:before], np.log(self.rates[:before]))
            slope[:before] = running_line(rough, _half(len(self.line)))
        return slope

    @property
    def rate_range(self) -> tuple[float, float] | None:
        """Lowest and highest rate of the ramp and of the probes; None if there are neither."""
        rates = [*self.rates, *(probe.rate for probe in self.probes)]
        return (float(min(rates)), float(max(rates))) if rates else None

    def measured(self) -> list[Probe]:
        """The probes whose held-out loss is in the picture."""
        return [probe for probe in self.probes if probe.loss <= self.high]

    def cut_off(self) -> list[float]:
        """Rates of the probes that were cut off or whose loss lies above the picture."""
        return [probe.rate for probe in self.probes if not probe.loss <= self.high]

    def validation(self) -> list[tuple[float, float]]:
        """The finite held-out losses of the ramp, as (rate, loss)."""
        recorded = self.test.validation
        if not recorded:
            return []
        pairs = zip(recorded["learning_rates"], np.ravel(recorded["loss"]), strict=False)
        return [(float(rate), float(loss)) for rate, loss in pairs if np.isfinite(loss)]

    @cached_property
    def average(self) -> np.ndarray:
        """The wide average that our rule reads of the first repeat; NaN after its divergence."""
        return smooth(self.rates, self.losses[0])

    def on_average(self, rates: tuple[float, ...]) -> list[tuple[float, float]]:
        """These rates with the height of the average there, at most the top of the picture."""
        if not rates:
            return []
        average = np.nan_to_num(self.average, nan=self.high).clip(max=self.high)
        heights = np.interp(np.log(rates), np.log(self.rates), average)
        return list(zip(rates, heights.tolist(), strict=True))

    def _inside(self, line: np.ndarray) -> np.ndarray:
        """The line up to where it leaves the picture, so that it does not come back into it."""
        gone = np.flatnonzero(line[self._levels.edge :] > self.frame[1])
        if gone.size:
            line[self._levels.edge + int(gone[0]) + 1 :] = np.nan
        return line

    def _view(self) -> tuple[float, float]:
        """Lowest and highest loss to show.

        Batch losses and held-out losses of the ramp count up to half of the fall above the
        start; those of the probes as far above the start as the lowest loss lies below it.
        """
        start, fall = self._levels.start, self._levels.fall
        calm = self.losses[:, self.rates < (self.diverges_at or np.inf)]
        ramp = [*calm[np.isfinite(calm)], *(loss for _, loss in self.validation())]
        ended = [probe.loss for probe in self.probes if np.isfinite(probe.loss)]
        if self.probe_start is not None:
            ended.append(self.probe_start)
            start = start if ramp else self.probe_start
        if not ramp and not ended:
            return 0.0, 1.0
        low = min([*ramp, *ended])
        roof = max(start + fall / 2, 2 * start - low)
        tops = [min(loss, start + fall / 2) for loss in ramp] + [e for e in ended if e <= roof]
        high = float(max([*tops, start]))
        return float(low), high if high > low else float(low) + max(1e-9, 0.1 * abs(low))


def drawn_line(losses: np.ndarray) -> np.ndarray:
    """A line through the losses of one ramp, drawn apart before and after the divergence.

    Each value is a mean of medians of neighbouring losses on its own side of the divergence, so
    it lies between the lowest and the highest of them. It ends at the first loss that is not
    finite.

    Args:
        losses: True batch losses, shape (steps,).

    Returns:
        Shape (steps,); NaN behind the end of the line, and everywhere with fewer than 3 losses.
    """
    line = np.full(len(losses), np.nan)
    levels = _Levels(losses)
    if levels.count < 3:
        return line
    half, edge = _half(len(losses)), levels.edge
    capped = np.minimum(losses[: levels.count], levels.start + 2 * levels.fall)
    line[:edge] = running_line(capped[:edge], half)
    line[edge : levels.count] = running_line(capped[edge:], half)
    return line


def running_line(values: np.ndarray, half: int) -> np.ndarray:
    """Running median and then a triangular mean, each of `half` neighbours on both sides."""
    if not len(values):
        return values
    padded = np.pad(values, half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians = np.nanmedian(windows, axis=1)
    weights = half + 1.0 - np.abs(np.arange(-half, half + 1))
    kept = slice(half, half + len(values))
    total = np.convolve(np.ones(len(values)), weights)[kept]
    return np.asarray(np.convolve(medians, weights)[kept] / total)


class _Levels:
    """Start, lowest level, fall and divergence of one curve, read from running medians."""

    def __init__(self, losses: np.ndarray) -> None:
        self.count = int(np.isfinite(losses).cumprod().sum())  # up to the first that is not
        self.start, self.fall, self.edge = 0.0, 0.0, self.count
        if not self.count:
            return
        losses = losses[: self.count]
        self.start = float(np.median(losses[: max(3, self.count // 10)]))
        noise = float(np.median(np.abs(np.diff(losses)))) if self.count > 1 else 0.0
        medians = _medians_of_three(losses)
        best = float(medians.min())
        self.fall = max(self.start - best, 3 * noise)
        calm = np.flatnonzero(medians <= best + max(self.fall / 4, 2 * noise))
        self.edge = int(max(calm[-1], medians.argmin())) + 1


def _half(steps: int) -> int:
    return max(1, round(steps * _NEIGHBOURS))


def _medians_of_three(values: np.ndarray) -> np.ndarray:
    edges = np.pad(values, 1, mode="edge")
    return np.asarray(np.median([edges[:-2], edges[1:-1], edges[2:]], axis=0))


def _probes(test: RangeTest) -> list[Probe]:
    tried = test.probes
    if tried is None:
        return []
    runs = zip(tried.learning_rates, tried.losses, tried.steps, strict=True)
    return [Probe(float(rate), float(loss), int(steps)) for rate, loss, steps in runs]
