"""One trial of a study: a job that this process has begun."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_lr._util.interrupts import clear_interrupt, uninterrupted
from keras_lr.rate_search import storage as places
from keras_lr.rate_search.jobs import Outcome
from keras_lr.rate_search.shared_storage import patience
from keras_lr.rate_search.storage import silently

if TYPE_CHECKING:
    import optuna

    from keras_lr.rate_search.study import Study


class Taken(Exception):
    """Another process has taken a trial over, because this one missed its heartbeats."""


def drop(storage: Any, trial_id: int, why: str) -> None:
    """Release a trial: its job can be done again, and it does not count as a death."""
    import optuna

    with contextlib.suppress(Exception), silently(), patience(storage, 0.0):
        storage.set_trial_user_attr(trial_id, "given_back", why)
        storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.FAIL)


class Trial:
    """A job that this process has begun. A `with` block that ends without `end` releases it."""

    def __init__(self, owner: Study, trial: optuna.Trial) -> None:
        self._owner = owner
        self._trial = trial
        self._ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Trial:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        if kind is KeyboardInterrupt:
            clear_interrupt()
        self._stop.set()
        self._thread.join(places.REACHED)  # it may hang if the server is gone
        if not self._ended and kind is not Taken:
            # The run was interrupted: another process, or a later one, repeats the job.
            with uninterrupted(1):
                drop(self._owner._storage, self._trial._trial_id, "interrupted")
        return None

    def report(self, epoch: int, value: float) -> bool:
        """Record the objective after an epoch; True if the pruner stops the run.

        It stops none before half of the epochs: a rate that is behind early can be the best.

        Raises:
            Taken: If another process has taken the trial over.
        """
        with self._owner.problems(), self._taken():
            self._trial.report(value, epoch)
            frozen = self._owner._storage.get_trial(self._trial._trial_id)
            rivals: Any = _Rivals(self._owner.study, frozen.user_attrs)
            behind = bool(self._owner.study.pruner.prune(rivals, frozen))
            return behind and 2 * epoch >= frozen.user_attrs["epochs"]

    def end(self, outcome: Outcome) -> None:
        """Record the outcome of the job.

        Raises:
            Taken: If another process has taken the trial over; the outcome is dropped.
        """
        history = {
            # JSON cannot hold numbers that are not finite.
            name: [each if math.isfinite(each) else str(each) for each in map(float, values)]
            for name, values in outcome.history.items()
        }
        finished = outcome.ended == "finished"
        notes = {"ended": outcome.ended, "history": history, "seconds": outcome.seconds}
        self._finish(notes, outcome.value if finished else None)

    def end_range_test(self, found: Mapping[str, Any]) -> None:
        """Record the result of the range test."""
        self._finish({"range_test": dict(found)}, None)

    def _finish(self, notes: dict[str, Any], value: float | None) -> None:
        states = self._owner._states
        with self._owner.problems(), self._taken():
            for name, note in notes.items():
                self._trial.set_user_attr(name, note)
            if value is None:
                self._owner.study.tell(self._trial, state=states.PRUNED)
            else:
                self._owner.study.tell(self._trial, value)
        self._ended = True

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        try:
            yield
        except self._owner._finished as error:
            raise Taken from error
        except ValueError as error:  # `tell` raises it if the trial has failed
            state = self._owner._storage.get_trial(self._trial._trial_id).state
            if not state.is_finished():
                raise
            raise Taken from error

    def _live(self) -> None:
        while not self._stop.wait(self._owner._heartbeat):
            with contextlib.suppress(Exception):  # the next one may succeed
                self._owner._beat(self._trial._trial_id)


class _Rivals:
    """A study as the pruner sees it: only the trials that are comparable epoch by epoch.

    They train on the same share of the data, and have the same policy and warm-up: one-cycle is
    behind in the first epochs and not at the end.
    """

    def __init__(self, study: optuna.Study, attributes: Mapping[str, Any]) -> None:
        self._whole = study
        self._like = self._kind(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[Any]:
        trials = self._whole.get_trials(deepcopy=deepcopy, states=states)
        return [each for each in trials if self._kind(each.user_attrs) == self._like]

    @staticmethod
    def _kind(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
        setting = attributes.get("setting", {})
        return attributes.get("fraction"), setting.get("policy"), setting.get("warmup")
