"""Models that start from the weights of another task."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from field_models.registry import add, as_given
from field_models.representation import classified


def lora(wrap: Any = as_given) -> keras.Model:
    """A frozen body with adapters of low rank in two layers."""
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(12, 6, name="embedding")
    hidden = layers.GlobalAveragePooling1D()(embedding(inputs))
    dense = layers.Dense(8, activation="relu", name="body")
    outputs = layers.Dense(3, name="head")(layers.LayerNormalization()(dense(hidden)))
    model = keras.Model(inputs, outputs)
    for layer in model.layers[:-1]:
        layer.trainable = False
    embedding.enable_lora(2)
    dense.enable_lora(2)
    model.compile(
        wrap(keras.optimizers.AdamW(0.01, weight_decay=0.01)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def tokens() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(9)
    return random.integers(0, 12, (40, 5)).astype("int32"), random.integers(0, 3, 40)


# Keras saves the product of the adapters with the body, and loads a layer without adapters.
add("lora", make=lora, data=tokens, saved=False)


def transfer(wrap: Any = as_given) -> keras.Model:
    """Augmentation inside the model, a frozen backbone in inference mode, a new head."""
    inner = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(8, name="stem")(inner))
    backbone = keras.Model(inner, layers.ReLU()(hidden), name="backbone")
    backbone.trainable = False
    inputs = keras.Input((6,))
    hidden = layers.GaussianNoise(0.1, seed=4)(inputs)
    hidden = layers.Dropout(0.2, seed=5)(backbone(hidden, training=False))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(
        wrap(keras.optimizers.Adam(0.01)), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


add("transfer", make=transfer, data=classified)
