"""The call stack: callers are searched for objects that Keras does not pass on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_DEPTH = 16


def caller_self(predicate: Callable[[Any], bool]) -> Any:
    """The nearest `self` among the callers that `predicate` accepts, or None.

    Searches a few frames of the call stack. No frame is kept: it would keep all local variables
    of its function alive.
    """
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame.f_back is None:
            break
        frame = frame.f_back
        owner = frame.f_locals.get("self")
        if owner is not None and predicate(owner):
            return owner
    return None


def caller_locals(function: str, owner: type, *, outermost: Any = None) -> dict[str, Any] | None:
    """The arguments of the nearest caller that is the method `function` of an `owner`.

    Args:
        outermost: An object. The arguments are then those of the outermost such call on it; the
            nearest one is a `super()` call where a class overrides the method.
    """
    frame, found = sys._getframe(1), None
    while frame.f_back is not None:
        frame = frame.f_back
        held = frame.f_locals.get("self")
        if frame.f_code.co_name != function or not isinstance(held, owner):
            continue
        if outermost is None:
            return dict(frame.f_locals)
        if held is outermost:
            found = dict(frame.f_locals)
    return found
