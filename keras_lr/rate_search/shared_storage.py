"""Optuna's storages, extended for processes that share them: locks, retries and heartbeats."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_lr._util.interrupts import check_interrupt

if TYPE_CHECKING:
    import optuna

AGAIN = 0.3  # seconds between two attempts to reach a server


def locking_sqlite(rdb: Any) -> Any:
    """Optuna's storage with a lock on SQLite for the start and the end of a trial.

    Optuna reads the state and then changes it. Other databases lock the row in between, but
    SQLite has no row locks.
    """
    import sqlalchemy

    class Storage(rdb):
        def set_trial_state_values(self, *arguments: Any, **named: Any) -> bool:
            session = self.scoped_session()
            try:
                session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))
            except BaseException:
                session.close()
                raise
            return bool(super().set_trial_state_values(*arguments, **named))

    return Storage


def retrying(rdb: Any) -> Any:
    """Optuna's storage that retries while a database server does not answer.

    Each method is one transaction. If the connection is lost during the commit, the transaction
    may have been carried out, so a retry first checks whether the trial was made or ended.
    """

    class Storage(rdb):
        patience = 0.0  # seconds

    def again(name: str) -> None:
        method = getattr(rdb, name)

        @functools.wraps(method)
        def patiently(self: Any, *arguments: Any, **named: Any) -> Any:
            given_up = None
            while True:
                try:
                    if given_up is not None and name == "_create_new_trial":
                        made = _made_already(self, *arguments, **named)
                        if made is not None:
                            return made
                    return method(self, *arguments, **named)
                except Exception as error:
                    if given_up is not None and _ended_already(self, error, *arguments, **named):
                        return True
                    if not self.patience or not _is_away(error):
                        raise
                    if given_up is None:
                        given_up = time.monotonic() + self.patience
                        warnings.warn(
                            f"The record cannot be reached: {database_cause(error)}. The search "
                            f"retries for {self.patience:g} s.",
                            stacklevel=2,
                        )
                    elif time.monotonic() > given_up:
                        raise
                check_interrupt()
                time.sleep(AGAIN)
                check_interrupt()

        setattr(Storage, name, patiently)

    # The methods that Optuna's cache and a study call; none of them calls another.
    for name in (
        *("set_study_user_attr", "set_study_system_attr", "get_study_user_attrs"),
        *("get_study_system_attrs", "get_study_directions", "get_study_name_from_id"),
        *("set_trial_user_attr", "set_trial_system_attr", "set_trial_intermediate_value"),
        *("set_trial_state_values", "get_trial", "_get_trials", "_create_new_trial"),
        *("_get_stale_trial_ids", "record_heartbeat"),
    ):
        again(name)
    return Storage


@contextlib.contextmanager
def patience(storage: Any, seconds: float) -> Iterator[None]:
    """In the block, set for how long calls to a server are retried; a file is not retried."""
    before = getattr(storage, "patience", 0.0)
    if hasattr(storage, "patience"):
        storage.patience = seconds
    try:
        yield
    finally:
        if hasattr(storage, "patience"):
            storage.patience = before


def _made_already(storage: Any, study_id: int, template: Any = None) -> Any:
    from optuna.trial import TrialState

    job = template and template.user_attrs.get("job")
    waiting = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.WAITING,))
    return next((each for each in waiting if job and each.user_attrs.get("job") == job), None)


def _ended_already(
    storage: Any, error: Exception, trial_id: int = -1, state: Any = None, *_: Any, **__: Any
) -> bool:
    import optuna

    finished = isinstance(error, optuna.exceptions.UpdateFinishedTrialError)
    return finished and storage.get_trial(trial_id).state == state


def _is_away(error: BaseException | None) -> bool:
    """Whether a server did not answer but may answer later."""
    import sqlalchemy.exc

    while error is not None and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__cause__
    if error is None:
        return False
    lost = isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))
    message = str(error.orig)
    wrong = "does not exist" in message or "authentication failed" in message or "denied" in message
    return (lost or error.connection_invalidated) and not wrong


def requeue(study: optuna.Study, trial: Any) -> None:
    """Put the trial of a process that has died back into the queue."""
    from optuna.trial import TrialState, create_trial

    past = ("worker", "given_back")
    kept = {name: value for name, value in trial.user_attrs.items() if name not in past}
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**kept, "again": trial.number},
        )
    )


def with_heartbeats(journal: Any) -> Any:
    """Optuna's journal storage with heartbeats; the clocks of the machines must agree."""
    from optuna.storages._heartbeat import BaseHeartbeat
    from optuna.trial import TrialState

    class Journal(journal, BaseHeartbeat):
        def __init__(self, backend: Any, interval: int, grace: int) -> None:
            super().__init__(backend)
            self._interval, self._grace = interval, grace

        def record_heartbeat(self, trial_id: int) -> None:
            self.set_trial_system_attr(trial_id, "alive", time.time())

        def _get_stale_trial_ids(self, study_id: int) -> list[int]:
            limit = time.time() - self._grace
            running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            return [
                each._trial_id
                for each in running
                if each.system_attrs.get("alive", each.datetime_start.timestamp()) < limit
            ]

        def get_heartbeat_interval(self) -> int:
            return self._interval

        def get_heartbeat_stale_trial_callback(self) -> Any:
            return requeue

        get_failed_trial_callback = get_heartbeat_stale_trial_callback  # before Optuna 4.9

    return Journal


def whole_lines(backend: Any) -> Any:
    """Optuna's file of a journal, which drops half a line that a process could not finish.

    If a process is killed while it writes, or the disk is full, the file ends in half a line.
    Optuna skips it but appends the next one to it, and can read neither then.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    class File(backend):
        def __init__(self, path: str) -> None:
            self._place = path
            self._held = JournalFileSymlinkLock(path)
            super().__init__(path, self._held)

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in logs)
            self._held.acquire()
            try:
                with open(self._place, "r+b", buffering=0) as file:
                    _append(file, lines.encode())
            finally:
                self._held.release()

    return File


def _append(file: Any, lines: bytes) -> None:
    """Append lines after the last whole one: all of them, or none if there is an error."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.read().rfind(b"\n") + 1
    try:
        file.truncate(end)
        file.seek(end)
        left = memoryview(lines)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise


def database_cause(error: BaseException) -> str:
    """The first line of the error below an error of Optuna or SQLAlchemy."""
    return first_line(getattr(error, "orig", None) or error.__cause__ or error)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
