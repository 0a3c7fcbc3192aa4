"""The record of a search that any number of processes share: an Optuna study.

A job is a trial. Optuna numbers trials one after the other, in whatever database they are kept;
of two processes that begin the same job the one with the lower number goes on and the other
drops its trial, so every job is done once. A process that dies stops its heartbeat, and another
one takes its trial up.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keras_lr._util import checks
from keras_lr._util.interrupts import clear_interrupt, uninterrupted
from keras_lr.rate_search import storage as places
from keras_lr.rate_search.plan import Job, Outcome, Setting
from keras_lr.rate_search.storage import (
    SearchError,
    close,
    described,
    import_optuna,
    is_file,
    opened,
    problems,
    silently,
)

if TYPE_CHECKING:
    import optuna

FORMAT = 2
MOST_DEATHS = 3  # processes that one job may take with it
RANGE_TEST = "range test"
ENDS = ("finished", "behind", "diverged")
_MARK = "keras_lr"


class Taken(Exception):
    """Another process has taken a trial over, because this one gave no sign of life."""


class Study:
    """Jobs begun and ended by any number of processes.

    Args:
        storage: Where: None for this process alone; a URL as of SQLAlchemy; `journal:PATH` for
            Optuna's journal file; the path of a SQLite file; or a storage of Optuna.
        name: The study's name there.
        identity: What has to be the same for everyone who takes part.
        pruner: "median", "halving" or "none".
        maximize: Whether the objective should rise.
        resume: Whether an existing study goes on; else it is an error.
        heartbeat: Seconds between two signs of life.

    Raises:
        ValueError: If the study is not of this search, or exists and should not.
        SearchError: If the storage cannot be reached or used.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        identity: dict[str, Any],
        *,
        pruner: str,
        maximize: bool,
        objective: str,
        resume: bool = True,
        heartbeat: int = 10,
    ) -> None:
        optuna = import_optuna()
        self._optuna = optuna
        self.name = name
        self.maximize = maximize
        self.where = described(storage)
        self._states = optuna.trial.TrialState
        self._finished = optuna.exceptions.UpdateFinishedTrialError
        self._heartbeat = heartbeat
        self._worker = f"{platform.node()}:{os.getpid()}"
        self._local = storage is None or is_file(storage)
        self._closing = contextlib.ExitStack()
        with self.problems():
            self._storage = opened(storage, heartbeat, self.where)
            if self._storage is not storage:
                self._closing.callback(close, self._storage)
            try:
                self.study, self.resumed = self._joined(name, maximize, resume)
                self.study.pruner = _pruner(optuna, pruner)
                self._identify(identity, objective)
                self.began_with = len(self.study.get_trials(deepcopy=False))
                # Others take the runs of this process for dead after so long.
                grace = places.GRACE * heartbeat
                self._closing.enter_context(places.patience(self._storage, grace))
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections to the database."""
        self._closing.close()

    def problems(self) -> contextlib.AbstractContextManager[None]:
        """In the block, what the storage throws is told in a sentence."""
        return problems(self.where, self._local)

    # Beginning

    def _joined(self, name: str, maximize: bool, resume: bool) -> tuple[optuna.Study, bool]:
        directions = "maximize" if maximize else "minimize"
        try:
            study = self._optuna.create_study(
                storage=self._storage, study_name=name, direction=directions
            )
        except self._optuna.exceptions.DuplicatedStudyError:
            if not resume:
                raise places.Refused(_exists(name, self.where)) from None
            study = self._optuna.load_study(storage=self._storage, study_name=name)
            return study, True
        return study, False

    def _identify(self, identity: dict[str, Any], objective: str) -> None:
        """Say what the study is of, or make sure that it is of the same."""
        identity = {"format": FORMAT, **identity}
        known = self.study.user_attrs.get(_MARK)
        strange = self.resumed and (
            self.study.get_trials(deepcopy=False)
            or (self.study.direction.name == "MAXIMIZE") != self.maximize
        )
        if known is None and strange:
            raise places.Refused(
                f"The study {self.name!r} in {self.where} was not made by keras-lr. Choose "
                "another name for this search."
            )
        if known is None:
            self.study.set_user_attr(_MARK, identity)
            self.study.set_metric_names([objective])
            known = self.study.user_attrs[_MARK]  # of two who began it at once one has written it
        if known.get("format") != FORMAT:
            raise places.Refused(
                f"The study {self.name!r} in {self.where} has format {_cut(known.get('format'))} "
                f"of another version of keras-lr; this one reads {FORMAT}, which tells more about "
                "the model, the data and the arguments of fit. Choose another name."
            )
        # Through JSON a tuple has become a list, and so on.
        for part in dict.fromkeys([*known, *identity]):
            old, new = known.get(part), _plain(identity.get(part))
            if _plain(old) == new or part == "version":
                continue
            names = "; ".join(
                f"{_cut(key)} {_cut(_value(old, key))} and not {_cut(_value(new, key))}"
                for key in dict.fromkeys([*(old or {}), *(new or {})])
                if _value(old, key) != _value(new, key)
            )
            what = {
                "model": "is of another model",
                "data": "is of other data",
                "fit": "was begun with other arguments of fit",
            }.get(part, "was begun with other settings")
            ending = "Choose" if part in ("model", "data") else "Take those, or choose"
            raise places.Refused(
                f"The study {self.name!r} in {self.where} {what}: {_cut(names, 500)}. {ending} "
                "another name for this search."
            )

    # Jobs

    def found(self) -> dict[str, Outcome]:
        """How the jobs ended that have ended, by their keys."""
        outcomes: dict[str, Outcome] = {}
        with self.problems():
            for trial in self._trials():
                key = trial.user_attrs.get("job")
                if key is None or key in outcomes or not self._done(trial) or key == RANGE_TEST:
                    continue
                outcomes[key] = self._outcome(trial)
                if outcomes[key].job.key != key:
                    raise LookupError(f"trial {trial.number} is not of the job {key}")
        return outcomes

    def running(self) -> int:
        """Trials that some process is at work on."""
        return sum(trial.state == self._states.RUNNING for trial in self._trials())

    def range_test(self) -> dict[str, Any] | None:
        """What the range test of this study found; None if there is none yet."""
        for trial in self._trials():
            if trial.user_attrs.get("job") == RANGE_TEST and self._done(trial):
                with self.problems():
                    return dict(trial.user_attrs["range_test"])
        return None

    def free(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that no living process is at work on."""
        with self.problems():
            self._optuna.storages.fail_stale_trials(self.study)
        running = [each for each in self._trials() if each.state == self._states.RUNNING]
        taken = {each.user_attrs.get("job") for each in running}
        return [job for job in jobs if job.key not in taken]

    def begin(self, job: Job | str) -> Trial | None:
        """A trial for this process to do the job in; None if another one has it or did it.

        Args:
            job: A job, or `RANGE_TEST`.

        Raises:
            SearchError: If the job has taken several processes with it.
        """
        key = job if isinstance(job, str) else job.key
        with self.problems():
            self._optuna.storages.fail_stale_trials(self.study)
        live, deaths = self._of(key)
        idle = live is None or live.state == self._states.WAITING
        if idle and deaths >= MOST_DEATHS:
            raise SearchError(
                f"The run {key} was begun {deaths} times, and each time its process died. Is the "
                "memory enough for it? The same command tries it again."
            )
        if live is None:
            self._add(job, key)
            live, _ = self._of(key)
        if live is None or live.state != self._states.WAITING:
            return None
        # The sign of life comes first: a trial that runs without one would run for ever.
        with self.problems():
            self._beat(live._trial_id)
        begun = None
        try:
            with uninterrupted(1):
                begun = self._begun(live._trial_id) if self._take(live) else None
        except BaseException:
            if begun is not None:
                self._drop(live._trial_id, "interrupted")
            raise
        return begun

    def _begun(self, trial_id: int) -> Trial | None:
        """What this process has taken; None if another one has taken it since."""
        try:
            with self.problems():
                trial = self._optuna.trial.Trial(self.study, trial_id)
                trial.set_user_attr("worker", self._worker)
        except self._finished:
            return None
        except BaseException:
            self._drop(trial_id, "interrupted")
            raise
        return Trial(self, trial)

    def _drop(self, trial_id: int, why: str) -> None:
        drop(self._storage, trial_id, why)

    def tidy(self) -> None:
        """Drop what waits to be done and was done: two processes had written it down at once."""
        for trial in self._trials():
            if trial.state == self._states.WAITING:
                first, _ = self._of(trial.user_attrs.get("job"))
                if first is not None and first.number != trial.number:
                    self._drop(trial._trial_id, "written down twice")

    def _of(self, key: str) -> tuple[Any, int]:
        """The first trial of a job that has not failed, and how many processes died in it.

        Only deaths since this process joined count: whoever starts anew tries anew.
        """
        trials = [each for each in self._trials() if each.user_attrs.get("job") == key]
        failed = [each for each in trials if each.state == self._states.FAIL]
        deaths = sum(
            each.number >= self.began_with and not each.user_attrs.get("given_back")
            for each in failed
        )
        live = [each for each in trials if each.state != self._states.FAIL]
        return min(live, key=lambda each: each.number, default=None), deaths

    def _trials(self) -> list[Any]:
        with self.problems():
            return self.study.get_trials(deepcopy=False)

    def _add(self, job: Job | str, key: str) -> None:
        """Write a job down as waiting."""
        attributes: dict[str, Any] = {"job": key}
        params: dict[str, Any] = {}
        if isinstance(job, Job):
            attributes.update(
                round=job.round,
                seed=job.seed,
                fraction=job.fraction,
                epochs=job.epochs,
                setting=asdict(job.setting),
            )
            params = {k: v for k, v in asdict(job.setting).items() if v is not None}
        with self.problems():
            self.study.add_trial(
                self._optuna.trial.create_trial(
                    state=self._states.WAITING,
                    params=params,
                    distributions=_distributions(self._optuna, params),
                    user_attrs=attributes,
                )
            )

    def _take(self, waiting: Any) -> bool:
        """Begin a waiting trial; False if another process was faster."""
        with self.problems(), contextlib.suppress(self._finished):
            return bool(
                self._storage.set_trial_state_values(waiting._trial_id, state=self._states.RUNNING)
            )
        return False

    def _beat(self, trial_id: int) -> None:
        record = getattr(self._storage, "record_heartbeat", None)
        if record is not None:
            record(trial_id)

    def _done(self, trial: Any) -> bool:
        return trial.state in (self._states.COMPLETE, self._states.PRUNED)

    def _outcome(self, trial: Any) -> Outcome:
        attributes = trial.user_attrs
        job = Job(
            attributes["round"],
            Setting(**attributes["setting"]),
            attributes["seed"],
            attributes["fraction"],
            attributes["epochs"],
        )
        ended = {each: each for each in ENDS}[attributes["ended"]]
        value = math.nan if ended == "diverged" or trial.value is None else float(trial.value)
        history = {
            name: [float(each) for each in values]
            for name, values in attributes.get("history", {}).items()
        }
        seconds = float(attributes.get("seconds", 0.0))
        return Outcome(job, ended, value, history, seconds, trial.number)


def drop(storage: Any, trial_id: int, why: str) -> None:
    """End a trial without an answer and without a death, so that its job is done anew."""
    import optuna

    with contextlib.suppress(Exception), silently(), places.patience(storage, 0.0):
        storage.set_trial_user_attr(trial_id, "given_back", why)
        storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.FAIL)


class Trial:
    """A job that this process has begun. Leave its `with` block with `end`, or it is given back."""

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
        self._thread.join(places.REACHED)  # which may hang on a server that has gone
        if not self._ended and kind is not Taken:
            # The run was interrupted: somebody, or a later resume, does the job anew.
            with uninterrupted(1):
                self._owner._drop(self._trial._trial_id, "interrupted")
        return None

    def report(self, epoch: int, value: float) -> bool:
        """Note the objective after an epoch; True if others were better at that point.

        Raises:
            Taken: If the trial is another process's by now.
        """
        with self._owner.problems(), self._taken():
            self._trial.report(value, epoch)
            frozen = self._owner._storage.get_trial(self._trial._trial_id)
            rivals: Any = _Rivals(self._owner.study, frozen.user_attrs)
            return bool(self._owner.study.pruner.prune(rivals, frozen))

    def end(self, outcome: Outcome) -> None:
        """Write down how the job ended.

        Raises:
            Taken: If the trial is another process's by now; the outcome is dropped.
        """
        history = {
            # JSON has no word for what is not finite.
            name: [each if math.isfinite(each) else str(each) for each in map(float, values)]
            for name, values in outcome.history.items()
        }
        finished = outcome.ended == "finished"
        notes = {"ended": outcome.ended, "history": history, "seconds": outcome.seconds}
        self._finish(notes, outcome.value if finished else None)

    def end_range_test(self, found: Mapping[str, Any]) -> None:
        """Write down what the range test found; it has no value of its own."""
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
        except ValueError as error:  # what `tell` says of a trial that has failed
            state = self._owner._storage.get_trial(self._trial._trial_id).state
            if not state.is_finished():
                raise
            raise Taken from error

    def _live(self) -> None:
        while not self._stop.wait(self._owner._heartbeat):
            with contextlib.suppress(Exception):  # the next one may get through
                self._owner._beat(self._trial._trial_id)


class _Rivals:
    """A study as the pruner sees it: the trials that one can be compared with, epoch by epoch.

    Those are of the same round, whose runs train on the same data. And they have the same policy
    and warm-up: one-cycle is behind at first and not at the end.
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
        return attributes.get("round"), setting.get("policy"), setting.get("warmup")


def give_back(storage: Any, name: str, pids: Collection[int]) -> None:
    """Give back what processes of this machine were at work on when they were killed."""
    ours = {f"{platform.node()}:{pid}" for pid in pids}
    where = described(storage)
    optuna = import_optuna()
    with contextlib.suppress(SearchError, KeyError), problems(where, is_file(storage)):
        there = opened(storage, 1, where)
        try:
            number = there.get_study_id_from_name(name)
            running = there.get_all_trials(
                number, deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)
            )
            for trial in running:
                if trial.user_attrs.get("worker") in ours:
                    drop(there, trial._trial_id, "interrupted")
        finally:
            if there is not storage:
                close(there)


def check_new(storage: Any, name: str) -> None:
    """Make sure that a storage has no study of this name yet.

    Raises:
        ValueError: If it has one, or is no storage.
        SearchError: If the storage cannot be reached or used.
    """
    import_optuna()
    where = described(storage)
    with problems(where, is_file(storage)):
        there = opened(storage, 1, where)
        try:
            if any(each.study_name == name for each in there.get_all_studies()):
                raise places.Refused(_exists(name, where))
        finally:
            if there is not storage:
                close(there)


def _exists(name: str, where: str) -> str:
    return (
        f"The study {name!r} must not exist with resume=False; {where} has it. Choose another "
        "name, or let it go on."
    )


def _distributions(optuna: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    from keras_lr.rate_search.plan import POLICIES

    floats, whole = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    known = {
        "learning_rate": floats(1e-300, 1e300, log=True),
        "momentum": floats(0.0, 1.0),
        "batch_size": whole(1, 2**31 - 1),
        "warmup": floats(0.0, 1.0),
        "policy": optuna.distributions.CategoricalDistribution(POLICIES),
    }
    return {name: known[name] for name in params}


def _pruner(optuna: Any, name: str) -> Any:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=2)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()


def _plain(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value))


def _value(part: Any, key: str) -> Any:
    return part.get(key) if isinstance(part, dict) else part


def _cut(value: Any, most: int = 80) -> str:
    """What a record holds, as a message can have it: nobody knows how long a damaged one is."""
    return checks.shortened(str(value), most)
