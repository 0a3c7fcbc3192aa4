"""The progress bar of a range test, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keras_lr._util.terminal import is_notebook, shows_progress

# Called with the steps trained so far, the rate and the loss.
Report = Callable[[int, float, float], None]


@contextmanager
def progress(verbose: str | int, total: int, title: str = "Range test") -> Iterator[Report | None]:
    """A progress bar on stderr with step, rate and loss, unless nobody would see it."""
    if not shows_progress(verbose):
        yield None
        return
    if is_notebook():  # rich needs another package there
        with _notebook_progress(total, title) as report:
            yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn(title),
        BarColumn(max(4, min(40, console.width - 50))),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total, now="")
        yield lambda step, rate, loss: progress.update(task, completed=step, now=_now(rate, loss))


def _now(rate: float, loss: float) -> str:
    return f"lr {rate:.2e}  loss {loss:.4g}"


@contextmanager
def _notebook_progress(total: int, title: str) -> Iterator[Report]:
    """A progress bar that overwrites its own line."""
    width = 30

    def show(step: int, now: str) -> None:
        done = width * min(step, total) // max(1, total)
        bar = "━" * done + "─" * (width - done)
        print(f"\r{f'{title} {bar} {step}/{total} {now}':<78}", end="", file=sys.stderr, flush=True)

    show(0, "")
    try:
        yield lambda step, rate, loss: show(step, _now(rate, loss))
    finally:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
