"""Constant, then a cosine at the end."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import between, cosine, share, until


@keras.saving.register_keras_serializable(package="keras_lr")
class FlatCosineSchedule(Schedule):
    """Hold `max_lr` for most of the run, then decay along half a cosine.

    Same rates as fastai's `fit_flat_cos`: the decay begins at step `pct_start * total_steps`,
    which may be a fraction, and reaches the last rate at step `total_steps`, one step after the
    run.

    Args:
        max_lr: Largest learning rate; above 0.
        total_steps: Updates in the run, at least 1. Later steps keep the last rate.
        pct_start: Share of the run before the decay, in [0, 1].
        final_div_factor: The last rate is `max_lr / final_div_factor`; at least 1.
            `OneCycleSchedule` divides its first rate instead.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = FlatCosineSchedule(1.0, total_steps=8, pct_start=0.5)
    >>> [round(float(rate), 3) for rate in schedule(range(9))]
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.75,
        final_div_factor: float = 1e5,
    ) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)
        self.pct_start = checks.number("pct_start", pct_start, least=0, most=1)
        self.final_div_factor = checks.number("final_div_factor", final_div_factor, least=1)

    def _at(self, step: Any) -> Any:
        decay = self.total_steps - self.pct_start * self.total_steps
        height = cosine(share(until(step, self.total_steps), decay))
        return between(self.max_lr / self.final_div_factor, self.max_lr, height)
