"""A short climb and a long decay."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import between, share, until


@keras.saving.register_keras_serializable(package="keras_lr")
class SlantedTriangularSchedule(Schedule):
    """Climb linearly for a short part of the run, then decay linearly for the rest of it.

    For fine-tuning: ULMFiT (Howard & Ruder 2018, arXiv 1801.06146, equation 3), with two
    differences. If `cut_frac * total_steps` is a fraction, the paper truncates the climb but
    computes the decay from the untruncated one: the rate passes below the smallest rate before
    the end, and may become negative. Here the decay ends with the run. If the climb is shorter
    than one step (the paper then divides by 0), it takes one step, provided that the run has
    two.

    Args:
        max_lr: Largest learning rate; above 0.
        total_steps: Updates in the run, at least 1. Later steps keep the smallest rate.
        cut_frac: Share of the run that the climb takes, in (0, 1).
        ratio: The smallest rate is `max_lr / ratio`; at least 1.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = SlantedTriangularSchedule(1.0, total_steps=6, cut_frac=1 / 3, ratio=4)
    >>> [float(rate) for rate in schedule(range(7))]
    [0.25, 0.625, 1.0, 0.8125, 0.625, 0.4375, 0.25]
    """

    def __init__(
        self, max_lr: float, total_steps: int, cut_frac: float = 0.1, ratio: float = 32.0
    ) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)
        self.cut_frac = checks.number("cut_frac", cut_frac, above=0, below=1)
        self.ratio = checks.number("ratio", ratio, least=1)

    def _at(self, step: Any) -> Any:
        total = self.total_steps
        cut = math.floor(total * self.cut_frac + 1e-9)  # 0.29 * 100 is just below 29
        cut = min(max(cut, 1), total - 1)
        height = ops.where(step < cut, share(step, cut), share(until(step, total), total - cut))
        return between(self.max_lr / self.ratio, self.max_lr, height)
