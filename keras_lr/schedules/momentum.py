"""Momentum that falls as the learning rate climbs."""

from __future__ import annotations

from typing import Any

from keras_lr._util import checks
from keras_lr.schedules.base import Curve, Schedule
from keras_lr.schedules.phases import between


class MomentumCurve(Curve):
    """The momentum that belongs to a schedule: low when the learning rate is high.

    The `momentum` method of a schedule returns it. Like a schedule, it accepts one step, an
    array of steps or a tensor.
    """

    def __init__(
        self, schedule: CyclingSchedule, base_momentum: float, max_momentum: float
    ) -> None:
        self.schedule = schedule
        self.max_momentum = checks.number("max_momentum", max_momentum, least=0, below=1)
        self.base_momentum = checks.number("base_momentum", base_momentum, least=0, below=1)
        checks.ordered("base_momentum", self.base_momentum, "max_momentum", self.max_momentum)

    def _at(self, step: Any) -> Any:
        return between(self.max_momentum, self.base_momentum, self.schedule._height(step))


class CyclingSchedule(Schedule):
    """A schedule with a height between 0 and 1, which the momentum mirrors."""

    def _height(self, step: Any) -> Any:
        raise NotImplementedError

    def momentum(self, base_momentum: float, max_momentum: float) -> MomentumCurve:
        """Return the momentum for each step, which mirrors this schedule.

        Args:
            base_momentum: Momentum at the highest learning rate, in [0, 1).
            max_momentum: Momentum at the lowest learning rate, in [`base_momentum`, 1).

        Returns:
            A function of the step: one step, an array of steps or a tensor.

        Raises:
            ValueError: If a momentum is out of range.
            TypeError: If a momentum is not a number.
        """
        return MomentumCurve(self, base_momentum, max_momentum)
