"""Where the record of a search is kept: databases, files, and what can go wrong with them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import random
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_lr._util.interrupts import check_interrupt

if TYPE_CHECKING:
    import optuna

GRACE = 6  # heartbeats that may be missed
LOCKED = 20.0  # seconds to wait for a SQLite file that others are writing to
AGAIN = 0.3  # seconds between two tries to reach a server that has gone
REACHED = 10  # seconds within which a database server has to answer
_DRIVERS = {
    "postgresql": (("psycopg", "psycopg2"), "pip install 'psycopg[binary]'"),
    "mysql": (("pymysql", "MySQLdb"), "pip install pymysql"),
}
_SECRETS = ("password", "passwd", "sslpassword")  # in the part of an address after "?"


# What Optuna, and reading what it gives, throw where a record holds what nobody wrote there.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    StopIteration,
    TypeError,
    ValueError,
)


class SearchError(RuntimeError):
    """A search cannot begin or go on, through no fault of its arguments: the storage, mostly."""


class Refused(ValueError):
    """An argument is wrong: what `problems` must not take for a damaged storage."""


def import_optuna() -> Any:
    """Optuna, saying errors only.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "A search needs Optuna, which is not installed. pip install 'keras-lr[search]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def problems(where: str, local: bool) -> Iterator[None]:
    """In the block, what a storage throws is told in a sentence.

    Args:
        where: What people call the storage.
        local: Whether it is a file, and no server can be down.

    Raises:
        SearchError: If the storage cannot be reached or used, or is damaged.
    """
    import optuna
    import sqlalchemy.exc

    errors = (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
        OSError,
    )
    try:
        with silently():
            yield
    except errors as error:
        raise SearchError(_explained(error, where, local)) from error
    except RuntimeError as error:  # a schema of another version of Optuna, several objectives
        if isinstance(error, (SearchError, optuna.exceptions.OptunaError)):
            raise
        raise SearchError(f"{where} cannot be used: {_first_line(error)}") from error
    except Refused:
        raise
    except _DAMAGED as error:
        raise SearchError(_damaged(error, where)) from error


def _damaged(error: BaseException, where: str) -> str:
    told = _first_line(error)[:200]
    return f"{where} is damaged: {told} ({type(error).__name__}). Name another one."


def _explained(error: BaseException, where: str, local: bool) -> str:
    told = _told(error)
    if "locked" in told:
        return (
            f"{where} is locked by another process: {told}. Let that one end, or keep the search "
            "on a database server."
        )
    if "not a database" in told or "malformed" in told:
        return f"{where} is no SQLite database or damaged: {told}. Name another file."
    hint = "" if local else " Is the server up and the address right?"
    return f"{where} cannot be used: {told}.{hint}"


def described(storage: Any) -> str:
    """What people call a storage; passwords are not shown."""
    if storage is None:
        return "this process's memory"
    if not isinstance(storage, (str, os.PathLike)):
        return type(storage).__name__
    text = os.fspath(storage)
    if "://" not in text:
        return text
    if text.startswith("sqlite:///"):
        return text.removeprefix("sqlite:///")
    url = _url(text)
    if url is None:
        return "the storage"
    shown = {name: "***" for name in url.query if name in _SECRETS}
    return url.update_query_dict(shown).render_as_string(hide_password=True).replace("%2A", "*")


def _url(text: str) -> Any:
    """A storage's address, taken apart; None if that cannot be done."""
    import sqlalchemy

    try:
        url = sqlalchemy.engine.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter for a port that is no number
        return None
    # A password with an @ that is not written %40 goes on in what is taken for the host.
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        return None
    return url


def is_file(storage: Any) -> bool:
    """Whether a storage is a file, and no server."""
    if not isinstance(storage, (str, os.PathLike)):
        return False
    text = os.fspath(storage)
    return "://" not in text or text.startswith("sqlite:")


def opened(storage: Any, heartbeat: int, where: str) -> Any:
    """The storage of Optuna that a user means; `search` says what may be given.

    Args:
        heartbeat: Seconds between two signs of life.
        where: What people call it.

    Raises:
        ValueError: If it is nothing that can be opened, or its driver is not installed.
    """
    import optuna
    import sqlalchemy
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not isinstance(storage, (str, os.PathLike)):
        return storage
    text = os.fspath(storage)
    if text.startswith("journal:"):
        path = text.removeprefix("journal:")
        _check_folder(path, where)
        _check_journal(path, where)
        return _beating(JournalStorage)(JournalFileBackend(path), heartbeat)
    url = (
        _url(text)
        if "://" in text
        else sqlalchemy.engine.URL.create("sqlite", database=os.path.abspath(text))
    )
    if url is None:
        raise Refused(
            "storage must be a file, journal:FILE or a URL like postgresql://user@host/name; got "
            "one that cannot be read. In a password write @ as %40 and / as %2F."
        )
    options: dict[str, Any] = {}
    kind = url.get_backend_name()
    if kind == "sqlite":
        if url.database not in (None, "", ":memory:"):
            _check_folder(str(url.database), where)
        options = {"connect_args": {"timeout": LOCKED}}
    elif kind in _DRIVERS:
        names, install = _DRIVERS[kind]
        installed = [name for name in names if importlib.util.find_spec(name)]
        if url.drivername == kind:
            if not installed:
                raise Refused(f"{where} needs a driver that is not installed. {install}.")
            driver = {"MySQLdb": "mysqldb"}.get(installed[0], installed[0])
            url = url.set(drivername=f"{kind}+{driver}")
        options = {"pool_pre_ping": True}
        if url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb"):
            options["connect_args"] = {"connect_timeout": REACHED}
    import alembic.util  # Optuna needs it for databases alone

    address = url.render_as_string(hide_password=False)
    try:
        return _created(
            lambda: (_alone_on_sqlite if kind == "sqlite" else _patient)(RDBStorage)(
                address.replace("{", "{{").replace("}", "}}"),  # which Optuna fills in
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                grace_period=GRACE * heartbeat,
                **{_when_stale(): _requeue},
            )
        )
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise Refused(
            f"{where} needs a driver that is not installed, or is of an unknown kind: "
            f"{_first_line(error)}."
        ) from error
    except alembic.util.CommandError as error:  # more than one version of the tables
        raise SearchError(_damaged(error, where)) from error


def _created(make: Any, tries: int = 10) -> Any:
    """Open a database, which others may be filling with tables at this moment."""
    import sqlalchemy.exc

    for left in reversed(range(tries)):
        try:
            return make()
        except sqlalchemy.exc.DBAPIError as error:
            twice = isinstance(error, sqlalchemy.exc.IntegrityError)
            if not left or not (twice or "already exists" in str(error.orig)):
                raise
        time.sleep(random.uniform(0.05, 0.3))


def _alone_on_sqlite(rdb: Any) -> Any:
    """Optuna's storage, where of two processes that begin or end a trial one waits on SQLite too.

    It looks at the state and then changes it. Other databases lock the row between the two, as
    Optuna asks them to, and SQLite has no locks of rows.
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


def _patient(rdb: Any) -> Any:
    """Optuna's storage on a server that may be away for a while: it tries again until then.

    Each of its methods is one transaction. One that broke off at its end may have been carried out
    all the same, so before a trial is made or ended once more it looks.
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
                            f"The record cannot be reached: {_told(error)}. The search tries for "
                            f"{self.patience:g} s.",
                            stacklevel=2,
                        )
                    elif time.monotonic() > given_up:
                        raise
                check_interrupt()
                time.sleep(AGAIN)
                check_interrupt()

        setattr(Storage, name, patiently)

    # All that Optuna's cache and a study call, each once: none of them calls another.
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
    """In the block, for how long a server may be away; a file never is."""
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
    """Whether a server did not answer, and may do so later."""
    import sqlalchemy.exc

    while error is not None and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__cause__
    if error is None:
        return False
    lost = isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))
    told = str(error.orig)
    wrong = "does not exist" in told or "authentication failed" in told or "denied" in told
    return (lost or error.connection_invalidated) and not wrong


def _told(error: BaseException) -> str:
    return _first_line(getattr(error, "orig", None) or error.__cause__ or error)


def _check_folder(path: str, where: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise Refused(f"The folder of {where} must exist; {folder} does not.")
    there = path if os.path.exists(path) else folder
    if os.path.isdir(path) or not os.access(there, os.W_OK):
        raise Refused(f"{where} must be a file that can be written. Name another one.")


def _check_journal(path: str, where: str) -> None:
    """Optuna would write at the end of whatever the file is."""
    if os.path.exists(path):
        with open(path, "rb") as file:
            start = file.read(80)
        if start and b"op_code" not in start:
            raise Refused(f"{where} is no journal of Optuna. Name another file.")


def _requeue(study: optuna.Study, trial: Any) -> None:
    """The trial of a process that has died waits for another one."""
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


def _beating(journal: Any) -> Any:
    """Optuna's journal with heartbeats, which it lacks; the clocks of the machines count."""
    from optuna.storages._heartbeat import BaseHeartbeat
    from optuna.trial import TrialState

    class Journal(journal, BaseHeartbeat):
        def __init__(self, backend: Any, interval: int) -> None:
            super().__init__(backend)
            self._interval = interval

        def record_heartbeat(self, trial_id: int) -> None:
            self.set_trial_system_attr(trial_id, "alive", time.time())

        def _get_stale_trial_ids(self, study_id: int) -> list[int]:
            limit = time.time() - GRACE * self._interval
            running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            return [
                each._trial_id
                for each in running
                if each.system_attrs.get("alive", each.datetime_start.timestamp()) < limit
            ]

        def get_heartbeat_interval(self) -> int:
            return self._interval

        def get_heartbeat_stale_trial_callback(self) -> Any:
            return _requeue

        get_failed_trial_callback = get_heartbeat_stale_trial_callback  # before Optuna 4.9

    return Journal


def _when_stale() -> str:
    """What Optuna calls the function that it hands a trial whose process has died."""
    from inspect import signature

    from optuna.storages import RDBStorage

    name = "heartbeat_stale_trial_callback"  # since 4.9
    return name if name in signature(RDBStorage).parameters else "failed_trial_callback"


def close(storage: Any) -> None:
    """Let go of the connections to a database."""
    if hasattr(storage, "engine"):
        storage.engine.dispose()


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Without Optuna's notes that heartbeats and metric names may change."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
