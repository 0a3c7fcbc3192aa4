"""A short climb and a long way down."""

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
    """Climb in a straight line for a short part of the run, and fall in one for the rest.

    For fine-tuning: ULMFiT (Howard & Ruder 2018, arXiv 1801.06146, equation 3). Where the climb,
    `cut_frac * total_steps`, is not a whole number of steps, the paper cuts it off but lets the
    fall go on at the slope of the cut climb: it then passes below the smallest rate before the
    end, and may pass below 0. Here the fall ends with the run. A climb of less than one step (by
    which the paper divides) takes one step if the run has two.

    Args:
        max_lr: Largest rate, above 0.
        total_steps: Updates of the whole run, at least 1. Later steps keep the smallest rate.
        cut_frac: Share of the run that the climb takes, above 0 and below 1.
        ratio: How much smaller than `max_lr` the smallest rate is; at least 1.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of the wrong kind.

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
