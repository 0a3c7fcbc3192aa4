"""Ramps from one learning rate to another."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import between, power, share, until


class _Ramp(Schedule):
    def __init__(self, start_lr: float, end_lr: float, total_steps: int) -> None:
        self.start_lr = checks.number("start_lr", start_lr, above=0)
        self.end_lr = checks.number("end_lr", end_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)

    @property
    def _last(self) -> int:
        return max(self.total_steps - 1, 1)  # a run of one step has start_lr


@keras.saving.register_keras_serializable(package="keras_lr")
class LinearRampSchedule(_Ramp):
    """Change from `start_lr` to `end_lr` in equal differences, as `np.linspace` does.

    Args:
        start_lr: Learning rate of step 0; above 0.
        end_lr: Learning rate of step `total_steps - 1` and of all later steps; above 0. It may
            be smaller than `start_lr`.
        total_steps: Updates of the ramp, at least 1; a single update has `start_lr`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = LinearRampSchedule(0.5, 1.5, total_steps=5)
    >>> [float(rate) for rate in schedule(range(6))]
    [0.5, 0.75, 1.0, 1.25, 1.5, 1.5]
    """

    def _at(self, step: Any) -> Any:
        if self.start_lr <= self.end_lr:
            return between(self.start_lr, self.end_lr, share(step, self._last))
        left = share(until(step, self._last), self._last)
        return between(self.end_lr, self.start_lr, left)


@keras.saving.register_keras_serializable(package="keras_lr")
class ExponentialRampSchedule(_Ramp):
    """Change from `start_lr` to `end_lr` in equal ratios, as `np.geomspace` does.

    Args:
        start_lr: Learning rate of step 0; above 0.
        end_lr: Learning rate of step `total_steps - 1` and of all later steps; above 0. It may
            be smaller than `start_lr`.
        total_steps: Updates of the ramp, at least 1; a single update has `start_lr`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = ExponentialRampSchedule(1.0, 1e-3, total_steps=4)
    >>> [round(float(rate), 6) for rate in schedule(range(5))]
    [1.0, 0.1, 0.01, 0.001, 0.001]
    """

    def _at(self, step: Any) -> Any:
        return self.start_lr * power(self.end_lr / self.start_lr, share(step, self._last))
