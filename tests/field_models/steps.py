"""Models whose training step differs from Keras's in one respect."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from field_models.registry import add, as_given
from field_models.representation import classified
from field_models.training import gradients_of, on


def targets() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(14).normal(size=(40, 6)).astype("float32")
    return x, x.sum(axis=1)


@keras.saving.register_keras_serializable("field_models")
class NestedLogs(keras.Model):
    """Logs the compiled metrics in a nested dictionary, as a guide of Keras does."""

    def nested(self, logs: Any) -> Any:
        return {"loss": logs.pop("loss"), "compile_metrics": logs}

    def train_step(self, *arguments: Any) -> Any:
        if on("jax"):
            logs, state = super().train_step(*arguments)
            return self.nested(logs), state
        return self.nested(super().train_step(*arguments))

    def test_step(self, *arguments: Any) -> Any:
        if on("jax"):
            logs, state = super().test_step(*arguments)
            return self.nested(logs), state
        return self.nested(super().test_step(*arguments))


def nested_logs(wrap: Any = as_given) -> keras.Model:
    inputs = keras.Input((6,))
    model = NestedLogs(inputs, layers.Dense(1)(layers.Dense(4, activation="relu")(inputs)))
    model.compile(wrap(keras.optimizers.Adam(0.01)), "mse", metrics=["mae", "mape"])
    return model


add("nested_logs", make=nested_logs, data=targets)


class ScaledLoss(keras.losses.Loss):
    """Divides by a running mean of itself, which is a variable of the loss."""

    def __init__(self) -> None:
        super().__init__(name="scaled")
        self.scale = keras.Variable(1.0, trainable=False, name="scale")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        errors = ops.mean((y_true - y_pred) ** 2, axis=-1)
        self.scale.assign(0.9 * self.scale + 0.1 * ops.stop_gradient(ops.mean(errors)))
        return errors / (0.1 + self.scale)


def loss_variable(wrap: Any = as_given) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)]
    )
    model.compile(wrap(keras.optimizers.Adam(0.01)), ScaledLoss())
    return model


add("loss_variable", make=loss_variable, data=targets, saved=False)


def mixed_float16(wrap: Any = as_given) -> keras.Model:
    """The policy makes `compile` wrap the optimizer in one that scales the loss."""
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu", dtype=policy)(inputs)
    outputs = layers.Dense(3, activation="softmax", dtype="float32")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.LossScaleOptimizer(wrap(keras.optimizers.Adam(0.01)), 2.0**8),
        "sparse_categorical_crossentropy",
    )
    return model


add("mixed_float16", make=mixed_float16, data=classified, inside=True)


@keras.saving.register_keras_serializable("field_models")
class Accumulating(keras.Model):
    """Adds up the gradients of two batches and applies them with the second."""

    every = 2

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.network = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)]
        )
        self.batches = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="batches"
        )
        self.sums = [
            self.add_weight(shape=w.shape, initializer="zeros", trainable=False, name=f"sum_{i}")
            for i, w in enumerate(self.network.trainable_weights)
        ]

    def call(self, x: Any) -> Any:
        return self.network(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        variables = self.network.trainable_weights
        predictions: list[Any] = []

        def loss_of() -> Any:
            predictions.append(self(x, training=True))
            return self.compute_loss(x, y, predictions[-1])

        loss, gradients = gradients_of(loss_of, variables)
        self.batches.assign(self.batches + 1)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign(total + gradient)
        if on("tensorflow"):
            import tensorflow as tf

            tf.cond(self.batches % self.every == 0, self.apply_sums, lambda: None)
        elif int(self.batches) % self.every == 0:
            import torch

            with torch.no_grad():
                self.apply_sums()
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, predictions[-1])

    def apply_sums(self) -> None:
        sums = [total / self.every for total in self.sums]
        self.optimizer.apply(sums, self.network.trainable_weights)
        for total in self.sums:
            total.assign(ops.zeros_like(total))


def accumulating(wrap: Any = as_given) -> keras.Model:
    model = Accumulating()
    model.compile(wrap(keras.optimizers.SGD(0.02, momentum=0.9)), "mse", metrics=["mae"])
    model.optimizer.build(model.network.trainable_variables)
    return model


add(
    "accumulating",
    make=accumulating,
    data=targets,
    updates=0.5,
    inside=True,
    backends=("tensorflow", "torch"),
    why_not="the step is written for the tapes of TensorFlow and torch: train_step(data)",
    saved=False,
)


def accumulating_optimizer(wrap: Any = as_given) -> keras.Model:
    """Accumulation by Keras's optimizer."""
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)]
    )
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, gradient_accumulation_steps=2)
    model.compile(wrap(optimizer), "mse")
    return model


add(
    "accumulating_optimizer",
    make=accumulating_optimizer,
    data=targets,
    updates=0.5,
    inside=True,
    accumulates=True,
)
