"""Epochs: the batches that `fit` draws from its data, on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras.src.trainers.data_adapters.array_slicing import train_validation_split

__all__ = ["Epochs", "split_validation"]


class Epochs:
    """The epochs that `model.fit(x, y, **options)` would train on.

    Args:
        options: `sample_weight`, `batch_size`, `steps_per_epoch`, `shuffle`, `class_weight`,
            with the meanings that they have in `fit`.
    """

    def __init__(self, model: Any, x: Any, y: Any = None, **options: Any) -> None:
        if keras.backend.backend() == "tensorflow":
            options["distribute_strategy"] = model.distribute_strategy
        self._iterator = _kind()(x=x, y=y, **options)
        self._adapter = self._iterator.data_adapter

    @property
    def once(self) -> bool:
        """Whether the data are a generator, which cannot start again."""
        return type(self._adapter).__name__ == "GeneratorDataAdapter"

    @property
    def batches(self) -> int | None:
        """Batches of an epoch; None if that is unknown."""
        count: int | None = self._adapter.num_batches
        return count

    def begin(self) -> Iterator[Any]:
        """Begin an epoch; returns its batches in the backend's own form."""
        self._adapter.on_epoch_begin()
        return iter(self._iterator._get_iterator())

    def end(self) -> None:
        """End the epoch."""
        self._adapter.on_epoch_end()

    def reset(self) -> None:
        """Undo a `begin` whose batches were only looked at."""
        self._iterator.reset()


def _kind() -> Any:
    """The class of the backend's epoch iterators."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras.src.backend.tensorflow.trainer import TFEpochIterator

        return TFEpochIterator
    if backend == "jax":
        from keras.src.backend.jax.trainer import JAXEpochIterator

        return JAXEpochIterator
    from keras.src.backend.torch.trainer import TorchEpochIterator

    return TorchEpochIterator


def split_validation(arrays: Any, share: float) -> tuple[Any, Any]:
    """Arrays to train on and to validate with, as `fit(validation_split=share)` splits them."""
    training, validation = train_validation_split(arrays, validation_split=share)
    return training, validation
