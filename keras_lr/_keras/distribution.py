"""What training on several devices asks for: of the strategy, and of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

__all__ = [
    "check_alone",
    "check_distribution",
    "check_shares",
    "evenly_shared",
    "has_strategy",
    "sharing_devices",
    "variable_scope",
]


def sharing_devices() -> int:
    """Devices that share each batch of this process under `keras.distribution`; 1 without one."""
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if distribution is None or name is None:
        return 1
    mesh = distribution.device_mesh
    # Each of several processes has batches of its own for its part of the devices.
    return max(1, int(mesh.shape[mesh.axis_names.index(name)]) // _processes())


def evenly_shared(rows: int) -> int:
    """The most rows, up to `rows`, that those devices share equally.

    Keras cannot place a batch that leaves some over.
    """
    return rows - rows % sharing_devices() or rows


def check_shares(rows: int, batch_size: int | None, whose: str = "the data") -> None:
    """Refuse arrays of so many rows whose batches those devices cannot share equally.

    Raises:
        ValueError: If they cannot.
    """
    devices, size = sharing_devices(), batch_size or 32
    if rows > size and size % devices:
        raise ValueError(
            f"The batch size must be a multiple of the {devices} devices; got {size}. Each of "
            "them gets an equal share."
        )
    if rows % size % devices:
        raise ValueError(
            f"Every batch must be a multiple of the {devices} devices; got {rows % size} examples "
            f"in the last batch of {whose}. Leave {rows % devices} out."
        )


def check_distribution(model: Any) -> None:
    """Refuse a model of `MultiWorkerMirroredStrategy` where Keras's own `fit` cannot train it.

    Keras 3.15 takes the mean of a step's logs over an axis that they do not have. That very
    operation is tried, so that a Keras which has mended it is believed.

    Raises:
        ValueError: If it fails.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    try:
        loss = strategy.run(lambda: tf.constant(0.0))
        reduce_per_replica(loss, strategy, reduction="auto")
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"Keras {keras.__version__} cannot train under MultiWorkerMirroredStrategy: its own "
            "fit fails. Use MirroredStrategy on one machine, or the JAX backend with "
            "keras.distribution on several."
        ) from error


def has_strategy(model: Any) -> bool:
    """Whether a model was made under a strategy of TensorFlow."""
    return model._distribute_strategy is not None


@contextmanager
def variable_scope(model: Any) -> Iterator[None]:
    """The scope in which TensorFlow lets mirrored variables be made and assigned."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def check_alone() -> None:
    """Refuse a process that trains in step with others, for one that goes its own way.

    Raises:
        ValueError: If it is one of several JAX processes.
    """
    if _processes() > 1:
        raise ValueError(
            "A search shares its runs between processes, not its batches; got "
            f"{_processes()} JAX processes that train together. Leave "
            "keras.distribution.initialize out, and give each of them the same storage."
        )


def _processes() -> int:
    """JAX processes that train together."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())
