"""What can be reached from a model: found by walking over attributes, not from a list of names."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

__all__ = ["reachable"]

# Numbers and arrays hold no objects; modules and classes hold the program.
_ENDS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, np.ndarray)
# Attributes that lead out of the model into Keras's and TensorFlow's bookkeeping.
_SKIPPED = frozenset(
    {
        "_inbound_nodes",
        "_outbound_nodes",
        "_tracker",
        "_distribute_strategy",
        "_parent_path",
        "_build_shapes_dict",
        "train_function",
        "test_function",
        "predict_function",
        "_jax_state",
        "_keras_lr_fit",
        "_keras_lr_memory",
        "_keras_lr_loop",
    }
)
# Packages whose objects are arrays, graphs and devices; torch modules are walked.
_FOREIGN = ("tensorflow", "jax", "jaxlib", "numpy", "torch", "threading", "concurrent", "logging")


def reachable(root: Any) -> Iterator[tuple[str, Any]]:
    """Every object that can be reached from `root`, each once, with the shortest way to it.

    Goes through attributes, containers, bound methods, partial functions and the variables that a
    function closes over. Keras variables and tensors are given, but not entered.

    Yields:
        `(path, object)`: the root itself as `("", root)`, then objects in the order of their
        distance, with the path as Python would write it: `"d_optimizer"`, `"optimizers[0]"`,
        `"trainers['g'].optimizer"`.
    """
    seen = {id(root)}
    queue: deque[tuple[str, Any]] = deque([("", root)])
    while queue:
        path, found = queue.popleft()
        yield path, found
        for name, part in _parts(found):
            if isinstance(part, _ENDS) or id(part) in seen:
                continue
            seen.add(id(part))
            queue.append((f"{path}{name}" if path else name.removeprefix("."), part))


def _parts(found: Any) -> Iterator[tuple[str, Any]]:
    """What one object holds, with how it is written after the object's own path."""
    if isinstance(found, keras.Variable):
        return
    if isinstance(found, Mapping):
        for key, value in list(found.items()):
            yield f"[{key!r}]", value
        return
    if isinstance(found, (list, tuple, set, frozenset, deque)):
        for index, value in enumerate(list(found)):
            yield f"[{index}]", value
        return
    if isinstance(found, functools.partial):
        yield ".func", found.func
        yield ".args", found.args
        yield ".keywords", found.keywords
        return
    if isinstance(found, types.MethodType):
        yield ".__self__", found.__self__
        yield ".__func__", found.__func__
        return
    if isinstance(found, types.FunctionType):
        yield from _of_function(found)
        return
    if _is_foreign(found):
        return
    attributes = getattr(found, "__dict__", {})
    modules = attributes.get("_modules", {})  # where torch keeps attributes that are modules
    for name, part in modules.items():
        yield f".{name}", part
    for name in sorted(attributes, key=lambda name: name.startswith("_")):  # public ways first
        if name not in _SKIPPED:
            yield f".{name}", attributes[name]


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue
    for index, value in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{index}]", value


def _is_foreign(found: Any) -> bool:
    package = type(found).__module__.partition(".")[0]
    if package == "torch":
        return not hasattr(found, "named_parameters")
    return package in _FOREIGN
