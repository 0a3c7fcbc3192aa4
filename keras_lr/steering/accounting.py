"""The rates of a run, computed on the host: those that batches used, and those to come."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lr._keras.optimizers import number
from keras_lr.steering.binding import Binding
from keras_lr.steering.optimizers import momentum_names
from keras_lr.steering.policy import Policy
from keras_lr.steering.run import Run


@dataclass(frozen=True)
class UsedRates:
    """What a stretch of batches was trained with, one entry per batch.

    Args:
        updates: The update that each batch belongs to, counted from the start of the run.
        learning_rates: An array for each inner optimizer, by its name.
        momenta: The momentum; None if the optimizer has none.
    """

    updates: np.ndarray
    learning_rates: dict[str, np.ndarray]
    momenta: np.ndarray | None

    def joined(self, other: UsedRates) -> UsedRates:
        """Both stretches, one after the other."""
        rates = {
            name: np.concatenate([rate, other.learning_rates[name]])
            for name, rate in self.learning_rates.items()
        }
        both = self.momenta is not None and other.momenta is not None
        momenta = np.concatenate([self.momenta, other.momenta]) if both else None
        return UsedRates(np.concatenate([self.updates, other.updates]), rates, momenta)


class Account:
    """Counts the updates of one optimizer in a run, and computes the rate of each.

    Attributes:
        bindings: One for each inner optimizer that has a rate.
        every: Batches per update.
        begun_at: What the optimizer's counter of batches showed when the run began.
        place: Which bindings of the patched train function are those of this optimizer.
        watchers: The policies that read the rate of every batch.
    """

    def __init__(self, run: Run, every: int) -> None:
        self._run = run
        self.every = every
        self.bindings: list[Binding] = []
        self.begun_at = 0
        self.place = slice(0, 0)
        self.watchers: list[Policy] = []
        # An entry for each change of the scales: the first update that it applies to, and the
        # scales.
        self._scales: list[tuple[int, np.ndarray]] = []
        self._counted = 0  # batches that `_used` has returned
        self._unread: dict[int, list[UsedRates]] = {}  # by watcher

    def begin(
        self, bindings: list[Binding], begun_at: int, watchers: Sequence[Policy] = ()
    ) -> None:
        """Start to count, at the number of batches that the run has trained already."""
        self.bindings, self.begun_at, self.watchers = bindings, begun_at, list(watchers)
        self._unread = {id(watcher): [] for watcher in watchers}
        self._counted = self._run.first_batches

    def batches_done(self) -> int:
        """Batches of this run so far; afterwards the optimizer's variables can be read."""
        self._run.synchronise()
        if self._run.by_hand:
            return self.bindings[0].counter() - self.begun_at
        return self._run.batches

    def updates_done(self) -> int:
        """Updates of this run so far."""
        return int(self.bindings[0].update_of(self.batches_done()))

    # Scales of plateau callbacks

    @property
    def scaled(self) -> bool:
        """Whether callbacks scale a schedule, which has no variable that could be changed."""
        return bool(self._scales)

    def scale_schedules(self) -> None:
        """Scale schedules in this run, from a factor of 1 on."""
        self._scales = [(0, np.ones(len(self.bindings)))]

    def scales(self) -> list[float] | None:
        """The current scales; None if callbacks change variables only."""
        return self._scales[-1][1].tolist() if self._scales else None

    def set_scales(self, scales: np.ndarray) -> None:
        """Scale the updates to come."""
        self._scales.append((self.updates_done(), scales))
        patch = self._run.installed
        assert patch.scales is not None  # noqa: S101
        together = patch.scales.copy()
        together[self.place] = scales
        patch.set_scales(together)

    def _scales_at(self, updates: np.ndarray, index: int) -> np.ndarray | None:
        if not self._scales or self.bindings[index].settable:
            return None
        result = np.ones(len(updates))
        for since, scales in self._scales:
            result[updates >= since] = scales[index]
        return result

    # Rates and momenta

    def _ticks(self, updates: np.ndarray) -> Any:
        """The ticks of a time budget at each update; see `Factor.values`."""
        return self._run.clocks.ticks(self.bindings[0].last_batches(updates))

    def rates(
        self,
        updates: np.ndarray,
        own: np.ndarray | None = None,
        counts: np.ndarray | None = None,
        *,
        warmed_up: bool = True,
    ) -> list[np.ndarray]:
        """The rate at each update of the run, an array for each inner optimizer.

        Args:
            updates: Counts from the start of the run.
            own: The value of each optimizer's variable at each update, updates x optimizers; by
                default its current value.
            counts: The batches that each optimizer had counted at each update, likewise; by
                default as if it had counted like the run since then.
            warmed_up: Whether to apply the warm-up.
        """
        result = []
        now, ticks = self.updates_done(), self._ticks(updates)
        for index, binding in enumerate(self.bindings):
            if counts is None:
                own_updates = binding.counter() // self.every + updates - now
            else:
                own_updates = counts[:, index] // self.every
            variable: Any = 1.0
            if binding.own_counts:
                variable = number(binding.own_rate()) if own is None else own[:, index]
            rule, scales = binding.rule, self._scales_at(updates, index)
            values = rule.values(
                updates, np.maximum(own_updates, 0), variable, scales, ticks, warmed_up=warmed_up
            )
            result.append(values)
        return result

    def momenta(self, updates: np.ndarray) -> np.ndarray | None:
        """The momentum at each update of the run; None if no callback sets it."""
        momentum = self.bindings[0].momentum
        if momentum is None:
            return None
        return momentum.values(updates, self._ticks(updates)).astype(np.float64)

    def describe(self) -> dict[str, float]:
        """Log entries for the last update: the rates, and the attributes that callbacks set."""
        last = np.array([max(self.updates_done() - 1, 0)])
        rates = [float(rate[0]) for rate in self.rates(last)]
        entries = {"learning_rate": max(rates)}
        if len(rates) > 1:
            for binding, rate in zip(self.bindings, rates, strict=True):
                entries[f"learning_rate_{binding.optimizer.name}"] = rate
        momenta = self.momenta(last)
        if momenta is not None:
            entries["momentum"] = float(momenta[0])
        for name, curve in self.bindings[0].hyperparameters.items():
            entries[name] = float(curve.values(last, self._ticks(last))[0])
        if self.bindings[0].decay_product is not None:
            entries["weight_decay"] = float(self.bindings[0].coupled_decay(rates[0]))
        return entries

    # Batches that were trained

    def used(self, watcher: Policy) -> UsedRates:
        """What the batches since the watcher's last call were trained with."""
        self._note()
        first, *others = self._unread[id(watcher)]
        self._unread[id(watcher)] = []
        return functools.reduce(UsedRates.joined, others, first)

    def _note(self) -> None:
        """Keep what the batches since the last call were trained with, for every watcher."""
        used = self._used()
        for unread in self._unread.values():
            unread.append(used)

    @contextmanager
    def rolled_back(self, batches: int) -> Iterator[None]:
        """Within the block a policy restores an earlier state of the optimizer and its counter.

        The batches since then no longer count: the curves continue from the earlier batch. The
        scales stay as they were set last.

        Args:
            batches: Batches of the run that the earlier state has seen.
        """
        if self.watchers:
            self._note()
        yield
        if not self._run.by_hand:
            self._run.installed.go_back(batches)
        done = self.updates_done()
        if self._scales:
            earlier = [(since, scales) for since, scales in self._scales if since < done]
            self._scales = [*earlier, (done, self._scales[-1][1])]
        self._counted = self.batches_done()

    def _used(self) -> UsedRates:
        own, counts = self._run.installed.take_notes(self.place)
        first, end = self._counted, self.batches_done()
        together = self._run.model.steps_per_execution
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
        self._counted = end
        names = [binding.optimizer.name for binding in self.bindings]
        rates = dict(zip(names, self.rates(updates, own[call], counts), strict=True))
        momenta = self.momenta(updates)
        if momenta is None and (attributes := momentum_names(self.bindings[0].optimizer)):
            curve = self.bindings[0].hyperparameters.get(attributes[0])
            if curve is not None:
                momenta = curve.values(updates, self._ticks(updates))
            else:
                value = float(getattr(self.bindings[0].optimizer, attributes[0]))
                momenta = np.full(len(updates), value)
        return UsedRates(updates, rates, momenta)
