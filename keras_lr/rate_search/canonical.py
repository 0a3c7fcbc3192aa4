"""Python values in a canonical form: equal in all processes that run the same script."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import json
import logging
import random
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_lr._keras.layers import functional_graph, inner_layers, nodes_of, producer
from keras_lr._keras.losses import ARGUMENTS
from keras_lr._keras.optimizers import RATE
from keras_lr.rate_search.user_code import (
    globals_of,
    is_code,
    is_own,
    name_of,
    set_by_constructor,
)

__all__ = ["Canonical", "Unknown", "content", "digest"]

# Represented by their class only: their state changes during a run and is not compared.
_TRANSIENT = (
    np.random.Generator,
    np.random.RandomState,
    random.Random,
    logging.Logger,
    io.IOBase,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Event,
    threading.local,
    types.GeneratorType,
    keras.random.SeedGenerator,
)
_BLOCK = 2**24  # bytes that are hashed at once


class Unknown(TypeError):
    """A value has neither a configuration nor readable code."""


class Canonical:
    """Brings values into a canonical form, which JSON can hold.

    Objects that Keras can serialize are represented by their configuration, the user's code by
    its bytecode and the values that it reads (defaults, closures, globals), arrays by a hash of
    their content, and code of installed packages by its name. The index of a layer replaces its
    name, because Keras numbers names.

    Args:
        model: A model; references to it and to its layers are represented by their index.
        lenient: Whether to represent a value without a canonical form by its class; if False,
            such a value raises `Unknown`.
        sort: Whether to ignore the order of lists and of arrays with one axis, which data sets
            shuffle.
        transient: Further classes whose objects are represented by their class.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        lenient: bool = False,
        sort: bool = False,
        transient: tuple[type, ...] = (),
    ) -> None:
        layers = [] if model is None else inner_layers(model)
        known = [] if model is None else [model, *layers]
        self._names = {layer.name: f"layer {place}" for place, layer in enumerate(known)}
        variables = [] if model is None else [*model.variables, *model.optimizer.variables]
        self._known: dict[int, Any] = {
            id(layer): ["layer", place] for place, layer in enumerate(known)
        }
        self._known.update((id(each), ["weight", i]) for i, each in enumerate(variables))
        self._kept: list[Any] = [*known, *variables]
        self._open: dict[int, int] = {}
        self._lenient = lenient
        self._sort = sort
        self._transient = _TRANSIENT + transient
        self._left_out: tuple[str, ...] = ()
        self.reads_code = False  # bytecode depends on the version of Python

    def of(self, value: Any) -> Any:
        """The canonical form of a value.

        Raises:
            Unknown: If it has none.
        """
        if value is None or isinstance(value, (bool, int)):
            return value if type(value) in (type(None), bool, int) else repr(value)
        if isinstance(value, str):
            return "/".join(self._names.get(part, part) for part in value.split("/"))
        if isinstance(value, (float, complex, bytes, slice, range, type(...), np.dtype)):
            return [type(value).__name__, repr(value)]
        if isinstance(value, np.generic) and value.ndim == 0 and value.dtype.kind in "biufc":
            return self.of(value.item())
        if isinstance(value, keras.KerasTensor):
            return ["tensor", list(map(str, value.shape)), str(value.dtype)]
        if id(value) in self._known:
            return self._known[id(value)]
        array = _array(value)
        if array is not None:
            return ["array", content([np.sort(array) if self._sorts(array) else array])]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, self._transient):
            return ["a", type(value).__name__]
        if id(value) in self._open:
            return ["above", self._open[id(value)]]
        self._open[id(value)] = len(self._open)
        try:
            form = digest(self._compound(value))
        finally:
            del self._open[id(value)]
        self._known[id(value)] = form
        self._kept.append(value)  # so that no other value gets the same id
        return form

    def layer(self, layer: Any) -> Any:
        """A layer of the model, without the values of its weights."""
        return [
            self.of(type(layer)),
            self._configuration(layer),
            self._beside(layer),
            [[list(v.shape), str(v.dtype), bool(v.trainable)] for v in layer.variables],
        ]

    def model(self, model: Any) -> Any:
        """The class of the model, and the arguments of its constructor."""
        state = self._state_of(model, set_by_constructor)
        return [self.of(type(model)), self._configuration(model), state]

    def optimizer(self, optimizer: Any) -> Any:
        """An optimizer without its learning rate, which the search chooses."""
        self._left_out = ("learning_rate", RATE, "lr")
        try:
            return self.of(optimizer)
        finally:
            self._left_out = ()

    def graph(self, model: Any) -> Any:
        """The connections between the operations of a functional model; None for another model."""
        graph = functional_graph(model)
        if graph is None:
            return None
        places = {id(each): place for place, each in enumerate(graph.operations)}

        def form(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return self.of(value)
            operation, *place = producer(value)
            return ["from", places.get(id(operation)), *place]

        def of(structure: Any) -> Any:
            return keras.tree.flatten(keras.tree.map_structure(form, structure))

        nodes = [
            [places[id(node.operation)], of([node.arguments.args, node.arguments.kwargs])]
            for node in nodes_of(graph)
        ]
        kinds = [self._operation(each) for each in graph.operations]
        return digest([kinds, nodes, of(graph.outputs)])

    def _operation(self, operation: Any) -> Any:
        if isinstance(operation, keras.layers.Layer):
            return self._known.get(id(operation), type(operation).__name__)
        return [type(operation).__name__, self._configuration(operation)]

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            pairs = [[self.of(key), self.of(each)] for key, each in value.items()]
            return [type(value).__name__, sorted(pairs, key=json.dumps)]
        if isinstance(value, (list, tuple)):
            parts = [self.of(each) for each in value]
            return [type(value).__name__, sorted(parts, key=json.dumps) if self._sort else parts]
        if isinstance(value, (set, frozenset)):
            return ["set", sorted((self.of(each) for each in value), key=json.dumps)]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, functools.partial):
            return ["partial", self.of([value.func, value.args, value.keywords])]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.of(value.__func__)]
        if isinstance(value, property):
            return ["property", self.of([value.fget, value.fset, value.fdel])]
        wrapped = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
        if wrapped is not value:
            return self.of(wrapped)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
            return ["builtin", getattr(value, "__module__", None), value.__name__]
        if isinstance(value, keras.layers.Layer):
            return self._other_layer(value)
        return self._object(value)

    def _other_layer(self, model: Any) -> Any:
        """A layer or a model that is not part of the model, such as one that a loss calls."""
        layers = [model, *inner_layers(model)]
        weights = [_array(variable) for variable in model.variables]
        return [[self.layer(each) for each in layers], self.graph(model), content(weights)]

    def _object(self, value: Any) -> Any:
        kind = self.of(type(value))
        config = self._configuration(value)
        if config is not None:
            return [kind, config, self._beside(value)]
        try:
            return [kind, self._state(value)]
        except Exception as error:
            if self._lenient:
                return kind
            if isinstance(error, Unknown):
                raise
            raise Unknown(type(value).__name__) from error

    def _state(self, value: Any) -> Any:
        """The state that pickle would save."""
        state = value.__reduce_ex__(2)
        if isinstance(state, str):
            return state
        if is_own(type(value)) and len(state) > 2 and isinstance(state[2], dict):
            return self._state_of(value, set_by_constructor)
        return [self.of(list(each) if isinstance(each, Iterator) else each) for each in state]

    def _configuration(self, value: Any) -> Any:
        """The configuration that Keras would save; None if there is none."""
        if isinstance(value, type) or not hasattr(value, "get_config"):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = value.get_config()
        except Exception:  # a class of the user's whose get_config fails
            return None
        if isinstance(value, keras.layers.Layer):  # each run sets the seeds of its generators
            config = {name: each for name, each in config.items() if name != "seed"}
        if type(value).__name__ == "TorchModuleWrapper":
            kinds = [type(module) for module in value.module.modules()]
            config = {**config, "module": [repr(value.module), kinds]}
        return self.of(self._cleaned({"class_name": type(value).__name__, "config": config}))

    def _cleaned(self, config: Any) -> Any:
        """A configuration without names and without pickled code."""
        if isinstance(config, (list, tuple)):
            return [self._cleaned(each) for each in config]
        if not isinstance(config, dict):
            return config
        kind, inner = config.get("class_name"), config.get("config")
        if kind == "__lambda__":  # the function itself is an attribute
            return kind
        if isinstance(kind, str) and isinstance(inner, dict):
            own = () if "DTypePolicy" in kind else ("name", "layers", *self._left_out)
            inner = {k: self._cleaned(v) for k, v in inner.items() if k not in own}
            for name in ("input_layers", "output_layers"):
                inner.pop(name, None)
            return [kind, inner]
        left_out = ("build_config", "registered_name", "module")
        return {k: self._cleaned(v) for k, v in config.items() if k not in left_out}

    def _beside(self, value: Any) -> Any:
        """Attributes that a configuration may omit: functions and objects of the user's code."""
        kind = type(value)
        complete = is_own(getattr(kind.get_config, "__module__", None) or kind)
        if is_own(kind) and not complete:
            return self._state_of(value, set_by_constructor)
        # For example, the configuration of Huber lacks its delta.
        return self._state_of(value, lambda name, each, kind: name == ARGUMENTS or is_code(each))

    def _state_of(self, value: Any, counts: Callable[[str, Any, type], bool]) -> Any:
        attributes: dict[str, Any] = {}
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    attributes[name] = getattr(value, name)
        attributes.update(getattr(value, "__dict__", {}))
        skipped = (keras.Variable, keras.layers.Layer, keras.optimizers.Optimizer)
        return {
            name: self.of(each)
            for name, each in sorted(attributes.items())
            if name not in self._left_out
            and not isinstance(each, skipped)
            and counts(name, each, type(value))
        }

    def _class(self, kind: type) -> Any:
        name = name_of(kind)
        if not is_own(kind) and "<locals>" not in kind.__qualname__:
            return name
        members = {
            each: self.of(member)
            for each, member in sorted(vars(kind).items())
            if callable(member)
            or isinstance(member, (staticmethod, classmethod, property))
            or not (each.startswith("_") or isinstance(member, types.MemberDescriptorType))
        }
        return [kind.__name__, [self.of(base) for base in kind.__bases__], members]

    def _function(self, function: Any) -> Any:
        code = function.__code__
        cells = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                try:
                    cells[name] = self.of(cell.cell_contents)
                except ValueError:  # an empty cell
                    cells[name] = "empty"
        if not is_own(function):
            return [name_of(function), cells]
        self.reads_code = True
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        outside = {name: self.of(value) for name, value in globals_of(function)}
        return [self._code(code, function.__doc__), defaults, cells, outside]

    def _code(self, code: types.CodeType, doc: str | None = None) -> Any:
        constants = [
            self._code(each) if isinstance(each, types.CodeType) else self.of(each)
            for each in code.co_consts
            if doc is None or each != doc
        ]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
        return [code.co_code.hex(), constants, [list(each) for each in names], counts]

    def _sorts(self, array: np.ndarray) -> bool:
        return self._sort and array.ndim == 1 and array.dtype.kind in "biufSU"


def digest(parts: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def content(arrays: list[Any]) -> str:
    """A short hash of the whole content of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape}{array.dtype}".encode())
        if array.dtype.kind in "OUT":
            found.update(repr(array.tolist()).encode())
        elif array.ndim == 0 or array.flags.c_contiguous:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        else:  # block by block: a copy of the whole might not fit
            rows = max(1, _BLOCK * len(array) // max(1, array.nbytes))
            for start in range(0, len(array), rows):
                found.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return found.hexdigest()[:12]


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, keras.Variable):
        return np.asarray(keras.ops.convert_to_numpy(value.value))
    if keras.ops.is_tensor(value):
        try:
            return np.asarray(keras.ops.convert_to_numpy(value))
        except Exception:  # a symbolic tensor
            return None
    return None
