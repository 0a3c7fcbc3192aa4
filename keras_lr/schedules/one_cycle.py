"""One climb and one longer decay."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.momentum import CyclingSchedule
from keras_lr.schedules.phases import between, cosine, linear, share, until

_ANNEALS = {"cos": cosine, "linear": linear}


@keras.saving.register_keras_serializable(package="keras_lr")
class OneCycleSchedule(CyclingSchedule):
    """Climb from a low rate to `max_lr`, then decay far below the first rate by the last step.

    The 1cycle policy of Smith (2018, arXiv 1803.09820, section 4). By default it has the two
    phases of fastai; with `three_phase` it is closer to the paper: the rate falls back to the
    first rate as fast as it climbed, then to the last rate. Same rates as torch's `OneCycleLR`:
    the climb ends at step `pct_start * total_steps - 1`, which may be a fraction, and the decay
    at the last step.

    If a run is so short that the climb would end at step 0 or earlier (torch then divides by
    zero or starts beyond the peak), the climb takes one step. Thus 3 steps have the first rate,
    `max_lr` and the last rate; 2 steps have the first rate and `max_lr`; a single step has
    `max_lr`. With `pct_start=0` there is no climb.

    optax's `cosine_onecycle_schedule(steps, peak_value, share)` peaks at `int(share * steps)`
    and ends at `steps`: it equals this one with `total_steps=steps + 1` and
    `pct_start=(int(share * steps) + 1) / (steps + 1)`.

    Args:
        max_lr: Largest learning rate; above 0.
        total_steps: Updates in the run, at least 1. Later steps keep the last rate.
        pct_start: Share of the run that the climb takes, in [0, 1]; with `three_phase`, in
            (0, 0.5].
        anneal: Shape of all phases, "cos" or "linear".
        div_factor: The first rate is `max_lr / div_factor`; at least 1.
        final_div_factor: The last rate is the first rate divided by this; at least 1.
            `FlatCosineSchedule` divides `max_lr` instead.
        three_phase: Fall back to the first rate, then decay to the last rate in the rest of the
            run.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = OneCycleSchedule(max_lr=1.0, total_steps=7, pct_start=0.5, anneal="linear")
    >>> [round(float(rate), 3) for rate in schedule(range(7))]
    [0.04, 0.424, 0.808, 0.857, 0.571, 0.286, 0.0]
    >>> momentum = schedule.momentum(0.85, 0.95)
    >>> [round(float(value), 3) for value in momentum(range(7))]
    [0.95, 0.91, 0.87, 0.864, 0.893, 0.921, 0.95]
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)
        self.three_phase = checks.flag("three_phase", three_phase)
        self.pct_start = checks.number("pct_start", pct_start, least=0, most=1)
        if self.three_phase and not 0 < self.pct_start <= 0.5:
            raise ValueError(
                "pct_start must be in (0, 0.5] with three_phase, where the fall to the first rate "
                f"is as long as the climb; got {pct_start!r}."
            )
        self.anneal = checks.choice("anneal", anneal, _ANNEALS)
        self.div_factor = checks.number("div_factor", div_factor, least=1)
        self.final_div_factor = checks.number("final_div_factor", final_div_factor, least=1)

    def _ends(self) -> tuple[float, float, float]:
        """The steps of the peak, of the return to the first rate, and of the last rate."""
        end = self.total_steps - 1.0
        peak = self.pct_start * self.total_steps - 1.0
        if peak <= 0.0:
            peak = min(1.0, end) if self.pct_start else 0.0
        return peak, min(2.0 * peak, end) if self.three_phase else end, end

    def _height(self, step: Any) -> Any:
        peak, back, _ = self._ends()
        rise, fall = share(step, peak), share(until(step, back), back - peak)
        return _ANNEALS[self.anneal](ops.where(step < peak, rise, fall))

    def _at(self, step: Any) -> Any:
        peak, back, end = self._ends()
        first = self.max_lr / self.div_factor
        last = first / self.final_div_factor
        if not self.three_phase:
            return between(ops.where(step < peak, first, last), self.max_lr, self._height(step))
        tail = _ANNEALS[self.anneal](share(until(step, end), end - back))
        return between(last, between(first, self.max_lr, self._height(step)), tail)
