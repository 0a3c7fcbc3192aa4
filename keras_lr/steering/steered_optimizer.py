"""One optimizer of a model in a steered fit: what callbacks claim of it, and what they scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lr._keras.optimizers import batch_counter, number, stored_rate
from keras_lr.schedules.base import evaluate
from keras_lr.steering.binding import Binding, schedule_of
from keras_lr.steering.optimizers import (
    check_momentum,
    current_rate,
    driven_optimizers,
    momentum_names,
    rate_ratios,
    updates_every,
)
from keras_lr.steering.rule import Claims, Length, Plan, refuse_assigners

if TYPE_CHECKING:
    from keras_lr.steering.fit import Member, SteeredFit


@dataclass(frozen=True)
class Change:
    """A rate before and after it was scaled, with the name of its optimizer."""

    name: str
    old: float
    new: float


@dataclass(frozen=True)
class UsedRates:
    """What the batches of a stretch of the run were trained with, an entry a batch.

    Args:
        updates: The update that each batch belongs to, from the start of the run.
        learning_rates: An array for each driven optimizer, by its name.
        momenta: The momentum; None if the optimizer has none.
    """

    updates: np.ndarray
    learning_rates: dict[str, np.ndarray]
    momenta: np.ndarray | None

    def joined(self, other: UsedRates) -> UsedRates:
        """Both, one after the other."""
        rates = {
            name: np.concatenate([rate, other.learning_rates[name]])
            for name, rate in self.learning_rates.items()
        }
        both = self.momenta is not None and other.momenta is not None
        momenta = np.concatenate([self.momenta, other.momenta]) if both else None
        return UsedRates(np.concatenate([self.updates, other.updates]), rates, momenta)


class SteeredOptimizer:
    """What callbacks ask of one optimizer of a model, wrapped in others or not.

    Attributes:
        fit: The steered fit.
        name: The optimizer's path in the model; see `held_optimizers`.
        members: The callbacks that steer it.
        claims: Which of them does what.
        bindings: One for each optimizer that holds a rate.
        every: Batches that make one update.
        length: Length of the run.
        begun_at: What the optimizer's counter of batches showed when the run began.
    """

    def __init__(self, fit: SteeredFit, name: str, optimizer: Any) -> None:
        self.fit = fit
        self.name = name
        self._optimizer = optimizer
        self.members: list[Member] = []
        self.claims = Claims()
        self.bindings: list[Binding] = []
        self.every = updates_every(self.optimizer)
        self.length = Length(None, 1)
        self.begun_at = 0
        self._place = slice(0, 0)
        # For each time that the scales were changed: from which update on, and to what.
        self._scales: list[tuple[int, np.ndarray]] = []
        self._noted = 0
        self._kept: tuple[np.ndarray, np.ndarray] | None = None
        self._passed: UsedRates | None = None

    @property
    def optimizer(self) -> Any:
        """The optimizer; another one while multipliers are lent to the model."""
        return self.fit.model.optimizer if self.name == "optimizer" else self._optimizer

    @property
    def first_epoch(self) -> int:
        """The epoch that this process begins with."""
        return self.fit.first_epoch

    @property
    def scaled(self) -> bool:
        """Whether callbacks scale a schedule, for which there is no variable to change."""
        return bool(self._scales)

    # Before the first epoch

    def join(self, member: Member, callbacks: list[Any]) -> None:
        """Add a callback, given all that the fit has.

        Raises:
            ValueError: If it does what another one already does, or cannot do what it should.
        """
        name = type(member).__name__
        self.claims.add(name, member.claims)
        if "momentum" in member.claims:
            check_momentum(self.optimizer, name)
        self.members.append(member)
        if self.name == "optimizer":  # Keras's callbacks know of no other
            compiled = next(map(schedule_of, driven_optimizers(self.optimizer)), None)
            owner = self.claims.owner("schedule") or compiled
            refuse_assigners(callbacks, owner, member.claims)
        member.plan(self._measure(start_batch=0))  # refuses now what could not be done later

    def begin(self, batches: int) -> None:
        """Make the bindings, in a run that has trained so many batches."""
        saved = self.fit.backup.start_of(self.name)
        self.begun_at = self.counter() - batches if saved is None else saved
        self.length = self._measure(self.begun_at)
        self._noted = batches
        plan = Plan()
        for member in self.members:
            plan = plan.joined(member.plan(self.length))
        optimizers = driven_optimizers(self.optimizer)
        starts = [int(number(batch_counter(each))) - self.counter() for each in optimizers]
        starts = [self.begun_at + ahead for ahead in starts]
        ratios = [1.0] * len(optimizers)
        if plan.schedule is not None:
            # Rates as they were when the run began: a resumed one keeps the ratios it had.
            ratios = rate_ratios(
                [_rate_at(o, s // self.every) for o, s in zip(optimizers, starts, strict=True)]
            )
        retraces = any(member.retraces for member in self.members)
        for place, (optimizer, start) in enumerate(zip(optimizers, starts, strict=True)):
            rule = plan.rate_rule(
                stored_rate(optimizer), ratio=ratios[place], batches=self.every, place=place
            )
            binding = Binding(
                optimizer,
                rule=rule,
                momentum=plan.momentum_factor(),
                owner=self.claims.owner("schedule"),
                steers=plan.schedule is not None or plan.warm_up is not None or retraces,
                every=self.every,
                batches=batches,
                begun_at=start,
            )
            self.bindings.append(binding)
        settable = all(binding.settable for binding in self.bindings)
        if any(member.rescales for member in self.members) and not settable:
            self._scales = [(0, np.ones(len(self.bindings)))]
            for binding in self.bindings:
                binding.steers = True

    def installed(self, place: slice) -> None:
        """Told when the train function is patched, and where the patch has the bindings."""
        self._place = place
        saved = self.fit.backup.scales_of(self.name)
        if saved is not None and self._scales:
            self._set_scales(saved)

    # During the fit

    def counter(self) -> int:
        """Batches that the optimizer has counted, in this run and before."""
        return int(number(batch_counter(driven_optimizers(self.optimizer)[0])))

    def retrace(self) -> None:
        """Have the training step traced anew, after a member has changed what it computes."""
        self.fit.retrace()

    def batches_done(self) -> int:
        """Batches of this run so far; the optimizer's variables can be read after it."""
        self.fit.synchronise()
        if self.fit.by_hand:
            return self.counter() - self.begun_at
        return self.fit.batches()

    def updates_done(self) -> int:
        """Updates of this run so far."""
        return int(self.bindings[0].update_of(self.batches_done()))

    def can_rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether `rescale` would change any rate."""
        return any(new != old for old, new in self._rescaled(factor, low, high))

    def rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> list[Change]:
        """Multiply the rate of the updates to come, within bounds; what was changed.

        A rate that is at the bound already, or beyond it, stays as it is. Where the optimizer's
        own variable is a factor of the rate, the variable is changed: it stays so after the fit,
        and a model saved in the meantime has it. The bounds are those of the rate without its
        warm-up.

        Args:
            factor: Above 0; below 1 lowers the rates, above 1 raises them.
            low, high: Bounds for each driven optimizer.
        """
        changes = []
        now = np.array([self.updates_done()])
        scales = self._scales[-1][1].copy() if self._scales else np.ones(len(self.bindings))
        rates = self.rates(now)
        for index, (old, new) in enumerate(self._rescaled(factor, low, high)):
            if new == old:
                continue
            binding, ratio = self.bindings[index], new / old
            used = float(rates[index][0])
            changes.append(Change(binding.optimizer.name, used, used * ratio))
            if binding.settable:
                binding.own.assign(number(binding.own) * ratio)
            else:
                scales[index] *= ratio
        if self._scales and changes:
            self._set_scales(scales)
        return changes

    def set_rate(self, rate: float) -> Change:
        """Set the optimizer's own rate; the groups of a `MultiOptimizer` keep their ratios.

        For a member that claims the "rate". The change is that of the fastest group.
        """
        self.fit.synchronise()
        own = [number(binding.own) for binding in self.bindings]
        for binding, ratio in zip(self.bindings, rate_ratios(own), strict=True):
            binding.own.assign(rate * ratio)
        fastest = self.bindings[int(np.argmax(own))]
        return Change(fastest.optimizer.name, max(own), rate)

    def scales(self) -> list[float] | None:
        """What the rates are scaled by now; None if only variables are changed."""
        return self._scales[-1][1].tolist() if self._scales else None

    def _set_scales(self, scales: np.ndarray) -> None:
        self._scales.append((self.updates_done(), scales))
        patch = self.fit.patch
        assert patch is not None and patch.scales is not None  # noqa: S101
        together = patch.scales.copy()
        together[self._place] = scales
        patch.set_scales(together)

    def _rescaled(
        self, factor: float, low: np.ndarray, high: np.ndarray
    ) -> list[tuple[float, float]]:
        rates = self.rates(np.array([self.updates_done()]), warmed_up=False)
        result = []
        for (old,), floor, ceiling in zip(rates, low, high, strict=True):
            # As Keras compares: the bound as the optimizer's variable would hold it.
            if factor < 1.0 and old > np.float32(floor):
                new = max(old * factor, floor)
            elif factor > 1.0 and 0.0 < old < np.float32(ceiling):
                new = min(old * factor, ceiling)
            else:
                new = old
            result.append((float(old), float(new)))
        return result

    # What the rule gives, on the host

    def rates(
        self,
        updates: np.ndarray,
        own: np.ndarray | None = None,
        counts: np.ndarray | None = None,
        *,
        warmed_up: bool = True,
    ) -> list[np.ndarray]:
        """The rate at each update of the run, an array for each driven optimizer.

        Args:
            updates: Counts from the start of the run.
            own: What each optimizer's own variable held at each, updates x optimizers; by
                default what it holds now.
            counts: Batches that each optimizer had counted itself at each, likewise; by default as
                if it had counted as the run does since then.
            warmed_up: Whether a warm-up counts.
        """
        result = []
        now = self.updates_done()
        for index, binding in enumerate(self.bindings):
            if counts is None:
                own_updates = binding.counter() // self.every + updates - now
            else:
                own_updates = counts[:, index] // self.every
            held: Any = 1.0
            if binding.own_counts:
                held = number(binding.own_rate()) if own is None else own[:, index]
            rule, scales = binding.rule, self._scales_at(updates, index)
            values = rule.values(
                updates, np.maximum(own_updates, 0), held, scales, warmed_up=warmed_up
            )
            result.append(values)
        return result

    def _scales_at(self, updates: np.ndarray, index: int) -> np.ndarray | None:
        if not self._scales or self.bindings[index].settable:
            return None
        result = np.ones(len(updates))
        for since, scales in self._scales:
            result[updates >= since] = scales[index]
        return result

    @contextmanager
    def rolled_back(self, batches: int) -> Iterator[None]:
        """In the block a member gives the optimizer an earlier state, its counter included.

        The batches since then do not count any more: the curves go on from the earlier one. The
        scales stay as they were set last.

        Args:
            batches: Batches of the run that the earlier state has seen.
        """
        patch = self.fit.patch
        assert patch is not None  # noqa: S101
        if self._watched:
            self._passed = self.used()
        yield
        if not self.fit.by_hand:
            patch.go_back(batches)
        done = self.updates_done()
        if self._scales:
            earlier = [(since, scales) for since, scales in self._scales if since < done]
            self._scales = [*earlier, (done, self._scales[-1][1])]
        self._noted = self.batches_done()

    @property
    def _watched(self) -> bool:
        return any(member.watches for member in self.members)

    def used(self) -> UsedRates:
        """What the batches since the last call were trained with; for members that watch."""
        passed, self._passed = self._passed, None
        return self._used() if passed is None else passed.joined(self._used())

    def keep_notes(self, rates: np.ndarray, counts: np.ndarray) -> None:
        """Keep what the patch has noted at its calls, calls x optimizers of the fit."""
        rates, counts = rates[:, self._place], counts[:, self._place]
        if self._kept is not None:
            rates = np.concatenate([self._kept[0], rates])
            counts = np.concatenate([self._kept[1], counts])
        self._kept = rates, counts

    def _used(self) -> UsedRates:
        patch = self.fit.patch
        assert patch is not None  # noqa: S101
        notes = patch.take_notes()
        for part in self.fit.optimizers.values():
            part.keep_notes(*notes)
        assert self._kept is not None  # noqa: S101
        (own, counts), self._kept = self._kept, None
        first, end = self._noted, self.batches_done()
        together = self.fit.model.steps_per_execution
        batches = np.arange(first, end)
        call = (batches - first) // together
        if len(own) <= call.max(initial=-1):  # trained by a loop that calls no train function
            missing = call.max() + 1 - len(own)
            now = [[number(b.own_rate()) if b.own_counts else 1.0 for b in self.bindings]]
            own = np.concatenate([own, np.repeat(now, missing, axis=0)])
            ahead = np.arange(missing)[:, None] - missing
            counted = np.array([b.counter() for b in self.bindings]) + ahead
            counts = np.concatenate([counts, counted])
        counts = counts[call] + ((batches - first) % together)[:, None]
        updates = np.asarray(self.bindings[0].update_of(batches))
        self._noted = end
        names = [binding.optimizer.name for binding in self.bindings]
        rates = dict(zip(names, self.rates(updates, own[call], counts), strict=True))
        momenta = self.momenta(updates)
        if momenta is None and (held := momentum_names(self.bindings[0].optimizer)):
            value = float(getattr(self.bindings[0].optimizer, held[0]))
            momenta = np.full(len(updates), value)
        return UsedRates(updates, rates, momenta)

    def momenta(self, updates: np.ndarray) -> np.ndarray | None:
        """The momentum at each update of the run; None if it is not steered."""
        momentum = self.bindings[0].momentum
        return None if momentum is None else momentum.values(updates).astype(np.float64)

    def describe(self) -> dict[str, float]:
        """Log entries for the last update: the rates, and the momentum if it is steered."""
        last = np.array([max(self.updates_done() - 1, 0)])
        rates = [float(rate[0]) for rate in self.rates(last)]
        entries = {"learning_rate": max(rates)}
        if len(rates) > 1:
            for binding, rate in zip(self.bindings, rates, strict=True):
                entries[f"learning_rate_{binding.optimizer.name}"] = rate
        momenta = self.momenta(last)
        if momenta is not None:
            entries["momentum"] = float(momenta[0])
        return entries

    def _measure(self, start_batch: int) -> Length:
        params = self.fit.params
        epochs, steps = params.get("epochs") or 1, params.get("steps")
        if steps is None:
            return Length(None, epochs)
        phase = start_batch % self.every
        return Length((phase + epochs * steps) // self.every, epochs)


def _rate_at(optimizer: Any, update: int) -> float:
    """An optimizer's own rate, at a certain update if it has a schedule."""
    own = stored_rate(optimizer)
    if isinstance(own, keras.optimizers.schedules.LearningRateSchedule):
        return float(evaluate(own, np.array([max(update, 0)]))[0])
    return current_rate(optimizer)
