"""The worker processes of one `keras-lr search`: how they start and how they end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from .errors import BadInput, RunFailed, one_line
from .signals import StopRequest, leave, watch_parent

__all__ = ["arguments", "end_with_parent", "work", "worker_processes"]

AT_THE_END = 30.0  # seconds for a worker to end when there is nothing left to do
AFTER_STOP = 1.0  # seconds after Ctrl-C; then the worker is killed and its run released
ORPHANED = 10.0  # seconds for a worker to end when its parent is gone
# `-c` puts the current folder first on the path, where a file could shadow a module.
BOOT = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
sys.path.append(sys.argv.pop(1))
from keras_lr_cli.commands import main
from keras_lr_cli.workers import work
work(main)
"""
_is_worker = False


def work(main: Callable[..., Any]) -> None:
    """Run the command `main` in a worker process."""
    global _is_worker
    _is_worker = True
    try:
        main(prog_name="keras-lr")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)


def end_with_parent(stop: StopRequest) -> None:
    """If this process is a worker, end it when its parent ends."""
    if _is_worker:
        watch_parent(stop, ORPHANED)


def command() -> list[str]:
    """The command that starts a worker, without its arguments."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-c", BOOT, place]


@contextlib.contextmanager
def worker_processes(count: int, sweep: dict[str, Any], stop: StopRequest) -> Iterator[None]:
    """In the block, further processes run the same command and share its study."""
    if count and not sweep["resume"]:
        _check_new(sweep["storage"], sweep["study"])
        sweep["resume"] = True
    own = ("workers", "resume", "plot", "report", "save", "as_json", "quiet")
    words = [*command(), *arguments(without=own), "--quiet"]
    with contextlib.ExitStack() as stack:
        workers = [_Worker(words, stack) for _ in range(count)]
        patience = AT_THE_END
        try:
            yield
        except BaseException:
            stop.heard()
            patience = 0.0
            raise
        finally:
            _await_end(workers, patience)
            for worker in workers:
                worker.interrupt()
            _await_end(workers, AFTER_STOP if patience == 0.0 else AT_THE_END)
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
    """A worker process, which ends with the block of `stack` at the latest."""

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
        """Close its stdin, which it watches, so that it releases its run and ends."""
        if self.runs:
            self._stopped = True
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()

    def kill(self) -> int:
        """Kill it and return its process id."""
        self._process.kill()
        self._process.wait()
        return self._process.pid

    def report(self) -> None:
        """Print a warning with the last line of its stderr if it ended early."""
        code = self._process.returncode
        if not code or self._stopped:
            return
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {one_line(lines[-1])}" if lines and code > 0 else "."
        click.echo(f"Warning: A worker ended early, with exit code {code}{last}", err=True)


def _check_new(storage: str, name: str) -> None:
    """Refuse a study that exists, before workers create it."""
    from keras_lr.rate_search import SearchError
    from keras_lr.rate_search.study import check_new

    try:
        check_new(storage, name)
    except SearchError as error:
        raise RunFailed(one_line(error)) from error
    except ValueError as error:
        raise BadInput(one_line(error)) from error


def arguments(without: tuple[str, ...]) -> list[str]:
    """The arguments of this command, without defaults, for another process."""
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
