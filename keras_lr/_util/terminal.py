"""Whether a person reads stderr, and text that is safe to print there."""

from __future__ import annotations

import sys

__all__ = ["is_interactive", "is_notebook", "visible"]


def is_notebook() -> bool:
    """Whether stderr is shown in a notebook."""
    return type(sys.stderr).__module__.startswith("ipykernel")


def is_interactive() -> bool:
    """Whether stderr is a terminal or is shown in a notebook."""
    return is_notebook() or sys.stderr.isatty()


def visible(text: str) -> str:
    """Escape what does not print: escape sequences, line ends, marks of writing direction.

    >>> visible("acc\\x1b[2J")
    'acc\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
