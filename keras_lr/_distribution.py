"""Which distributions Keras itself can train under."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["check_distribution"]


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
