"""Models of sequences: CTC, sequence to sequence with masks, a stateful recurrent network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from field_models.registry import add, as_given


class CTCLayer(layers.Layer):
    """The end of an OCR network: it adds the loss and passes predictions through."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        count, steps, length = ops.shape(y_pred)[0], y_pred.shape[1], y_true.shape[1]
        losses = ops.ctc_loss(
            ops.cast(y_true, "int32"),
            y_pred,
            ops.full((count,), length, dtype="int32"),
            ops.full((count,), steps, dtype="int32"),
            mask_index=0,
        )
        self.add_loss(ops.mean(losses))
        return y_pred


def ctc(wrap: Any = as_given) -> keras.Model:
    image = keras.Input((8, 3), name="image")
    label = keras.Input((2,), name="label", dtype="float32")
    hidden = layers.Dense(6, activation="relu")(image)
    outputs = CTCLayer(name="ctc_loss")(label, layers.Dense(4)(hidden))
    model = keras.Model([image, label], outputs)
    model.compile(optimizer=wrap(keras.optimizers.Adam(0.01)))
    return model


def words() -> tuple[Any, None]:
    random = np.random.default_rng(4)
    image = random.normal(size=(40, 8, 3)).astype("float32")
    return {"image": image, "label": random.integers(1, 4, (40, 2)).astype("float32")}, None


add("ctc", make=ctc, data=words, saved=False)


def seq2seq(wrap: Any = as_given) -> keras.Model:
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    embedded = layers.Embedding(12, 6, mask_zero=True)(source)
    encoded, state = layers.SimpleRNN(6, return_sequences=True, return_state=True)(embedded)
    embedding = layers.Embedding(12, 6, mask_zero=True, name="target_embedding")
    decoded = layers.GRU(6, return_sequences=True)(embedding(target), initial_state=state)
    attended = layers.Attention()([decoded, encoded])
    hidden = layers.LayerNormalization()(layers.Add()([decoded, attended]))
    outputs = layers.Dense(12)(layers.Dropout(0.1, seed=3)(hidden))
    model = keras.Model([source, target], outputs)
    model.compile(
        wrap(keras.optimizers.Adam(0.01)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
        weighted_metrics=["accuracy"],
    )
    return model


def sentences() -> tuple[Any, Any]:
    random = np.random.default_rng(5)
    tokens = random.integers(1, 12, (40, 6))
    tokens[np.arange(6) >= random.integers(2, 7, (40, 1))] = 0
    tokens = tokens.astype("int32")
    return (tokens, tokens[:, :-1].copy()), tokens[:, 1:].copy()


add("seq2seq", make=seq2seq, data=sentences)


def stateful(wrap: Any = as_given) -> keras.Model:
    inputs = keras.Input(batch_shape=(8, 5, 4))
    hidden = layers.SimpleRNN(6, stateful=True)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(wrap(keras.optimizers.SGD(0.01, momentum=0.9)), "mse")
    return model


def series() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(6).normal(size=(40, 5, 4)).astype("float32")
    return x, x[:, 0, :1].copy()


add("stateful", make=stateful, data=series, fit_options={"shuffle": False})
