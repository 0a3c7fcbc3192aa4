"""Python state of a model: the attributes of its objects and the contents of its containers."""

from __future__ import annotations

import functools
import io
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.utils.tracking import Tracker

from keras_lr._keras.object_contents import (
    MISSING,
    attributes_of,
    cell_contents,
    contents_of,
    refill,
    set_attributes,
    set_cell,
)
from keras_lr._keras.object_graph import is_library, reachable, written_globals
from keras_lr._keras.random_state import name_counters_kept
from keras_lr._keras.tensors import HOST_KINDS, tensor_kinds
from keras_lr._keras.values import listed_variables

__all__ = ["PythonState"]

# Attributes of ours, with which a model remembers the callbacks that steer it.
_OURS = (
    "_keras_lr_fit",
    "_keras_lr_memory",
    "_keras_lr_loop",
    "_keras_lr_step",
    "save_own_variables",
)
# Attributes that `reachable` skips, but that Keras changes when it builds a layer.
_CHANGED_BY_BUILDING = ("_inbound_nodes", "_outbound_nodes", "_tracker", "_build_shapes_dict")
_TENSORS_OF_TORCH = ("_buffers", "_parameters")
_OF_TORCH = ("_modules", *_TENSORS_OF_TORCH)
# Attributes that Keras adds to a model, and that a further run can use again.
_REUSED = frozenset(
    [
        "_eval_epoch_iterator",
        "_jax_state",
        "_jax_state_synced",
        "_losses_override",
        "built",
        "history",
        "predict_function",
        "stop_training",
        "test_function",
        "train_function",
    ]
)


class PythonState:
    """Everything reachable from a model: the Python state is remembered, the rest is listed.

    There are two ways back. `restore` undoes all changes, as at the end of a range test. `rewind`
    undoes the changes that the program itself made (a counter, a list of its own), and keeps what
    the frameworks have built and compiled, so that the next run of a search can use it again.

    Attributes:
        variables: Keras variables.
        tensors: `(path, part)` of the tensors, arrays and random generators beside them.
        positions: `(path, part)` of iterators, whose position cannot be set.
    """

    def __init__(self, model: Any) -> None:
        variables = {id(variable): variable for variable in listed_variables(model)}
        tensors: list[tuple[str, Any]] = []
        self.positions: list[tuple[str, Any]] = []
        self._metrics: list[keras.metrics.Metric] = []
        self._kept: list[_Kept] = []
        structure: set[int] = set()  # ids of containers that list what has been built
        seen: set[type] = set()
        kinds = (*HOST_KINDS, *tensor_kinds())
        for path, part in reachable(model):
            if isinstance(part, keras.Variable):
                variables[id(part)] = part
            elif isinstance(part, kinds):
                if not isinstance(part, np.ndarray) or part.flags.writeable:
                    tensors.append((path, part))
            else:
                self._keep(part, structure, seen)
                if isinstance(part, keras.metrics.Metric):
                    self._metrics.append(part)
                if isinstance(part, Iterator) and _is_position(part):
                    self.positions.append((path, part))
        known = {id(variable._value) for variable in variables.values()}
        self.tensors = [(path, part) for path, part in tensors if id(part) not in known]
        self.variables = list(variables.values())
        self._trainable = [(variable, variable.trainable) for variable in self.variables]

    def without_metrics(self) -> list[Any]:
        """The variables without those of metrics."""
        of_metrics = {id(variable) for metric in self._metrics for variable in metric.variables}
        return [variable for variable in self.variables if id(variable) not in of_metrics]

    def _keep(self, part: Any, structure: set[int], seen: set[type]) -> None:
        kind = type(part)
        if kind not in seen:
            seen.add(kind)
            for each in kind.__mro__:
                if not is_library(each):
                    self._kept.append(_Kept(each, False))
        kept = _Kept(part, id(part) in structure)
        if kept.empty:
            return
        self._kept.append(kept)
        for name, value in kept.held():
            if name in _CHANGED_BY_BUILDING:
                self._kept.append(_Kept(value, True))
                if isinstance(value, Tracker):
                    self._kept.extend(_Kept(ids, True) for ids in value.stored_ids.values())
            elif (kept.structural or name in kept.fixed) and name not in _TENSORS_OF_TORCH:
                structure.add(id(value))

    def rewind(self) -> None:
        """Undo what the program changed; keep what has been built and compiled since."""
        for kept in self._kept:
            if not kept.structural:
                kept.rewind()

    def restore(self) -> None:
        """Undo all changes."""
        for kept in self._kept:
            kept.restore()
        for variable, trainable in self._trainable:
            if variable.trainable != trainable:
                variable.trainable = trainable


class _Kept:
    """The attributes of one object or class, the contents of one container, or both.

    Attributes:
        structural: Whether it belongs to what a framework has built; then `rewind` leaves it.
        fixed: The attributes that `rewind` leaves, of an object of a program's own class.
    """

    __slots__ = ("_attributes", "_cells", "_contents", "_globals", "_part", "fixed", "structural")

    def __init__(self, part: Any, structural: bool) -> None:
        """
        Args:
            structural: Whether it is a container in which a framework lists what it has built.
        """
        self._part = part
        self._contents = contents_of(part)
        self._attributes = attributes_of(part)
        self._cells: list[tuple[Any, Any]] = []
        self._globals: dict[str, Any] = {}
        self.fixed: frozenset[str] = frozenset()
        self.structural = structural and self._contents is not None
        if isinstance(part, types.FunctionType):
            self._cells = [(cell, cell_contents(cell)) for cell in part.__closure__ or ()]
            scope = part.__globals__
            self._globals = {name: scope.get(name, MISSING) for name in written_globals(part)}
        elif self._attributes is not None and self._contents is None:
            self.fixed = _framework_names(part)
            self.structural = _is_frameworks(type(part))

    @property
    def empty(self) -> bool:
        return not (self._attributes or self._cells or self._globals or self._contents is not None)

    def held(self) -> Iterator[tuple[str, Any]]:
        """Attributes with their names, members of a container without."""
        yield from (self._attributes or {}).items()
        members = self._contents
        for member in members.values() if isinstance(members, dict) else members or ():
            yield "", member

    def restore(self) -> None:
        if self._contents is not None:
            refill(self._part, self._contents)
        if self._attributes is not None:
            ours = {n: v for n, v in attributes_of(self._part).items() if n in _OURS}
            kept = {n: v for n, v in self._attributes.items() if n not in _OURS}
            set_attributes(self._part, {**kept, **ours})
        self._restore_names()

    def rewind(self) -> None:
        if self._contents is not None and not _holds_built(contents_of(self._part)):
            refill(self._part, self._contents)
        if self._attributes is not None:
            now = attributes_of(self._part)
            left = {n: v for n, v in now.items() if n in self.fixed or _holds_built(v)}
            # On torch, a layer that replaces None moves its name from `__dict__` to one of these.
            moved = {n for holder in _OF_TORCH for n in now.get(holder) or ()}
            rest = {
                n: v for n, v in self._attributes.items() if n not in self.fixed and n not in moved
            }
            set_attributes(self._part, {**rest, **left})
        self._restore_names()

    def _restore_names(self) -> None:
        """Restore the closure and the global variables of a function."""
        for cell, value in self._cells:
            set_cell(cell, value)
        for name, value in self._globals.items():
            if value is MISSING:
                self._part.__globals__.pop(name, None)
            else:
                self._part.__globals__[name] = value


def _is_frameworks(kind: type) -> bool:
    """Whether Keras or torch define a class, so that its variables hold its state."""
    if kind.__module__.startswith("torch."):
        return kind.__module__.startswith("torch.nn.")
    package = kind.__module__.partition(".")[0]
    return package in ("keras", "keras_lr", "tensorflow")


def _framework_names(part: Any) -> frozenset[str]:
    """Attributes of a program's own layer, model or loss that belong to the framework."""
    if isinstance(part, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return frozenset(attributes_of(part) or ())
    for base in (keras.Model, keras.Layer, keras.losses.Loss):
        if isinstance(part, base):
            return _names_of(base)
    if keras.backend.backend() == "torch":
        import torch

        if isinstance(part, torch.nn.Module):
            return _names_of(torch.nn.Module)
    return frozenset()


@functools.lru_cache(maxsize=8)
def _names_of(base: type) -> frozenset[str]:
    """The attributes of a new object of a framework's class, and those that Keras adds later."""
    with name_counters_kept():
        return _REUSED | vars(base()).keys()


def _holds_built(value: Any, depth: int = 3) -> bool:
    """Whether a value is, or contains, an object that a run builds or compiles."""
    if isinstance(value, (keras.Variable, keras.optimizers.Optimizer, Tracker)) or callable(value):
        return True
    if not depth or not isinstance(value, (dict, list, tuple, set, deque)):
        return False
    members = value.values() if isinstance(value, dict) else value
    return any(_holds_built(member, depth - 1) for member in members)


def _is_position(part: Any) -> bool:
    """Whether an iterator is of a library's class, which gives no access to its position."""
    return is_library(type(part)) and not isinstance(part, io.IOBase)
