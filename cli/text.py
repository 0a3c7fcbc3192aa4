"""Text for people, as wide as the terminal up to 80 columns."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from .errors import visible

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "LABEL",
    "can_draw",
    "fits",
    "is_narrow",
    "labelled",
    "rate_text",
    "table_box",
    "table_text",
    "width",
]

WIDTH = 80
NARROWEST = 40
FULL = 64  # columns of the terminal for tables with all their columns
LABEL = 15


def width() -> int:
    """The columns of the terminal, within 40 to 80; 80 without a terminal."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDTH)


def is_narrow() -> bool:
    """Whether tables leave columns out."""
    return width() < FULL


def labelled(label: str, text: str) -> str:
    """A label and a text beside it, broken to the width of the terminal."""
    return textwrap.fill(
        visible(" ".join(text.split())),
        width(),
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
        break_long_words=False,
        drop_whitespace=True,
    )


def rate_text(value: float) -> str:
    return f"{value:.2e}"


def table_box(unicode: bool) -> dict[str, Any]:
    """Arguments that make rich's tables plain."""
    from rich.box import ASCII, SIMPLE_HEAD

    return {"box": SIMPLE_HEAD if unicode else ASCII, "pad_edge": False, "show_edge": not unicode}


def table_text(table: Table) -> str:
    """A table as lines without colours and trailing blanks.

    Brackets in cells and headings are not markup.
    """
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width(), color_system=None, markup=False, emoji=False).print(table)
    return "\n".join(visible(line.rstrip()) for line in file.getvalue().rstrip("\n").split("\n"))


def fits(table: Table) -> bool:
    """Whether the terminal has room for a table without cutting off words and numbers."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=10 * WIDTH)
    return Measurement.get(console, console.options, table).minimum <= width()


def can_draw(encoding: str | None = None) -> bool:
    """Whether stdout can encode the characters of the pictures."""
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "⣿┤│└▲·▁█".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
