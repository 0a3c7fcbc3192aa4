"""Decay by a constant factor at regular intervals."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import power


@keras.saving.register_keras_serializable(package="keras_lr")
class StepDecaySchedule(Schedule):
    """Multiply the rate by `gamma` every `step_size` steps, as torch's `StepLR` does.

    To decay at steps of your choice, use Keras's `PiecewiseConstantDecay`.

    Args:
        start_lr: Learning rate of the first `step_size` steps; above 0.
        step_size: Updates between two decays, at least 1.
        gamma: Factor of each decay, in (0, 1].

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = StepDecaySchedule(1.0, step_size=2, gamma=0.1)
    >>> [round(float(rate), 4) for rate in schedule(range(6))]
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """

    def __init__(self, start_lr: float, step_size: int, gamma: float = 0.1) -> None:
        self.start_lr = checks.number("start_lr", start_lr, above=0)
        self.step_size = checks.count("step_size", step_size)
        self.gamma = checks.number("gamma", gamma, above=0, most=1)

    def _at(self, step: Any) -> Any:
        drops = ops.round((step - ops.mod(step, float(self.step_size))) / self.step_size)
        return self.start_lr * power(self.gamma, drops)
