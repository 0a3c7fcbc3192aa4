"""Who reads stderr, and names that are safe to show there."""

from __future__ import annotations

import sys

__all__ = ["is_notebook", "is_seen", "visible"]


def is_notebook() -> bool:
    """Whether stderr goes to a cell of a notebook."""
    return type(sys.stderr).__module__.startswith("ipykernel")


def is_seen() -> bool:
    """Whether somebody watches stderr: in a terminal or in a notebook."""
    return is_notebook() or sys.stderr.isatty()


def visible(text: str) -> str:
    """What does not print, an escape sequence or a line end, as Python writes it.

    >>> visible("acc\\x1b[2J")
    'acc\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
