"""The one place that copies a model's whole state and puts it back.

What training can change is found by walking from the model over everything that it reaches
(`_reach.py`). It is of two kinds. *Values*: variables, tensors, arrays, random generators. They
are copied to host memory, once, so that nothing extra lives on the device. *Python state*: the
attributes of objects and the contents of containers. Training changes numbers and lists that a
program keeps there, and it builds what was not built: layers, slots of an optimizer, metrics. The
old attributes and contents are remembered, by reference, and put back.
"""

from __future__ import annotations

import functools
import io
import random
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.utils.tracking import Tracker

from keras_lr._keras.reach import is_library, reachable, written_globals
from keras_lr._util.interrupts import uninterrupted

_GLOBAL_SEED_GENERATOR = "global_seed_generator"  # as Keras calls it
_GLOBAL_SEED = "global_random_seed"  # as Keras calls it
_NAME_COUNTERS = "object_name_uids"  # as Keras calls them
# Attributes of ours, with which a model remembers the callbacks that steer it.
_OURS = ("_keras_lr_fit", "_keras_lr_memory", "_keras_lr_loop", "save_own_variables")
# Attributes that are not walked, but hold what building adds to.
_NOTED = ("_inbound_nodes", "_outbound_nodes", "_tracker", "_build_shapes_dict")
_TENSORS_OF_TORCH = ("_buffers", "_parameters")
# What Keras keeps in a model beside its values, and what a further run can use again.
_REUSED = frozenset(
    {
        *("train_function", "test_function", "predict_function", "_jax_state", "history", "built"),
        *("_jax_state_synced", "_eval_epoch_iterator", "_losses_override", "stop_training"),
    }
)
_MISSING = object()
_HOST_KINDS = (np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
_GIVEN_AWAY = np.empty(0)
_LARGEST = 2**30  # bytes of an array that is copied
_GROUP = 2**26  # bytes that JAX takes in one transfer


def optimizers_of(model: Any) -> list[Any]:
    """Every optimizer that a model reaches, those inside other optimizers included."""
    return [part for _, part in reachable(model) if isinstance(part, keras.optimizers.Optimizer)]


class Values:
    """The values of some variables of a model, copied to host memory.

    Args:
        arrays: Values to put back, in the place of those that the variables hold now.
        loose: Whether to copy the tensors that are no Keras variables as well.
    """

    def __init__(
        self,
        model: Any,
        variables: list[Any],
        arrays: list[np.ndarray] | None = None,
        *,
        loose: bool = True,
    ) -> None:
        self._model = model
        self._variables = variables
        self._shardings: list[Any] | None = None
        values = [variable.value for variable in variables]
        self.arrays = arrays or [_copied(value) for value in values]
        if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
            # Only then: an array that was put somewhere on purpose is another kind of argument to
            # JAX, and a compiled `fit` would be compiled again for it.
            self._shardings = [value.sharding for value in values]
        self._loose: list[Callable[[], None]] = []
        if loose:
            self._loose = _copied_tensors(model, variables)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def put_back(self, *, last: bool = False) -> None:
        """Give the variables their values back; on JAX, outside of a step or after a sync.

        Args:
            last: Whether the copies may be given away, because they are not needed again.
        """
        if keras.backend.backend() == "jax":
            _assign_on_jax(self._variables, self.arrays, self._shardings, last)
        else:
            with _variable_scope(self._model):
                for variable, array in zip(self._variables, self.arrays, strict=True):
                    _assign(variable, array)
        for put_back in self._loose:
            put_back()


class Snapshot:
    """A copy of everything that training changes in a model and in the random generators.

    Take it before the model is touched, call `copy_values` once its variables exist, and
    `restore` to put everything back. `rewind` starts another run from the same point: it puts
    back values and what a program keeps in Python, and leaves the model built and its functions
    compiled.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._random = _RandomState()
        self._before = _PythonState(model)
        self._loose_before = _Loose(model, self._before.loose)
        self._start: _PythonState | None = None
        self._values: Values | None = None
        self._loose: _Loose | None = None
        self._drop_gradients: Callable[[], None] | None = None

    def copy_values(self) -> None:
        """Copy everything that `rewind` puts back.

        Warns:
            UserWarning: If the model holds something that cannot be put back.
        """
        start = _PythonState(self._model)
        self._values = Values(self._model, start.variables, loose=False)
        self._loose = _Loose(self._model, start.loose, earlier=self._loose_before)
        if keras.backend.backend() == "torch":
            tensors = [v.value for v in start.variables] + [part for _, part in start.loose]
            self._drop_gradients = _torch_gradients(self._model, tensors)
        self._start = start
        for path, part in start.positions:
            warnings.warn(
                f"The model holds an iterator, {path} ({type(part).__name__}), whose position "
                "cannot be put back: training goes on from where this run leaves it.",
                UserWarning,
                stacklevel=2,
            )

    @property
    def nbytes(self) -> int:
        """Host memory that the copied values of variables take, in bytes."""
        return 0 if self._values is None else self._values.nbytes

    def rewind(self) -> None:
        """Start again: the next training step begins where the first one did."""
        if self._start is None or self._values is None or self._loose is None:
            return
        if self.has_grown():
            self.unbuild()
        self._values.put_back()
        self._loose.put_back()
        if self._drop_gradients is not None:
            self._drop_gradients()
        self._start.rewind()

    def has_grown(self) -> bool:
        """Whether training has created variables since `copy_values`, those of metrics apart.

        Nobody has seen their first values; the next run has to create them again.
        """
        if self._start is None:
            return False
        known = {id(variable) for variable in self._start.variables}
        new: set[int] = set()
        for _, part in reachable(self._model):
            if isinstance(part, keras.Variable) and id(part) not in known:
                new.add(id(part))
            elif isinstance(part, keras.metrics.Metric):
                known |= {id(variable) for variable in part.variables}
        return not new <= known

    def unbuild(self) -> None:
        """Take away what was built since `copy_values`, and what was compiled with it."""
        if self._start is not None:
            self._start.restore()

    def restore(self) -> None:
        """Put everything back, once and for all; the copies are given up."""
        if self._values is not None:
            self._values.put_back(last=True)
        if self._drop_gradients is not None:
            self._drop_gradients()
        self._loose_before.put_back()
        self._before.restore()
        self._random.restore()
        self._values, self._loose, self._start, self._drop_gradients = None, None, None, None

    @contextmanager
    def guarding(self) -> Iterator[Snapshot]:
        """Restore when the block ends, however it ends; Ctrl-C waits until that is done."""
        try:
            yield self
        finally:
            with uninterrupted():
                self.restore()


class _PythonState:
    """What a model reaches: Python's part of it is remembered, the rest is listed.

    Attributes:
        variables: Keras variables.
        loose: `(path, part)` of the tensors, arrays and random generators beside them.
        positions: `(path, part)` of iterators, whose position nobody can set.
    """

    def __init__(self, model: Any) -> None:
        variables = {id(variable): variable for variable in _listed_variables(model)}
        loose_parts: list[tuple[str, Any]] = []
        self.positions: list[tuple[str, Any]] = []
        self._kept: list[_Kept] = []
        structure: set[int] = set()  # ids of containers in which is noted what has been built
        seen: set[type] = set()
        loose = (*_HOST_KINDS, *_tensor_kinds())
        for path, part in reachable(model):
            if isinstance(part, keras.Variable):
                variables[id(part)] = part
            elif isinstance(part, loose):
                if not isinstance(part, np.ndarray) or part.flags.writeable:
                    loose_parts.append((path, part))
            else:
                self._keep(part, structure, seen)
                if isinstance(part, Iterator) and _is_position(part):
                    self.positions.append((path, part))
        known = {id(variable._value) for variable in variables.values()}
        self.loose = [(path, part) for path, part in loose_parts if id(part) not in known]
        self.variables = list(variables.values())
        self._trainable = [(variable, variable.trainable) for variable in self.variables]

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
            if name in _NOTED:
                self._kept.append(_Kept(value, True))
                if isinstance(value, Tracker):
                    self._kept.extend(_Kept(ids, True) for ids in value.stored_ids.values())
            elif (kept.structural or name in kept.fixed) and name not in (
                "_buffers",
                "_parameters",
            ):
                structure.add(id(value))

    def rewind(self) -> None:
        """Put back what a program keeps; leave what has been built and compiled since."""
        for kept in self._kept:
            if not kept.structural:
                kept.rewind()

    def restore(self) -> None:
        """Put everything back."""
        for kept in self._kept:
            kept.restore()
        for variable, trainable in self._trainable:
            if variable.trainable != trainable:
                variable.trainable = trainable


class _Kept:
    """The attributes of one object or class, the contents of one container, or both.

    Attributes:
        structural: Whether it says what has been built, which further runs can use again.
        fixed: Attributes that do so, in an object of a program's own class.
    """

    __slots__ = ("_attributes", "_cells", "_contents", "_globals", "_part", "fixed", "structural")

    def __init__(self, part: Any, structural: bool) -> None:
        """
        Args:
            structural: Whether a container is one in which a framework notes what it has built.
        """
        self._part = part
        self._contents = _contents(part)
        self._attributes = _attributes(part)
        self._cells: list[tuple[Any, Any]] = []
        self._globals: dict[str, Any] = {}
        self.fixed: frozenset[str] = frozenset()
        self.structural = structural and self._contents is not None
        if isinstance(part, types.FunctionType):
            self._cells = [(cell, _cell_contents(cell)) for cell in part.__closure__ or ()]
            scope = part.__globals__
            self._globals = {name: scope.get(name, _MISSING) for name in written_globals(part)}
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
            _refill(self._part, self._contents)
        if self._attributes is not None:
            ours = {n: v for n, v in _attributes(self._part).items() if n in _OURS}
            kept = {n: v for n, v in self._attributes.items() if n not in _OURS}
            _set_attributes(self._part, {**kept, **ours})
        self._restore_names()

    def rewind(self) -> None:
        if self._contents is not None and not _holds_built(_contents(self._part)):
            _refill(self._part, self._contents)
        if self._attributes is not None:
            now = _attributes(self._part)
            left = {n: v for n, v in now.items() if n in self.fixed or _holds_built(v)}
            rest = {n: v for n, v in self._attributes.items() if n not in self.fixed}
            _set_attributes(self._part, {**rest, **left})
        self._restore_names()

    def _restore_names(self) -> None:
        """The variables of a function that are not its own."""
        for cell, value in self._cells:
            if _cell_contents(cell) is value:
                continue
            if value is _MISSING:
                del cell.cell_contents
            else:
                cell.cell_contents = value
        for name, value in self._globals.items():
            if value is _MISSING:
                self._part.__globals__.pop(name, None)
            else:
                self._part.__globals__[name] = value


def _contents(part: Any) -> Any:
    """A copy of what a container holds; None for anything else."""
    part = _unwrapped(part)
    kinds: tuple[Any, ...] = (dict, list, set, deque, bytearray)
    for kind in kinds:
        if isinstance(part, kind):
            return kind(part)
    return None


def _refill(part: Any, contents: Any) -> None:
    """Make a container hold again what `_contents` found in it.

    Base-class methods are called on purpose: Keras's tracked containers would register what is
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
    """The plain container inside those that TensorFlow puts around lists and dictionaries."""
    for name in ("__wrapped__", "_storage"):
        if isinstance(part, (dict, list)) and hasattr(part, name):
            part = getattr(part, name)
    return part


def _attributes(part: Any) -> Any:
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


def _set_attributes(part: Any, attributes: dict[str, Any]) -> None:
    now = _attributes(part) or {}
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
        if now.get(name, _MISSING) is not value:
            put(name, value)


def _cell_contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _is_frameworks(kind: type) -> bool:
    """Whether Keras or torch define a class, and keep what training changes in its variables."""
    if kind.__module__.startswith("torch."):
        return kind.__module__.startswith("torch.nn.")
    package = kind.__module__.partition(".")[0]
    return package in ("keras", "keras_lr", "tensorflow")


def _framework_names(part: Any) -> frozenset[str]:
    """Attributes of a program's own layer, model or loss that belong to the framework."""
    if isinstance(part, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return frozenset(_attributes(part) or ())
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
    """What a bare object of a framework's class has, and what Keras gives it later."""
    counters = _copied_counters()
    try:
        return _REUSED | vars(base()).keys()
    finally:
        global_state.set_global_attribute(_NAME_COUNTERS, counters)


def _holds_built(value: Any, depth: int = 3) -> bool:
    """Whether a value is, or contains, something that a run builds or compiles."""
    if isinstance(value, (keras.Variable, keras.optimizers.Optimizer, Tracker)) or callable(value):
        return True
    if not depth or not isinstance(value, (dict, list, tuple, set, deque)):
        return False
    members = value.values() if isinstance(value, dict) else value
    return any(_holds_built(member, depth - 1) for member in members)


def _is_position(part: Any) -> bool:
    """Whether an iterator is one whose position Python or a framework keeps to itself."""
    return is_library(type(part)) and not isinstance(part, io.IOBase)


@functools.lru_cache(maxsize=1)
def _tensor_kinds() -> tuple[type, ...]:
    """The backend's own kinds of what holds values, beside Keras variables."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return (tf.Variable,)
    if keras.backend.backend() == "torch":
        import torch

        return torch.Tensor, torch.Generator
    return ()


class _Loose:
    """Copies of values that are no Keras variables: tensors, arrays, random generators.

    Args:
        parts: `(path, part)` of each.
        earlier: Copies that were made before; what has not changed since is not copied again.
    """

    def __init__(
        self, model: Any, parts: list[tuple[str, Any]], earlier: _Loose | None = None
    ) -> None:
        self._model = model
        self._copies: dict[int, tuple[Any, Any]] = {}
        for path, part in parts:
            copied = earlier._copies.get(id(part)) if earlier else None
            if copied is None and _size(part) > _LARGEST:
                if earlier is not None:
                    _warn_of_size(path, _size(part))
                continue
            if copied is None or not _is_as(part, copied[1]):
                copied = part, _read(part)
            self._copies[id(part)] = copied

    def put_back(self) -> None:
        with _variable_scope(self._model):
            for part, value in self._copies.values():
                _write(part, value)


def _size(part: Any) -> int:
    """Bytes of what would have to be copied only because training might write to it."""
    if isinstance(part, np.ndarray):
        return int(part.nbytes)
    if type(part).__name__ == "Parameter" or not hasattr(part, "dtype"):
        return 0
    return int(np.prod(part.shape)) * int(getattr(part.dtype, "itemsize", 0) or part.dtype.size)


def _read(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    if isinstance(part, random.Random):
        return part.getstate()
    if hasattr(part, "get_state"):  # the generators of NumPy's old kind, and of torch
        return part.get_state()
    if hasattr(part, "detach"):
        return part.detach().cpu().clone()
    return [np.array(each) for each in replicas(part)]


def _write(part: Any, value: Any) -> None:
    if isinstance(part, np.ndarray):
        np.copyto(part, value)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = value
    elif isinstance(part, random.Random):
        part.setstate(value)
    elif hasattr(part, "set_state"):
        part.set_state(value)
    elif hasattr(part, "detach"):
        part.data.copy_(value)
    else:
        for each, array in zip(replicas(part), value, strict=True):
            each.assign(array)


def _is_as(part: Any, value: Any) -> bool:
    """Whether an array or a tensor still has the value that was copied."""
    if isinstance(part, np.ndarray):
        return bool(part.tobytes() == value.tobytes())
    if hasattr(part, "detach"):
        import torch

        return torch.equal(part.detach().cpu(), value)
    return False


def _copied_tensors(model: Any, variables: list[Any]) -> list[Callable[[], None]]:
    """Copies of tensors that are no Keras variables, as functions that put them back."""
    kinds = _tensor_kinds()
    if not kinds:
        return []
    known = {id(variable.value) for variable in [*variables, *_listed_variables(model)]}
    parts = [
        (path, part)
        for path, part in reachable(model)
        if isinstance(part, kinds) and id(part) not in known
    ]
    return [_Loose(model, parts).put_back]


def _warn_of_size(path: str, size: int) -> None:
    warnings.warn(
        f"The model holds an array of {size / 2**30:.1f} GiB, {path}, which is not copied: if "
        "training writes to it, that cannot be taken back. Make it read-only, or a variable.",
        UserWarning,
        stacklevel=2,
    )


def _torch_gradients(model: Any, tensors: list[Any]) -> Callable[[], None]:
    """Training leaves `.grad` on parameters that had none, and may add to those that had.

    Keras's own step drops them before it begins; another step may accumulate them.
    """
    own = type(model).train_step is keras.Model.train_step
    leaves = [tensor for tensor in tensors if getattr(tensor, "is_leaf", False)]
    kept = [
        (leaf, None if leaf.grad is None or own else leaf.grad.detach().cpu().clone())
        for leaf in leaves
        if leaf.grad is None or not own
    ]

    def put_back() -> None:
        for leaf, gradient in kept:
            if gradient is None:
                leaf.grad = None
            else:
                leaf.grad = gradient.to(leaf.device, copy=True)

    return put_back


def _listed_variables(model: Any) -> list[Any]:
    """The variables that Keras lists, and its generator of seeds, which no model holds."""
    generator = global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)
    return [
        *model.variables,
        *model.metrics_variables,
        *(model.optimizer.variables if getattr(model, "optimizer", None) is not None else []),
        *([generator.state] if generator is not None else []),
    ]


def trained_variables(model: Any, apart: list[Any]) -> list[Any]:
    """Weights, statistics, states of layers and of the optimizers, those in `apart` left out.

    Metrics and seeds go on. So does the scale of a loss-scale optimizer: what it has learnt about
    overflows holds for earlier weights too.
    """
    names = ("dynamic_scale", "step_counter")
    kept, found = list(apart), {}
    for _, part in reachable(model):
        if isinstance(part, keras.Variable):
            found[id(part)] = part
        elif isinstance(part, keras.metrics.Metric):
            kept += part.variables
        elif isinstance(part, keras.random.SeedGenerator):
            kept.append(part.state)
        elif isinstance(part, keras.optimizers.Optimizer):
            kept += [getattr(part, name, None) for name in names]
    left_out = {id(variable) for variable in kept}
    return [variable for each, variable in found.items() if each not in left_out]


def build_optimizer(model: Any) -> None:
    """Make the slots of an optimizer that has none yet, as the first training step would."""
    with _variable_scope(model):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


def _copied(value: Any) -> np.ndarray:
    """A copy in host memory; with an axis of replicas before the others where those differ.

    Statistics and metrics do: each replica of a `MirroredStrategy` counts what it sees, and the
    sum or the mean of them would not be enough to put them back.
    """
    arrays = [np.array(keras.ops.convert_to_numpy(part)) for part in replicas(value)]
    alike = all(array.tobytes() == arrays[0].tobytes() for array in arrays[1:])
    return arrays[0] if alike else np.stack(arrays)


def _assign(variable: Any, array: np.ndarray) -> None:
    parts = replicas(variable.value)
    if len(parts) == 1:
        variable.assign(array)
        return
    alike = array.shape == tuple(variable.shape)
    for index, part in enumerate(parts):
        part.assign(array if alike else array[index])


def replicas(value: Any) -> tuple[Any, ...]:
    """What a distributed variable of TensorFlow keeps on each device; else the value itself."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(value, tf.distribute.DistributedValues):
            return tuple(value.values)
    return (value,)


def drop_values(variables: Iterable[Any]) -> None:
    """Let variables hold no value, so that JAX can reuse the memory of the one they had."""
    for variable in variables:
        variable._value = None


def _assign_on_jax(
    variables: list[Any],
    values: list[np.ndarray],
    shardings: list[Any] | None,
    last: bool,
) -> None:
    """A few transfers for all variables; `assign` takes longer than a training step for each.

    Of copies: JAX may use the memory of a NumPy array as its own, and the training step is
    given its buffers to overwrite. The last time each copy is dropped as soon as it is on the
    device, so that a large model is never there once more.
    """
    import jax

    drop_values(variables)
    start = 0
    while start < len(values):
        end, size = start, 0
        while end < len(values) and (end == start or size + values[end].nbytes <= _GROUP):
            size += values[end].nbytes
            end += 1
        group = values[start:end] if last else [value.copy() for value in values[start:end]]
        arrays = jax.device_put(group, shardings[start:end] if shardings else None)
        if last:
            jax.block_until_ready(arrays)
            values[start:end] = [_GIVEN_AWAY] * (end - start)
        for variable, array in zip(variables[start:end], arrays, strict=True):
            variable._value = array
        start = end


@contextmanager
def _variable_scope(model: Any) -> Iterator[None]:
    """The scope in which TensorFlow lets mirrored variables be assigned."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def _copied_counters() -> Any:
    """Keras's counters for the names of new objects."""
    counters = global_state.get_global_attribute(_NAME_COUNTERS)
    return None if counters is None else counters.copy()


class _RandomState:
    """The state of every random generator that `fit` draws from."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._generator = global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)
        self._drawn = None if self._generator is None else _copied(self._generator.state.value)
        self._seed = global_state.get_global_attribute(_GLOBAL_SEED)
        self._counters = _copied_counters()
        self._restores: list[Callable[[], Any]] = []
        if keras.backend.backend() == "tensorflow":
            self._restores.append(_tensorflow_random())
        elif keras.backend.backend() == "torch":
            self._restores.append(_torch_random())

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        global_state.set_global_attribute(_GLOBAL_SEED_GENERATOR, self._generator)
        if self._drawn is not None:
            self._generator.state.assign(self._drawn)
        global_state.set_global_attribute(_GLOBAL_SEED, self._seed)
        global_state.set_global_attribute(_NAME_COUNTERS, self._counters)
        for restore in self._restores:
            restore()


@contextmanager
def random_generators_kept() -> Iterator[None]:
    """Give the caller's random generators back as they were, however the block ends."""
    state = _RandomState()
    try:
        yield
    finally:
        with uninterrupted():
            state.restore()


def _tensorflow_random() -> Callable[[], None]:
    from tensorflow.python.eager import context

    eager = context.context()
    seed, generator = eager._seed, getattr(eager, "_rng", None)  # there only once it is seeded
    state = generator.getstate() if generator is not None else None

    def restore() -> None:
        eager._seed = seed
        if generator is not None:
            eager._rng = generator
            generator.setstate(state)
        elif hasattr(eager, "_rng"):
            del eager._rng

    return restore


def _torch_random() -> Callable[[], None]:
    import torch

    cpu, devices = torch.get_rng_state(), []
    if torch.cuda.is_available():
        devices = torch.cuda.get_rng_state_all()

    def restore() -> None:
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore


def seed_everything(seed: int) -> None:
    """Seed the generators that order data and draw noise; a `Snapshot` puts them back."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.random.set_seed(seed)
    elif keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)


def reseed(model: Any, seed: int) -> None:
    """Give every seed generator that a model holds (of dropout, say) a state made from `seed`.

    Keras seeds those generators when a layer is made. With this, equal models draw equal noise.
    """
    held = [part for _, part in reachable(model) if isinstance(part, keras.random.SeedGenerator)]
    shared = global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)
    with _variable_scope(model):
        for place, generator in enumerate([shared, *held]):
            if generator is not None:
                first = np.random.SeedSequence([seed, place]).generate_state(1)[0]
                state = np.zeros(generator.state.shape, generator.state.dtype)
                state[0] = first % 2**31  # what every backend's integer holds
                generator.state.assign(state)
