"""Names of the user's, where they are shown."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: str) -> str:
    """What does not print, an escape sequence or a line end, as Python writes it.

    >>> visible("acc\\x1b[2J")
    'acc\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
