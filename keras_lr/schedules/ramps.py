"""From one rate to another."""

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
        return max(self.total_steps - 1, 1)  # one step is the first one


@keras.saving.register_keras_serializable(package="keras_lr")
class LinearRampSchedule(_Ramp):
    """Go from one rate to another in equal differences: `np.linspace`, as in a range test.

    Args:
        start_lr: Rate of step 0, above 0.
        end_lr: Rate of step `total_steps - 1` and of all later ones; above 0, and above or
            below `start_lr`.
        total_steps: Updates of the whole ramp, at least 1; a single one has `start_lr`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of the wrong kind.

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
    """Go from one rate to another in equal ratios: `np.geomspace`, as in a range test.

    Args:
        start_lr: Rate of step 0, above 0.
        end_lr: Rate of step `total_steps - 1` and of all later ones; above 0, and above or
            below `start_lr`.
        total_steps: Updates of the whole ramp, at least 1; a single one has `start_lr`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of the wrong kind.

    >>> schedule = ExponentialRampSchedule(1.0, 1e-3, total_steps=4)
    >>> [round(float(rate), 6) for rate in schedule(range(5))]
    [1.0, 0.1, 0.01, 0.001, 0.001]
    """

    def _at(self, step: Any) -> Any:
        return self.start_lr * power(self.end_lr / self.start_lr, share(step, self._last))
