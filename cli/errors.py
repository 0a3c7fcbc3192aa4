"""How a command ends when it fails: one line on stderr and an exit code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = [
    "BadInput",
    "Interrupted",
    "RunFailed",
    "ending",
    "one_line",
    "visible",
]


class BadInput(click.ClickException):
    """An argument, or a file that it names, is wrong: exit 2."""

    exit_code = 2


class RunFailed(click.ClickException):
    """The input is right but the run did not finish: exit 1."""

    exit_code = 1


class Interrupted(click.ClickException):
    """Ctrl-C: exit 130, as shells expect."""

    exit_code = 130

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "Interrupted; the model file was not touched.")


def visible(text: str) -> str:
    """Escape what does not print: escape sequences, line ends, marks of writing direction.

    The same as `visible` in `keras_lr/_util/terminal.py`, which cannot be imported here: that
    imports `keras_lr`, and with it Keras, before the options are checked.

    >>> visible("conv\\x1b[2J")
    'conv\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException | str, limit: int = 400) -> str:
    """The message on one line, without the tracebacks that Keras appends."""
    text = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{error} is missing"
    text = re.sub(r"Object file traceback:.*|Traceback \(most recent.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = visible(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 4].rsplit(" ", 1)[0] + " ..."


def _show_traceback_of(error: BaseException) -> None:
    """Print the traceback to stderr, escaped: its messages may quote names from a file."""
    text = "".join(traceback.format_exception(error))
    click.echo("\n".join(map(visible, text.split("\n"))), err=True)


@contextmanager
def ending(failed: str, show_traceback: bool, interrupted: str | None = None) -> Iterator[None]:
    """Turn any error of a command's work into one line and an exit code.

    Args:
        failed: First sentence of the message for an unexpected error.
        show_traceback: Whether to print the traceback too.
        interrupted: The message for Ctrl-C.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if show_traceback:
            _show_traceback_of(error)
        if isinstance(error, (click.ClickException, BrokenPipeError)):
            raise
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(interrupted) from error
        raise RunFailed(f"{failed} {type(error).__name__}: {one_line(error)}") from error
