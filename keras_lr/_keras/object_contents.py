"""Read and set what one Python object holds: its attributes, or the contents of a container."""

from __future__ import annotations

import functools
import types
from collections import deque
from typing import Any

from keras_lr._keras.object_graph import is_library

__all__ = [
    "MISSING",
    "attributes_of",
    "cell_contents",
    "contents_of",
    "refill",
    "set_attributes",
    "set_cell",
]

MISSING = object()  # the value of a name that has none


def contents_of(part: Any) -> Any:
    """A copy of the contents of a container; None for anything else."""
    part = _unwrapped(part)
    kinds: tuple[Any, ...] = (dict, list, set, deque, bytearray)
    for kind in kinds:
        if isinstance(part, kind):
            return kind(part)
    return None


def refill(part: Any, contents: Any) -> None:
    """Restore the contents of a container to what `contents_of` returned.

    The methods of the base classes are used because Keras's tracked containers register what is
    put into them.
    """
    part, kind = _unwrapped(part), type(contents)
    if isinstance(contents, dict):
        if list(part) == list(contents) and all(part[key] is contents[key] for key in contents):
            return
        dict.clear(part)
        for key, value in contents.items():
            dict.__setitem__(part, key, value)
    elif len(part) != len(contents) or any(a is not b for a, b in zip(part, contents, strict=True)):
        kind.clear(part)
        (kind.update if isinstance(contents, set) else kind.extend)(part, contents)


def _unwrapped(part: Any) -> Any:
    """The plain container inside TensorFlow's wrappers of lists and dictionaries."""
    for name in ("__wrapped__", "_storage"):
        if isinstance(part, (dict, list)) and hasattr(part, name):
            part = getattr(part, name)
    return part


def attributes_of(part: Any) -> Any:
    """Attributes of an object, a class or a function; None if there are none to set."""
    if isinstance(part, type):
        return {n: v for n, v in vars(part).items() if not n.startswith(("__", "_abc_"))}
    attributes = getattr(part, "__dict__", None)
    kind: Any = type(part)
    slots = _slots(kind)
    if type(attributes) is not dict and not slots:
        return None
    return {**(attributes or {}), **{n: getattr(part, n) for n in slots if hasattr(part, n)}}


@functools.lru_cache(maxsize=4096)
def _slots(kind: Any) -> tuple[str, ...]:
    """The attributes that objects of a program's own class keep in `__slots__`."""
    return tuple(
        name
        for each in kind.__mro__
        if not is_library(each)
        for name, value in vars(each).items()
        if isinstance(value, types.MemberDescriptorType)
    )


def set_attributes(part: Any, attributes: dict[str, Any]) -> None:
    """Restore the attributes of an object, a class or a function to what `attributes_of` returned.

    Layers and variables check or register what is assigned to them, so their methods for
    assignments are not called.
    """
    now = attributes_of(part) or {}
    if now.keys() == attributes.keys() and all(now[n] is attributes[n] for n in now):
        return
    if isinstance(part, type):
        put, drop = functools.partial(type.__setattr__, part), functools.partial(delattr, part)
    else:
        kind: Any = type(part)
        slots = _slots(kind)
        if not slots:
            vars(part).clear()
            vars(part).update(attributes)
            return
        put = functools.partial(object.__setattr__, part)
        drop = functools.partial(object.__delattr__, part)
    for name in now.keys() - attributes.keys():
        drop(name)
    for name, value in attributes.items():
        if now.get(name, MISSING) is not value:
            put(name, value)


def cell_contents(cell: Any) -> Any:
    """The value of a variable in the closure of a function; `MISSING` if it has none."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def set_cell(cell: Any, value: Any) -> None:
    """Restore a variable in the closure of a function to what `cell_contents` returned."""
    if cell_contents(cell) is value:
        return
    if value is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value
