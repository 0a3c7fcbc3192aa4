"""The one place that copies a model's whole state and puts it back.

What a training step can change is of two kinds. *Values*: weights, statistics, optimizer slots,
counters, seeds, metrics. They are copied to host memory, once, so that nothing extra lives on
the device. *Structure*: a compiled model that has never been fitted has an optimizer without
slots and metrics without variables; training builds them. Those objects' attributes are
remembered and put back, so that a later `fit` starts from where it would have started.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.utils.tracking import Tracker

from keras_lr._interrupts import uninterrupted
from keras_lr._reach import reachable
from keras_lr.steering import all_optimizers

_GLOBAL_SEED_GENERATOR = "global_seed_generator"  # as Keras calls it
_MODEL_ATTRIBUTES = (
    "stop_training",
    "history",
    "train_function",
    "test_function",
    "_jax_state",
    "_jax_state_synced",
    "_eval_epoch_iterator",
    "_losses_override",
)


def optimizers_of(model: Any) -> list[Any]:
    """Every optimizer of a model, those that a custom `compile` keeps in attributes included."""
    found: dict[int, Any] = {}
    for value in [model.optimizer, *vars(model).values()]:
        if isinstance(value, keras.optimizers.Optimizer):
            found.update((id(part), part) for part in all_optimizers(value))
    return list(found.values())


class Values:
    """The values of some variables of a model, copied to host memory.

    With them, on torch, the buffers that are no Keras variables.

    Args:
        arrays: Values to put back, in the place of those that the variables hold now.
    """

    def __init__(
        self, model: Any, variables: list[Any], arrays: list[np.ndarray] | None = None
    ) -> None:
        self._model = model
        self._variables = variables
        self._shardings: list[Any] | None = None
        self._extra: list[Callable[[], None]] = []
        values = [variable.value for variable in variables]
        self.arrays = arrays or [_copied(value) for value in values]
        if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
            # Only then: an array that was put somewhere on purpose is another kind of argument to
            # JAX, and a compiled `fit` would be compiled again for it.
            self._shardings = [value.sharding for value in values]
        if keras.backend.backend() == "torch":
            self._extra = _torch_buffers(model)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def put_back(self) -> None:
        """Give the variables their values back; on JAX, outside of a step or after a sync."""
        if keras.backend.backend() == "jax":
            _assign_on_jax(self._variables, self.arrays, self._shardings)
        else:
            with _variable_scope(self._model):
                for variable, array in zip(self._variables, self.arrays, strict=True):
                    _assign(variable, array)
        for put_back in self._extra:
            put_back()


class Snapshot:
    """A copy of everything that training changes in a model and in the random generators.

    Take it before the model is touched, call `copy_values` once its variables exist, and
    `restore` to put everything back. `rewind` puts the values back and leaves the structure
    and the random generators, for another run from the same start.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._random = _RandomState()
        self._objects = [_Attributes(part) for part in optimizers_of(model)]
        for part in (model._compile_metrics, model._compile_loss):
            if part is not None and not part.built:
                self._objects.append(_Attributes(part))
        self._attributes = {
            name: vars(model)[name] for name in _MODEL_ATTRIBUTES if name in vars(model)
        }
        self._values: Values | None = None
        self._extra: list[Callable[[], None]] = []

    def copy_values(self) -> None:
        """Copy the value of every variable to host memory."""
        self._values = Values(self._model, _variables(self._model))
        if keras.backend.backend() == "torch":
            self._extra = [*_torch_modes(self._model), *_torch_gradients(self._model)]

    @property
    def nbytes(self) -> int:
        """Host memory that the copied values take, in bytes."""
        return 0 if self._values is None else self._values.nbytes

    def rewind(self) -> None:
        """Put every value back: the next training step starts where the first one did."""
        if self._values is not None:
            self._values.put_back()
        for put_back in self._extra:
            put_back()

    def restore(self) -> None:
        """Put back values, structure, attributes and random generators."""
        self.rewind()
        for part in self._objects:
            part.restore()
        for name in _MODEL_ATTRIBUTES:
            if name in self._attributes:
                object.__setattr__(self._model, name, self._attributes[name])
            elif name in vars(self._model):
                object.__delattr__(self._model, name)
        self._random.restore()

    @contextmanager
    def guarding(self) -> Iterator[Snapshot]:
        """Restore when the block ends, however it ends; Ctrl-C waits until that is done."""
        try:
            yield self
        finally:
            with uninterrupted():
                self.restore()


def _variables(model: Any) -> list[Any]:
    """All variables that training may change, each once."""
    generator = global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)
    candidates = [
        *model.variables,
        *model.metrics_variables,
        *(variable for part in optimizers_of(model) for variable in part.variables),
        *([generator.state] if generator is not None else []),
    ]
    return list({id(variable): variable for variable in candidates}.values())


def trained_variables(model: Any, apart: list[Any]) -> list[Any]:
    """Weights, statistics and the whole state of the optimizers, those in `apart` left out.

    The scale of a loss-scale optimizer is not among them: what it has learnt about overflows
    holds for earlier weights too.
    """
    optimizers = optimizers_of(model)
    names = ("dynamic_scale", "step_counter")
    kept = [*apart, *(getattr(part, name, None) for part in optimizers for name in names)]
    candidates = [*model.weights, *(each for part in optimizers for each in part.variables)]
    left_out = {id(variable) for variable in kept}
    return list({id(v): v for v in candidates if id(v) not in left_out}.values())


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


def _assign_on_jax(
    variables: list[Any], values: list[np.ndarray], shardings: list[Any] | None
) -> None:
    """One transfer for all variables; `assign` takes longer than a training step for each.

    Of copies: JAX may use the memory of a NumPy array as its own, and the training step is
    given its buffers to overwrite.
    """
    import jax

    arrays = jax.device_put([value.copy() for value in values], shardings)
    for variable, array in zip(variables, arrays, strict=True):
        variable._value = array


@contextmanager
def _variable_scope(model: Any) -> Iterator[None]:
    """The scope in which TensorFlow lets mirrored variables be assigned."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def _torch_buffers(model: Any) -> list[Callable[[], None]]:
    """Parameters and buffers of plain torch modules, which are no Keras variables."""
    known = {id(variable.value) for variable in _variables(model)}
    modules = _torch_modules(model)
    tensors = {
        id(tensor): tensor
        for module in modules
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if id(tensor) not in known
    }

    def put_back(tensor: Any, value: Any) -> Callable[[], None]:
        return lambda: tensor.data.copy_(value)

    return [put_back(t, t.detach().cpu().clone()) for t in tensors.values()]


def _torch_modes(model: Any) -> list[Callable[[], None]]:
    modes = [(module, module.training) for module in _torch_modules(model)]

    def put_back() -> None:
        for module, training in modes:
            module.training = training

    return [put_back]


def _torch_modules(model: Any) -> list[Any]:
    """Every torch module in a model; Keras does not register the layers of a model as such."""
    parts = [module for layer in model._flatten_layers() for module in layer.modules()]
    return list({id(part): part for part in parts}.values())


def _torch_gradients(model: Any) -> list[Callable[[], None]]:
    """Training leaves `.grad` on parameters that had none; drop those again."""
    parameters = [p for module in _torch_modules(model) for p in module.parameters(recurse=False)]
    without = [parameter for parameter in parameters if parameter.grad is None]

    def drop() -> None:
        for parameter in without:
            parameter.grad = None

    return [drop]


class _Attributes:
    """The attributes of one object, with the contents of the containers among them."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self._saved = {name: (value, _contents(value)) for name, value in vars(part).items()}

    def restore(self) -> None:
        attributes = vars(self._part)
        attributes.clear()
        for name, (value, contents) in self._saved.items():
            _refill(value, contents)
            attributes[name] = value


def _contents(value: Any) -> Any:
    """A copy of what a container holds, nested containers included; None for anything else."""
    value = _unwrapped(value)
    if isinstance(value, Tracker):
        return _contents(value.stored_ids), value.locked
    if isinstance(value, dict):
        return {key: (item, _contents(item)) for key, item in value.items()}
    if isinstance(value, list):
        return [(item, _contents(item)) for item in value]
    if isinstance(value, set):
        return set(value)
    return None


def _unwrapped(value: Any) -> Any:
    """The plain container inside those that TensorFlow puts around lists and dictionaries."""
    for name in ("__wrapped__", "_storage"):
        if isinstance(value, (dict, list)) and hasattr(value, name):
            value = getattr(value, name)
    return value


def _refill(value: Any, contents: Any) -> None:
    """Make a container hold again what `_contents` found in it.

    Base-class methods are called on purpose: Keras's tracked containers would register what is
    put into them.
    """
    if contents is None:
        return
    value = _unwrapped(value)
    if isinstance(value, Tracker):
        _refill(value.stored_ids, contents[0])
        value.locked = contents[1]
    elif isinstance(value, dict):
        dict.clear(value)
        for key, (item, inner) in contents.items():
            dict.__setitem__(value, key, item)
            _refill(item, inner)
    elif isinstance(value, list):
        list.clear(value)
        for item, inner in contents:
            list.append(value, item)
            _refill(item, inner)
    else:
        set.clear(value)
        set.update(value, contents)


class _RandomState:
    """The state of every random generator that `fit` draws from."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._generator = global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)
        self._restores: list[Callable[[], Any]] = []
        if keras.backend.backend() == "tensorflow":
            self._restores.append(_tensorflow_random())
        elif keras.backend.backend() == "torch":
            self._restores.append(_torch_random())

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        global_state.set_global_attribute(_GLOBAL_SEED_GENERATOR, self._generator)
        for restore in self._restores:
            restore()


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
