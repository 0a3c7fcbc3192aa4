"""Measure a range test, against a baseline and the classic finder.

    KERAS_BACKEND=jax python benchmarks/speed/range_test.py

CPU time of the process for 100 steps, interleaved A B C A B C, medians of the ratios to the
baseline:

* floor, the baseline: the same batches through `model.fit`, without callbacks, 25 steps per
  execution (torch: plain `fit`, which allows only one);
* classic: the finder of older packages, a callback that reads `logs["loss"]` and sets the rate for
  each batch, in a plain `fit`;
* ours: `keras_lr.lr_find` with a ramp of 100 steps, including snapshot and restore;
* ours by default: a ramp and short runs that are evaluated on held-out data, for each 100 of its
  steps, over 100 steps of `fit` with one step per execution;
* on torch the range tests of other packages, against their own baseline: see torch_peers.py.

The first call of each, including its compilation, is measured on models not compiled before.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TQDM_DISABLE", "1")  # of the peers on torch

import keras
import numpy as np
from figures import row, tell

import keras_lr

STEPS = 100
layers = keras.layers


def mlp():
    dense = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((32,)), *dense, layers.Dense(10)])


def cnn():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.1),
            layers.Dense(10),
        ]
    )


def transformer():
    inputs = keras.Input((32, 32))
    x = inputs
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, "relu")(x)))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS = {"mlp": mlp, "transformer": transformer, "cnn": cnn}
MARKS = {
    "tensorflow": {"mlp": 0.85, "transformer": 1.0, "cnn": 0.95},
    "jax": {"mlp": 0.35, "transformer": 0.9, "cnn": 1.05},
    "torch": {"mlp": 0.95, "transformer": 1.05, "cnn": 0.95},
}
FIRST_MARK = 1.05
DEFAULT, DEFAULT_MARK = "lr_find, default", 1.1


class ClassicFinder(keras.callbacks.Callback):
    """As in older packages: the running mean of the epoch; on JAX this syncs the state."""

    def on_train_begin(self, logs=None):
        self.rates, self.losses = np.geomspace(1e-7, 1e-2, STEPS), []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.rates[batch]

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])


def compiled(make, steps_per_execution=1):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(
        keras.optimizers.Adam(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def contenders(make, x, y, batch):
    """Functions that train, each its own new model: 100 steps, or as many as their result says."""
    many = 1 if keras.backend.backend() == "torch" else 25
    fast = compiled(make, many)
    plain, slow, found, tried = (compiled(make) for _ in range(4))
    options = {"batch_size": batch, "verbose": 0}
    # The ramp ends where nothing diverges, so that all of them train 100 steps.
    ramp = {"end_lr": 1e-2, "stop_factor": None, "steps": STEPS, "budget": STEPS}
    return {
        "floor": lambda: fast.fit(x, y, **options),
        "fit": lambda: plain.fit(x, y, **options),
        "classic": lambda: slow.fit(x, y, callbacks=[ClassicFinder()], **options),
        "lr_find": lambda: keras_lr.lr_find(found, x, y, **ramp, **options),
        DEFAULT: lambda: keras_lr.lr_find(tried, x, y, **options),
    }, (found, tried)


def spent(function):
    """CPU and wall seconds of 100 steps."""
    before = np.array([time.process_time(), time.perf_counter()])
    result = function()
    took = np.array([time.process_time(), time.perf_counter()]) - before
    return took * STEPS / getattr(result, "training_steps", STEPS)


def measure(name, repeats, firsts, batch):
    """The rows of one model: alternating runs, and first calls."""
    backend, make = keras.backend.backend(), MODELS[name]
    shape = make().input_shape[1:]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * batch, *shape)).astype("float32")
    y = rng.integers(0, 10, STEPS * batch)
    first = []
    for _ in range(firsts):
        functions, found = contenders(make, x, y, batch)
        first.append({contender: spent(function) for contender, function in functions.items()})
    for ours, model in zip(("lr_find", DEFAULT), found, strict=True):
        model.fit(x[:batch], y[:batch], verbose=0)  # built, as a model in use is
        functions[ours]()
    floors = {"classic": "floor", "lr_find": "floor", DEFAULT: "fit"}
    if backend == "torch":
        import torch_peers

        peers = torch_peers.contenders(name, x, y, batch)
        for function in peers.values():
            function()
        functions |= peers
        floors |= {torch_peers.LOOP: "floor"}
        floors |= {peer: torch_peers.LOOP for peer in peers if peer != torch_peers.LOOP}
    turns = [
        {contender: spent(function) for contender, function in functions.items()}
        for _ in range(repeats)
    ]

    def told(table, contender, turns, mark):
        ratios = np.array([turn[contender] / turn[floors[contender]] for turn in turns])
        marks = {"lr_find": mark, DEFAULT: DEFAULT_MARK}
        return row(table, contender, name, *ratios.T, mark=marks.get(contender))

    rows = [told("range test", each, turns, MARKS[backend][name]) for each in floors]
    for each in ("classic", "lr_find", DEFAULT):
        rows.append(told("range test, first call", each, first, FIRST_MARK))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--firsts", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="examples in a batch")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows += measure(name, options.repeats, options.firsts, options.batch)
    result = {"part": "range-test", "backend": keras.backend.backend(), "rows": rows}
    tell(result, options.json)


if __name__ == "__main__":
    main()
