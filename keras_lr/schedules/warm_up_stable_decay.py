"""Warm up, hold, and decay at the end."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.base import Schedule
from keras_lr.schedules.phases import after, between, cosine, share, until

# Functions of the shares of the decay that are done and that are left.
_DECAYS = {
    "1-sqrt": lambda done, left: left / (1.0 + ops.sqrt(done)),
    "linear": lambda done, left: left,
    "cosine": lambda done, left: cosine(left),
}


@keras.saving.register_keras_serializable(package="keras_lr")
class WarmUpStableDecaySchedule(Schedule):
    """Climb linearly to `max_lr`, hold it, and decay to `min_lr` in the last part of the run.

    WSD of MiniCPM (Hu et al. 2024, arXiv 2404.06395, section 4.2), with the decays of Hägele et
    al. (2024, arXiv 2405.18392, section 4), who find "1-sqrt" best. Same rates as
    `get_wsd_schedule` of transformers. The rate does not depend on `total_steps` until the decay
    begins, so a run can be extended from any checkpoint before it.

    Args:
        max_lr: Learning rate between warm-up and decay; above 0.
        total_steps: Updates in the run, at least 1. From that step on, the rate is `min_lr`.
        warmup_steps: Updates of the climb, at least 0.
        decay_steps: Updates of the decay, at least 1; a tenth of the run by default. Warm-up
            and decay must fit into the run.
        decay: Shape of the decay, "1-sqrt", "linear" or "cosine".
        start_lr: Learning rate of step 0 if there is a warm-up; in [0, `max_lr`].
        min_lr: Learning rate at the end; in [0, `max_lr`].

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> schedule = WarmUpStableDecaySchedule(1.0, 8, warmup_steps=2, decay_steps=4, decay="linear")
    >>> [float(rate) for rate in schedule(range(9))]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        warmup_steps: int = 0,
        decay_steps: int | None = None,
        decay: str = "1-sqrt",
        start_lr: float = 0.0,
        min_lr: float = 0.0,
    ) -> None:
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.count("total_steps", total_steps)
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, 0)
        if decay_steps is None:
            decay_steps = max(1, self.total_steps // 10)
        self.decay_steps = checks.count("decay_steps", decay_steps)
        if self.warmup_steps + self.decay_steps > self.total_steps:
            raise ValueError(
                "warmup_steps + decay_steps must be at most total_steps; got "
                f"{self.warmup_steps} + {self.decay_steps} and total_steps={self.total_steps}."
            )
        self.decay = checks.choice("decay", decay, _DECAYS)
        self.start_lr = checks.number("start_lr", start_lr, least=0)
        self.min_lr = checks.number("min_lr", min_lr, least=0)
        checks.ordered("start_lr", self.start_lr, "max_lr", self.max_lr)
        checks.ordered("min_lr", self.min_lr, "max_lr", self.max_lr)

    def _at(self, step: Any) -> Any:
        done = share(after(step, self.total_steps - self.decay_steps), self.decay_steps)
        left = share(until(step, self.total_steps), self.decay_steps)
        return ops.where(
            step < self.warmup_steps,
            between(self.start_lr, self.max_lr, share(step, self.warmup_steps)),
            between(self.min_lr, self.max_lr, _DECAYS[self.decay](done, left)),
        )
