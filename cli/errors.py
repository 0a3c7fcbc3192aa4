"""How a command ends when it cannot answer: one line on stderr and an exit code."""

from __future__ import annotations

import re

import click

__all__ = ["BadInput", "Interrupted", "RunFailed", "one_line"]


class BadInput(click.ClickException):
    """What was typed, or a file that it names, is wrong: exit 2."""

    exit_code = 2


class RunFailed(click.ClickException):
    """The input was fine but the run could not finish: exit 1."""

    exit_code = 1


class Interrupted(click.ClickException):
    """Ctrl-C: exit 130, as shells expect."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Interrupted; the model file was not touched.")


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
