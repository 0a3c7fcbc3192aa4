"""One `fit`, steered: what all callbacks of ours share while a model trains.

A callback joins in `on_train_begin` and says what it wants. The composition is settled when the
first epoch begins: by then every callback has joined, and a backup, wherever it stands in the
list, has brought back what it had saved.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras.src.saving.keras_saveable import KerasSaveable

from keras_lr._stack import caller_locals
from keras_lr.schedules.base import evaluate
from keras_lr.steering.backends import Leaf, OwnRates, Rig, gains_from_threads, make_rig
from keras_lr.steering.optimizers import (
    check_momentum,
    current_rate,
    driven_optimizers,
    momentum_names,
    number,
    rate_ratios,
    updates_every,
)
from keras_lr.steering.rule import Claims, Length, Plan

_FIT = "_keras_lr_fit"
_MEMORY = "_keras_lr_memory"
_VERSION = 1


@dataclass(frozen=True)
class Change:
    """A rate before and after it was scaled, with the name of its optimizer."""

    name: str
    old: float
    new: float


@dataclass(frozen=True)
class Passage:
    """What the batches of a stretch of the run were trained with, an entry a batch.

    Args:
        updates: The update that each batch belongs to, from the start of the run.
        learning_rates: An array for each driven optimizer, by its name.
        momenta: The momentum; None if the optimizer has none.
    """

    updates: np.ndarray
    learning_rates: dict[str, np.ndarray]
    momenta: np.ndarray | None

    def joined(self, other: Passage) -> Passage:
        """Both, one after the other."""
        rates = {
            name: np.concatenate([rate, other.learning_rates[name]])
            for name, rate in self.learning_rates.items()
        }
        both = self.momenta is not None and other.momenta is not None
        momenta = np.concatenate([self.momenta, other.momenta]) if both else None
        return Passage(np.concatenate([self.updates, other.updates]), rates, momenta)


class Member(Protocol):
    """A callback that takes part in a steered fit."""

    # What only one callback of a fit can do: "schedule", "rate" (setting the optimizer's own),
    # "warm-up", "momentum", "find".
    claims: tuple[str, ...]
    # Whether it scales the rate, and needs a way to reach it while the graph is in use.
    rescales: bool
    # Whether it asks what every single batch was trained with.
    watches: bool
    # Whether it changes what the training step computes, apart from the rate and the momentum.
    retraces: bool

    def plan(self, length: Length) -> Plan:
        """What the callback asks for, given the length of the run."""

    def check(self, length: Length) -> None:
        """Warn if the callback does not go well with a run of that length."""

    def begin(self, length: Length) -> None:
        """Told once, when the length of the run is settled."""

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        """Act on the end of an epoch."""

    def remember(self) -> dict[str, Any]:
        """What a resumed run has to know: JSON values, and lists of arrays."""

    def recall(self, memory: dict[str, Any]) -> None:
        """Take up what `remember` gave in the process that was killed."""

    def leave(self) -> None:
        """Take back what it did to the model; also when a `fit` was interrupted."""


class SteeredFit:
    """The steering of one `fit` of one model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.members: list[Member] = []
        self.leaves: list[Leaf] = []
        self.length = Length(None, 1)
        self.begun = False
        self.first_epoch = 0
        self._params: dict[str, Any] = {}
        self._claims = Claims()
        self._rig: Rig | None = None
        self._loaded: dict[str, Any] | None = None
        self._every = 1
        self._start_batch = 0
        self._scales: list[tuple[int, np.ndarray]] = []
        self._settled: int | None = None
        self._watch: OwnRates | None = None
        self._noted = 0
        self._passed: Passage | None = None

    # Finding it

    @staticmethod
    def attach(model: Any) -> SteeredFit:
        """Prepare a model for a fit that is about to begin.

        This is early enough for a backup that restores before our callbacks have their turn.
        What an interrupted `fit` left behind is taken away.
        """
        fit = vars(model).get(_FIT)
        if fit is not None:
            if not fit.members:
                return fit
            fit.finish()
        fit = SteeredFit(model)
        object.__setattr__(model, _FIT, fit)
        object.__setattr__(model, _MEMORY, _Memory(fit))
        object.__setattr__(model, "save_own_variables", fit._save_own_variables)
        return fit

    @staticmethod
    def of(model: Any) -> SteeredFit:
        """The steering of the fit that begins or runs now."""
        return vars(model).get(_FIT) or SteeredFit.attach(model)

    @staticmethod
    def release(model: Any) -> None:
        """Take away what an interrupted `fit` left in a model."""
        fit = vars(model).get(_FIT)
        if fit is not None:
            fit.finish()

    @staticmethod
    @contextmanager
    def suspended(model: Any) -> Iterator[None]:
        """Within the block the model's optimizers are as they are without the steering.

        For what borrows a model between two epochs. The train function stays as it is: it was
        made for the steered optimizer, and is not to be called within the block.
        """
        fit = vars(model).get(_FIT)
        with ExitStack() as stack:
            for leaf in [] if fit is None else fit.leaves:
                stack.enter_context(leaf.steered.paused())
            yield

    # Before the first epoch

    def join(self, member: Member, params: dict[str, Any]) -> None:
        """Add a callback to the fit.

        Raises:
            ValueError: If it does what another one already does, or cannot do what it should.
        """
        name = type(member).__name__
        if getattr(self.model, "optimizer", None) is None:
            raise ValueError(f"{name} steers an optimizer; the model has none. Compile it first.")
        self._claims.add(name, member.claims)
        if "momentum" in member.claims:
            check_momentum(self.model.optimizer, name)
        self._params = params
        self._every = updates_every(self.model.optimizer)
        self.members.append(member)
        member.plan(self._measure(start_batch=0))  # refuses now what could not be done later

    # During the fit

    def begin(self, epoch: int) -> None:
        """Settle the composition and put it into the optimizer; once."""
        if self.begun:
            return
        self.begun = True
        self._settle_threads()
        batches = self._batches()
        self.first_epoch = epoch
        if self._loaded is not None:
            self._start_batch = int(self._loaded["start_batch"])
        else:
            self._start_batch = batches - epoch * (self._params.get("steps") or 0)
        self.length = self._measure(self._start_batch)
        self._make_leaves(batches - self._start_batch)
        for member in self.members:
            member.check(self.length)
            member.begin(self.length)
        for key, member in self._named_members():
            memory = (self._loaded or {"members": {}})["members"].get(key)
            if memory is not None:
                member.recall(memory)
        if any(leaf.steers or leaf.momentum is not None for leaf in self.leaves):
            self._rig = make_rig(self.model, self.leaves, bool(self._scales))
            self._rig.install()
            if self._scales:
                self._rig.set_scales(self._scales[-1][1].astype(np.float32))
        self._noted = batches
        if any(member.watches for member in self.members):
            self._watch = OwnRates(self.model, self.leaves)
        object.__setattr__(self.model, "make_train_function", self._make_train_function)

    def finish(self) -> None:
        """Give the optimizer and the train function back; once."""
        attributes = vars(self.model)
        if attributes.get(_FIT) is self:
            for member in self.members:
                member.leave()
            object.__delattr__(self.model, _FIT)
            object.__delattr__(self.model, _MEMORY)
            object.__delattr__(self.model, "save_own_variables")
            if self.begun:
                object.__delattr__(self.model, "make_train_function")
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        if self._rig is not None:
            self._rig.remove()
            self._rig = None

    def settle(self, epoch: int, logs: dict[str, Any]) -> None:
        """Let every member act on the end of an epoch; once.

        Whoever needs it first calls it: a member when its turn comes, or a backup that stands
        before the members in the list and is about to save what they remember.
        """
        if self._settled == epoch or not self.begun:
            return
        self._settled = epoch
        logs.update(self.describe())
        for member in self.members:
            member.judge(epoch, logs)

    def retrace(self) -> None:
        """Have the training step traced anew, after a member has changed what it computes."""
        if self._rig is None:
            return
        if self._watch is not None:
            self._watch.remove()
        self._rig.remake()
        if self._watch is not None:
            self._watch.install()

    def can_rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether `rescale` would change any rate."""
        return any(new != old for old, new in self._rescaled(factor, low, high))

    def rescale(self, factor: float, low: np.ndarray, high: np.ndarray) -> list[Change]:
        """Multiply the rate of the updates to come, within bounds; what was changed.

        A rate that is at the bound already, or beyond it, stays as it is. Where the optimizer's
        own variable is a factor of the rate, the variable is changed: it stays so after the fit,
        and a model saved in the meantime has it.

        Args:
            factor: Above 0; below 1 lowers the rates, above 1 raises them.
            low, high: Bounds for each driven optimizer.
        """
        changes = []
        scales = self._scales[-1][1].copy() if self._scales else np.ones(len(self.leaves))
        for index, (old, new) in enumerate(self._rescaled(factor, low, high)):
            if new == old:
                continue
            leaf = self.leaves[index]
            changes.append(Change(leaf.optimizer.name, old, new))
            if leaf.settable:
                leaf.own.assign(number(leaf.own) * (new / old))
            else:
                scales[index] *= new / old
        if self._scales and self._rig is not None:
            self._scales.append((self.updates_done(), scales))
            self._rig.set_scales(scales.astype(np.float32))
        return changes

    def set_rate(self, rate: float) -> Change:
        """Set the optimizer's own rate; the groups of a `MultiOptimizer` keep their ratios.

        For a member that claims the "rate". The change is that of the fastest group.
        """
        own = [number(leaf.own) for leaf in self.leaves]
        for leaf, ratio in zip(self.leaves, rate_ratios(own), strict=True):
            leaf.own.assign(rate * ratio)
        fastest = self.leaves[int(np.argmax(own))]
        return Change(fastest.optimizer.name, max(own), rate)

    def _rescaled(
        self, factor: float, low: np.ndarray, high: np.ndarray
    ) -> list[tuple[float, float]]:
        rates = self.rates(np.array([self.updates_done()]))
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

    def updates_done(self) -> int:
        """Updates of this run so far."""
        return self._batches() // self._every - self._start_batch // self._every

    def rates(self, updates: np.ndarray, own: np.ndarray | None = None) -> list[np.ndarray]:
        """The rate at each update of the run, an array for each driven optimizer.

        Args:
            updates: Counts from the start of the run.
            own: What each optimizer's own variable held at each, updates x optimizers; by
                default what it holds now.
        """
        result = []
        for index, leaf in enumerate(self.leaves):
            values = leaf.course.values(updates + leaf.start).astype(np.float64)
            if not leaf.settable:
                for since, until, scales in self._scale_spans():
                    values[(updates >= since) & (updates < until)] *= scales[index]
            if leaf.own_counts:
                now = number(leaf.own_rate()) if own is None else own[:, index]
                values = values * now
            result.append(values)
        return result

    def _scale_spans(self) -> list[tuple[float, float, np.ndarray]]:
        ends = [float(since) for since, _ in self._scales[1:]] + [np.inf]
        return [(since, end, s) for (since, s), end in zip(self._scales, ends, strict=False)]

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """In the block a member gives the optimizer an earlier state, its counter included.

        The updates since then do not count any more: the curves go on from the earlier one. The
        scales stay as they were set last.
        """
        if self._watch is not None:
            self._passed = self.passage()
        yield
        done = self.updates_done()
        if self._scales:
            earlier = [(since, scales) for since, scales in self._scales if since < done]
            self._scales = [*earlier, (done, self._scales[-1][1])]
        self._noted = self._batches()
        if self._rig is not None:
            self._rig.recount()

    def passage(self) -> Passage:
        """What the batches since the last call were trained with; for members that watch."""
        passed, self._passed = self._passed, None
        return self._passage() if passed is None else passed.joined(self._passage())

    def _passage(self) -> Passage:
        assert self._watch is not None  # noqa: S101
        together, own = self.model.steps_per_execution, self._watch.take()
        first, end = self._noted, self._batches()
        # Where data end that have no known length, TensorFlow counts a step that finds none.
        batches = np.arange(first, min(end, first + len(own) * together))
        updates = batches // self._every - self._start_batch // self._every
        own = own[(batches - first) // together]
        self._noted = end
        names = [leaf.optimizer.name for leaf in self.leaves]
        rates = dict(zip(names, self.rates(updates, own), strict=True))
        momenta = self.momenta(updates)
        if momenta is None and (held := momentum_names(self.leaves[0].optimizer)):
            momenta = np.full(len(updates), float(getattr(self.leaves[0].optimizer, held[0])))
        return Passage(updates, rates, momenta)

    def momenta(self, updates: np.ndarray) -> np.ndarray | None:
        """The momentum at each update of the run; None if it is not steered."""
        leaf = self.leaves[0]
        if leaf.momentum is None:
            return None
        return leaf.momentum.values(updates + leaf.start).astype(np.float64)

    def describe(self) -> dict[str, float]:
        """Log entries for the last update: the rates, and the momentum if it is steered."""
        last = np.array([max(self.updates_done() - 1, 0)])
        rates = [float(rate[0]) for rate in self.rates(last)]
        entries = {"learning_rate": max(rates)}
        if len(rates) > 1:
            for leaf, rate in zip(self.leaves, rates, strict=True):
                entries[f"learning_rate_{leaf.optimizer.name}"] = rate
        momenta = self.momenta(last)
        if momenta is not None:
            entries["momentum"] = float(momenta[0])
        return entries

    # What a killed run leaves to the next

    def save(self, store: Any) -> None:
        if not self.begun:
            return
        members: dict[str, Any] = {}
        for key, member in self._named_members():
            members[key] = {}
            for name, value in member.remember().items():
                if _is_arrays(value):
                    members[key][name] = {"arrays": len(value)}
                    for index, array in enumerate(value):
                        store[f"{key}.{name}.{index}"] = array
                else:
                    members[key][name] = value
        memory = {
            "version": _VERSION,
            "start_batch": self._start_batch,
            "scales": self._scales[-1][1].tolist() if self._scales else None,
            "members": members,
        }
        store["memory"] = np.frombuffer(json.dumps(memory).encode(), np.uint8)

    def load(self, store: Any) -> None:
        if self.begun or "memory" not in store.keys():
            return
        memory = json.loads(bytes(np.asarray(store["memory"])).decode())
        if memory["version"] != _VERSION:
            raise ValueError(
                f"The backup was made by another version of keras_lr; got format "
                f"{memory['version']}, and this version reads {_VERSION}. Finish the run with "
                "the version that began it, or delete the backup."
            )
        for key, values in memory["members"].items():
            for name, value in values.items():
                if isinstance(value, dict) and set(value) == {"arrays"}:
                    values[name] = [
                        np.asarray(store[f"{key}.{name}.{index}"])
                        for index in range(value["arrays"])
                    ]
        self._loaded = memory

    # Details

    def _settle_threads(self) -> None:
        """Spare a small model Keras's threads, which it gets whenever no batch hook is in use."""
        beginning = caller_locals("on_epoch_begin", keras.callbacks.CallbackList)
        if beginning is not None and not gains_from_threads(self.model):
            beginning["self"]._async_train = False

    def _batches(self) -> int:
        """Batches that the optimizer has counted, in this run and before."""
        synchronise = getattr(self.model, "jax_state_sync", None)
        if synchronise is not None:
            synchronise()
        leaf = driven_optimizers(self.model.optimizer)[0]
        return int(number(leaf._iterations))

    def _measure(self, start_batch: int) -> Length:
        epochs, steps = self._params.get("epochs") or 1, self._params.get("steps")
        if steps is None:
            return Length(None, epochs)
        end = start_batch + epochs * steps
        return Length(end // self._every - start_batch // self._every, epochs)

    def _make_leaves(self, batches_done: int) -> None:
        plan = Plan()
        for member in self.members:
            plan = plan.joined(member.plan(self.length))
        optimizers = driven_optimizers(self.model.optimizer)
        counted = [number(optimizer._iterations) for optimizer in optimizers]
        starts = [(int(count) - batches_done) // self._every for count in counted]
        ratios = [1.0] * len(optimizers)
        if plan.schedule is not None:
            # Rates as they were when the run began: a resumed one keeps the ratios it had.
            ratios = rate_ratios([_rate_at(*pair) for pair in zip(optimizers, starts, strict=True)])
        owner = self._claims.owner("schedule")
        retraces = any(member.retraces for member in self.members)
        for optimizer, start, ratio in zip(optimizers, starts, ratios, strict=True):
            course = plan.course(
                optimizer._learning_rate, start=start, ratio=ratio, batches=self._every
            )
            leaf = Leaf(
                optimizer,
                start=start,
                course=course,
                momentum=plan.momentum_course(start=start),
                owner=owner,
                steers=plan.schedule is not None or plan.warm_up is not None or retraces,
            )
            self.leaves.append(leaf)
        if any(member.rescales for member in self.members) and not all(
            leaf.settable for leaf in self.leaves
        ):
            saved = (self._loaded or {}).get("scales")
            self._scales = [(0, np.ones(len(self.leaves)))]
            if saved is not None:
                self._scales.append((self.updates_done(), np.array(saved)))
            for leaf in self.leaves:
                leaf.steers = True

    def _named_members(self) -> list[tuple[str, Member]]:
        """The members under names that are the same when the script runs again."""
        names: list[tuple[str, Member]] = []
        for member in self.members:
            kind = type(member).__name__
            count = sum(name.startswith(f"{kind}.") for name, _ in names)
            names.append((f"{kind}.{count}", member))
        return names

    def _save_own_variables(self, store: Any) -> None:
        """Stands in for the model's method, which is the first thing that saving a model calls.

        What the members do at the end of an epoch, to the weights and to the rate, is to be
        saved with it; `_Memory` has its turn when those are written already.
        """
        ending = caller_locals("on_epoch_end", keras.callbacks.CallbackList)
        if ending is not None and ending["logs"] is not None:
            self.settle(ending["epoch"], ending["logs"])
        type(self.model).save_own_variables(self.model, store)

    def _make_train_function(self, force: bool = False) -> Any:
        """Stands in for the model's method while the fit is steered.

        A `fit` calls it at its beginning. If that is a later one, the steered one was
        interrupted and never came to its end.
        """
        if sys._getframe(1).f_code.co_name == "fit":
            self.finish()
            return self.model.make_train_function(force)
        return type(self.model).make_train_function(self.model, force)


class _Memory(KerasSaveable):
    """Hangs on the model during a fit, so that what saves its weights saves this as well.

    Keras walks through the attributes of what it saves. The fit is therefore behind functions.
    """

    def __init__(self, fit: SteeredFit) -> None:
        self.save_own_variables = lambda store: fit.save(store)
        self.load_own_variables = lambda store: fit.load(store)

    def _obj_type(self) -> str:
        return "Loss"  # the kind decides only which attributes Keras looks at


def _rate_at(optimizer: Any, update: int) -> float:
    """An optimizer's own rate, at a certain update if it has a schedule."""
    own = optimizer._learning_rate
    if isinstance(own, keras.optimizers.schedules.LearningRateSchedule):
        return float(evaluate(own, np.array([max(update, 0)]))[0])
    return current_rate(optimizer)


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)
