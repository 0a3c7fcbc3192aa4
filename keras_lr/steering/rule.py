"""The composition rule: what the learning rate of an update is.

    rate = schedule x warm-up x plateau scale x layer multiplier

The schedule is the one of a callback (`OneCycle`, `CyclicLR`, `ScheduleLR`), or else the rate
that the optimizer was compiled with: its own schedule, or its learning-rate variable. The layer
multiplier is not here: an optimizer that has multipliers applies them to the rate that it is
given. All counts are of updates; the first one of a run sees step 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr.schedules.base import Schedule, evaluate


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Args:
        total: Updates of the weights in the whole run; None if the data do not tell.
        epochs: Epochs of the whole run, those before `initial_epoch` included.
    """

    total: int | None
    epochs: int


@dataclass(frozen=True)
class Factor:
    """A curve on the clock of the optimizer's updates.

    Args:
        curve: A count in, a number out.
        start: The update at which the curve's clock stands at 0.
        batches: How many counts make an update. More than 1 only for a schedule of Keras's own
            under gradient accumulation: it counts batches, and the update happens at the last.
    """

    curve: Any
    start: int = 0
    batches: int = 1

    def _count(self, update: Any) -> Any:
        return (update - self.start) * self.batches + (self.batches - 1)

    def at(self, update: Any) -> Any:
        """The value at one update, a number or a tensor of the graph being traced."""
        return self.curve(self._count(update))

    def values(self, updates: np.ndarray) -> np.ndarray:
        """The value at each update of an array."""
        return evaluate(self.curve, self._count(np.asarray(updates)))


@dataclass(frozen=True)
class Course:
    """A product of curves of the update: the part of the rule that is known beforehand."""

    factors: tuple[Factor, ...] = ()
    ratio: float = 1.0

    def at(self, update: Any) -> Any:
        product = None if self.ratio == 1.0 and self.factors else ops.convert_to_tensor(self.ratio)
        for factor in self.factors:
            value = factor.at(update)
            product = value if product is None else product * value
        return product

    def values(self, updates: np.ndarray) -> np.ndarray:
        product = np.full(np.shape(updates), self.ratio)
        for factor in self.factors:
            product = product * factor.values(updates)
        return product


@dataclass
class Plan:
    """What the callbacks of one run ask for: curves that count the run's updates from 0.

    Args:
        schedule: The rate, in the place of the optimizer's own; or None.
        warm_up: A factor on the rate; or None.
        momentum: The momentum; or None to leave it alone.
    """

    schedule: Any = None
    warm_up: Any = None
    momentum: Any = None

    def joined(self, other: Plan) -> Plan:
        """Both plans at once; where both have a wish, that of `other`."""
        return Plan(
            other.schedule or self.schedule,
            other.warm_up or self.warm_up,
            other.momentum or self.momentum,
        )

    def course(self, own: Any, *, start: int = 0, ratio: float = 1.0, batches: int = 1) -> Course:
        """The rate's curves for an optimizer whose own rate is `own`.

        If `own` is a variable and no callback brings a schedule, the variable's value is not
        among the factors: it is read at each update.

        Args:
            own: A schedule, a variable or a callable, as the optimizer keeps it.
            start: Updates that the optimizer had done when the run began.
            ratio: The optimizer's share of the run's schedule; below 1 in a `MultiOptimizer`.
            batches: Batches that make an update.
        """
        factors = []
        if self.schedule is not None:
            factors.append(Factor(self.schedule, start))
        elif isinstance(own, keras.optimizers.schedules.LearningRateSchedule):
            factors.append(Factor(own, batches=1 if isinstance(own, Schedule) else batches))
            ratio = 1.0
        else:
            ratio = 1.0
        if self.warm_up is not None:
            factors.append(Factor(self.warm_up, start))
        return Course(tuple(factors), ratio)

    def momentum_course(self, *, start: int = 0) -> Course | None:
        return None if self.momentum is None else Course((Factor(self.momentum, start),))


class Claims:
    """Who does what only one callback of a fit can do; see `Member.claims`."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def owner(self, claim: str) -> str | None:
        """The name of the callback that does it."""
        return self._owners.get(claim)

    def add(self, name: str, claims: Iterable[str]) -> None:
        """Note what a callback does.

        Raises:
            ValueError: If another one does that already, or the two do not go together.
        """
        for claim in claims:
            self._refuse(claim, name)
            self._owners[claim] = name

    def _refuse(self, claim: str, name: str) -> None:
        others = dict(self._owners)
        if claim in others:
            raise ValueError(
                f"Only one callback of a fit can set the {claim}; got {others[claim]} and {name}. "
                "Leave one out"
                + (", or join the curves with SequentialSchedule." if claim == "schedule" else ".")
            )
        others[claim] = name
        if "find" in others and len(set(others.values())) > 1:
            finder = others.pop("find")
            other = next(iter(others.values()))
            raise ValueError(
                f"{finder} ends its fit before anything is trained; got {other} beside it. Give "
                f"{other} to the fit that follows."
            )
        if "rate" in others and "schedule" in others:
            setter, owner = others["rate"], others["schedule"]
            raise ValueError(
                f"{setter} sets the optimizer's own rate, and {owner} brings a schedule in its "
                f"place; got both. Leave {owner} out, or pass apply=False to {setter}."
            )
        if "warm-up" in others and others.get("schedule") == "OneCycle":
            raise ValueError(
                "OneCycle begins with a warm-up of its own; got WarmUp beside it. Leave WarmUp "
                "out, and set pct_start and div_factor of OneCycle."
            )
