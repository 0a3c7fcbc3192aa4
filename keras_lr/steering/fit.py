"""One steered `fit`: what all callbacks of ours share while a model trains.

A callback joins in `on_train_begin` and says what it wants, and for which optimizer. The
composition is settled when the first epoch begins: by then every callback has joined, and a
backup, wherever it stands in the list, has brought back what it had saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import keras

from keras_lr._keras.callbacks import callbacks_of_keras, end_batches_in_order
from keras_lr._keras.frames import caller_locals
from keras_lr._keras.optimizers import counters, number
from keras_lr.steering.backends import (
    TrainFunctionPatch,
    gains_from_threads,
    make_patch,
    place_in_state,
)
from keras_lr.steering.backup import Backup
from keras_lr.steering.guard import fits_running, guard_fit
from keras_lr.steering.optimizers import all_optimizers, held_optimizers, named_optimizer
from keras_lr.steering.rule import Length, Plan
from keras_lr.steering.steered_optimizer import SteeredOptimizer

_FIT = "_keras_lr_fit"
_MEMORY = "_keras_lr_memory"
_SAVE = "save_own_variables"
# Batches after which an optimizer that trains must have made an update; some steps of a GAN leave
# one of the optimizers out.
_PATIENCE = 10
_HOOKED = ("train", "epoch", "train_batch")


class Member(Protocol):
    """A callback that takes part in a steered fit."""

    # The optimizer that it is for; None for the only one.
    optimizer: Any
    # What only one callback can do for an optimizer: "schedule", "rate" (setting the optimizer's
    # own), "warm-up", "momentum", "find".
    claims: tuple[str, ...]
    # Whether it scales the rate, and needs a way to reach it while the graph is in use.
    rescales: bool
    # Whether it asks what every single batch was trained with.
    watches: bool
    # Whether it changes what the training step computes, apart from the rate and the momentum.
    retraces: bool

    def plan(self, length: Length) -> Plan:
        """What the callback asks for, given the length of the run."""

    def follows(self, length: Length) -> dict[str, Any]:
        """The arguments that would make the same plan for a run of any other length."""

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
    """The steering of one `fit` of one model.

    Attributes:
        model: The model.
        members: Callbacks of ours, in the order of the list.
        optimizers: What is steered, by the path of the optimizer in the model.
        by_hand: Whether no `fit` runs, but a loop of the user's that calls the callbacks.
        begun: Whether the composition is settled.
        first_epoch: The epoch that this process begins with.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.members: list[Member] = []
        self.optimizers: dict[str, SteeredOptimizer] = {}
        self.by_hand = fits_running(model) == 0
        self.begun = False
        self.first_epoch = 0
        self.params: dict[str, Any] = {}
        self.patch: TrainFunctionPatch | None = None
        self.backup = Backup(self)
        self._held = held_optimizers(model)  # before multipliers are lent to one of them
        self._first_batches = 0
        self._of: dict[int, SteeredOptimizer] = {}
        self._settled: int | None = None
        self._described_epoch: int | None = None
        self._described: dict[str, float] = {}
        self._list: _Extended | None = None
        self._movement_before: dict[str, dict[int, float]] | None = None

    # Finding it

    @staticmethod
    def attach(model: Any) -> SteeredFit:
        """Prepare a model for a fit that is about to begin.

        This is early enough for a backup that restores before our callbacks have their turn.
        What a loop that was broken off left behind is taken away.
        """
        fit = vars(model).get(_FIT)
        if fit is not None:
            if not fit.members:
                return fit
            fit.finish()
        fit = SteeredFit(model)
        fit._put_attributes()
        return fit

    @staticmethod
    def of(model: Any) -> SteeredFit:
        """The steering of the fit that begins or runs now."""
        return vars(model).get(_FIT) or SteeredFit.attach(model)

    @staticmethod
    @contextmanager
    def set_aside(model: Any) -> Iterator[None]:
        """Within the block the model is as it is without the steering, and may be trained.

        For a `fit` or a range test inside a callback. Batches that are trained in the block do not
        count for the run outside. The steering of a loop that was broken off ends here.
        """
        fit = vars(model).get(_FIT)
        if fit is not None and fit.by_hand and not _in_a_callback():
            if fit.members:
                fit.finish()
            fit = None
        if fit is None:
            try:
                yield
            finally:
                inner = vars(model).get(_FIT)
                if inner is not None:
                    inner.finish()
            return
        with fit._aside():
            yield

    # Before the first epoch

    def join(self, member: Member, params: dict[str, Any]) -> SteeredOptimizer:
        """Add a callback to the fit; gives the optimizer that it steers.

        Raises:
            ValueError: If it does what another one already does, or cannot do what it should.
        """
        whose = type(member).__name__
        name, optimizer = named_optimizer(self.model, member.optimizer, whose, self._held)
        if name not in self.optimizers:
            self.optimizers[name] = SteeredOptimizer(self, name, optimizer)
        steered = self.optimizers[name]
        self.params = params
        self.by_hand = fits_running(self.model) == 0
        self.members.append(member)  # also of a fit that is refused: it has something to take back
        self._of[id(member)] = steered
        steered.join(member, _callbacks_of("on_train_begin"))
        return steered

    # During the fit

    def begin(self, epoch: int) -> None:
        """Settle the composition and put it into the optimizers; once."""
        if self.begun:
            return
        self.begun = True
        self.synchronise()
        self.first_epoch = epoch
        batches = self.backup.batches
        if batches is None:
            batches = epoch * (self.params.get("steps") or 0)
        self._first_batches = batches
        for steered in self.optimizers.values():
            steered.begin(batches)
        self.backup.check_lengths()
        for member in self.members:
            length = self._of[id(member)].length
            member.check(length)
            member.begin(length)
        self.backup.recall()
        bindings = [each for part in self.optimizers.values() for each in part.bindings]
        self.patch = make_patch(
            self.model,
            bindings,
            batches=batches,
            scaled=any(part.scaled for part in self.optimizers.values()),
            watched=any(member.watches for member in self.members),
            by_hand=self.by_hand,
            after_batch=self._after_batch,
        )
        self.patch.install()
        place = 0
        for steered in self.optimizers.values():
            steered.installed(slice(place, place := place + len(steered.bindings)))
        self._movement_before = self._movement()
        self._list = _Extended.of(self)

    def finish(self) -> None:
        """Give the optimizers and the train function back; once."""
        if vars(self.model).get(_FIT) is self:
            for member in self.members:
                member.leave()
            self._take_attributes()
            if self.by_hand and self.members and not self.begun:
                _warn_of_hooks(self.members)
        if self._list is not None:
            self._list.restore()
            self._list = None
        if self.patch is not None:
            self.patch.remove()

    def settle(self, epoch: int, logs: dict[str, Any]) -> None:
        """Let every member act on the end of an epoch; once.

        Whoever needs it first calls it: a member when its turn comes, or a backup that stands
        before the members in the list and is about to save what they remember.
        """
        if self._settled == epoch or not self.begun:
            return
        self._check_movement()
        self.note_epoch(epoch)
        self._settled = epoch
        logs.update(self._described)
        for member in self.members:
            member.judge(epoch, logs)

    def note_epoch(self, epoch: int) -> None:
        """Note what the last batch of an epoch was trained with, before a callback changes it."""
        if self._described_epoch != epoch:
            self._described_epoch = epoch
            self._described = self.describe()

    def amend(self, logs: dict[str, Any]) -> None:
        """Put what trained into the logs of an epoch, over what other callbacks read."""
        logs.update(self._described)

    def describe(self) -> dict[str, float]:
        """Log entries for the last update: the rates, and the momentum if it is steered."""
        entries: dict[str, float] = {}
        parts = {name: part.describe() for name, part in self.optimizers.items()}
        if len(parts) == 1:
            return next(iter(parts.values()))
        for name, part in parts.items():
            entries.update({f"{key}_{name}": value for key, value in part.items()})
        entries["learning_rate"] = max(part["learning_rate"] for part in parts.values())
        return entries

    def retrace(self) -> None:
        """Have the training step traced anew, after a member has changed what it computes."""
        if self.patch is not None:
            self.patch.remake()

    def batches(self) -> int:
        """Batches of the run so far, those of an earlier process included."""
        return self._first_batches if self.patch is None else self.patch.batches

    # Details

    def _put_attributes(self) -> None:
        object.__setattr__(self.model, _FIT, self)
        object.__setattr__(self.model, _MEMORY, self.backup.saveable)
        object.__setattr__(self.model, _SAVE, self._save_own_variables)

    def _take_attributes(self) -> None:
        for name in (_FIT, _MEMORY, _SAVE):
            object.__delattr__(self.model, name)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        steered, patch = vars(self.model).get("train_function"), self.patch
        self._take_attributes()
        with ExitStack() as stack:
            for part in self.optimizers.values():
                for binding in part.bindings:
                    stack.enter_context(binding.steered.paused())
            if patch is not None:
                self.model.train_function = patch.plain_function()
            try:
                yield
            finally:
                inner = vars(self.model).get(_FIT)
                if inner is not None:
                    inner.finish()
                if patch is not None:
                    patch.keep_plain_function(self.model.train_function)
                    self.model.train_function = steered
                self._put_attributes()

    def synchronise(self) -> None:
        """Bring JAX's state home: in the middle of an epoch the variables hold no values."""
        synchronise = getattr(self.model, "jax_state_sync", None)
        if synchronise is not None:
            synchronise()

    def _save_own_variables(self, store: Any) -> None:
        """Stands in for the model's method, which is the first thing that saving a model calls.

        What the members do at the end of an epoch, to the weights and to the rate, is to be
        saved with it; the backup has its turn when those are written already.
        """
        ending = caller_locals("on_epoch_end", keras.callbacks.CallbackList)
        if ending is not None and ending["logs"] is not None:
            self.settle(ending["epoch"], ending["logs"])
        type(self.model).save_own_variables(self.model, store)

    # Whether what is steered trains

    def _after_batch(self, done: int, state: Any) -> None:
        if done >= _PATIENCE and self._movement_before is not None:
            self._check_movement(state)

    def _check_movement(self, state: Any = None) -> None:
        """Raise if a steered optimizer has made no update; asked once, after the first batches."""
        before, self._movement_before = self._movement_before, None
        if before is None or self.by_hand or self.patch is None or not self.patch.has_trained():
            return
        now = self._movement(state)
        for name, steered in self.optimizers.items():
            if before[name] == now[name]:
                raise ValueError(_no_update(self.model, name, steered.members))
        if self.patch.counted_in_graph() == 0:
            raise ValueError(
                f"The train function of {type(self.model).__name__} never calls train_step, so "
                "the callbacks of keras_lr cannot count its steps. Override train_step in the "
                "place of make_train_function."
            )

    def _movement(self, state: Any = None) -> dict[str, dict[int, float]]:
        """What the counters of each optimizer show; the first update may make more of them."""
        found: dict[str, dict[int, float]] = {}
        for name, steered in self.optimizers.items():
            found[name] = {}
            for each in _counters(steered.optimizer):
                at = None if state is None else place_in_state(self.model, each)
                value = number(each) if at is None else float(state[at[0]][at[1]])
                found[name][id(each)] = value
        return found


def _counters(optimizer: Any) -> list[Any]:
    """Variables of an optimizer of which one changes with each update, a skipped one included."""
    return [each for part in all_optimizers(optimizer) for each in counters(part)]


def _no_update(model: Any, name: str, members: list[Any]) -> str:
    whose = " and ".join(dict.fromkeys(type(each).__name__ for each in members))
    held = [each for each in held_optimizers(model) if each != name]
    way_out = (
        f"Pass optimizer={held[0]!r}, or another of those that the model holds: {', '.join(held)}."
        if held
        else "Check that the model has weights that train, and which optimizer its train_step uses."
    )
    return (
        f"{whose} steers the optimizer {name!r} of the model {model.name!r}, which made no update "
        f"in the first batches. {way_out}"
    )


def _warn_of_hooks(members: list[Any]) -> None:
    names = " and ".join(dict.fromkeys(type(each).__name__ for each in members))
    warnings.warn(
        f"{names} steered nothing: a loop of your own must call on_epoch_begin or "
        "on_train_batch_begin of its callbacks before it trains.",
        UserWarning,
        stacklevel=4,
    )


def _in_a_callback() -> bool:
    """Whether a hook of some callback is running."""
    hooks = [f"on_{what}_{when}" for what in _HOOKED for when in ("begin", "end")]
    return any(caller_locals(hook, keras.callbacks.Callback) is not None for hook in hooks)


def _callbacks_of(hook: str) -> list[Any]:
    """All callbacks of the list whose hook is running; none where no list is."""
    running = caller_locals(hook, keras.callbacks.CallbackList)
    return [] if running is None else running["self"].callbacks


class _Extended:
    """Keras's list of callbacks, with our first and last word on the logs of an epoch.

    Keras's `LearningRateScheduler` and `ReduceLROnPlateau` write the rate that they read to the
    logs. That is the optimizer's variable; what trained is that times a warm-up.
    """

    def __init__(self, callbacks: Any, fit: SteeredFit) -> None:
        self._list, self._own = callbacks, callbacks.callbacks
        late = [each for each in self._own if each in callbacks_of_keras(callbacks)]
        early = [each for each in self._own if each not in late]
        # A new list: the old one is being gone through.
        callbacks.callbacks = [_First(fit), *early, _Last(fit), *late]

    @classmethod
    def of(cls, fit: SteeredFit) -> _Extended | None:
        beginning = caller_locals("on_epoch_begin", keras.callbacks.CallbackList)
        if beginning is None:
            return None
        if not gains_from_threads(fit.model):
            # A small model is spared Keras's threads, which it gets whenever no batch hook is used.
            end_batches_in_order(beginning["self"])
        return cls(beginning["self"], fit)

    def restore(self) -> None:
        self._list.callbacks = self._own


class _First(keras.callbacks.Callback):
    def __init__(self, fit: SteeredFit) -> None:
        super().__init__()
        self._fit = fit

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._fit.note_epoch(epoch)


class _Last(keras.callbacks.Callback):
    def __init__(self, fit: SteeredFit) -> None:
        super().__init__()
        self._fit = fit

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            self._fit.amend(logs)


guard_fit(SteeredFit.set_aside)
