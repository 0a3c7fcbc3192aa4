"""One optimizer in a steered fit: its callbacks, its bindings, and changes of its rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_lr._keras.optimizers import batch_counter, has_schedule, number, stored_rate
from keras_lr.schedules.base import evaluate
from keras_lr.steering.accounting import Account
from keras_lr.steering.binding import Binding, schedule_of
from keras_lr.steering.companions import refuse_swap
from keras_lr.steering.composition import Factor, Length, Plan, Roles, refuse_assigners
from keras_lr.steering.optimizers import (
    check_momentum,
    check_rate_may_change,
    current_rate,
    decay_product,
    innermost_optimizers,
    rate_ratios,
    updates_every,
)
from keras_lr.steering.policy import Policy
from keras_lr.steering.run import Run


@dataclass(frozen=True)
class RateChange:
    """A rate before and after a change, with the name of its optimizer."""

    name: str
    old: float
    new: float


class SteeredOptimizer:
    """An optimizer of a model that callbacks steer; it may be a wrapper.

    Attributes:
        name: The optimizer's path in the model; see `model_optimizers`.
        policies: The callbacks that steer it.
        roles: Which of them does what.
        bindings: One for each inner optimizer that has a rate.
        account: Counts the updates, and computes the rates of each.
        every: Batches per update.
        length: Length of the run.
    """

    def __init__(self, run: Run, name: str, optimizer: Any) -> None:
        self.name = name
        self._run = run
        self._optimizer = optimizer
        self.policies: list[Policy] = []
        self.roles = Roles()
        self.bindings: list[Binding] = []
        self.every = updates_every(self.optimizer)
        self.account = Account(run, self.every)
        self.length = Length(None, 1)

    @property
    def optimizer(self) -> Any:
        """The optimizer; a replacement while `model.optimizer` is borrowed for multipliers."""
        return self._run.model.optimizer if self.name == "optimizer" else self._optimizer

    # Before the first epoch

    def join(self, policy: Policy, callbacks: list[Any]) -> None:
        """Add a callback, given all callbacks of the fit.

        Raises:
            ValueError: If another callback has its role, or it cannot steer this optimizer.
        """
        name = type(policy).__name__
        self.roles.add(name, policy.roles)
        policy.read_optimizer(self.optimizer)
        refuse_swap(callbacks, policy)
        if policy.changes_rate:
            check_rate_may_change(self.optimizer, name)
        if "momentum" in policy.roles:
            check_momentum(self.optimizer, name)
        if policy.couples_decay:
            for each in innermost_optimizers(self.optimizer):
                decay_product(each, name)
        self.policies.append(policy)
        if self.name == "optimizer":  # the only one that Keras's callbacks use
            compiled = next(map(schedule_of, innermost_optimizers(self.optimizer)), None)
            owner = self.roles.owner("schedule") or compiled
            refuse_assigners(callbacks, owner, policy.roles)
        policy.plan(self._run.length(0, self.every))  # refuses now what would fail later

    def begin(self, begun_at: int | None) -> None:
        """Make the bindings.

        Args:
            begun_at: What the optimizer's counter of batches showed when the run began; None if
                no earlier process has saved it.
        """
        batches = self._run.first_batches
        optimizers = innermost_optimizers(self.optimizer)
        counters = [int(number(batch_counter(each))) for each in optimizers]
        if begun_at is None:
            begun_at = counters[0] - batches
        starts = [begun_at + counter - counters[0] for counter in counters]
        self.length = self._run.length(begun_at, self.every)
        plan = Plan()
        for policy in self.policies:
            plan = plan.joined(policy.plan(self.length))
        ratios = [1.0] * len(optimizers)
        if plan.schedule is not None:
            # Rates as they were when the run began: a resumed one keeps the ratios it had.
            ratios = rate_ratios(
                [_rate_at(o, s // self.every) for o, s in zip(optimizers, starts, strict=True)]
            )
        coupling = [type(each).__name__ for each in self.policies if each.couples_decay]
        retraces = any(policy.retraces for policy in self.policies)
        for place, (optimizer, start) in enumerate(zip(optimizers, starts, strict=True)):
            rule = plan.rate_rule(
                stored_rate(optimizer), ratio=ratios[place], batches=self.every, place=place
            )
            binding = Binding(
                optimizer,
                rule=rule,
                momentum=plan.momentum_factor(),
                hyperparameters=plan.hyperparameter_factors(),
                decay_product=decay_product(optimizer, coupling[0]) if coupling else None,
                owner=self.roles.owner("schedule"),
                steers=plan.schedule is not None or plan.warm_up is not None or retraces,
                every=self.every,
                batches=batches,
                begun_at=start,
            )
            if binding.steers:
                self._check_no_constant_rate(optimizer)
            self.bindings.append(binding)
        watchers = [policy for policy in self.policies if policy.watches]
        self.account.begin(self.bindings, begun_at, watchers)
        settable = all(binding.settable for binding in self.bindings)
        if any(policy.rescales for policy in self.policies) and not settable:
            self.account.scale_schedules()
            for binding in self.bindings:
                binding.steers = True

    def _check_no_constant_rate(self, optimizer: Any) -> None:
        if getattr(optimizer, "constant_rate", False):
            kind = type(optimizer).__name__
            steering = [
                type(each).__name__
                for each in self.policies
                if each.retraces or not {"schedule", "warm-up"}.isdisjoint(each.roles)
            ]
            names = " and ".join(dict.fromkeys(steering))
            warm_up = " For a warm-up, pass warmup_steps to it."
            raise ValueError(
                f"No callback can set the learning rate of {kind}; got {names}. Use one of the two."
                + (warm_up if hasattr(optimizer, "warmup_steps") else "")
            )

    def installed(self, place: slice, scales: np.ndarray | None) -> None:
        """Finish the preparation, after the train function was patched.

        Args:
            place: Which bindings of the patched train function are those of this optimizer.
            scales: The scales that an earlier process has saved.
        """
        self.account.place = place
        if scales is not None and self.account.scaled:
            self.account.set_scales(scales)

    # During the fit

    def can_rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether `rescale` would change any rate."""
        return any(new != old for old, new in self._rescaled(factor, low, high))

    def rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> list[RateChange]:
        """Multiply the rate of the updates to come, within bounds, and return the changes.

        A rate that is at the bound already, or beyond it, stays unchanged. If the optimizer's
        variable is a factor of the rate, the variable changes: it stays changed after the fit,
        and a model that is saved meanwhile has it. The bounds are those of the rate without its
        warm-up.

        Args:
            factor: Above 0; below 1 lowers the rates, above 1 raises them.
            low, high: Bounds for each inner optimizer.
        """
        changes = []
        now = np.array([self.account.updates_done()])
        scales = np.array(self.account.scales() or np.ones(len(self.bindings)))
        rates = self.account.rates(now)
        for index, (old, new) in enumerate(self._rescaled(factor, low, high)):
            if new == old:
                continue
            binding, ratio = self.bindings[index], new / old
            used = float(rates[index][0])
            changes.append(RateChange(binding.optimizer.name, used, used * ratio))
            if binding.settable:
                binding.own.assign(number(binding.own) * ratio)
            else:
                scales[index] *= ratio
        if self.account.scaled and changes:
            self.account.set_scales(scales)
        return changes

    def replace_schedule(self, schedule: Any) -> None:
        """Follow another schedule, which has the same rates up to the current update.

        The training step follows it when it is traced again: see `SteeredFit.retrace`.
        """
        for binding in self.bindings:
            binding.rule = replace(binding.rule, schedule=Factor(schedule))

    def set_rate(self, rate: float) -> RateChange:
        """Set the optimizer's own rate; the groups of a `MultiOptimizer` keep their ratios.

        For a policy with the role "rate". Returns the change of the fastest group.
        """
        self._run.synchronise()
        own = [number(binding.own) for binding in self.bindings]
        for binding, ratio in zip(self.bindings, rate_ratios(own), strict=True):
            binding.own.assign(rate * ratio)
        fastest = self.bindings[int(np.argmax(own))]
        return RateChange(fastest.optimizer.name, max(own), rate)

    def _rescaled(
        self, factor: float, low: np.ndarray, high: np.ndarray
    ) -> list[tuple[float, float]]:
        rates = self.account.rates(np.array([self.account.updates_done()]), warmed_up=False)
        result = []
        for (old,), floor, ceiling in zip(rates, low, high, strict=True):
            # As Keras compares: the bound as the optimizer's variable would store it.
            if factor < 1.0 and old > np.float32(floor):
                new = max(old * factor, floor)
            elif factor > 1.0 and 0.0 < old < np.float32(ceiling):
                new = min(old * factor, ceiling)
            else:
                new = old
            result.append((float(old), float(new)))
        return result


def _rate_at(optimizer: Any, update: int) -> float:
    """An optimizer's own rate; with a schedule, the rate at this update."""
    if has_schedule(optimizer):
        return float(evaluate(stored_rate(optimizer), np.array([max(update, 0)]))[0])
    return current_rate(optimizer)
