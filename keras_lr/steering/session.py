"""One steered `fit`: the state that our callbacks share while a model trains.

A callback joins in `on_train_begin`, and names its roles and its optimizer. The curves of all
callbacks are composed when the first epoch begins: by then every callback has joined, and a
backup has restored its state, wherever it is in the list.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_lr._keras.distribution import check_one_clock
from keras_lr._keras.frames import caller_locals
from keras_lr._keras.optimizers import batch_counter, number
from keras_lr._util.patching import replaced
from keras_lr.steering.backends import make_patch
from keras_lr.steering.backup import Backup
from keras_lr.steering.clock import Clocks, now
from keras_lr.steering.companions import callbacks_of, refuse_beside_finder
from keras_lr.steering.epoch_logs import ExtendedList
from keras_lr.steering.guard import guard_fit
from keras_lr.steering.optimizers import innermost_optimizers, model_optimizers, named_optimizer
from keras_lr.steering.policy import Policy
from keras_lr.steering.run import Run
from keras_lr.steering.steered_optimizer import SteeredOptimizer
from keras_lr.steering.update_check import UpdateCheck

_FIT = "_keras_lr_fit"
_MEMORY = "_keras_lr_memory"
_SAVE = "save_own_variables"
_HOOKED = ("train", "epoch", "train_batch")


class SteeredFit:
    """The steering of one `fit` of one model.

    Attributes:
        model: The model.
        run: How many batches the run has trained, and its length.
        policies: Our callbacks, in the order of the list.
        optimizers: The steered optimizers, by their paths in the model.
        begun: Whether the curves are composed and in use.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.run = Run(model)
        self.policies: list[Policy] = []
        self.optimizers: dict[str, SteeredOptimizer] = {}
        self.begun = False
        self.backup = Backup(self.run, self.optimizers, self.policies)
        self._check = UpdateCheck(self.run, self.optimizers)
        self._all = model_optimizers(model)  # before one of them is borrowed for multipliers
        self._of: dict[int, SteeredOptimizer] = {}
        self._settled: int | None = None
        self._described_epoch: int | None = None
        self._described: dict[str, float] = {}
        self._list: ExtendedList | None = None
        self._ending: list[Policy] = []  # whose time budgets end the fit
        self._attributes = ExitStack()
        self._own_save: Any = None

    # Finding it

    @staticmethod
    def attach(model: Any) -> SteeredFit:
        """Prepare a model for a fit that is about to begin.

        This is early enough for a backup that restores before the hooks of our callbacks. Ends the
        steering of a loop of the user that was interrupted.
        """
        fit = vars(model).get(_FIT)
        if fit is not None:
            if not fit.policies:
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
        """Within the block the model is not steered, and may be trained.

        For a `fit` or a range test inside a callback. Batches that are trained in the block do not
        count for the outer run. Ends the steering of a loop of the user that was interrupted.
        """
        fit = vars(model).get(_FIT)
        if fit is not None and fit.run.by_hand and not _in_a_callback():
            if fit.policies:
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

    def join(self, policy: Policy, params: dict[str, Any]) -> SteeredOptimizer:
        """Add a callback to the fit, and return the optimizer that it steers.

        Raises:
            ValueError: If another callback has its role, or it cannot steer its optimizer.
        """
        whose = type(policy).__name__
        name, optimizer = named_optimizer(self.model, policy.optimizer, whose, self._all)
        if name not in self.optimizers:
            self.optimizers[name] = SteeredOptimizer(self.run, name, optimizer)
        steered = self.optimizers[name]
        self.run.start(params)
        self.policies.append(policy)  # also if it is refused below: it may have changed the model
        refuse_beside_finder(self.policies)
        self._of[id(policy)] = steered
        steered.join(policy, callbacks_of("on_train_begin"))
        return steered

    # During the fit

    def begin(self, epoch: int) -> None:
        """Compose the curves and put them into the optimizers; once."""
        if self.begun:
            return
        self.begun = self.backup.ready = True
        run = self.run
        run.synchronise()
        batches = self.backup.batches
        run.epochs_from = self._counted_from(epoch)
        epoch -= run.epochs_from
        run.first_epoch = epoch
        run.first_batches = epoch * (run.params.get("steps") or 0) if batches is None else batches
        for name, steered in self.optimizers.items():
            steered.begin(self.backup.start_of(name))
        self.backup.check_lengths()
        if batches is None:
            self._check_place(epoch)
        bindings = [each for part in self.optimizers.values() for each in part.bindings]
        run.clocks = Clocks(budget for each in bindings for budget in each.budgets)
        if run.clocks:
            check_one_clock(self.model)
        self._ending = [each for each in self.policies if each.ends_after is not None]
        for policy in self.policies:
            length = self._of[id(policy)].length
            policy.check(length)
            policy.begin(length)
        self.backup.recall()
        run.patch = make_patch(
            self.model,
            bindings,
            optimizers=list(self._all.values()),
            batches=run.first_batches,
            scaled=any(part.account.scaled for part in self.optimizers.values()),
            watched=any(part.account.watchers for part in self.optimizers.values()),
            clocks=run.clocks,
            by_hand=run.by_hand,
            keeps=not any(policy.retraces for policy in self.policies),
            after_batch=self._after_batch,
        )
        run.patch.install()
        place = 0
        for name, steered in self.optimizers.items():
            end = place + len(steered.bindings)
            steered.installed(slice(place, end), self.backup.scales_of(name))
            place = end
        self._check.begin()
        self._list = ExtendedList.of_running_fit(self.model, self.note_epoch, self.amend)

    def _counted_from(self, epoch: int) -> int:
        """The number of the first epoch: a loop by hand may begin with 1.

        It may also go on with epoch 1, the second one, as `fit` does with `initial_epoch`. Then an
        optimizer has made an epoch of updates.
        """
        steps = self.run.params.get("steps")
        if not self.run.by_hand or epoch != 1 or not steps or self.backup.batches is not None:
            return 0
        optimizers = [
            inner
            for each in self.optimizers.values()
            for inner in innermost_optimizers(each.optimizer)
        ]
        return int(all(number(batch_counter(each)) != steps for each in optimizers))

    def _check_place(self, epoch: int) -> None:
        """Raise if nobody knows how many updates the epochs before this one have made."""
        if not epoch or self.run.by_hand or self.run.params.get("steps"):
            return
        for policy in self.policies:
            if policy.plan(self._of[id(policy)].length).counted:
                name = type(policy).__name__
                raise ValueError(
                    f"{name} counts updates, and the number before epoch {epoch} is unknown, as is "
                    f"the length of an epoch; got initial_epoch={epoch}. Pass steps_per_epoch to "
                    "fit, or resume with keras.callbacks.BackupAndRestore."
                )

    def _after_batch(self, done: int, state: Any) -> None:
        self._check.after_batch(done, state)
        if any(self.run.clocks[policy.ends_after].is_over(now()) for policy in self._ending):
            self.model.stop_training = True

    def finish(self) -> None:
        """Restore the optimizers and the train function; once."""
        if vars(self.model).get(_FIT) is self:
            for policy in self.policies:
                policy.leave()
            self._take_attributes()
            if self.run.by_hand and self.policies and not self.begun:
                _warn_of_hooks(self.policies)
        if self._list is not None:
            self._list.restore()
            self._list = None
        if self.run.patch is not None:
            self.run.patch.remove()
        for policy in self.policies:
            policy.hand_back()

    def settle(self, epoch: int, logs: dict[str, Any]) -> None:
        """Let every policy act at the end of an epoch; once.

        The first of these calls it: the hook of a policy, or a backup that comes before the
        policies in the list and is about to save their state.
        """
        if self._settled == epoch or not self.begun:
            return
        self._check.check()
        self.note_epoch(epoch)
        self._settled = epoch
        logs.update(self._described)
        for policy in self.policies:
            policy.judge(epoch - self.run.epochs_from, logs)

    def note_epoch(self, epoch: int) -> None:
        """Note the rate of the last batch of an epoch, before a callback changes it."""
        if self._described_epoch != epoch:
            self._described_epoch = epoch
            self._described = self.describe()

    def amend(self, logs: dict[str, Any]) -> None:
        """Write the noted rate to the logs of an epoch, over what other callbacks wrote."""
        logs.update(self._described)

    def describe(self) -> dict[str, float]:
        """Log entries for the last update: the rates, and the momentum if a callback sets it."""
        entries: dict[str, float] = {}
        parts = {name: part.account.describe() for name, part in self.optimizers.items()}
        if len(parts) == 1:
            return next(iter(parts.values()))
        for name, part in parts.items():
            entries.update({f"{key}_{name}": value for key, value in part.items()})
        entries["learning_rate"] = max(part["learning_rate"] for part in parts.values())
        return entries

    def updates_of(self, steered: SteeredOptimizer) -> int:
        """Updates of an optimizer in the run so far, without waiting for the device."""
        if self.run.by_hand:
            return steered.account.updates_done()
        return int(steered.bindings[0].update_of(self.run.batches))

    def retrace(self) -> None:
        """Trace the training step again, after a policy has changed what it computes."""
        if self.run.patch is not None:
            self.run.patch.remake()

    # Details

    def _put_attributes(self) -> None:
        self._own_save = self.model.save_own_variables
        put = {_FIT: self, _MEMORY: self.backup.saveable, _SAVE: self._save_own_variables}
        for name, value in put.items():
            self._attributes.enter_context(replaced(self.model, name, value))

    def _take_attributes(self) -> None:
        self._attributes.close()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        steered, patch = vars(self.model).get("train_function"), self.run.patch
        self._take_attributes()
        with ExitStack() as stack:
            for part in self.optimizers.values():
                for binding in part.bindings:
                    stack.enter_context(binding.attributes.paused())
            for policy in self.policies:
                stack.enter_context(policy.aside())
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

    def _save_own_variables(self, store: Any) -> None:
        """Replaces the model's method, the first one that saving a model calls.

        The saved weights and rate must include what the policies do at the end of an epoch; Keras
        saves the backup only after the weights.
        """
        ending = caller_locals("on_epoch_end", keras.callbacks.CallbackList)
        if ending is not None and ending["logs"] is not None:
            self.settle(ending["epoch"], ending["logs"])
        self._own_save(store)


def _warn_of_hooks(policies: list[Policy]) -> None:
    names = " and ".join(dict.fromkeys(type(each).__name__ for each in policies))
    warnings.warn(
        f"{names} had no effect: a training loop of your own must call on_epoch_begin or "
        "on_train_batch_begin of its callbacks before it trains.",
        UserWarning,
        stacklevel=4,
    )


def _in_a_callback() -> bool:
    """Whether a hook of any callback is running."""
    hooks = [f"on_{what}_{when}" for what in _HOOKED for when in ("begin", "end")]
    return any(caller_locals(hook, keras.callbacks.Callback) is not None for hook in hooks)


guard_fit(SteeredFit.set_aside)
