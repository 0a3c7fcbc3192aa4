"""The user's own code: which values are part of it, and what its bytecode reads and assigns."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

_FRAMEWORKS = ("keras", "keras_lr", "keras_lr_cli", "tensorflow", "jax", "torch", "numpy")
_CONSTRUCTORS = ("__init__", "__new__", "__post_init__", "__setstate__", "build", "compile")


def name_of(value: Any) -> str:
    """The name of a class or function, with the version of its package unless a framework."""
    root = (value.__module__ or "").partition(".")[0]
    version = "" if root in _FRAMEWORKS else getattr(sys.modules.get(root), "__version__", "")
    return f"{value.__module__}.{value.__qualname__}{version and f' {version}'}"


def is_own(value: Any) -> bool:
    """Whether code is the user's and not that of an installed package."""
    module = value if isinstance(value, str) else getattr(value, "__module__", None)
    return _is_own_module((module or "builtins").partition(".")[0])


@functools.cache
def _is_own_module(root: str) -> bool:
    if root == "__main__":
        return True
    if root in sys.stdlib_module_names or root in _FRAMEWORKS:
        return False
    module = sys.modules.get(root)
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return not any("-packages" in place for place in places)


def is_code(value: Any) -> bool:
    """Whether an attribute is code of the user's or contains some."""
    if isinstance(value, (list, tuple)):
        return any(map(is_code, value))
    if isinstance(value, Mapping):
        return any(map(is_code, value.values()))
    if isinstance(value, functools.partial):
        return True
    value = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
    if isinstance(value, types.MethodType):
        return is_own(value.__func__)
    if isinstance(value, (types.FunctionType, type)):
        return is_own(value)
    return is_own(type(value))


def set_by_constructor(name: str, value: Any, kind: type) -> bool:
    """Whether only the constructor of a class assigns an attribute, as it does an argument."""
    first, later = _assigned(kind)
    return name in first - later


@functools.cache
def _assigned(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes that a class's own code assigns: in constructors, and in other methods."""
    begun: set[str] = set()
    later: set[str] = set()
    for base in kind.__mro__:
        for name, member in vars(base).items() if is_own(base) else ():
            function = getattr(member, "__func__", member)
            function = inspect.unwrap(function) if callable(function) else function
            if isinstance(function, types.FunctionType):
                stored = {
                    each.argval
                    for each in _instructions(function.__code__)
                    if each.opname == "STORE_ATTR"
                }
                (begun if name in _CONSTRUCTORS else later).update(stored)
        begun.update(getattr(base, "__dataclass_fields__", ()) if is_own(base) else ())
    return frozenset(begun), frozenset(later)


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    """The instructions of the code and of the functions inside it."""
    yield from dis.get_instructions(code)
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _instructions(each)


def globals_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The globals that a function reads, and the attributes it reads of the user's modules."""
    found: dict[str, Any] = {}
    place, now = "", None  # a module whose attribute the next instruction may read
    for each in _instructions(function.__code__):
        name = each.argval
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            place, now = name, function.__globals__.get(name)
        elif each.opname == "IMPORT_NAME":
            place, now = name, sys.modules.get(name)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM") and now is not None:
            known = getattr(now, name, None)
            if known is not None:
                found[f"{place}.{name}"] = known
            if each.opname == "IMPORT_FROM":
                continue
            place, now = f"{place}.{name}", known
        else:
            now = None
        if now is not None and not isinstance(now, types.ModuleType):
            found[place], now = now, None
        elif now is not None and not is_own(now.__name__):
            found[place], now = now, None
    return sorted(found.items())
