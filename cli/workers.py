"""The processes of one `keras-lr search`: how they are started, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import click

from .errors import BadInput, RunFailed, one_line

__all__ = ["arguments", "company"]

LAST_WORDS = 30.0  # seconds that a worker has to end once there is nothing left to do
HINT = 5.0  # seconds that it has to end after Ctrl-C, before it is told once more


@contextlib.contextmanager
def company(count: int, sweep: dict[str, Any]) -> Iterator[None]:
    """Further processes that do the same command beside this one.

    They take part in one study, so that whoever comes second goes on with what the first began.
    """
    if count and not sweep["resume"]:
        _check_new(sweep["storage"], sweep["study"])
        sweep["resume"] = True
    command = [sys.executable, "-m", "keras_lr_cli"]
    own = ("workers", "resume", "plot", "report", "save", "as_json", "quiet")
    command += [*arguments(without=own), "--quiet"]
    with _ended_politely(), contextlib.ExitStack() as stack:
        workers = [_Worker(command, stack) for _ in range(count)]
        patience = LAST_WORDS
        try:
            yield
        except BaseException as error:
            # Ctrl-C in a terminal has reached them too, and one is enough.
            patience = HINT if isinstance(error, KeyboardInterrupt) else 0.0
            raise
        finally:
            deadline = time.monotonic() + patience
            for worker in workers:
                worker.await_end(deadline)
            for worker in workers:
                worker.interrupt()
            deadline = time.monotonic() + LAST_WORDS
            for worker in workers:
                worker.await_end(deadline)
        for worker in workers:
            worker.report()


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """In the block SIGTERM, which schedulers send before they kill, does what Ctrl-C does.

    It goes through the handler of Ctrl-C, which is held back where something would be left half
    done.
    """

    def interrupt(_: int, frame: Any) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


class _Worker:
    """Another process; it is ended with the block of `stack`, whatever happens."""

    def __init__(self, command: list[str], stack: contextlib.ExitStack) -> None:
        self._errors = stack.enter_context(tempfile.TemporaryFile())
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.kill)
        self._stopped = False

    def await_end(self, deadline: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))

    def interrupt(self) -> None:
        """Let it give back what it is at work on."""
        if self._process.poll() is None:
            self._stopped = True
            if os.name == "nt":  # which has no such signal
                self._process.terminate()
            else:
                self._process.send_signal(signal.SIGINT)

    def report(self) -> None:
        """Say so if it ended early, and its last words."""
        code = self._process.returncode
        if not code or self._stopped:
            return
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {one_line(words[-1])}" if words and code > 0 else "."
        click.echo(f"Warning: A worker ended early, with code {code}{last}", err=True)


def _check_new(storage: str, name: str) -> None:
    """Refuse a study that exists, before workers make it."""
    import keras_lr
    from keras_lr.search.study import check_new

    try:
        check_new(storage, name)
    except keras_lr.SearchError as error:
        raise RunFailed(one_line(error)) from error
    except ValueError as error:
        raise BadInput(one_line(error)) from error


def arguments(without: tuple[str, ...]) -> list[str]:
    """What was typed, as arguments for another process; defaults are left out."""
    context = click.get_current_context()
    typed: list[str] = [str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        if name in without or value == parameter.get_default(context) or value is None:
            continue
        if isinstance(parameter, click.Argument):
            typed.append(str(value))
        elif getattr(parameter, "is_flag", False):
            typed.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            for each in value if parameter.multiple else [value]:
                typed += [parameter.opts[0], str(each)]
    return typed
