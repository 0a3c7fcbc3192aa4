"""The moving statistics of batch normalization, computed anew for other weights."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from keras_lr._keras.layers import all_layers
from keras_lr._keras.random_state import random_generators_kept
from keras_lr.loops.data import is_array_data, take_rows

BATCHES = 50  # of the training data that the statistics are computed from


def collecting_layers(model: Any) -> list[Any]:
    """The layers of batch normalization whose statistics `fit` changes."""
    kind = keras.layers.BatchNormalization
    return [each for each in all_layers(model) if isinstance(each, kind) and each.trainable]


def sample_of(
    x: Any, batch_size: int | None = None, validation_split: float = 0.0
) -> Callable[[], Iterable[Any]] | None:
    """Reads up to 50 batches of inputs of a `fit`; None if reading them would use them up.

    Of arrays and of a `PyDataset`, the same batches each time, drawn at random; of a
    `tf.data.Dataset` or a `DataLoader`, the first ones.

    Args:
        x, batch_size, validation_split: As in `fit`.
    """
    if isinstance(x, keras.utils.PyDataset):
        count = x.num_batches
        some = range(BATCHES) if count is None else _drawn(count, BATCHES)
        return lambda: (_inputs(x[int(index)]) for index in some)
    if hasattr(x, "element_spec") or (hasattr(x, "dataset") and hasattr(x, "batch_sampler")):
        return lambda: map(_inputs, itertools.islice(iter(x), BATCHES))
    if is_array_data(x):
        return lambda: _batches_of_arrays(x, batch_size or 32, validation_split)
    return None


def recompute(model: Any, layers: list[Any], batches: Iterable[Any]) -> None:
    """Set the moving statistics of layers to the means over batches.

    The layers compute as in training, and so do all others, dropout too; nothing else of the model
    changes, nor do the random generators.
    """
    statistics = {id(each) for layer in layers for each in layer.non_trainable_variables}
    others = [each for each in model.non_trainable_variables if id(each) not in statistics]
    kept = [np.array(keras.ops.convert_to_numpy(each.value)) for each in others]
    momenta = [layer.momentum for layer in layers]
    training = {"training": True} if _takes_training(model) else {}
    try:
        with random_generators_kept(), _no_gradients():
            for number, inputs in enumerate(batches, start=1):
                for layer in layers:
                    layer.momentum = 1.0 - 1.0 / number  # the mean of all batches so far
                model(inputs, **training)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in zip(others, kept, strict=True):
            variable.assign(value)


def _batches_of_arrays(x: Any, size: int, validation_split: float) -> Iterator[Any]:
    rows = len(keras.tree.flatten(x)[0])
    if validation_split:
        rows = math.floor(rows * (1.0 - validation_split))  # Keras validates on the last ones
    sample = take_rows(x, _drawn(rows, BATCHES * size))
    for start in range(0, max(1, min(rows, BATCHES * size) - size + 1), size):
        yield take_rows(sample, slice(start, start + size))


def _drawn(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, the same ones each time."""
    return np.random.default_rng(0).permutation(count)[:most]


def _inputs(batch: Any) -> Any:
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)

    def readable(leaf: Any) -> Any:
        """A tensor of another backend as an array."""
        foreign = not keras.ops.is_tensor(leaf) and hasattr(leaf, "numpy")
        return leaf.numpy() if foreign else leaf

    return keras.tree.map_structure(readable, x)


def _takes_training(model: Any) -> bool:
    return "training" in inspect.signature(model.call).parameters


def _no_gradients() -> AbstractContextManager[Any]:
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    return torch.no_grad()
