"""How a command ends when it cannot answer: one line on stderr and an exit code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["BadInput", "Interrupted", "RunFailed", "ending", "one_line"]


class BadInput(click.ClickException):
    """What was typed, or a file that it names, is wrong: exit 2."""

    exit_code = 2


class RunFailed(click.ClickException):
    """The input was fine but the run could not finish: exit 1."""

    exit_code = 1


class Interrupted(click.ClickException):
    """Ctrl-C: exit 130, as shells expect."""

    exit_code = 130

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "Interrupted; the model file was not touched.")


def one_line(error: BaseException | str, limit: int = 400) -> str:
    """The message on one line, without the configurations that Keras likes to append."""
    text = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{error} is missing"
    text = re.sub(r"Object file traceback:.*|Traceback \(most recent.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split()).strip()
    return text if len(text) <= limit else text[: limit - 4].rsplit(" ", 1)[0] + " ..."


@contextmanager
def ending(failed: str, show_traceback: bool, interrupted: str | None = None) -> Iterator[None]:
    """In the block a command does its work; whatever ends it early is told in one line.

    Args:
        failed: What to say of an error that nobody foresaw.
        show_traceback: Whether to print its traceback too.
        interrupted: What to say of Ctrl-C.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if show_traceback:
            click.echo("".join(traceback.format_exception(error)), err=True)
        if isinstance(error, (click.ClickException, BrokenPipeError)):
            raise
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(interrupted) from error
        raise RunFailed(f"{failed} {type(error).__name__}: {one_line(error)}") from error
