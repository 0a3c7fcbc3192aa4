"""One schedule after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule, as_schedule, deserialized, rates_of


@keras.saving.register_keras_serializable(package="keras_lr")
class SequentialSchedule(Schedule):
    """Run several schedules one after another, each counted from its own step 0.

    As in torch's `SequentialLR` and optax's `join_schedules`, the next schedule applies from the
    boundary on. (Keras's `PiecewiseConstantDecay` keeps the old value at the boundary.)

    Args:
        schedules: At least one learning rate above 0 or schedule: of keras_lr, of Keras or
            your own.
        boundaries: The steps at which the second, third, ... schedule begins: strictly
            increasing integers of at least 1, one fewer than there are schedules.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> from keras.optimizers.schedules import ExponentialDecay
    >>> schedule = SequentialSchedule([0.25, ExponentialDecay(1.0, 1, 0.5)], [3])
    >>> [float(rate) for rate in schedule(range(6))]
    [0.25, 0.25, 0.25, 1.0, 0.5, 0.25]
    """

    def __init__(self, schedules: Sequence[Any], boundaries: Sequence[int]) -> None:
        for name, value in (("schedules", schedules), ("boundaries", boundaries)):
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{name} must be a list; got {value!r}.")
        if not schedules or len(boundaries) != len(schedules) - 1:
            raise ValueError(
                "boundaries must have one entry fewer than schedules; got "
                f"{len(boundaries)} boundaries and {len(schedules)} schedules."
            )
        self.schedules = [
            as_schedule(schedule, f"schedules[{i}]") for i, schedule in enumerate(schedules)
        ]
        self.boundaries = [
            checks.count(f"boundaries[{i}]", boundary) for i, boundary in enumerate(boundaries)
        ]
        if self.boundaries != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries must be strictly increasing; got {boundaries!r}.")

    def get_config(self) -> dict[str, Any]:
        schedules = [keras.optimizers.schedules.serialize(each) for each in self.schedules]
        return {"schedules": schedules, "boundaries": list(self.boundaries)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SequentialSchedule:
        """Create the schedule from the output of `get_config`."""
        return cls([deserialized(each) for each in config["schedules"]], config["boundaries"])

    def _at(self, step: Any) -> Any:
        rate = rates_of(self.schedules[0], step)
        for schedule, boundary in zip(self.schedules[1:], self.boundaries, strict=True):
            own_step = ops.maximum(step - boundary, 0.0)
            rate = ops.where(step < boundary, rate, rates_of(schedule, own_step))
        return rate
