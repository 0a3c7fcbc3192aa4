"""The composition rule: what the learning rate of an update is.

    rate = bounded(schedule x plateau scale) x warm-up x layer multiplier

The schedule comes from a callback (`OneCycle`, `CyclicLR`, `ScheduleLR`), or else from the
optimizer: the schedule or the number that it was compiled with. The bounds are `min_lr` and
`max_lr` of a plateau callback and apply to a schedule; if the rate is a variable, the callback
that changes the variable keeps it within the bounds. This module does not apply the layer
multiplier: an optimizer with multipliers applies them to the rate that it reads. The momentum and
other hyperparameters each follow the curve of one callback.

Callbacks count the updates of the run: the batches that `fit` has trained, or groups of batches
with gradient accumulation. An update that a loss-scale optimizer skips counts. A batch counts
once, also if a custom training step updates the optimizer several times. A schedule that the
optimizer was compiled with counts the optimizer's own updates, as in Keras.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr.schedules.base import Schedule, at_count, evaluate
from keras_lr.steering.clock import Budget, Ticks, Timed


@dataclass(frozen=True)
class Length:
    """The length of a run.

    Args:
        total: Updates of the weights in the whole run; None if the data have no known length.
        epochs: Epochs of the whole run, including those before `initial_epoch`.
    """

    total: int | None
    epochs: int


@dataclass(frozen=True)
class Factor:
    """A curve over a count of updates.

    Args:
        curve: A function from a count to a number.
        own: Whether the curve counts the optimizer's own updates instead of those of the run.
        batches: Counts per update. Above 1 only for a Keras schedule with gradient
            accumulation: it counts batches, and the update happens at the last one.
        budget: The time budget whose ticks the curve counts instead of updates; or None.
    """

    curve: Any
    own: bool = False
    batches: int = 1
    budget: Budget | None = None

    @staticmethod
    def of(curve: Any) -> Factor:
        """The factor of a curve that a callback contributes."""
        if isinstance(curve, Timed):
            return Factor(curve.curve, budget=curve.budget)
        return Factor(curve)

    def _count(self, update: Any, ticks: Ticks | None) -> Any:
        if self.budget is not None:
            assert ticks is not None  # noqa: S101
            return ticks(self.budget)
        return update * self.batches + (self.batches - 1)

    def at(self, update: Any, ticks: Ticks | None = None) -> Any:
        """The value at one update: a number, or a tensor of the graph that is traced.

        Args:
            update: The count of the update.
            ticks: The ticks of a budget at this update.
        """
        return at_count(self.curve, self._count(update, ticks))

    def values(self, updates: np.ndarray, ticks: Ticks | None = None) -> np.ndarray:
        """The value at each update of an array."""
        return evaluate(self.curve, self._count(np.asarray(updates), ticks))


@dataclass(frozen=True)
class RateRule:
    """The composition rule for one optimizer, without the values that change during the run.

    Args:
        schedule: The rate; None if the rate is the value of the optimizer's variable.
        warm_up: A factor on the rate; or None.
        ratio: The factor on the run's schedule for this optimizer; below 1 in a
            `MultiOptimizer`.
        low, high: Bounds of the scaled schedule.
    """

    schedule: Factor | None = None
    warm_up: Factor | None = None
    ratio: float = 1.0
    low: float = 0.0
    high: float = np.inf

    @property
    def budgets(self) -> list[Budget]:
        """The time budgets that the rate follows."""
        factors = (self.schedule, self.warm_up)
        return [each.budget for each in factors if each and each.budget is not None]

    def at(
        self,
        update: Any,
        own_update: Any,
        own_rate: Any,
        scale: Any = None,
        ticks: Ticks | None = None,
    ) -> Any:
        """The rate of one update, in the graph that is traced.

        Args:
            update: Updates of the run so far.
            own_update: Function that returns the optimizer's own count of updates.
            own_rate: Function that returns the value of the optimizer's variable.
            scale: The plateau callbacks' factor on the schedule; or None.
            ticks: The ticks of a time budget at this update.
        """
        if self.schedule is None:
            rate = own_rate()
        else:
            rate = self.schedule.at(own_update() if self.schedule.own else update, ticks)
            rate = rate if self.ratio == 1.0 else rate * self.ratio
        warm_up = None if self.warm_up is None else self.warm_up.at(update, ticks)
        return self._composed(rate, scale, warm_up, ops)

    def values(
        self,
        updates: np.ndarray,
        own_updates: np.ndarray,
        own_rates: Any,
        scales: Any = None,
        ticks: Ticks | None = None,
        *,
        warmed_up: bool = True,
    ) -> np.ndarray:
        """The rate of each update of an array, in float64; for the other arguments see `at`.

        Args:
            warmed_up: Whether to apply the warm-up. Plateau callbacks scale the rate without it.
        """
        if self.schedule is None:
            rates = np.broadcast_to(np.asarray(own_rates, np.float64), np.shape(updates))
        else:
            counts = own_updates if self.schedule.own else updates
            rates = self.ratio * self.schedule.values(counts, ticks).astype(np.float64)
        warm_up = None
        if self.warm_up is not None and warmed_up:
            warm_up = self.warm_up.values(updates, ticks).astype(np.float64)
        return self._composed(rates, scales, warm_up, np)

    def _composed(self, rate: Any, scale: Any, warm_up: Any, array: Any) -> Any:
        rate = rate if scale is None else rate * scale
        rate = array.maximum(rate, self.low) if self.low > 0.0 else rate
        rate = array.minimum(rate, self.high) if self.high < np.inf else rate
        return rate if warm_up is None else rate * warm_up


@dataclass
class Plan:
    """The curves that callbacks contribute to one run; each counts the run's updates from 0.

    A `Timed` curve counts the ticks of its time budget instead.

    Args:
        schedule: The rate, instead of the optimizer's own; or None.
        warm_up: A factor on the rate; or None.
        momentum: The momentum; None leaves it unchanged.
        low, high: Bounds of the rate: numbers, or one for each inner optimizer.
        hyperparameters: Other attributes of the optimizer, by name.
    """

    schedule: Any = None
    warm_up: Any = None
    momentum: Any = None
    low: Any = 0.0
    high: Any = np.inf
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether a curve follows the clock."""
        return any(isinstance(each, Timed) for each in self._curves())

    @property
    def counted(self) -> bool:
        """Whether a curve changes with the count of updates."""
        factors = [Factor.of(each) for each in self._curves() if each is not None]
        counts = np.append(0, 2 ** np.arange(20))
        return any(np.ptp(each.values(counts)) > 0.0 for each in factors if each.budget is None)

    def _curves(self) -> tuple[Any, ...]:
        return self.schedule, self.warm_up, self.momentum, *self.hyperparameters.values()

    def joined(self, other: Plan) -> Plan:
        """Both plans combined: curves of `other` first, and the narrower bounds."""
        return Plan(
            other.schedule or self.schedule,
            other.warm_up or self.warm_up,
            other.momentum or self.momentum,
            np.maximum(self.low, other.low),
            np.minimum(self.high, other.high),
            {**self.hyperparameters, **other.hyperparameters},
        )

    def rate_rule(
        self, own: Any, *, ratio: float = 1.0, batches: int = 1, place: int = 0
    ) -> RateRule:
        """The rule for an optimizer whose own rate is `own`.

        Args:
            own: A schedule, a variable or a callable, as the optimizer stores it.
            ratio: The factor on the run's schedule for this optimizer.
            batches: Batches per update.
            place: Index among the inner optimizers, for its bounds.
        """
        schedule = None
        if self.schedule is not None:
            schedule = Factor.of(self.schedule)
        elif isinstance(own, keras.optimizers.schedules.LearningRateSchedule):
            batches = 1 if isinstance(own, Schedule) else batches
            schedule, ratio = Factor(own, own=True, batches=batches), 1.0
        warm_up = None if self.warm_up is None else Factor.of(self.warm_up)
        if schedule is None and hasattr(own, "assign"):
            return RateRule(warm_up=warm_up)  # the bounds apply to the variable itself
        low, high = (_at_place(bound, place) for bound in (self.low, self.high))
        return RateRule(schedule, warm_up, ratio, low, high)

    def momentum_factor(self) -> Factor | None:
        return None if self.momentum is None else Factor.of(self.momentum)

    def hyperparameter_factors(self) -> dict[str, Factor]:
        return {name: Factor.of(curve) for name, curve in self.hyperparameters.items()}


def _at_place(bound: Any, place: int) -> float:
    return float(bound if np.ndim(bound) == 0 else bound[place])


class Roles:
    """The roles that only one callback of a fit can have; see `Policy.roles`."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def owner(self, role: str) -> str | None:
        """The name of the callback that has a role; None if no callback has it."""
        return self._owners.get(role)

    def add(self, name: str, roles: Iterable[str]) -> None:
        """Record the roles of a callback.

        Raises:
            ValueError: If another callback has one of the roles, or the two cannot be combined.
        """
        for role in roles:
            self._refuse(role, name)
            self._owners[role] = name

    def _refuse(self, role: str, name: str) -> None:
        others = dict(self._owners)
        if role in others:
            raise ValueError(
                f"Only one callback of a fit can set the {role}; got {others[role]} and {name}. "
                "Remove one"
                + (", or join the curves with SequentialSchedule." if role == "schedule" else ".")
            )
        others[role] = name
        if "rate" in others and "schedule" in others:
            setter, owner = others["rate"], others["schedule"]
            raise ValueError(
                f"{setter} sets the optimizer's own rate, and {owner} replaces it with a "
                f"schedule; got both. Remove {owner}, or pass apply=False to {setter}."
            )
        if "warm-up" in others and others.get("schedule") == "OneCycle":
            raise ValueError(
                "OneCycle includes a warm-up; got WarmUp in the same list. Remove WarmUp, and set "
                "pct_start and div_factor of OneCycle."
            )


def refuse_assigners(callbacks: Iterable[Any], owner: str | None, roles: Iterable[str]) -> None:
    """Refuse Keras callbacks that assign the rate where the assignment would be lost.

    Args:
        callbacks: All callbacks of the fit.
        owner: The callback or schedule that sets the rate; None if the rate is a variable.
        roles: The roles of our callback.

    Raises:
        ValueError: If the fit has such a callback.
    """
    schedulers = keras.callbacks.LearningRateScheduler
    for each in callbacks:
        name = f"keras.callbacks.{type(each).__name__}"
        if owner and isinstance(each, (schedulers, keras.callbacks.ReduceLROnPlateau)):
            other = "keras_lr.ReduceLROnPlateau, which scales a schedule"
            if isinstance(each, schedulers):
                other = "ScheduleLR alone, or a schedule in compile"
            raise ValueError(
                f"{name} assigns the learning rate, and {owner} sets it in this fit; got both. "
                f"Remove one, or use {other}."
            )
        if "rate" in roles and isinstance(each, schedulers):
            raise ValueError(
                f"{name} and LRFinder(apply=True) both set the optimizer's learning rate; got "
                "both. Remove one, or pass apply=False."
            )
