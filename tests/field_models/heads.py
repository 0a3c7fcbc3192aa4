"""Models with several outputs or many inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from field_models.registry import add, as_given


def detector(wrap: Any = as_given) -> keras.Model:
    """Classes and boxes: two losses with weights, and targets in a dictionary."""
    image = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, activation="relu")(image)
    hidden = layers.Flatten()(layers.MaxPooling2D(2)(hidden))
    outputs = {
        "classes": layers.Dense(3, activation="softmax", name="classes")(hidden),
        "boxes": layers.Dense(4, name="boxes")(hidden),
    }
    model = keras.Model(image, outputs)
    model.compile(
        wrap(keras.optimizers.SGD(0.01, momentum=0.9)),
        loss={"classes": "sparse_categorical_crossentropy", "boxes": "huber"},
        loss_weights={"classes": 1.0, "boxes": 3.0},
        metrics={"classes": ["accuracy"]},
    )
    return model


def scenes() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(10)
    image = random.normal(size=(40, 8, 8, 1)).astype("float32")
    boxes = image.reshape(40, -1)[:, :4].copy()
    return image, {"classes": random.integers(0, 3, 40), "boxes": boxes}


add("detector", make=detector, data=scenes)


def tabular(wrap: Any = as_given) -> keras.Model:
    """Normalized numbers and embedded categories, one input each."""
    columns, _ = table()
    inputs, features = {}, []
    for name, values in columns.items():
        if values.dtype == np.int32:
            inputs[name] = keras.Input((1,), name=name, dtype="int32")
            features.append(layers.Flatten()(layers.Embedding(5, 2)(inputs[name])))
        else:
            inputs[name] = keras.Input((1,), name=name)
            normalization = layers.Normalization()
            normalization.adapt(values)
            features.append(normalization(inputs[name]))
    hidden = layers.Dense(8, activation="relu")(layers.Concatenate()(features))
    outputs = layers.Dense(1, activation="sigmoid")(layers.Dropout(0.2, seed=6)(hidden))
    model = keras.Model(inputs, outputs)
    model.compile(
        wrap(keras.optimizers.Adam(0.01)), "binary_crossentropy", metrics=[keras.metrics.AUC()]
    )
    return model


def table() -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(11)
    columns = {f"number_{i}": random.normal(i, 1 + i, (40, 1)).astype("float32") for i in range(5)}
    for i in range(4):
        columns[f"category_{i}"] = random.integers(0, 5, (40, 1)).astype("int32")
    return columns, (columns["number_0"][:, 0] > 0).astype("float32")


add("tabular", make=tabular, data=table)
