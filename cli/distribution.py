"""`--distribute`: training on all devices of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click

from .data import Data
from .errors import BadInput

__all__ = ["STRATEGIES", "distributed", "shared_equally"]

STRATEGIES = {"mirrored": "tensorflow", "data-parallel": "jax"}  # with the backend of each


def distributed(name: str, backend: str) -> contextlib.AbstractContextManager[None]:
    """In the block, Keras creates and trains models on all devices of the backend.

    Raises:
        BadInput: If the strategy needs another backend, or the backend sees only one device.
    """
    needed = STRATEGIES[name]
    if backend != needed:
        other = next((key for key, value in STRATEGIES.items() if value == backend), None)
        way_out = f" or --distribute {other}" if other else ""
        raise BadInput(
            f"--distribute {name} needs {needed}, and Keras runs on {backend}; pass --backend "
            f"{needed}{way_out}."
        )
    devices = _devices(backend)
    if len(devices) < 2:
        raise BadInput(
            f"--distribute {name} needs at least 2 devices; {backend} sees {len(devices)} "
            f"({', '.join(devices)}). Leave --distribute out."
        )
    return _mirrored(devices) if name == "mirrored" else _data_parallel()


def shared_equally(data: Data, name: str) -> Data:
    """Drop the last rows that the devices cannot share equally, and print a line about them.

    Mirrored devices share any batch. For a data set with its own batches, the library refuses a
    batch that cannot be shared.
    """
    if name != "data-parallel" or not data.is_arrays:
        return data
    import keras

    def first(value: Any, rows: int) -> Any:
        return keras.tree.map_structure(lambda part: part[:rows], value)

    devices = len(_devices(STRATEGIES[name]))
    total = len(keras.tree.flatten(data.x)[0])
    rest = total % devices
    if not rest or total < devices:
        return data
    dropped = "The last row is" if rest == 1 else f"The last {rest} rows are"
    click.echo(
        f"{dropped} left out of {total}, so that {devices} devices share every batch equally.",
        err=True,
    )
    kept = total - rest
    weight = None if data.sample_weight is None else first(data.sample_weight, kept)
    targets = None if data.y is None else first(data.y, kept)
    return Data(first(data.x, kept), targets, weight, data.classes, data.without_targets)


def _devices(backend: str) -> list[str]:
    if backend == "jax":
        import keras

        return list(keras.distribution.list_devices())
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in devices]


@contextlib.contextmanager
def _mirrored(devices: list[str]) -> Iterator[None]:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(devices).scope():
        yield


@contextlib.contextmanager
def _data_parallel() -> Iterator[None]:
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
