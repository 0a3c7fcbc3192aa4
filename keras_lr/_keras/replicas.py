"""Variables that TensorFlow's strategies keep on several devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

__all__ = ["assign", "copied", "has_strategy", "replicas", "variable_scope"]


def has_strategy(model: Any) -> bool:
    """Whether a model was made under a strategy of TensorFlow."""
    return getattr(model, "_distribute_strategy", None) is not None


@contextmanager
def variable_scope(model: Any) -> Iterator[None]:
    """The scope in which TensorFlow lets mirrored variables be made and assigned."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def replicas(value: Any) -> tuple[Any, ...]:
    """The values of a distributed variable, one a device; of any other value, the value itself."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(value, tf.distribute.DistributedValues):
            return tuple(value.values)
    return (value,)


def copied(value: Any) -> np.ndarray:
    """A copy in host memory; where the replicas differ, with a first axis for them.

    Statistics and metrics differ: each replica of a `MirroredStrategy` counts the data that it
    sees, and the sum or the mean would not be enough to restore them.
    """
    arrays = [np.array(keras.ops.convert_to_numpy(part)) for part in replicas(value)]
    alike = all(array.tobytes() == arrays[0].tobytes() for array in arrays[1:])
    return arrays[0] if alike else np.stack(arrays)


def assign(variable: Any, array: np.ndarray) -> None:
    """Assign a variable what `copied` returned for its value."""
    parts = replicas(variable.value)
    if len(parts) == 1:
        variable.assign(array)
        return
    alike = array.shape == tuple(variable.shape)
    for index, part in enumerate(parts):
        part.assign(array if alike else array[index])
