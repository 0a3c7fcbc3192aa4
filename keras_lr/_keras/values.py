"""Values of Keras variables: copied, and assigned again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_lr._keras.device_memory import copies_on_device
from keras_lr._keras.object_graph import reachable
from keras_lr._keras.random_state import seed_generator
from keras_lr._keras.replicas import assign, copied, variable_scope
from keras_lr._keras.tensors import TensorCopies, tensor_kinds

__all__ = [
    "Values",
    "drop_values",
    "listed_variables",
    "of_metrics",
    "put_values",
    "trained_variables",
    "variables_without",
]

_GIVEN_AWAY = np.empty(0)
_GROUP = 2**26  # bytes that JAX takes in one transfer


class Values:
    """The values of some variables of a model, copied to host memory.

    Args:
        arrays: Values to restore; by default those that the variables hold now.
        tensors: Whether to copy the tensors that are not Keras variables as well.
        on_device: Whether the copies may stay on an accelerator that has much free memory.
    """

    def __init__(
        self,
        model: Any,
        variables: list[Any],
        arrays: list[np.ndarray] | None = None,
        *,
        tensors: bool = True,
        on_device: bool = False,
    ) -> None:
        self._model = model
        self._variables = variables
        self._shardings: list[Any] | None = None
        values = [variable.value for variable in variables]
        if not arrays and on_device:
            arrays = copies_on_device(values)
        self.arrays = arrays or [copied(value) for value in values]
        if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
            # Only then: JAX compiles a `fit` again for arguments that are committed to a device.
            self._shardings = [value.sharding for value in values]
        self._tensors: list[Callable[[], None]] = []
        if tensors:
            self._tensors = _copied_tensors(model, variables)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def restore(self, *, last: bool = False) -> None:
        """Assign the values to the variables; on JAX, outside of a step or after a sync.

        Args:
            last: Whether the copies may be dropped, because they are not needed again.
        """
        if keras.backend.backend() == "jax":
            _assign_on_jax(self._variables, self.arrays, self._shardings, last)
        else:
            with variable_scope(self._model):
                for variable, array in zip(self._variables, self.arrays, strict=True):
                    assign(variable, array)
        for restore in self._tensors:
            restore()


def _copied_tensors(model: Any, variables: list[Any]) -> list[Callable[[], None]]:
    """Copies of tensors that are not Keras variables, as functions that restore them."""
    kinds = tensor_kinds()
    if not kinds:
        return []
    known = {id(variable.value) for variable in [*variables, *listed_variables(model)]}
    parts = [
        (path, part)
        for path, part in reachable(model)
        if isinstance(part, kinds) and id(part) not in known
    ]
    return [TensorCopies(model, parts).restore]


def listed_variables(model: Any) -> list[Any]:
    """The variables that Keras lists, and the state of its global seed generator."""
    generator = seed_generator()
    return [
        *model.variables,
        *model.metrics_variables,
        *(model.optimizer.variables if getattr(model, "optimizer", None) is not None else []),
        *([generator.state] if generator is not None else []),
    ]


def variables_without(model: Any, owned: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """The variables reachable from a model, without those that `owned` returns for its parts."""
    found: dict[int, Any] = {}
    left_out: set[int] = set()
    for _, part in reachable(model):
        if isinstance(part, keras.Variable):
            found[id(part)] = part
        else:
            left_out.update(id(variable) for variable in owned(part))
    return [variable for each, variable in found.items() if each not in left_out]


def of_metrics(part: Any) -> Iterable[Any]:
    """The variables of a metric; none of another part of a model."""
    return part.variables if isinstance(part, keras.metrics.Metric) else ()


def trained_variables(model: Any, apart: list[Any]) -> list[Any]:
    """Weights, statistics, states of layers and of the optimizers, without those in `apart`.

    Metrics and seeds are not among them. Nor is the scale of a loss-scale optimizer: what it has
    learnt about overflows holds for earlier weights too.
    """

    def owned(part: Any) -> Iterable[Any]:
        if isinstance(part, keras.random.SeedGenerator):
            return [part.state]
        if isinstance(part, keras.optimizers.Optimizer):
            return [getattr(part, name, None) for name in ("dynamic_scale", "step_counter")]
        return of_metrics(part)

    left_out = {id(variable) for variable in apart}
    return [each for each in variables_without(model, owned) if id(each) not in left_out]


def put_values(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Make variables hold these values, without a copy."""
    for variable, value in zip(variables, values, strict=True):
        variable._value = value


def drop_values(variables: Iterable[Any]) -> None:
    """Make variables hold no value, so that JAX can reuse the memory."""
    for variable in variables:
        variable._value = None


def _assign_on_jax(
    variables: list[Any],
    values: list[np.ndarray],
    shardings: list[Any] | None,
    last: bool,
) -> None:
    """Assign all variables in a few transfers; one `assign` takes longer than a training step.

    The arrays are copied first: JAX may use the memory of a NumPy array as its own, and the
    training step overwrites its buffers. The last time, each array is dropped as soon as it is on
    the device, so that a large model is never in host memory twice.
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
