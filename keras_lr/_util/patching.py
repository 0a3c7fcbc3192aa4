"""Replace an attribute of an object or a class for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an object or a class itself in the block, and restore it afterwards.

    Bypasses an object's own `__setattr__`, so that Keras does not track the value.
    """
    kind = type if isinstance(owner, type) else object
    had, before = name in vars(owner), vars(owner).get(name)
    kind.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if had:
            kind.__setattr__(owner, name, before)
        else:
            kind.__delattr__(owner, name)
