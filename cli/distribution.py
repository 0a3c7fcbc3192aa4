"""Training on all devices of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .errors import BadInput

__all__ = ["STRATEGIES", "distributed"]

# What each needs.
STRATEGIES = {"mirrored": "tensorflow", "data-parallel": "jax"}


def distributed(name: str, backend: str) -> contextlib.AbstractContextManager[None]:
    """Within it, models are made for all devices that the backend sees.

    Raises:
        BadInput: If the backend is another one, or sees one device only.
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
