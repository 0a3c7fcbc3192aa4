"""Decay with the inverse square root of the step."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import after, share


@keras.saving.register_keras_serializable(package="keras_lr")
class InverseSqrtSchedule(Schedule):
    """Climb linearly from 0 to `max_lr`, then decay with the inverse square root of the step.

    With the default `timescale`, the rate after the warm-up is
    `max_lr * sqrt(warmup_steps / step)`. With `max_lr = (d_model * warmup_steps) ** -0.5` this is
    the schedule of the Transformer (Vaswani et al. 2017, arXiv 1706.03762, equation 3, known as
    Noam). The paper counts steps from 1, so its first rate is the rate of step 1 here. Other
    timescales match `get_inverse_sqrt_schedule` of transformers. The schedule has no end, so
    training can continue for any number of steps.

    Args:
        max_lr: Largest learning rate, at step `warmup_steps`; above 0.
        warmup_steps: Updates of the climb from 0, at least 0.
        timescale: Updates after the warm-up until the rate is `max_lr / sqrt(2)`, at least 1;
            `warmup_steps` by default.

    Raises:
        ValueError: If an argument is out of range, or `timescale` is None without a warm-up.
        TypeError: If an argument has the wrong type.

    >>> schedule = InverseSqrtSchedule(max_lr=1.0, warmup_steps=4)
    >>> [float(rate) for rate in schedule([0, 1, 4, 16, 64])]
    [0.0, 0.25, 1.0, 0.5, 0.25]
    """

    def __init__(self, max_lr: float, warmup_steps: int, timescale: int | None = None) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, 0)
        if timescale is None and self.warmup_steps == 0:
            raise ValueError(
                "timescale must be given if there is no warm-up; got timescale=None and "
                "warmup_steps=0."
            )
        self.timescale = checks.count(
            "timescale", self.warmup_steps if timescale is None else timescale
        )

    def _at(self, step: Any) -> Any:
        times = ops.maximum(after(step, self.warmup_steps) / self.timescale, 0.0)
        return self.max_lr * share(step, self.warmup_steps) * ops.rsqrt(1.0 + times)
