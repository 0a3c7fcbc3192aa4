"""The gradient of a model's loss for single batches, without an update; a function a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

# The gradient of a batch, a list of tensors.
Gradient = Callable[[Any], list[Any]]


def gradient_of(model: Any) -> Gradient:
    """A function from a batch to the gradient of the loss that Keras's `train_step` minimizes.

    The model is in training mode. Its state (moving statistics, seeds) changes as in training. The
    loss scale of the optimizer keeps small gradients of float16; the result is without it.
    """
    scale = float(ops.convert_to_numpy(model.optimizer.scale_loss(ops.ones(()))))
    made = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return made[keras.backend.backend()](model, scale)


def squared_norm(gradient: list[Any]) -> float:
    """The sum of the squares of all elements."""
    parts = [float(ops.convert_to_numpy(ops.sum(ops.square(each)))) for each in gradient]
    return float(np.sum(parts))


def rows_of(batch: Any) -> int:
    """The examples in a batch."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return int(keras.tree.flatten(x)[0].shape[0])


def _tensorflow(model: Any, scale: float) -> Gradient:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def compute(batch: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)
            loss = scale * loss
        variables = [each.value for each in model.trainable_variables]
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(each) / scale for each in found]

    return lambda batch: list(compute(batch))


def _jax(model: Any, scale: float) -> Gradient:
    import jax

    def loss_of(trainable: Any, others: Any, metrics: Any, batch: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        loss, (_, _, others, _) = model.compute_loss_and_updates(
            trainable, others, metrics, x, y, weight, training=True, optimizer_variables=optimizer
        )
        return loss, others  # scaled

    compute = jax.jit(jax.grad(loss_of, has_aux=True))
    trainable = [each.value for each in model.trainable_variables]
    metrics = [each.value for each in model.metrics_variables]
    optimizer = [each.value for each in model.optimizer.variables]
    others = [each.value for each in model.non_trainable_variables]

    def gradient(batch: Any) -> list[Any]:
        nonlocal others
        found, others = compute(trainable, others, metrics, batch)
        return [each / scale for each in found]

    return gradient


def _torch(model: Any, scale: float) -> Gradient:
    def gradient(batch: Any) -> list[Any]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        model.train()
        model.zero_grad()
        y_pred = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)
        (scale * loss).backward()
        tensors = [each.value for each in model.trainable_variables]
        found = [ops.zeros_like(each) if each.grad is None else each.grad for each in tensors]
        result = [each.detach() / scale for each in found]
        model.zero_grad()
        return result

    return gradient
