"""A graph network: the graph belongs to the model, a batch holds labeled nodes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from field_models.registry import add, as_given
from field_models.training import gradients_of, jax_descend, on, track

NODES = 24


class GraphAttention(layers.Layer):
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def build(self, shapes: Any) -> None:
        self.kernel = self.add_weight((shapes[0][-1], self.units), name="kernel")
        self.attention = self.add_weight((2 * self.units, 1), name="attention")

    def call(self, inputs: Any) -> Any:
        states, edges = inputs
        states = ops.matmul(states, self.kernel)
        ends = ops.reshape(ops.take(states, edges, axis=0), (-1, 2 * self.units))
        scores = ops.exp(ops.clip(ops.leaky_relu(ops.matmul(ends, self.attention)), -2, 2))
        sums = ops.segment_sum(scores, edges[:, 0], num_segments=NODES)
        shares = scores / ops.take(sums, edges[:, 0], axis=0)
        messages = shares * ops.take(states, edges[:, 1], axis=0)
        return ops.relu(ops.segment_sum(messages, edges[:, 0], num_segments=NODES))


class GraphNetwork(keras.Model):
    """`call` takes states and edges of the graph; `fit` passes indices of nodes."""

    def __init__(self, states: Any, edges: Any) -> None:
        super().__init__()
        self.node_states, self.edges = ops.convert_to_tensor(states), ops.convert_to_tensor(edges)
        self.first = layers.Dense(8, activation="relu")
        self.attention = GraphAttention(8)
        self.last = layers.Dense(3)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker, self.accuracy]

    def call(self, inputs: Any) -> Any:
        states, edges = inputs
        hidden = self.first(states)
        return self.last(hidden + self.attention([hidden, edges]))

    def outputs_of(self, indices: Any) -> Any:
        return ops.take(self([self.node_states, self.edges]), indices, axis=0)

    def train_step(self, *arguments: Any) -> Any:
        if on("jax"):
            return self.jax_train_step(*arguments)
        ((indices, labels),) = arguments
        outputs: list[Any] = []

        def loss_of() -> Any:
            outputs.append(self.outputs_of(indices))
            return self.loss_fn(labels, outputs[-1])

        loss, gradients = gradients_of(loss_of, lambda: self.trainable_weights)
        if on("torch"):
            import torch

            with torch.no_grad():
                self.optimizer.apply(gradients, self.trainable_weights)
        else:
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.accuracy.update_state(labels, outputs[-1])
        logs = track({self.loss_tracker: loss})
        return {**logs, "accuracy": self.accuracy.result()}

    def jax_train_step(self, state: Any, data: Any) -> Any:
        indices, labels = data
        loss, state = jax_descend(
            self, lambda: self.loss_fn(labels, self.outputs_of(indices)), state
        )
        return {"loss": loss}, state


def graph(wrap: Any = as_given) -> keras.Model:
    random = np.random.default_rng(7)
    states = random.normal(size=(NODES, 4)).astype("float32")
    edges = np.stack([np.arange(NODES).repeat(3), random.integers(0, NODES, 3 * NODES)], axis=1)
    model = GraphNetwork(states, edges.astype("int32"))
    if not on("tensorflow"):
        model([model.node_states, model.edges])  # fit would call the model with indices
    model.compile(wrap(keras.optimizers.SGD(0.05, momentum=0.9)))
    return model


def nodes() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(8)
    return np.arange(NODES, dtype="int32"), random.integers(0, 3, NODES).astype("int32")


add("graph", make=graph, data=nodes, batch_size=6, validates=False, saved=False)
