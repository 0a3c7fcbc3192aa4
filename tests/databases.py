"""Storages of a search: a real PostgreSQL on loopback, SQLite, and the journal of Optuna."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "s3cret@word/100%"  # which no message may show
KINDS = ("sqlite", "journal", "postgresql")
REQUIRED = "KERAS_LR_REQUIRE_POSTGRES"


class Server:
    """A PostgreSQL server for the tests; `database` creates a database in it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._count = 0

    def address(self, name: str, password: str = PASSWORD) -> str:
        return f"postgresql://keras:{quote(password, safe='')}@127.0.0.1:{self.port}/{name}"

    def database(self) -> str:
        """The address of an empty database."""
        self._count += 1
        name = f"search_{self._count}"
        with self.connection() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def connection(self, name: str = "postgres"):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="keras", password=PASSWORD, dbname=name,
            autocommit=True, connect_timeout=5,
        )  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """PostgreSQL, started for this test session and removed after it."""
    why = _missing()
    if why:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{why}, and {REQUIRED} is 1")
        pytest.skip(f"{why}: install Debian's postgresql")
    folder = Path(tempfile.mkdtemp(prefix="keras-lr-postgres-"))
    process = None
    try:
        process, port = _started(folder)
        yield Server(port)
    finally:
        if process is not None:
            _stopped(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=KINDS)
def storage(request, tmp_path) -> str:
    """The address of an empty storage of each kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").database()
    if request.param == "journal":
        return f"journal:{tmp_path / 'search.log'}"
    return str(tmp_path / "search.sqlite3")


def _missing() -> str:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    if _program("initdb") is None or _program("postgres") is None:
        return "PostgreSQL is not installed"
    return ""


def _program(name: str) -> str | None:
    """A program of PostgreSQL, which Debian does not put on PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", "")])
    return shutil.which(name, path=path)


def restarted(folder: Path, port: int) -> subprocess.Popen:
    """Start the server of this folder again after it was stopped."""
    process = _run(folder, port)
    if not _answers(process, port):
        raise RuntimeError(f"PostgreSQL did not come back:\n{(folder / 'log').read_text()[-2000:]}")
    return process


def _started(folder: Path) -> tuple[subprocess.Popen, int]:
    who = _somebody()
    secret, data, log = folder / "password", folder / "data", folder / "log"
    secret.write_text(PASSWORD)
    if who:
        for path in (folder, secret):
            os.chown(path, who["user"], who["group"])
    initdb = [_program("initdb"), "-D", data, "-U", "keras", "-A", "scram-sha-256"]
    initdb += ["--pwfile", secret, "-E", "UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(
        initdb, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        **who,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for _ in range(5):  # another process may take the port first
        port = free_port()
        process = _run(folder, port)
        if _answers(process, port):
            return process, port
        _stopped(process)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}")


def _run(folder: Path, port: int) -> subprocess.Popen:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "fsync": "off",
        "max_connections": 60,
        "shared_buffers": "16MB",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as file:
        return subprocess.Popen(
            [_program("postgres"), "-D", folder / "data", "-p", str(port), *options],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True, **_somebody(),
        )  # fmt: skip


def _somebody() -> dict[str, int | list[int]]:
    """The user that PostgreSQL runs as: never root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no other user here.")


def _answers(process: subprocess.Popen, port: int) -> bool:
    import psycopg

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            Server(port).connection().close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return process.poll() is None
    return False


def _stopped(process: subprocess.Popen) -> None:
    for sign in (signal.SIGQUIT, signal.SIGKILL):  # without a clean shutdown
        if process.poll() is None:
            process.send_signal(sign)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
