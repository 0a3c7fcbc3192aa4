"""Where the record of a search is kept: how to open a storage, and the errors of opening one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import time
import warnings
from collections.abc import Iterator
from typing import Any

from keras_lr.rate_search.shared_storage import (
    database_cause,
    first_line,
    locking_sqlite,
    requeue,
    retrying,
    whole_lines,
    with_heartbeats,
)

GRACE = 6  # heartbeats that a process may miss
LOCKED = 20.0  # seconds to wait for a locked SQLite file
REACHED = 10  # seconds to wait for a database server
_DRIVERS = {
    "postgresql": (("psycopg", "psycopg2"), "pip install 'psycopg[binary]'"),
    "mysql": (("pymysql", "MySQLdb"), "pip install pymysql"),
}
_SECRETS = ("password", "passwd", "sslpassword")  # query parameters of a URL


# The errors of Optuna, and of reading its values, if a record is damaged.
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
    """A search cannot begin or continue, mostly because of its storage."""


class Refused(ValueError):
    """An argument is wrong; `problems` does not treat it as a damaged storage."""


def import_optuna() -> Any:
    """Import Optuna, with its log at the level of errors.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "A search needs Optuna, which is not installed. pip install optuna."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def problems(where: str, local: bool) -> Iterator[None]:
    """In the block, errors of a storage become a `SearchError` with one sentence.

    Args:
        where: The name of the storage in messages.
        local: Whether it is a file and not a server.

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
        raise SearchError(f"{where} cannot be used: {first_line(error)}") from error
    except Refused:
        raise
    except _DAMAGED as error:
        raise SearchError(_damaged(error, where)) from error


def _damaged(error: BaseException, where: str) -> str:
    cause = first_line(error)[:200]
    return f"{where} is damaged: {cause} ({type(error).__name__}). Use another one."


def _explained(error: BaseException, where: str, local: bool) -> str:
    cause = database_cause(error)
    if "locked" in cause:
        return (
            f"{where} is locked by another process: {cause}. Wait for that process, or keep the "
            "record on a database server."
        )
    if "not a database" in cause or "malformed" in cause:
        return f"{where} is not a SQLite database, or it is damaged: {cause}. Use another file."
    hint = "" if local else " Is the server running and the address right?"
    return f"{where} cannot be used: {cause}.{hint}"


def display_name(storage: Any) -> str:
    """The name of a storage in messages, without passwords."""
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
    """A URL, parsed; None if that fails."""
    import sqlalchemy

    try:
        url = sqlalchemy.engine.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter for a port that is not a number
        return None
    # If a password has an @ that is not written %40, its rest is parsed as part of the host.
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        return None
    return url


def check_place(storage: Any, study: Any) -> None:
    """Check the kinds of a storage and of the name of a study.

    Raises:
        ValueError: If one is empty.
        TypeError: If one is of the wrong kind.
    """
    import optuna

    if not isinstance(study, str):
        raise TypeError(f"study must be a name; got {study!r}.")
    if not study.strip():
        raise Refused(f"study must be a name; got {study!r}.")
    if storage is None or isinstance(storage, optuna.storages.BaseStorage):
        return
    if not isinstance(storage, (str, os.PathLike)):
        raise TypeError(
            "storage must be a path, a URL, journal:PATH or an Optuna storage; got "
            f"{type(storage).__name__}."
        )
    if not os.fspath(storage).removeprefix("journal:").strip():
        raise Refused(f"storage must name a file or a database; got {os.fspath(storage)!r}.")


def is_file(storage: Any) -> bool:
    """Whether a storage is a file and not a server."""
    if not isinstance(storage, (str, os.PathLike)):
        return False
    text = os.fspath(storage)
    return "://" not in text or text.startswith("sqlite:")


def opened(storage: Any, heartbeat: int, where: str) -> Any:
    """Open a storage as `search` takes it.

    Args:
        storage: A path, a URL, `journal:PATH`, an Optuna storage, or None for one in memory.
        heartbeat: Seconds between two signs of life.
        where: The name of the storage in messages.

    Raises:
        ValueError: If the storage cannot be opened or its driver is not installed.
    """
    import optuna

    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not isinstance(storage, (str, os.PathLike)):
        return storage
    text = os.fspath(storage)
    if text.startswith("journal:"):
        return _journal(text.removeprefix("journal:"), heartbeat, where)
    return _database(text, heartbeat, where)


def _journal(path: str, heartbeat: int, where: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _check_folder(path, where)
    _check_journal(path, where)
    file = whole_lines(JournalFileBackend)(path)
    return with_heartbeats(JournalStorage)(file, heartbeat, GRACE * heartbeat)


def _database(text: str, heartbeat: int, where: str) -> Any:
    import alembic.util
    import sqlalchemy
    from optuna.storages import RDBStorage

    url = (
        _url(text)
        if "://" in text
        else sqlalchemy.engine.URL.create("sqlite", database=os.path.abspath(text))
    )
    if url is None:
        raise Refused(
            "storage must be a file, journal:FILE or a URL like postgresql://user@host/name; got "
            "a URL that cannot be parsed. In a password write @ as %40 and / as %2F."
        )
    url, options = _with_driver(url, where)
    kind = locking_sqlite if url.get_backend_name() == "sqlite" else retrying
    address = url.render_as_string(hide_password=False)
    try:
        return _created(
            lambda: kind(RDBStorage)(
                address.replace("{", "{{").replace("}", "}}"),  # Optuna formats the URL
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                grace_period=GRACE * heartbeat,
                **{_when_stale(): requeue},
            )
        )
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise Refused(
            f"{where} needs a driver that is not installed, or its kind is unknown: "
            f"{first_line(error)}."
        ) from error
    except alembic.util.CommandError as error:  # more than one version of the tables
        raise SearchError(_damaged(error, where)) from error


def _with_driver(url: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """The URL with a driver that is installed, and the arguments of SQLAlchemy's engine."""
    kind = url.get_backend_name()
    if kind == "sqlite":
        if url.database not in (None, "", ":memory:"):
            _check_folder(str(url.database), where)
        return url, {"connect_args": {"timeout": LOCKED}}
    if kind not in _DRIVERS:
        return url, {}
    names, install = _DRIVERS[kind]
    installed = [name for name in names if importlib.util.find_spec(name)]
    if url.drivername == kind:
        if not installed:
            raise Refused(f"{where} needs a driver that is not installed. {install}.")
        driver = {"MySQLdb": "mysqldb"}.get(installed[0], installed[0])
        url = url.set(drivername=f"{kind}+{driver}")
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb"):
        options["connect_args"] = {"connect_timeout": REACHED}
    return url, options


def _created(make: Any, tries: int = 10) -> Any:
    """Open a database while other processes may be creating its tables."""
    import sqlalchemy.exc

    for left in reversed(range(tries)):
        try:
            return make()
        except sqlalchemy.exc.DBAPIError as error:
            twice = isinstance(error, sqlalchemy.exc.IntegrityError)
            if not left or not (twice or "already exists" in str(error.orig)):
                raise
        time.sleep(random.uniform(0.05, 0.3))


def _check_folder(path: str, where: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise Refused(f"The folder of {where} must exist; {folder} does not exist.")
    there = path if os.path.exists(path) else folder
    if os.path.isdir(path) or not os.access(there, os.W_OK):
        raise Refused(f"{where} must be a writable file; name another one.")


def _check_journal(path: str, where: str) -> None:
    """Refuse another kind of file, because Optuna would append to it."""
    if os.path.exists(path):
        with open(path, "rb") as file:
            start = file.read(80)
        if start and b"op_code" not in start:
            raise Refused(f"{where} is not a journal of Optuna. Name another file.")


def _when_stale() -> str:
    """The name of the argument for the callback of a stale trial."""
    from inspect import signature

    from optuna.storages import RDBStorage

    name = "heartbeat_stale_trial_callback"  # since 4.9
    return name if name in signature(RDBStorage).parameters else "failed_trial_callback"


def close(storage: Any) -> None:
    """Close the connections to a database."""
    if hasattr(storage, "engine"):
        storage.engine.dispose()


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats and metric names are experimental."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
