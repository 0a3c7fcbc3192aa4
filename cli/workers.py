"""The processes of one `keras-lr search`: how they are started, and how they end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import click

from .errors import BadInput, RunFailed, one_line
from .signals import Asked, leave, watch_parent

__all__ = ["arguments", "company", "watch", "work"]

LAST_WORDS = 30.0  # seconds that a worker has to end once there is nothing left to do
HASTE = 1.0  # seconds that it has after Ctrl-C; then it is killed, and its run given back for it
ORPHANED = 10.0  # seconds that it has when its parent is gone
# A file of the current folder must not take the place of a module: `-m` would look there first.
BOOT = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
sys.path.append(sys.argv.pop(1))
from keras_lr_cli.workers import work
work()
"""
_working = False


def work() -> None:
    """The command of a worker, which ends when its parent does."""
    global _working
    _working = True
    from .commands import main

    try:
        main(prog_name="keras-lr")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)


def watch(asked: Asked) -> None:
    """Let this process end with the one that started it, if it is a worker."""
    if _working:
        watch_parent(asked, ORPHANED)


def command() -> list[str]:
    """How a worker is started, without its arguments."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-c", BOOT, place]


@contextlib.contextmanager
def company(count: int, sweep: dict[str, Any], asked: Asked) -> Iterator[None]:
    """Further processes that do the same command beside this one.

    They take part in one study, so that whoever comes second goes on with what the first began.
    """
    if count and not sweep["resume"]:
        _check_new(sweep["storage"], sweep["study"])
        sweep["resume"] = True
    own = ("workers", "resume", "plot", "report", "save", "as_json", "quiet")
    words = [*command(), *arguments(without=own), "--quiet"]
    with contextlib.ExitStack() as stack:
        workers = [_Worker(words, stack) for _ in range(count)]
        patience = LAST_WORDS
        try:
            yield
        except BaseException:
            asked.heard()
            patience = 0.0
            raise
        finally:
            _await_end(workers, patience)
            for worker in workers:
                worker.interrupt()
            _await_end(workers, HASTE if patience == 0.0 else LAST_WORDS)
            killed = [worker.kill() for worker in workers if worker.runs]
            if killed:
                from keras_lr.rate_search.study import give_back

                give_back(sweep["storage"], sweep["study"], killed)
        for worker in workers:
            worker.report()


def _await_end(workers: list[_Worker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.await_end(deadline)


class _Worker:
    """Another process; it is ended with the block of `stack`, whatever happens."""

    def __init__(self, words: list[str], stack: contextlib.ExitStack) -> None:
        self._errors = stack.enter_context(tempfile.TemporaryFile())
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.kill)
        self._stopped = False

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def await_end(self, deadline: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))

    def interrupt(self) -> None:
        """Let it give back what it is at work on: it watches its stdin."""
        if self.runs:
            self._stopped = True
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()

    def kill(self) -> int:
        """End it, and say which process it was."""
        self._process.kill()
        self._process.wait()
        return self._process.pid

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
    from keras_lr.rate_search.study import check_new

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
