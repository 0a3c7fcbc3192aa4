"""The models that run.py measures, made from their configurations, with data of the right shape.

Weights are random and labels are drawn: what is measured is time, memory and whether everything
that keras_lr does comes through, not how well a model learns. Sizes are cut until a training step
takes a second or less on two CPU cores; the structure (blocks, state, preprocessing, adapters) is
that of the published model.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from networks import encoded

layers = keras.layers
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
WORDS = "the a of to in is it on we you rate loss step batch model layer warm cold up down".split()


class Task(NamedTuple):
    """A compiled model and a function that draws `(x, y)` for a number of rows; y may be None."""

    model: Any
    draw: Callable[[int], tuple[Any, Any]]


class Entry(NamedTuple):
    """How a model is measured.

    Args:
        make: Makes the task; `small` asks for the toy version of the smoke test.
        batch: Rows of a batch.
        steps: Batches of the first `fit` in a process, and steps of the range test beside it.
        steady: The same, once everything is compiled. Half as many as the shortest range test has
            by default, fewer where a step is slow.
    """

    make: Callable[[bool], Task]
    batch: int
    steps: int
    steady: int = 50


def _compiled(model: Any, loss: Any = CROSSENTROPY, optimizer: Any = None) -> Any:
    model.compile(optimizer or keras.optimizers.AdamW(1e-4), loss)
    return model


def _sentences(rng: Any, rows: int) -> np.ndarray:
    return np.array([" ".join(rng.choice(WORDS, 12)) for _ in range(rows)])


def _text_sizes(small: bool) -> dict[str, int]:
    if small:
        return {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
    return {"num_layers": 4, "num_heads": 4, "hidden_dim": 256, "intermediate_dim": 1024}


def bert(small: bool) -> Task:
    """KerasHub's BERT classifier with its preprocessor: texts go in."""
    import keras_hub

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=vocabulary)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary), max_sequence_length=16, **_text_sizes(small)
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    model = keras_hub.models.BertTextClassifier(backbone, 3, preprocessor=preprocessor)

    def draw(rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        return _sentences(rng, rows), rng.integers(0, 3, rows)

    return Task(_compiled(model), draw)


def gpt2(small: bool) -> Task:
    """KerasHub's GPT-2 with LoRA: only the adapters train, and the language model's texts go in."""
    import keras_hub

    letters = [*string.ascii_lowercase, "th", "\u0120", "<|endoftext|>"]
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary={letter: index for index, letter in enumerate(letters)}, merges=["t h"]
    )
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(letters), max_sequence_length=32, **_text_sizes(small)
    )
    backbone.enable_lora(2 if small else 4)
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=32)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)

    def draw(rows: int) -> tuple[Any, Any]:
        return _sentences(np.random.default_rng(0), rows), None

    return Task(_compiled(model), draw)


def _images(pixels: int) -> Callable[[int], tuple[Any, Any]]:
    def draw(rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        pictures = rng.uniform(0, 255, (rows, pixels, pixels, 3)).astype("float32")
        return pictures, rng.integers(0, 10, rows)

    return draw


def resnet(small: bool) -> Task:
    """KerasHub's ResNet classifier (18 layers) with its preprocessor."""
    import keras_hub

    pixels = 32 if small else 64
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64] if small else [64, 128, 256, 512],
        stackwise_num_blocks=[1] if small else [2, 2, 2, 2],
        stackwise_num_strides=[1] if small else [1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(pixels, pixels, 3),
    )
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(
        keras_hub.layers.ResNetImageConverter(image_size=(pixels, pixels), scale=1 / 255)
    )
    model = keras_hub.models.ResNetImageClassifier(backbone, 10, preprocessor=preprocessor)
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    return Task(_compiled(model, optimizer=optimizer), _images(pixels))


def vit(small: bool) -> Task:
    """KerasHub's Vision Transformer classifier with its preprocessor."""
    import keras_hub

    pixels = 16 if small else 64
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(pixels, pixels, 3),
        patch_size=8,
        num_layers=1 if small else 4,
        num_heads=2 if small else 4,
        hidden_dim=8 if small else 192,
        mlp_dim=16 if small else 768,
    )
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(
        keras_hub.layers.ViTImageConverter(image_size=(pixels, pixels), scale=1 / 255)
    )
    model = keras_hub.models.ViTImageClassifier(backbone, 10, preprocessor=preprocessor)
    return Task(_compiled(model), _images(pixels))


def _application(make: Callable[..., Any], pixels: int) -> Callable[[bool], Task]:
    def task(small: bool) -> Task:
        size = 32 if small else pixels
        model = make(
            weights=None, classes=10, input_shape=(size, size, 3), classifier_activation=None
        )
        optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
        return Task(_compiled(model, optimizer=optimizer), _images(size))

    return task


def transformer(small: bool) -> Task:
    """A causal transformer of GPT-2's base size, about 110 million weights."""
    width, depth, heads, words, length = (8, 1, 2, 16, 8) if small else (768, 12, 12, 32768, 16)
    tokens = keras.Input((length,), dtype="int32")
    x = encoded(tokens, words, width, depth, heads, causal=True)
    model = keras.Model(tokens, layers.Dense(64)(x))

    def draw(rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 16, (rows, length), dtype="int32")
        return x, rng.integers(0, 64, (rows, length), dtype="int32")

    return Task(_compiled(model), draw)


def audio(small: bool) -> Task:
    """One-dimensional convolutions with batch normalization over a raw waveform."""
    length, width = (256, 4) if small else (8000, 32)
    wave = keras.Input((length, 1))
    x = wave
    for level, (kernel, stride) in enumerate([(80, 4), (3, 2), (3, 2), (3, 2)]):
        x = layers.Conv1D(width * 2 ** (level // 2), kernel, stride, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(wave, layers.Dense(10)(x))

    def draw(rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, length, 1)).astype("float32")
        return x, rng.integers(0, 10, rows)

    return Task(_compiled(model), draw)


def forecaster(small: bool) -> Task:
    """Two LSTM layers that forecast the next day of five series from a week of hours."""
    length, width = (12, 4) if small else (168, 48)
    model = keras.Sequential(
        [
            keras.Input((length, 5)),
            layers.LSTM(width, return_sequences=True),
            layers.LSTM(width, dropout=0.1),
            layers.Dense(24 * 5),
            layers.Reshape((24, 5)),
        ]
    )

    def draw(rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, length, 5)).astype("float32")
        return x, rng.normal(size=(rows, 24, 5)).astype("float32")

    return Task(_compiled(model, "mse", keras.optimizers.Adam(1e-3)), draw)


ENTRIES = {
    "bert": Entry(bert, 8, 40),
    "gpt2": Entry(gpt2, 8, 40),
    "resnet": Entry(resnet, 8, 20),
    "vit": Entry(vit, 8, 40),
    "resnet50": Entry(_application(keras.applications.ResNet50, 64), 8, 20, 30),
    "efficientnet": Entry(_application(keras.applications.EfficientNetV2B0, 64), 8, 20),
    "mobilenet": Entry(_application(keras.applications.MobileNetV3Small, 64), 8, 40),
    "transformer": Entry(transformer, 2, 10, 20),
    "audio": Entry(audio, 16, 40),
    "forecaster": Entry(forecaster, 32, 40),
}
