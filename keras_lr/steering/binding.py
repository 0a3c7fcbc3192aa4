"""A driven optimizer and what one run makes of its rate and momentum."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._keras.optimizers import batch_counter, number, stored_rate
from keras_lr.steering.optimizers import Steered
from keras_lr.steering.rule import Factor, RateRule


class Binding:
    """Binds a driven optimizer to the curves of a run.

    Args:
        optimizer: See `driven_optimizers`.
        rule: The composition rule of its rate.
        momentum: The curve of its momentum, or None to leave that alone.
        owner: Name of the callback whose schedule takes the place of the optimizer's own rate;
            None if none does.
        steers: Whether the rate is steered at all; if not, the optimizer sees to it itself.
        every: Batches that make one update.
        batches: Batches of the run that were trained when the steering began: above 0 in a run
            that is resumed.
        begun_at: What the optimizer's counter of batches showed when the run began.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        rule: RateRule,
        momentum: Factor | None,
        owner: str | None,
        steers: bool,
        every: int,
        batches: int,
        begun_at: int,
    ) -> None:
        self.optimizer = optimizer
        self.rule = rule
        self.momentum = momentum
        self.owner = owner
        self.steers = steers
        self.every = every
        self.own = stored_rate(optimizer)
        self.steered = Steered(optimizer)
        # For curves that count the optimizer's own updates, such as those of multipliers.
        self.start = begun_at // every
        self.kept: tuple[Any, Any] | None = None
        self._phase = begun_at % every
        self._first, self._first_count = batches, self.counter()

    @property
    def own_counts(self) -> bool:
        """Whether the optimizer's own variable is a factor of the rate."""
        return self.rule.schedule is None

    @property
    def settable(self) -> bool:
        """Whether that variable can be set, not only read."""
        return self.own_counts and hasattr(self.own, "assign")

    def own_rate(self) -> Any:
        """The value of that variable (or of the callable that stands there)."""
        return self.own.value if hasattr(self.own, "value") else self.own()

    def counter(self) -> int:
        """Batches that the optimizer itself has counted."""
        return int(number(batch_counter(self.optimizer)))

    def own_update(self) -> Any:
        """The optimizer's own count of updates, in the graph being traced."""
        return self.optimizer.iterations

    def update_of(self, batches: Any) -> Any:
        """Updates of the run, given its batches; numbers, arrays or tensors."""
        total = batches if self._phase == 0 else self._phase + batches
        return total if self.every == 1 else total // self.every

    def counted_batches(self) -> Any:
        """Batches of the run as the optimizer counts them, in the graph being traced."""
        return batch_counter(self.optimizer).value - self._first_count + self._first


def schedule_of(optimizer: Any) -> str | None:
    """Name of the schedule that an optimizer was compiled with; None if it has a number."""
    own = stored_rate(optimizer)
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return type(own).__name__ if isinstance(own, schedule) else None
