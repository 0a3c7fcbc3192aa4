"""Networks that several benchmarks measure, each at its own size."""

from __future__ import annotations

from typing import Any

import keras

layers = keras.layers


@keras.saving.register_keras_serializable("benchmarks")
class Positions(layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer="uniform", name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def encoded(tokens: Any, words: int, width: int, depth: int, heads: int, causal: bool) -> Any:
    """The normalized output of `depth` pre-norm blocks, for tokens of `words` kinds."""
    x = layers.Embedding(words, width)(tokens)
    x = Positions()(x)
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(heads, width // heads)
        x = x + attention(y, y, use_causal_mask=causal)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(y))
    return layers.LayerNormalization()(x)
