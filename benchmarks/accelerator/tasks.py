"""The three models that are measured, their data, and toy versions of them for a dry run."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from networks import encoded

layers = keras.layers


class Size(NamedTuple):
    """The length of training, in batches."""

    batch: int
    epoch: int  # of a fit with callbacks
    rounds: int  # such epochs that are measured
    ramp: int  # of a range test, and of the fit that it is compared with


SIZES = {
    "MLP": Size(batch=128, epoch=150, rounds=7, ramp=100),
    "transformer": Size(batch=32, epoch=20, rounds=5, ramp=50),
    "ResNet50": Size(batch=32, epoch=10, rounds=3, ramp=50),
}
TOY = Size(batch=4, epoch=3, rounds=2, ramp=3)


def size(name: str, toy: bool) -> Size:
    return TOY if toy else SIZES[name]


def mlp(toy: bool) -> Any:
    """0.17 million weights."""
    width = 8 if toy else 512
    dense = [layers.Dense(width, "relu"), layers.Dense(width // 2, "relu")]
    return keras.Sequential([keras.Input((64,)), *dense, layers.Dense(10)])


def transformer(toy: bool) -> Any:
    """An encoder of BERT's base size, 109 million weights, over 128 tokens."""
    width, depth, heads, words, length = (8, 1, 2, 16, 4) if toy else (768, 12, 12, 30522, 128)
    keras.config.disable_flash_attention()  # the same attention on both backends
    tokens = keras.Input((length,), dtype="int32")
    x = encoded(tokens, words, width, depth, heads, causal=False)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(10, dtype="float32")(x))


def resnet(toy: bool) -> Any:
    """The 50 layers of He et al., 2015 (arXiv 1512.03385), at 224 pixels; 23.5 million weights."""
    pixels, width, stages = (16, 4, (1,)) if toy else (224, 64, (3, 4, 6, 3))

    def convolution(x: Any, filters: int, kernel: int, strides: int = 1) -> Any:
        conv = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)
        return layers.BatchNormalization()(conv(x))

    image = keras.Input((pixels, pixels, 3))
    x = layers.ReLU()(convolution(image, width, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, blocks in enumerate(stages):
        filters = width * 2**stage
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            short = x if block else convolution(x, 4 * filters, 1, strides)
            x = layers.ReLU()(convolution(x, filters, 1, strides))
            x = layers.ReLU()(convolution(x, filters, 3))
            x = layers.ReLU()(convolution(x, 4 * filters, 1) + short)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


MODELS = {"MLP": mlp, "transformer": transformer, "ResNet50": resnet}


def compiled(name: str, toy: bool, rate: float = 1e-6) -> Any:
    """A compiled model at a rate that keeps the values in the same range for all contenders."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "transformer" else "float32")
    model = MODELS[name](toy)
    keras.config.set_dtype_policy("float32")
    kind = keras.optimizers.SGD if name == "ResNet50" else keras.optimizers.AdamW
    optimizer = kind(rate, momentum=0.9) if name == "ResNet50" else kind(rate)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


class Batches(keras.utils.PyDataset):
    """A few batches, repeated, so that a long run needs little host memory."""

    def __init__(self, batches: list[Any], steps: int) -> None:
        super().__init__()
        self._batches, self._steps = batches, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Any:
        return self._batches[index % len(self._batches)]


def data(name: str, model: Any, batch: int, steps: int) -> dict[str, Any]:
    """Arguments for `fit` and `lr_find`."""
    rng = np.random.default_rng(0)
    shape = model.input_shape[1:]

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        if name == "transformer":
            x = rng.integers(0, 16, (rows, *shape), dtype="int32")
        else:
            x = rng.normal(size=(rows, *shape)).astype("float32")
        return x, rng.integers(0, 10, rows, dtype="int32")

    if name == "MLP":
        x, y = draw(batch * steps)
        return {"x": x, "y": y, "batch_size": batch, "shuffle": False}
    return {"x": Batches([draw(batch) for _ in range(4)], steps), "shuffle": False}
