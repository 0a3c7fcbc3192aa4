"""Whether a person reads stderr, and text that is safe to print there."""

from __future__ import annotations

import re
import sys

__all__ = ["cause_of", "is_notebook", "shows_progress", "visible"]

_WRAPPED = "Exception encountered when calling"  # the first line of an error inside a Keras layer


def is_notebook() -> bool:
    """Whether stderr is shown in a notebook."""
    return type(sys.stderr).__module__.startswith("ipykernel")


def shows_progress(verbose: str | int) -> bool:
    """Whether to print progress: "auto" does if stderr is a terminal or is shown in a notebook."""
    return is_notebook() or sys.stderr.isatty() if verbose == "auto" else bool(verbose)


def visible(text: str) -> str:
    """Escape what does not print: escape sequences, line ends, marks of writing direction.

    >>> visible("acc\\x1b[2J")
    'acc\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cause_of(error: BaseException) -> str:
    """The first line of the error's message that says what is wrong; its class if there is none.

    >>> cause_of(ValueError("Exception encountered when calling Dense.call().\\n\\nWrong shape."))
    'Wrong shape.'
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_WRAPPED)] or lines
    return told[0] if told else type(error).__name__
