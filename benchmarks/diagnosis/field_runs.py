"""Runs made to fail in ways of real logs: few evaluations, BatchNormalization, leakage, and so on.

As in `runs`, the label of a run comes from what was done to it and from a measurement, never from
the rules under test. Each way has three seeds on each data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from runs import Data, Run, data

SEEDS = (0, 1, 2)
EPOCHS = 30


class Rows(keras.callbacks.Callback):
    """The rows that CSVLogger would write: no cell where there was no evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {name: float(f"{float(value):.6g}") for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch, **row})


def train(
    of: Data, body: list[Any], optimizer: Any, seed: int, epochs: int = EPOCHS, **options: Any
) -> tuple[keras.Model, list[dict[str, float]]]:
    """A model with this body, trained from a seed, and its rows."""
    keras.utils.set_random_seed(seed)
    dtype = options.pop("dtype", "float32")
    x, y = options.pop("x", of.x), options.pop("y", of.y)
    held_out = options.pop("validation_data", (of.x_val, of.y_val))
    head = layers.Dense(of.classes, "softmax", dtype=dtype) if of.classes else layers.Dense(1)
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), *body, head])
    model.compile(optimizer, of.loss, metrics=["accuracy"] if of.classes else [])
    rows = Rows()
    options = {"batch_size": 32, "verbose": 0, "callbacks": [rows], **options}
    model.fit(x, y, validation_data=held_out, epochs=epochs, **options)
    return model, rows.rows


def columns(rows: list[dict[str, float]]) -> dict[str, list[Any]]:
    """The rows as columns; an empty cell is None."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def dense(size: int) -> list[Any]:
    return [layers.Dense(size, "relu"), layers.Dense(size, "relu")]


def sparse_evaluation(name: str) -> Iterator[Run]:
    """An evaluation every five epochs: overfitting, and divergence after the last evaluation."""
    of = data(name)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        y = of.y[:150].copy()
        swap = rng.random(len(y)) < 0.3
        y[swap] = rng.permutation(y[swap])
        _, rows = train(
            of, dense(128), keras.optimizers.Adam(2e-3), seed, 60, x=of.x[:150], y=y,
            validation_freq=5,
        )  # fmt: skip
        held_out = [row["val_loss"] for row in rows if "val_loss" in row]
        if held_out[-1] > 1.3 * min(held_out) and rows[-1]["loss"] < 0.5 * rows[0]["loss"]:
            yield Run("overfitting", name, f"evaluation every 5, seed {seed}", columns(rows))

        def rate(epoch: int, _: float) -> float:
            return 0.01 if epoch < 27 else 1000.0

        jump = keras.callbacks.LearningRateScheduler(rate)
        kept = Rows()
        _, _ = train(
            of, dense(32), keras.optimizers.SGD(0.01, momentum=0.9), seed, 29,
            validation_freq=9, callbacks=[jump, kept],
        )  # fmt: skip
        losses = np.array([row["loss"] for row in kept.rows])
        if np.isfinite(losses).all() and losses[-2:].min() > 5 * losses[0]:
            setup = f"diverged after the last evaluation, seed {seed}"
            yield Run("diverged", name, setup, columns(kept.rows))
        elif not np.isfinite(losses[-1]):
            setup = f"NaN after the last evaluation, seed {seed}"
            yield Run("not-a-number", name, setup, columns(kept.rows))


def batch_statistics(name: str) -> Iterator[Run]:
    """BatchNormalization whose statistics follow single small batches.

    The label needs the same weights to be far better with the statistics of the whole data than
    with the moving ones, in at least three epochs.
    """
    of = data(name)
    kind = (
        keras.losses.SparseCategoricalCrossentropy if of.classes else keras.losses.MeanSquaredError
    )
    loss = kind()
    for seed in SEEDS:
        gaps: list[float] = []

        class Measure(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                moved = float(loss(of.y_val, self.model(of.x_val, training=False)))
                kept = [np.asarray(each) for each in self.model.get_weights()]
                own = float(loss(of.y_val, self.model(of.x_val, training=True)))
                self.model.set_weights(kept)  # the call above moves the statistics
                gaps.append(moved / own)  # noqa: B023

        body = [
            layers.Dense(64), layers.BatchNormalization(momentum=0.1), layers.ReLU(),
            layers.Dense(64), layers.BatchNormalization(momentum=0.1), layers.ReLU(),
        ]  # fmt: skip
        rows = Rows()
        train(
            of, body, keras.optimizers.Adam(3e-3), seed, batch_size=4, callbacks=[rows, Measure()]
        )
        if sum(gap > 2 for gap in gaps) >= 3:
            setup = f"momentum 0.1, batch 4, seed {seed}"
            yield Run("validation-jumps", name, setup, columns(rows.rows))


def leakage(name: str) -> Iterator[Run]:
    """An input that contains the target."""
    of = data(name)
    if not of.classes:
        return
    for seed in SEEDS:
        x, x_val = (
            np.concatenate([part, 8 * np.eye(of.classes, dtype="float32")[y]], axis=1)
            for part, y in ((of.x, of.y), (of.x_val, of.y_val))
        )
        _, rows = train(
            of, dense(64), keras.optimizers.Adam(3e-3), seed, 15, x=x,
            validation_data=(x_val, of.y_val), batch_size=8,
        )  # fmt: skip
        if min(row["val_accuracy"] for row in rows) == 1.0:
            yield Run(
                "perfect-from-start", name, f"target in the input, seed {seed}", columns(rows)
            )


def overflow(name: str) -> Iterator[Run]:
    """float16 without a loss scale, on inputs that were not scaled."""
    of = data(name)
    for seed in SEEDS:
        x = (of.x * 3000).astype("float16")
        x_val = (of.x_val * 3000).astype("float16")
        body = [
            layers.Dense(64, "relu", dtype="float16"),
            layers.Dense(64, "relu", dtype="float16"),
        ]
        _, rows = train(
            of, body, keras.optimizers.SGD(0.01), seed, 8, x=x,
            validation_data=(x_val, of.y_val), dtype="float16",
        )  # fmt: skip
        if not np.isfinite([row["loss"] for row in rows]).all():
            yield Run("not-a-number", name, f"float16 overflow, seed {seed}", columns(rows))


def replay_buffer(name: str) -> Iterator[Run]:
    """Q-learning on a chain of states: the loss is 0 until the buffer has filled, then it rises.

    It is healthy if the greedy policy is optimal at the end. One run for each seed, not for each
    data set: it counts with the first one.
    """
    if name != "breast":
        return
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        states, q = 8, np.zeros((8, 2))
        target, buffer, losses = q.copy(), [], []
        for episode in range(80):
            state, errors = 0, []
            for _ in range(40):
                greedy = rng.random() > 0.3 and np.ptp(q[state]) > 0
                action = int(q[state].argmax()) if greedy else int(rng.integers(2))
                step = min(max(state + 2 * action - 1, 0), states - 1)
                buffer.append((state, action, float(step == states - 1), step))
                state = 0 if step == states - 1 else step
                if len(buffer) < 400:
                    continue
                for place in rng.integers(len(buffer), size=8):
                    s, a, reward, after = buffer[place]
                    goal = reward + (0.0 if reward else 0.9 * target[after].max())
                    errors.append((q[s, a] - goal) ** 2)
                    q[s, a] += 0.1 * (goal - q[s, a])
            if episode % 5 == 0:
                target = q.copy()
            losses.append(float(np.mean(errors)) if errors else 0.0)
        if (q[:-1].argmax(axis=1) == 1).all():
            log = {"epoch": list(range(80)), "loss": losses}
            yield Run("healthy", name, f"Q-learning, seed {seed}", log)


def appended(name: str) -> Iterator[Run]:
    """Two runs in one file, as `CSVLogger(append=True)` writes them."""
    of = data(name)
    for seed in SEEDS:
        rows = []
        for part in (0, 1):
            rate = (1e-3, 3e-3)[part]
            rows += train(of, dense(32), keras.optimizers.Adam(rate), 10 * seed + part, 15)[1]
        yield Run("appended-runs", name, f"two runs, seed {seed}", columns(rows))


def healthy(name: str) -> Iterator[Run]:
    """A usual rate and an evaluation every epoch or every fifth, until the lowest loss."""
    of = data(name)
    for seed in SEEDS:
        for every in (1, 5):
            fit = {"validation_freq": every, "batch_size": 32}
            _, rows = train(of, dense(32), keras.optimizers.Adam(1e-3), 20 + seed, 40, **fit)
            held_out = [row.get("val_loss", np.inf) for row in rows]
            rows = rows[: max(10, int(np.argmin(held_out)) + 1)]
            setup = f"Adam 1e-3, evaluation every {every}, seed {seed}"
            yield Run("healthy", name, setup, columns(rows))


WAYS = (
    sparse_evaluation, batch_statistics, leakage, overflow, replay_buffer, appended, healthy,
)  # fmt: skip
