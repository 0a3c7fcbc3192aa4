"""The composition rule: what the learning rate of an update is.

    rate = bounded(schedule x plateau scale) x warm-up x layer multiplier

The schedule is the one of a callback (`OneCycle`, `CyclicLR`, `ScheduleLR`), or else the rate
that the optimizer was compiled with: its own schedule, or its learning-rate variable. The bounds
are `min_lr` and `max_lr` of a plateau callback over a schedule; a variable is kept within them by
the callback that changes it. The layer multiplier is not here: an optimizer that has multipliers
applies them to the rate that it is given.

Callbacks count the updates of the run: batches that `fit` has trained, or groups of them under
gradient accumulation. An update that a loss-scale optimizer skips counts, and so does a batch in
which a custom training step updates the optimizer several times. A schedule that the optimizer
was compiled with counts the optimizer's own updates, as in Keras.
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
    """A curve on a clock of updates.

    Args:
        curve: A count in, a number out.
        own: Whether it counts the optimizer's own updates, and not those of the run.
        batches: How many counts make an update. More than 1 only for a schedule of Keras's own
            under gradient accumulation: it counts batches, and the update happens at the last.
    """

    curve: Any
    own: bool = False
    batches: int = 1

    def _count(self, update: Any) -> Any:
        return update * self.batches + (self.batches - 1)

    def at(self, update: Any) -> Any:
        """The value at one update, a number or a tensor of the graph being traced."""
        return self.curve(self._count(update))

    def values(self, updates: np.ndarray) -> np.ndarray:
        """The value at each update of an array."""
        return evaluate(self.curve, self._count(np.asarray(updates)))


@dataclass(frozen=True)
class RateRule:
    """The composition rule for one optimizer, except for what changes while the run goes on.

    Args:
        schedule: The rate; None if it is the value of the optimizer's own variable.
        warm_up: A factor on the rate; or None.
        ratio: The optimizer's share of the run's schedule; below 1 in a `MultiOptimizer`.
        low, high: Bounds of the scaled schedule.
    """

    schedule: Factor | None = None
    warm_up: Factor | None = None
    ratio: float = 1.0
    low: float = 0.0
    high: float = np.inf

    def at(self, update: Any, own_update: Any, own_rate: Any, scale: Any = None) -> Any:
        """The rate of one update, in the graph being traced.

        Args:
            update: Updates of the run so far.
            own_update: Function that gives the optimizer's own count of updates.
            own_rate: Function that gives the value of the optimizer's own variable.
            scale: What plateau callbacks multiply the schedule by; or None.
        """
        if self.schedule is None:
            rate = own_rate()
        else:
            rate = self.schedule.at(own_update() if self.schedule.own else update)
            rate = rate if self.ratio == 1.0 else rate * self.ratio
        warm_up = None if self.warm_up is None else self.warm_up.at(update)
        return self._composed(rate, scale, warm_up, ops)

    def values(
        self,
        updates: np.ndarray,
        own_updates: np.ndarray,
        own_rates: Any,
        scales: Any = None,
        *,
        warmed_up: bool = True,
    ) -> np.ndarray:
        """The rate of each update of an array, in float64; the arguments are those of `at`.

        Args:
            warmed_up: Whether the warm-up counts. A plateau callback scales what it multiplies.
        """
        if self.schedule is None:
            rates = np.broadcast_to(np.asarray(own_rates, np.float64), np.shape(updates))
        else:
            counts = own_updates if self.schedule.own else updates
            rates = self.ratio * self.schedule.values(counts).astype(np.float64)
        warm_up = None
        if self.warm_up is not None and warmed_up:
            warm_up = self.warm_up.values(updates).astype(np.float64)
        return self._composed(rates, scales, warm_up, np)

    def _composed(self, rate: Any, scale: Any, warm_up: Any, array: Any) -> Any:
        rate = rate if scale is None else rate * scale
        rate = array.maximum(rate, self.low) if self.low > 0.0 else rate
        rate = array.minimum(rate, self.high) if self.high < np.inf else rate
        return rate if warm_up is None else rate * warm_up


@dataclass
class Plan:
    """What the callbacks of one run ask for: curves that count the run's updates from 0.

    Args:
        schedule: The rate, in the place of the optimizer's own; or None.
        warm_up: A factor on the rate; or None.
        momentum: The momentum; or None to leave it alone.
        low, high: Bounds of the rate, numbers or one for each driven optimizer.
    """

    schedule: Any = None
    warm_up: Any = None
    momentum: Any = None
    low: Any = 0.0
    high: Any = np.inf

    def joined(self, other: Plan) -> Plan:
        """Both plans at once; where both have a wish, that of `other`, or the narrower bounds."""
        return Plan(
            other.schedule or self.schedule,
            other.warm_up or self.warm_up,
            other.momentum or self.momentum,
            np.maximum(self.low, other.low),
            np.minimum(self.high, other.high),
        )

    def rate_rule(
        self, own: Any, *, ratio: float = 1.0, batches: int = 1, place: int = 0
    ) -> RateRule:
        """The rule for an optimizer whose own rate is `own`.

        Args:
            own: A schedule, a variable or a callable, as the optimizer keeps it.
            ratio: The optimizer's share of the run's schedule.
            batches: Batches that make an update.
            place: The optimizer's place among those that are driven, for its bounds.
        """
        schedule = None
        if self.schedule is not None:
            schedule = Factor(self.schedule)
        elif isinstance(own, keras.optimizers.schedules.LearningRateSchedule):
            batches = 1 if isinstance(own, Schedule) else batches
            schedule, ratio = Factor(own, own=True, batches=batches), 1.0
        warm_up = None if self.warm_up is None else Factor(self.warm_up)
        if schedule is None and hasattr(own, "assign"):
            return RateRule(warm_up=warm_up)  # the variable is kept within the bounds itself
        low, high = (_at_place(bound, place) for bound in (self.low, self.high))
        return RateRule(schedule, warm_up, ratio, low, high)

    def momentum_factor(self) -> Factor | None:
        return None if self.momentum is None else Factor(self.momentum)


def _at_place(bound: Any, place: int) -> float:
    return float(bound if np.ndim(bound) == 0 else bound[place])


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


def refuse_assigners(callbacks: Iterable[Any], owner: str | None, claims: Iterable[str]) -> None:
    """Refuse callbacks of Keras's that assign the rate where an assignment would be lost.

    Args:
        callbacks: All callbacks of the fit.
        owner: What sets the rate, so that nothing can be assigned; None if a variable holds it.
        claims: What our callback claims.

    Raises:
        ValueError: If there is one.
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
                f"Leave one out, or use {other}."
            )
        if "rate" in claims and isinstance(each, schedulers):
            raise ValueError(
                f"{name} and LRFinder(apply=True) both set the optimizer's learning rate; got "
                "both. Leave one out, or pass apply=False."
            )
