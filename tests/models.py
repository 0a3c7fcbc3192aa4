"""Small models and data for several test files."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_lr

ROWS = 96


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """96 rows of 6 features, and a class from 0 to 2 that depends on two of them."""
    x = np.random.default_rng(seed).normal(size=(ROWS, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)


def sampled(cases, *kept: str, why: str, mark: str = "long_elsewhere") -> list:
    """The cases as parameters: those that are not `kept` have a mark that leaves them to test-all.

    Args:
        cases: Parameters by their names; or names that are parameters themselves.
        why: The reason for the mark of the others.
        mark: `long_elsewhere`, or `long`, which leaves them out on the first backend too.
    """
    marked = getattr(pytest.mark, mark)(why)
    named = cases if isinstance(cases, dict) else {name: name for name in cases}
    assert set(kept) & set(named)
    return [
        pytest.param(case, id=name, marks=() if name in kept else marked)
        for name, case in named.items()
    ]


def multi_optimizer(default, groups):
    """Keras's optimizer with several others, by patterns of paths; new in Keras 3.15."""
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    table = keras.optimizers.OptimizerMap(default)
    for pattern, optimizer in groups.items():
        table[pattern] = optimizer
    return keras.optimizers.MultiOptimizer(table)


def classifier(
    optimizer="adam", *, dropout=0.2, seed=0, loss=None, metrics=("accuracy",), **compile_options
):
    """Dense, batch normalization and dropout: weights, statistics and a seed generator."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(3, activation="softmax"),
        ]
    )
    loss = loss or "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=list(metrics), **compile_options)
    return model


def values(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def same(left, right) -> bool:
    """Bitwise equal; NaN equals NaN."""
    pairs = zip(left, right, strict=True)
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def saturated() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model whose gradients are 0, and data that are not scaled."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "hard_tanh")])
    model.compile("sgd", "mse")
    model.layers[0].set_weights([np.ones((1, 1), "float32"), np.zeros(1, "float32")])
    return model, np.full((256, 1), 1e4, "float32"), np.zeros((256, 1), "float32")


def public_callbacks() -> dict[str, type]:
    """The callbacks of `keras_lr`, by name."""
    return {
        name: each
        for name, each in vars(keras_lr).items()
        if isinstance(each, type) and issubclass(each, keras.callbacks.Callback)
    }
