"""The gradient of a model's loss for single batches, without an update; a function a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

# The gradient of a batch for a loss scale, which it is multiplied by: a tensor for each variable.
Gradient = Callable[[Any, float], list[Any]]

_LEAST_SCALE = 2.0**-24  # of a loss; smaller ones do not help


class LossGradient:
    """Computes the gradient of the loss that Keras's `train_step` minimizes, for a batch.

    The model is in training mode. Its state (moving statistics, seeds) changes as in training. The
    loss scale of the optimizer keeps small gradients of float16; the result is without it. Weights
    that Keras overwrites with their gradients, such as the scales of float8, are left out.
    """

    def __init__(self, model: Any) -> None:
        made = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
        self._model = model
        self._compute: Gradient = made[keras.backend.backend()](model)

    def __call__(self, batch: Any) -> list[Any]:
        """The gradient, in float32 at least."""
        scale = float(ops.convert_to_numpy(self._model.optimizer.scale_loss(ops.ones(()))))
        found = zip(self._compute(batch, scale), self._model.trainable_variables, strict=True)
        return [
            _precise(gradient) / scale
            for gradient, variable in found
            if not getattr(variable, "overwrite_with_gradient", False)
        ]

    def lower_scale(self) -> bool:
        """Halve a dynamic loss scale, as an update does if a gradient overflows.

        Returns whether the optimizer has one that is not yet very small.
        """
        scale = getattr(self._model.optimizer, "dynamic_scale", None)
        if scale is None or float(ops.convert_to_numpy(scale.value)) < _LEAST_SCALE:
            return False
        scale.assign(scale * 0.5)
        return True


def _precise(gradient: Any) -> Any:
    """A tensor of float32 or float64: squares of float16 would underflow."""
    half = keras.backend.standardize_dtype(gradient.dtype) in ("float16", "bfloat16")
    return ops.cast(gradient, "float32") if half else gradient


def squared_norm(gradient: list[Any]) -> float:
    """The sum of the squares of all elements."""
    parts = [float(ops.convert_to_numpy(ops.sum(ops.square(each)))) for each in gradient]
    return float(np.sum(parts))


def rows_of(batch: Any) -> int:
    """The examples in a batch."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return int(keras.tree.flatten(x)[0].shape[0])


def _tensorflow(model: Any) -> Gradient:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def compute(batch: Any, scale: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)
            loss = tf.cast(scale, loss.dtype) * loss
        variables = [each.value for each in model.trainable_variables]
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(each) for each in found]

    return lambda batch, scale: list(compute(batch, tf.constant(scale)))


def _jax(model: Any) -> Gradient:
    import jax

    def loss_of(trainable: Any, others: Any, metrics: Any, optimizer: Any, batch: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        loss, (_, _, others, _) = model.compute_loss_and_updates(
            trainable, others, metrics, x, y, weight, training=True, optimizer_variables=optimizer
        )
        return loss, others  # scaled

    compute = jax.jit(jax.grad(loss_of, has_aux=True))
    trainable = [each.value for each in model.trainable_variables]
    metrics = [each.value for each in model.metrics_variables]
    others = [each.value for each in model.non_trainable_variables]

    def gradient(batch: Any, scale: float) -> list[Any]:
        nonlocal others
        optimizer = [each.value for each in model.optimizer.variables]  # has the scale
        found, others = compute(trainable, others, metrics, optimizer, batch)
        return list(found)

    return gradient


def _torch(model: Any) -> Gradient:
    def gradient(batch: Any, scale: float) -> list[Any]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        model.train()
        model.zero_grad()
        y_pred = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)
        (scale * loss).backward()
        tensors = [each.value for each in model.trainable_variables]
        found = [ops.zeros_like(each) if each.grad is None else each.grad for each in tensors]
        result = [each.detach() for each in found]
        model.zero_grad()
        return result

    return gradient
