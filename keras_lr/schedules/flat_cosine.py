"""Flat, and a cosine at the end."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import between, cosine, share, until


@keras.saving.register_keras_serializable(package="keras_lr")
class FlatCosineSchedule(Schedule):
    """Stay at the largest rate for most of the run, and fall along half a cosine in the rest.

    Same rates as fastai's `fit_flat_cos`: the fall begins at step `pct_start * total_steps`,
    which need not be whole, and reaches the last rate at step `total_steps`, one after the run.

    Args:
        max_lr: Largest rate, above 0.
        total_steps: Updates of the whole run, at least 1. Later steps keep the last rate.
        pct_start: Share of the run that is flat, 0 to 1.
        div_final: The last rate is `max_lr / div_final`; at least 1.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of the wrong kind.

    >>> schedule = FlatCosineSchedule(1.0, total_steps=8, pct_start=0.5)
    >>> [round(float(rate), 3) for rate in schedule(range(9))]
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(
        self, max_lr: float, total_steps: int, pct_start: float = 0.75, div_final: float = 1e5
    ) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)
        self.pct_start = checks.number("pct_start", pct_start, least=0, most=1)
        self.div_final = checks.number("div_final", div_final, least=1)

    def _at(self, step: Any) -> Any:
        fall = self.total_steps - self.pct_start * self.total_steps
        height = cosine(share(until(step, self.total_steps), fall))
        return between(self.max_lr / self.div_final, self.max_lr, height)
