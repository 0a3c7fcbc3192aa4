"""The objects reachable from a model, found by walking and not from a list of names."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.ops.node import Node
from keras.src.utils.tracking import Tracker

__all__ = ["SKIPPED", "is_library", "is_record", "optimizers_of", "reachable", "written_globals"]

# The walk ends at these: numbers hold no objects, modules and classes hold the program.
_ENDS = (
    *(str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, np.generic),
    *(types.BuiltinFunctionType, types.CodeType, inspect.Signature),
    *(keras.KerasTensor, Node, Tracker),
)
# Attributes that lead out of the model, into records of Keras, TensorFlow and this library.
SKIPPED = frozenset(
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
        "_eval_epoch_iterator",
        "_jax_state",
        "_keras_lr_fit",
        "_keras_lr_fits",
        "_keras_lr_memory",
        "_keras_lr_loop",
    }
)
# The arguments of `compile`, and TensorFlow's record of earlier assignments.
_RECORDS = ("_compile_config", "_self_")
# Objects of these packages are arrays, graphs, devices and connections to other programs.
_FOREIGN = frozenset(
    {
        *("tensorflow", "jax", "jaxlib", "numpy", "torch", "pandas", "matplotlib", "IPython"),
        *("wandb", "mlflow", "tensorboard", "neptune", "comet_ml", "aim", "clearml", "ray"),
    }
)
# The walk does not enter Python's own classes, except containers of a program's objects.
_OPEN = frozenset({"builtins", "collections", "functools", "types", "queue", "__main__"})
# Callbacks, range tests and searches have state of their own, which is not the model's.
_OURS = (
    *("keras_lr._keras", "keras_lr.callbacks", "keras_lr.steering", "keras_lr.range_test"),
    "keras_lr.rate_search",
)
_TORCH_PARTS = ("torch.optim", "torch.amp", "torch.cuda.amp")
_THREADS = frozenset({"_thread", "threading", "multiprocessing", "socket", "_queue", "queue"})
# Functions of these packages are not searched for the global variables that they use.
_LIBRARIES = _FOREIGN | {"keras", "keras_hub", "keras_lr", "keras_lr_cli"}


def reachable(root: Any) -> Iterator[tuple[str, Any]]:
    """Every object reachable from `root`, once, with the shortest path to it.

    Follows attributes, containers, bound methods, partial functions and closures; and, for
    classes and functions that are neither Python's nor a framework's, their methods, class
    attributes, and the global variables that they name. Keras variables and tensors are yielded,
    but not entered.

    Yields:
        `(path, object)`: the root itself as `("", root)`, then objects in the order of their
        distance, with the path as Python would write it: `"d_optimizer"`, `"optimizers[0]"`,
        `"trainers['g'].optimizer"`; `"train_step.optimizer"` for the closure of a method.
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


def optimizers_of(model: Any) -> list[Any]:
    """Every optimizer reachable from a model, those inside other optimizers included."""
    return [part for _, part in reachable(model) if isinstance(part, keras.optimizers.Optimizer)]


def is_record(path: str) -> bool:
    """Whether a path of `reachable` leads into a record of an object, not to where it is used."""
    return any(record in path for record in _RECORDS)


def _parts(found: Any) -> Iterator[tuple[str, Any]]:
    """The parts of one object, with the text that follows the object's own path."""
    if isinstance(found, (keras.Variable, np.ndarray)):
        return
    kind: Any = type(found)
    if isinstance(found, Mapping):
        for index, (key, value) in enumerate(list(found.items())):
            yield f"[{key!r}]" if isinstance(key, (str, int)) else f"[{index}]", value
    elif isinstance(found, (list, tuple, set, frozenset, deque)):
        for index, value in enumerate(list(found)):
            yield f"[{index}]", value
    elif isinstance(found, functools.partial):
        yield ".func", found.func
        yield ".args", found.args
        yield ".keywords", found.keywords
    elif isinstance(found, types.MethodType):
        yield ".__self__", found.__self__
        yield ".__func__", found.__func__
    elif isinstance(found, types.FunctionType):
        yield from _of_function(found)
        yield from _attributes(found)
    elif _is_foreign(found):
        # The function inside tf.function, jax.jit and other decorators.
        yield "", getattr(found, "python_function", getattr(found, "__wrapped__", None))
    else:
        yield from _attributes(found)
    if not _is_library_kind(kind):
        if isinstance(found, (Mapping, list, tuple, set, frozenset, deque)):
            yield from _attributes(found)
        yield from _members(kind, found)


def _attributes(found: Any) -> Iterator[tuple[str, Any]]:
    attributes: Any = getattr(found, "__dict__", None) or {}
    for name, part in (attributes.get("_modules") or {}).items():
        yield f".{name}", part  # torch keeps attributes that are modules there
    for name in sorted(attributes, key=_is_private):  # public names first
        value = attributes[name]
        if name not in SKIPPED and ("_hooks" not in name or value):  # each module of torch has 14
            yield f".{name}", value


def _is_private(name: str) -> bool:
    return name.startswith("_")


def _members(kind: Any, found: Any) -> Iterator[tuple[str, Any]]:
    """Methods and class attributes of a program's own class, and the entries of `__slots__`."""
    for each in kind.__mro__:
        if _is_library_kind(each):
            continue
        for name, value in list(vars(each).items()):
            if isinstance(value, types.MemberDescriptorType):
                yield f".{name}", getattr(found, name, None)
            elif isinstance(value, (staticmethod, classmethod)):
                yield f".{name}", value.__func__
            elif isinstance(value, property):
                yield f".{name}", value.fget
            elif not name.startswith("__") or name in ("__call__", "__init__"):
                yield f".{name}", value


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue
    for index, value in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{index}]", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f".{name}", value
    if not is_library(function):
        for name in _global_names(function.__code__)[0]:
            if name in function.__globals__:
                yield f".{name}", function.__globals__[name]


def written_globals(function: Any) -> list[str]:
    """The global variables that a function, or a function inside it, assigns."""
    if not isinstance(function, types.FunctionType) or is_library(function):
        return []
    return _global_names(function.__code__)[1]


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[list[str], list[str]]:
    """Names of the global variables that some code reads, and of those that it assigns."""
    read: list[str] = []
    written: list[str] = []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.append(step.argval)
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.append(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _global_names(constant)
            read += inner[0]
            written += inner[1]
    return list(dict.fromkeys(read)), list(dict.fromkeys(written))


def is_library(found: Any) -> bool:
    """Whether a class or function belongs to Python, to a framework or to keras_lr."""
    return _is_library_name(getattr(found, "__module__", None) or "builtins")


@functools.lru_cache(maxsize=4096)
def _is_library_kind(kind: Any) -> bool:
    return is_library(kind)


@functools.lru_cache(maxsize=4096)
def _is_library_name(module: str) -> bool:
    package = module.partition(".")[0]
    return package in _LIBRARIES or (package in sys.stdlib_module_names and package != "__main__")


def _is_foreign(found: Any) -> bool:
    """Whether the walk stays out of an object's attributes."""
    kind: Any = type(found)
    return _is_foreign_kind(kind) or (_is_installed(kind) and _is_service(found))


@functools.lru_cache(maxsize=4096)
def _is_foreign_kind(kind: Any) -> bool:
    package = kind.__module__.partition(".")[0]
    if package == "torch":
        return not (hasattr(kind, "named_parameters") or kind.__module__.startswith(_TORCH_PARTS))
    if kind.__module__.startswith(_OURS):
        return True
    if package == "tensorflow":
        return kind.__name__ != "Generator"  # of random numbers
    return package in _FOREIGN or (package in sys.stdlib_module_names and package not in _OPEN)


@functools.lru_cache(maxsize=4096)
def _is_installed(kind: Any) -> bool:
    """Whether a class is of an installed package other than the frameworks."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return not _is_library_kind(kind) and ("site-packages" in file or "dist-packages" in file)


def _is_service(found: Any) -> bool:
    """Whether an object has threads of its own, which a restored state would disturb."""
    return not isinstance(found, keras.Layer) and any(
        type(value).__module__.partition(".")[0] in _THREADS
        for value in getattr(found, "__dict__", {}).values()
    )
