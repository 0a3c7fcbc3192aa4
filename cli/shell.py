"""What the shell and the terminal need: help that fits, completion of files, no empty values."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from .text import width

__all__ = ["fit_to_terminal"]

HELP_OPTIONS = ["-h", "--help"]
FILES = ("FILE", "SRC", "MODEL", "LOG")  # metavars of arguments that may be files


class _Text(click.ParamType):
    """Text that is not empty: with "" in their place, options would be ignored in silence."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("it is empty, as is a shell variable that is not set.", param, ctx)
        return text


class _File(_Text):
    """Text that the shell completes as a path; other values, as `module:function`, are kept."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class _Formatter(click.HelpFormatter):
    """Click's formatter, also below its minimum of 50 columns, and wrapping preformatted lines."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        super().__init__(indent_increment, width or _columns(), max_width)

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        wrapped = click.wrap_text(text, self.width, indent, indent, preserve_paragraphs=True)
        for line in wrapped.split("\n"):
            self.write("\n".join(self._folded(line)) + "\n")

    def _folded(self, line: str) -> list[str]:
        if len(line) <= self.width:
            return [line]
        indent = len(line) - len(line.lstrip()) + 4
        term = re.match(r" *\S+ {2,}", line)  # two columns: the text of the second is aligned
        if term and len(term[0]) <= self.width // 2:
            indent = len(term[0])
        return textwrap.wrap(
            line,
            self.width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, min(col_max, max(12, self.width // 3 + 4)), col_spacing)


def _columns() -> int:
    return width() - 2


class _Context(click.Context):
    formatter_class = _Formatter


def fit_to_terminal(command: click.Command) -> None:
    """Apply this to a command and its subcommands."""
    for each in _all(command):
        each.context_class = _Context
        # Click keeps the help option of the first call, which may come without the group's context.
        each.context_settings.setdefault("help_option_names", HELP_OPTIONS)
        for parameter in each.params:
            if parameter.type is click.STRING:
                parameter.type = _File() if parameter.metavar in FILES else _Text()


def _all(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _all(each)
