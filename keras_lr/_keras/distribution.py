"""Training on several devices: checks of the strategy and of the size of batches."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._keras.trainer import reduced_over_replicas

__all__ = [
    "check_alone",
    "check_distribution",
    "check_one_clock",
    "check_shares",
    "evenly_shared",
    "sharing_devices",
]


def sharing_devices() -> int:
    """Devices that share each batch of this process under `keras.distribution`; 1 without it."""
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if distribution is None or name is None:
        return 1
    mesh = distribution.device_mesh
    # Each of several processes draws batches for its own devices.
    return max(1, int(mesh.shape[mesh.axis_names.index(name)]) // _processes())


def evenly_shared(rows: int) -> int:
    """The largest number of rows, up to `rows`, that the devices can share equally.

    Keras cannot place a batch that they cannot.
    """
    return rows - rows % sharing_devices() or rows


def check_shares(rows: int, batch_size: int | None, whose: str = "the data") -> None:
    """Refuse arrays with `rows` rows if the devices cannot share their batches equally.

    Raises:
        ValueError: If they cannot.
    """
    devices, size = sharing_devices(), batch_size or 32
    if rows > size and size % devices:
        raise ValueError(
            f"The batch size must be a multiple of the number of devices, {devices}; got {size}. "
            "Each device gets an equal share."
        )
    if rows % size % devices:
        raise ValueError(
            f"The size of every batch must be a multiple of the number of devices, {devices}; got "
            f"{rows % size} examples in the last batch of {whose}. Leave {rows % devices} out."
        )


def check_distribution(model: Any) -> None:
    """Refuse a model of `MultiWorkerMirroredStrategy` if Keras's own `fit` cannot train it.

    Keras 3.15 takes the mean of a step's logs over an axis that they do not have. This operation
    is tried here, so that the check passes on a Keras that has fixed it.

    Raises:
        ValueError: If it fails.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    try:
        loss = strategy.run(lambda: tf.constant(0.0))
        reduced_over_replicas(loss, strategy)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"Keras {keras.__version__} cannot train under MultiWorkerMirroredStrategy: its own "
            "fit fails. Use MirroredStrategy on one machine, or the JAX backend with "
            "keras.distribution on several."
        ) from error


def check_alone() -> None:
    """Refuse a process that trains together with others.

    Raises:
        ValueError: If it is one of several JAX processes.
    """
    if _processes() > 1:
        raise ValueError(
            "The processes of a search share its runs, not its batches; got "
            f"{_processes()} JAX processes that train together. Leave "
            "keras.distribution.initialize out, and give each of them the same storage."
        )


def check_one_clock(model: Any) -> None:
    """Refuse a time budget in a process that trains together with others: clocks differ.

    Raises:
        ValueError: If it is one of several processes.
    """
    count = max(_processes(), _torch_processes(), _workers(model))
    if count > 1:
        raise ValueError(
            "minutes must be None if several processes train together, since their clocks differ; "
            f"got {count} processes. Count updates instead."
        )


def _torch_processes() -> int:
    """Processes of torch.distributed that train together."""
    if keras.backend.backend() != "torch":
        return 1
    from torch import distributed

    ready = distributed.is_available() and distributed.is_initialized()
    return int(distributed.get_world_size()) if ready else 1


def _workers(model: Any) -> int:
    """Workers of TensorFlow that train together."""
    if keras.backend.backend() != "tensorflow":
        return 1
    resolver = model.distribute_strategy.cluster_resolver
    specification = None if resolver is None else resolver.cluster_spec()
    return 1 if specification is None else len(specification.as_dict().get("worker", [0]))


def _processes() -> int:
    """JAX processes that train together."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())
