"""Python values as JSON tells them: the same in every process that runs the same script."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import io
import json
import logging
import random
import sys
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

__all__ = ["Description", "Unknown", "content", "digest"]

# Told by their class: what they hold changes while a run goes on, and is no part of the problem.
_PASSING = (
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
_FRAMEWORKS = ("keras", "keras_lr", "keras_lr_cli", "tensorflow", "jax", "torch", "numpy")
_CONSTRUCTORS = ("__init__", "__new__", "__post_init__", "__setstate__", "build", "compile")
_BLOCK = 2**24  # bytes that are hashed at once


class Unknown(TypeError):
    """A value has neither a configuration nor code that can be read."""


class Description:
    """Describes values, each the same way in all processes that run the same script.

    What Keras can serialize is described by its configuration, code of the user's by its
    bytecode with the values that it reaches (defaults, closures, globals), arrays by their
    content, and code of installed packages by its name. Names of layers are replaced by the
    layers' places, because Keras counts them up.

    Args:
        model: A model; in what is described, it and its layers stand for themselves.
        lenient: Whether a value that cannot be described is described by its class; otherwise it
            raises `Unknown`.
        sort: Whether the order of what data sets shuffle, lists and arrays of one axis, does not
            count.
        passing: Further classes whose objects are described by their class.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        lenient: bool = False,
        sort: bool = False,
        passing: tuple[type, ...] = (),
    ) -> None:
        layers = [] if model is None else inner_layers(model)
        known = [] if model is None else [model, *layers]
        self._names = {layer.name: f"layer {place}" for place, layer in enumerate(known)}
        variables = [] if model is None else [*model.variables, *model.optimizer.variables]
        self._told: dict[int, Any] = {
            id(layer): ["layer", place] for place, layer in enumerate(known)
        }
        self._told.update((id(each), ["weight", i]) for i, each in enumerate(variables))
        self._kept: list[Any] = [*known, *variables]
        self._open: dict[int, int] = {}
        self._lenient = lenient
        self._sort = sort
        self._passing = _PASSING + passing
        self._left_out: tuple[str, ...] = ()
        self.reads_code = False  # whether bytecode is a part, which versions of Python change

    def of(self, value: Any) -> Any:
        """The value as JSON can hold it.

        Raises:
            Unknown: If it cannot be described.
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
        if id(value) in self._told:
            return self._told[id(value)]
        array = _array(value)
        if array is not None:
            return ["array", content([np.sort(array) if self._sorts(array) else array])]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, self._passing):
            return ["a", type(value).__name__]
        if id(value) in self._open:
            return ["above", self._open[id(value)]]
        self._open[id(value)] = len(self._open)
        try:
            told = digest(self._compound(value))
        finally:
            del self._open[id(value)]
        self._told[id(value)] = told
        self._kept.append(value)  # so that no other value gets its id
        return told

    def layer(self, layer: Any) -> Any:
        """A layer of the model, apart from the values of its weights."""
        return [
            self.of(type(layer)),
            self._configuration(layer),
            self._beside(layer),
            [[list(v.shape), str(v.dtype), bool(v.trainable)] for v in layer.variables],
        ]

    def model(self, model: Any) -> Any:
        """The class of the model itself, and what its constructor got."""
        state = self._state_of(model, _set_by_constructor)
        return [self.of(type(model)), self._configuration(model), state]

    def optimizer(self, optimizer: Any) -> Any:
        """An optimizer without its rate, which is what is searched for."""
        self._left_out = ("learning_rate", RATE, "lr")
        try:
            return self.of(optimizer)
        finally:
            self._left_out = ()

    def graph(self, model: Any) -> Any:
        """How the operations of a functional model are connected; None of another model."""
        graph = functional_graph(model)
        if graph is None:
            return None
        places = {id(each): place for place, each in enumerate(graph.operations)}

        def told(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return self.of(value)
            operation, *place = producer(value)
            return ["from", places.get(id(operation)), *place]

        def of(structure: Any) -> Any:
            return keras.tree.flatten(keras.tree.map_structure(told, structure))

        nodes = [
            [places[id(node.operation)], of([node.arguments.args, node.arguments.kwargs])]
            for node in nodes_of(graph)
        ]
        kinds = [self._operation(each) for each in graph.operations]
        return digest([kinds, nodes, of(graph.outputs)])

    def _operation(self, operation: Any) -> Any:
        if isinstance(operation, keras.layers.Layer):
            return self._told.get(id(operation), type(operation).__name__)
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
        """A layer or a model that is none of the model's, such as one that a loss asks."""
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
        """What pickle would write down."""
        state = value.__reduce_ex__(2)
        if isinstance(state, str):
            return state
        if _is_own(type(value)) and len(state) > 2 and isinstance(state[2], dict):
            return self._state_of(value, _set_by_constructor)
        return [self.of(list(each) if isinstance(each, Iterator) else each) for each in state]

    def _configuration(self, value: Any) -> Any:
        """The configuration that Keras would save; None of what has none."""
        if isinstance(value, type) or not hasattr(value, "get_config"):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = value.get_config()
        except Exception:  # a class of the user's that cannot say what it is made of
            return None
        if isinstance(value, keras.layers.Layer):  # each run seeds its generators anew
            config = {name: each for name, each in config.items() if name != "seed"}
        if type(value).__name__ == "TorchModuleWrapper":
            kinds = [type(module) for module in value.module.modules()]
            config = {**config, "module": [repr(value.module), kinds]}
        return self.of(self._cleaned({"class_name": type(value).__name__, "config": config}))

    def _cleaned(self, config: Any) -> Any:
        """A configuration without names, and without code that pickle has written down."""
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
        """What a configuration may not tell: functions and objects of the user's, by attribute."""
        kind = type(value)
        complete = _is_own(getattr(kind.get_config, "__module__", None) or kind)
        if _is_own(kind) and not complete:
            return self._state_of(value, _set_by_constructor)
        # Huber, for one, does not tell its delta in its configuration.
        return self._state_of(value, lambda name, each, kind: name == ARGUMENTS or _is_code(each))

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
        name = _called(kind)
        if not _is_own(kind) and "<locals>" not in kind.__qualname__:
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
                except ValueError:  # nothing has been put into it
                    cells[name] = "empty"
        if not _is_own(function):
            return [_called(function), cells]
        self.reads_code = True
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        outside = {name: self.of(value) for name, value in _globals(function)}
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
    """A short name of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def content(arrays: list[Any]) -> str:
    """A short name of the content of arrays, all of it."""
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
        except Exception:  # a symbolic tensor of the backend's
            return None
    return None


def _called(value: Any) -> str:
    """The name of a class or a function, with the version of a package that is no framework."""
    root = (value.__module__ or "").partition(".")[0]
    version = "" if root in _FRAMEWORKS else getattr(sys.modules.get(root), "__version__", "")
    return f"{value.__module__}.{value.__qualname__}{version and f' {version}'}"


def _is_own(value: Any) -> bool:
    """Whether code is the user's, and not that of an installed package."""
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


def _is_code(value: Any) -> bool:
    """Whether an attribute is code of the user's, or holds some."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_code, value))
    if isinstance(value, Mapping):
        return any(map(_is_code, value.values()))
    if isinstance(value, functools.partial):
        return True
    value = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
    if isinstance(value, types.MethodType):
        return _is_own(value.__func__)
    if isinstance(value, (types.FunctionType, type)):
        return _is_own(value)
    return _is_own(type(value))


def _set_by_constructor(name: str, value: Any, kind: type) -> bool:
    """Whether an attribute is an argument, so to say: no other method assigns it anew."""
    begun, later = _assigned(kind)
    return name in begun - later


@functools.cache
def _assigned(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes that a class's own code assigns: when an object begins, and later."""
    begun: set[str] = set()
    later: set[str] = set()
    for base in kind.__mro__:
        for name, member in vars(base).items() if _is_own(base) else ():
            function = getattr(member, "__func__", member)
            function = inspect.unwrap(function) if callable(function) else function
            if isinstance(function, types.FunctionType):
                stored = {
                    each.argval
                    for each in _instructions(function.__code__)
                    if each.opname == "STORE_ATTR"
                }
                (begun if name in _CONSTRUCTORS else later).update(stored)
        begun.update(getattr(base, "__dataclass_fields__", ()) if _is_own(base) else ())
    return frozenset(begun), frozenset(later)


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    """Those of the code, and of the functions inside it."""
    yield from dis.get_instructions(code)
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _instructions(each)


def _globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The globals that a function reads, and what it reads of the user's modules."""
    found: dict[str, Any] = {}
    place, now = "", None  # a module of the user's whose attributes are read next
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
        elif now is not None and not _is_own(now.__name__):
            found[place], now = now, None
    return sorted(found.items())
