"""A network that learns from its own actions: its batches come one at a time."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from field_models.registry import add, as_given


def q_network(wrap: Any = as_given) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(2)]
    )
    model.compile(wrap(keras.optimizers.SGD(0.05, momentum=0.9)), "huber")
    return model


def transitions() -> tuple[np.ndarray, np.ndarray]:
    states = np.random.default_rng(15).normal(size=(40, 4)).astype("float32")
    return states, np.stack([states[:, 0] + 1, -states[:, 1]], axis=1)


def play(model: keras.Model, callbacks: list[Any], epochs: int, batch_size: int) -> None:
    """Train by hand, with callbacks, as agents do that collect their data while they train."""
    states, values = transitions()
    count = len(states) // batch_size
    driven = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=count)
    driven.on_train_begin()
    for epoch in range(epochs):
        driven.on_epoch_begin(epoch)
        for step in range(count):
            driven.on_train_batch_begin(step)
            rows = slice(step * batch_size, (step + 1) * batch_size)
            logs = model.train_on_batch(states[rows], values[rows], return_dict=True)
            driven.on_train_batch_end(step, logs)
        driven.on_epoch_end(epoch, dict(logs))
    driven.on_train_end()


add("q_network", make=q_network, data=transitions)
