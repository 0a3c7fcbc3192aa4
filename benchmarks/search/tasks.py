"""The tasks of the benchmark, and the judgement of the settings that are found on them."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_lr.rate_search.data import Data
from keras_lr.rate_search.jobs import Job, Setting
from keras_lr.rate_search.runner import Runner

EPOCHS = 5
SEEDS = range(100, 112)  # that judge an answer
GRID = 10 ** np.arange(-5, 0.76, 0.25)


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def breast() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return (x * 20).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def mnist1d() -> tuple[np.ndarray, np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset

    found = make_dataset(get_dataset_args())
    return found["x"].astype("float32"), found["y"]


def dense(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(64, activation="relu"), layers.Dense(outputs)]
    )


def conv(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Reshape((inputs, 1)),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs),
        ]
    )


def attention(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    tokens = keras.Input((inputs,))
    x = layers.Dense(16)(layers.Reshape((8, inputs // 8))(tokens))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(tokens, layers.Dense(outputs)(layers.Flatten()(x)))


def sgd() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


TASKS: tuple[tuple[Callable, Callable, Callable], ...] = (
    (digits, dense, keras.optimizers.Adam),
    (digits, dense, sgd),
    (digits, attention, keras.optimizers.AdamW),
    (breast, dense, sgd),
    (diabetes, dense, keras.optimizers.Adam),
    (diabetes, dense, keras.optimizers.RMSprop),
    (mnist1d, conv, keras.optimizers.Adam),
    (mnist1d, dense, keras.optimizers.Lion),
)


def name_of(data: Callable, net: Callable, optimizer: Callable) -> str:
    return f"{data.__name__}-{net.__name__}-{optimizer.__name__.lower()}"


class Task:
    def __init__(self, data: Callable, net: Callable, optimizer: Callable) -> None:
        self.name = name_of(data, net, optimizer)
        x, y = data()
        rows = np.random.default_rng(0).permutation(len(x))
        test = len(x) // 4
        self.x, self.y = x[rows[test:]], y[rows[test:]]
        self.judged = x[rows[:test]], y[rows[:test]]
        classes = y.dtype.kind == "i"
        self._make = functools.partial(net, x.shape[1], len(set(y.tolist())) if classes else 1)
        self._optimizer, self._classes = optimizer, classes
        self.model = self.new(0)
        self.default = float(self.model.optimizer.learning_rate)

    def new(self, seed: int) -> keras.Model:
        """A new compiled model."""
        keras.utils.set_random_seed(seed)
        model = self._make()
        losses = keras.losses
        loss = (
            losses.SparseCategoricalCrossentropy(from_logits=True)
            if self._classes
            else losses.MeanSquaredError()
        )
        model.compile(self._optimizer(), loss)
        return model

    def untrained(self) -> float:
        return float(self.model.evaluate(*self.judged, verbose=0))

    def losses(self, settings: Iterable[Setting]) -> dict[Setting, float]:
        """Mean test loss after training with each, at most the loss of the untrained model."""
        worst, found = self.untrained(), {}
        data = Data(self.x, self.y, None, self.judged, {})
        with Runner.borrow(self.model, data, "val_loss", 32, 0) as runner:
            for setting in dict.fromkeys(settings):
                jobs = [Job("judge", setting, seed, 1.0, EPOCHS) for seed in SEEDS]
                outcomes = [runner.run(job) for job in jobs]
                ends = [o.value if o.ended == "finished" else worst for o in outcomes]
                found[setting] = statistics.fmean(min(end, worst) for end in ends)
        return found


def constant(rate: float) -> Setting:
    return Setting(rate, batch_size=32)
