"""Warm up to the learning rate of any schedule."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Curve, Schedule, as_schedule, deserialized, rates_of
from keras_lr.schedules.phases import between, power, share, until

_MODES = ("linear", "exponential", "constant")


class WarmUpFactor(Curve):
    """The factor on the rate in a warm-up, from `start_factor` to 1; see `WarmUpSchedule`."""

    def __init__(self, warmup_steps: int, start_factor: float = 0.0, mode: str = "linear") -> None:
        self.warmup_steps = checks.count("warmup_steps", warmup_steps)
        self.start_factor = checks.number("start_factor", start_factor, least=0, most=1)
        self.mode = checks.choice("mode", mode, _MODES)
        if self.start_factor == 0.0 and self.mode != "linear":
            raise ValueError(
                f"start_factor must be above 0 in mode {self.mode!r}, where the rate would stay at "
                f"0; got {start_factor!r}."
            )

    def _at(self, step: Any) -> Any:
        if self.mode == "linear":
            return between(self.start_factor, 1.0, share(step, self.warmup_steps))
        if self.mode == "exponential":
            left = share(until(step, self.warmup_steps), self.warmup_steps)
            return power(self.start_factor, left)
        return ops.where(step < self.warmup_steps, self.start_factor, 1.0)


class UntunedWarmUpFactor(Curve):
    """The factor of the untuned linear warm-up: update t of 1, 2, ... has min(1, t / period).

    Ma and Yarats, 2019 (arXiv 1910.04209), section 5. The period need not be whole.
    """

    def __init__(self, period: float) -> None:
        self.period = checks.number("period", period, least=1)

    def _at(self, step: Any) -> Any:
        return share(step + 1.0, self.period)


@keras.saving.register_keras_serializable(package="keras_lr")
class WarmUpSchedule(Schedule):
    """Multiply a schedule by a factor that grows from `start_factor` to 1.

    The schedule runs during the warm-up: at step `warmup_steps` it has taken `warmup_steps` of
    its own steps, as with torch's `LinearLR` and `ConstantLR` in a `ChainedScheduler`. To start
    the schedule after the warm-up, join the two with `SequentialSchedule`. Gradual warm-up was
    proposed by Goyal et al. (2017, arXiv 1706.02677, section 2.2).

    Args:
        schedule: A learning rate above 0, or a schedule: of keras_lr, of Keras or your own.
        warmup_steps: Updates until the factor is 1, at least 1.
        start_factor: Factor of step 0, in [0, 1]; above 0 unless the mode is "linear". With 0,
            the first update changes nothing.
        mode: How the factor grows: "linear", "exponential" (in equal ratios) or "constant"
            (`start_factor` for `warmup_steps` updates, then 1).

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = WarmUpSchedule(0.5, warmup_steps=4)
    >>> [float(rate) for rate in schedule(range(6))]
    [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """

    def __init__(
        self,
        schedule: Any,
        warmup_steps: int,
        start_factor: float = 0.0,
        mode: str = "linear",
    ) -> None:
        self.schedule = as_schedule(schedule)
        self.factor = WarmUpFactor(warmup_steps, start_factor, mode)
        self.warmup_steps = self.factor.warmup_steps
        self.start_factor = self.factor.start_factor
        self.mode = self.factor.mode

    def get_config(self) -> dict[str, Any]:
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {**super().get_config(), "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUpSchedule:
        """Create the schedule from the output of `get_config`."""
        return cls(**{**config, "schedule": deserialized(config["schedule"])})

    def _at(self, step: Any) -> Any:
        return rates_of(self.schedule, step) * self.factor(step)
