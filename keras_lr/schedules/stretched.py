"""A schedule over another length than its own."""

from __future__ import annotations

from typing import Any

from keras.optimizers import schedules as keras_schedules

from keras_lr.schedules.base import Curve, evaluate, rates_of
from keras_lr.schedules.warm_up import WarmUpSchedule


class StretchedCurve(Curve):
    """A schedule, or another function of its steps, stretched over another number of steps.

    Args:
        curve: The schedule, or a function of the same steps.
        end: The step at which the schedule ends.
        last: The step at which this curve ends.
    """

    def __init__(self, curve: Any, end: int, last: int) -> None:
        self.curve, self.end, self.last = curve, end, last

    def _at(self, step: Any) -> Any:
        return rates_of(self.curve, step * (self.end / self.last))


def end_of(schedule: Any) -> int | None:
    """The step from which on a schedule keeps its last rate; None if that is unknown."""
    if isinstance(schedule, WarmUpSchedule):
        return end_of(schedule.schedule)
    if isinstance(schedule, keras_schedules.CosineDecay):
        warm_up = schedule.warmup_steps if schedule.warmup_target is not None else 0
        return int(schedule.decay_steps + warm_up)
    if isinstance(schedule, keras_schedules.PolynomialDecay):
        return None if schedule.cycle else int(schedule.decay_steps)
    total = getattr(schedule, "total_steps", None)
    if not isinstance(schedule, Curve) or total is None:
        return None
    before, after = evaluate(schedule, [total - 1, total])
    return int(total - 1 if before == after else total)
