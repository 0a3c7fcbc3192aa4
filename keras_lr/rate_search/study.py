"""The record of a search, which any number of processes share: an Optuna study.

A job is a trial. Optuna numbers the trials of a study one after the other. If two processes begin
the same job, the trial with the lower number continues and the other process drops its trial, so
each job is done once. If a process dies, its heartbeat stops and another one takes its trial over.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from keras_lr._util import checks
from keras_lr._util.interrupts import uninterrupted
from keras_lr.rate_search import storage as places
from keras_lr.rate_search.jobs import Job, Outcome
from keras_lr.rate_search.record_format import (
    FORMAT,
    attributes_of,
    distributions_of,
    key_of,
    outcome_of,
    parameters_of,
    upgraded,
)
from keras_lr.rate_search.shared_storage import patience
from keras_lr.rate_search.storage import (
    SearchError,
    close,
    display_name,
    import_optuna,
    is_file,
    opened,
    problems,
)
from keras_lr.rate_search.trial import Trial, drop

if TYPE_CHECKING:
    import optuna

MOST_DEATHS = 3  # processes that may die in one job
RANGE_TEST = "range test"
_MARK = "keras_lr"


class Study:
    """The jobs of a search, shared by any number of processes.

    Args:
        storage: None for this process alone; a URL of SQLAlchemy; `journal:PATH` for Optuna's
            journal file; the path of a SQLite file; or an Optuna storage.
        name: The name of the study in the storage.
        identity: What must be equal in all processes of the search.
        pruner: "median", "halving" or "none".
        maximize: Whether a higher objective is better.
        objective: The name of the objective.
        resume: Whether to continue an existing study; if False, it is an error.
        heartbeat: Seconds between two signs of life.

    Raises:
        ValueError: If the study belongs to another search, or exists although `resume` is False.
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
        self.where = display_name(storage)
        self._states = optuna.trial.TrialState
        self._finished = optuna.exceptions.UpdateFinishedTrialError
        self._heartbeat = heartbeat
        self.worker = f"{platform.node()}:{os.getpid()}"
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
                # After this time other processes consider the runs of this one dead.
                grace = places.GRACE * heartbeat
                self._closing.enter_context(patience(self._storage, grace))
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._closing.close()

    def problems(self) -> contextlib.AbstractContextManager[None]:
        """In the block, errors of the storage become a `SearchError`."""
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
        """Record the identity of a new study, or compare that of an existing one."""
        identity = {"format": FORMAT, **identity}
        foreign = self.resumed and (
            self.study.get_trials(deepcopy=False)
            or (self.study.direction.name == "MAXIMIZE") != self.maximize
        )
        # Read after the trials: a process that creates the study writes its identity before them.
        known = self.study.user_attrs.get(_MARK)
        if known is None and foreign:
            raise places.Refused(
                f"The study {self.name!r} in {self.where} was not made by keras-lr. Choose "
                "another name for this search."
            )
        if known is None:
            self.study.set_user_attr(_MARK, identity)
            self.study.set_metric_names([objective])
            known = self.study.user_attrs[_MARK]  # perhaps that of another process
        known = upgraded(known)
        if known.get("format") != FORMAT:
            raise places.Refused(
                f"The study {self.name!r} in {self.where} has format {_cut(known.get('format'))}, "
                f"of another version of keras-lr; this version reads formats 2 to {FORMAT}. "
                "Choose another name for this search."
            )
        # The record has been through JSON, where a tuple becomes a list.
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
                "model": "belongs to another model",
                "data": "belongs to other data",
                "fit": "was begun with other arguments of fit",
            }.get(part, "was begun with other settings")
            way_out = "Choose" if part in ("model", "data") else "Use those, or choose"
            raise places.Refused(
                f"The study {self.name!r} in {self.where} {what}: {_cut(names, 500)}. {way_out} "
                "another name for this search."
            )

    # Jobs

    def found(self) -> dict[str, Outcome]:
        """The outcomes of the jobs that have ended, by key."""
        outcomes: dict[str, Outcome] = {}
        with self.problems():
            for trial in self._trials():
                key = key_of(trial)
                if key is None or key in outcomes or not self._done(trial) or key == RANGE_TEST:
                    continue
                outcomes[key] = outcome_of(trial)
                if outcomes[key].job.key != key:
                    raise LookupError(f"trial {trial.number} does not belong to the job {key}")
        return outcomes

    def running(self) -> int:
        """The number of trials that processes are working on."""
        return sum(trial.state == self._states.RUNNING for trial in self._trials())

    def range_test(self) -> dict[str, Any] | None:
        """The result of the range test; None if it has not been run."""
        for trial in self._trials():
            if trial.user_attrs.get("job") == RANGE_TEST and self._done(trial):
                with self.problems():
                    return dict(trial.user_attrs["range_test"])
        return None

    def free(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that no live process is working on."""
        with self.problems():
            self._optuna.storages.fail_stale_trials(self.study)
        running = [each for each in self._trials() if each.state == self._states.RUNNING]
        taken = {key_of(each) for each in running}
        return [job for job in jobs if job.key not in taken]

    def begin(self, job: Job | str) -> Trial | None:
        """Begin a job in this process; None if another process has begun or done it.

        Args:
            job: A job, or `RANGE_TEST`.

        Raises:
            SearchError: If several processes died in this job.
        """
        key = job if isinstance(job, str) else job.key
        with self.problems():
            self._optuna.storages.fail_stale_trials(self.study)
        live, deaths = self._of(key)
        idle = live is None or live.state == self._states.WAITING
        if idle and deaths >= MOST_DEATHS:
            raise SearchError(
                f"The run {key} was begun {deaths} times, and each time its process died, perhaps "
                "because memory ran out. The same command tries it again."
            )
        if live is None:
            self._add(job, key)
            live, _ = self._of(key)
        if live is None or live.state != self._states.WAITING:
            return None
        # The heartbeat comes first: a running trial without one never becomes stale.
        with self.problems():
            self._beat(live._trial_id)
        begun = None
        try:
            with uninterrupted(1):
                begun = self._begun(live._trial_id) if self._take(live) else None
        except BaseException:
            if begun is not None:
                drop(self._storage, live._trial_id, "interrupted")
            raise
        return begun

    def _begun(self, trial_id: int) -> Trial | None:
        """The trial that this process has begun; None if another one has taken it over."""
        try:
            with self.problems():
                trial = self._optuna.trial.Trial(self.study, trial_id)
                trial.set_user_attr("worker", self.worker)
        except self._finished:
            return None
        except BaseException:
            drop(self._storage, trial_id, "interrupted")
            raise
        return Trial(self, trial)

    def tidy(self) -> None:
        """Drop waiting duplicates of jobs, which two processes added at the same time."""
        for trial in self._trials():
            if trial.state == self._states.WAITING:
                first, _ = self._of(key_of(trial))
                if first is not None and first.number != trial.number:
                    drop(self._storage, trial._trial_id, "duplicate")

    def _of(self, key: str | None) -> tuple[Any, int]:
        """The first trial of a job that has not failed, and the number of deaths in the job.

        Only deaths since this process joined count, so that a new command tries again.
        """
        trials = [each for each in self._trials() if key_of(each) == key]
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
        """Add a job as a waiting trial."""
        attributes: dict[str, Any] = {"job": key}
        params: dict[str, Any] = {}
        if isinstance(job, Job):
            attributes.update(attributes_of(job))
            params = parameters_of(job)
        with self.problems():
            self.study.add_trial(
                self._optuna.trial.create_trial(
                    state=self._states.WAITING,
                    params=params,
                    distributions=distributions_of(self._optuna, params),
                    user_attrs=attributes,
                )
            )

    def _take(self, waiting: Any) -> bool:
        """Set a waiting trial to running; False if another process was faster."""
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


def give_back(storage: Any, name: str, pids: Collection[int]) -> None:
    """Release the trials of processes of this machine that were killed."""
    ours = {f"{platform.node()}:{pid}" for pid in pids}
    where = display_name(storage)
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
    """Check that a storage has no study of this name.

    Raises:
        ValueError: If it has one, or is not a storage.
        SearchError: If the storage cannot be reached or used.
    """
    import_optuna()
    where = display_name(storage)
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
        f"With resume=False the study {name!r} must not exist; it does in {where}. Choose another "
        "name, or resume it."
    )


def _pruner(optuna: Any, name: str) -> Any:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=2)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _value(part: Any, key: str) -> Any:
    return part.get(key) if isinstance(part, dict) else part


def _cut(value: Any, most: int = 80) -> str:
    """A value of a record, shortened for a message: a damaged one may have any length."""
    return checks.shortened(str(value), most)
