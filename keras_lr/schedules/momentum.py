"""Momentum that goes down as the learning rate goes up."""

from __future__ import annotations

from typing import Any

from keras_lr._util import checks
from keras_lr.schedules.base import Curve, Schedule
from keras_lr.schedules.phases import between


class MomentumCurve(Curve):
    """The momentum beside a schedule: low where the rate is high.

    Made by the `momentum` method of a schedule. Like a schedule it takes one step, an array of
    steps or a tensor.
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
    """A schedule that says how far up it is, from 0 to 1, so that momentum can go against it."""

    def _height(self, step: Any) -> Any:
        raise NotImplementedError

    def momentum(self, base_momentum: float, max_momentum: float) -> MomentumCurve:
        """The momentum that goes with this schedule, in the same phases.

        Args:
            base_momentum: Momentum where the rate is highest, 0 to below 1.
            max_momentum: Momentum where the rate is lowest, from `base_momentum` to below 1.

        Returns:
            A function of the step: one step, an array of steps or a tensor.

        Raises:
            ValueError: If a momentum is out of its range.
            TypeError: If one is no number.
        """
        return MomentumCurve(self, base_momentum, max_momentum)
