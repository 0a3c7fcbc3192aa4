"""Measure what a modified optimizer adds to a training step, against the plain optimizer.

    KERAS_BACKEND=jax python benchmarks/speed/optimizers.py

A chain of 11 Dense(64), 22 variables, batches of 32. Each contender has its own model, compiled
before anything is counted. Then they alternate, a burst of training steps each, in a new order each
round. They run the model's own `train_function` on prepared batches, so that callbacks and the data
pipeline of `fit`, equal for all, do not hide the cost of the optimizers.

The script prints medians and quartiles of the ratios to the plain optimizer in the same round, for
CPU time of the process and wall time; and the additional state, in copies of the weights.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from figures import row, tell

from keras_lr.optimizers import (
    AdaptiveGains,
    Hypergradient,
    LayerwiseLR,
    Prodigy,
    ScheduleFree,
)

LAYERS, WIDTH, BATCH = 11, 64, 32
RATE = 1e-5  # too low to learn: the numbers stay in the same range for all
NAMES = [f"dense_{index}" for index in range(LAYERS)]
MANY = {name: 0.8**index for index, name in enumerate(reversed(NAMES))}
TWO = {NAMES[-1]: 10.0}


def sgd(rate=RATE):
    return keras.optimizers.SGD(rate, momentum=0.9)


def adam(rate=RATE):
    return keras.optimizers.Adam(rate)


def adamw(rate=RATE):
    return keras.optimizers.AdamW(rate, weight_decay=0.01)


def several(make, multipliers):
    """Keras's own way: one optimizer for each rate."""
    rated = {name: make(RATE * value) for name, value in multipliers.items()}
    rest = make()
    return keras.optimizers.MultiOptimizer(
        lambda variable: rated.get(variable.path.split("/")[-2], rest)
    )


PLAIN = {"Adam": adam, "AdamW": adamw, "SGD with momentum": sgd}
MULTIPLIERS_11 = {"tensorflow": 1.05, "jax": 1.10, "torch": 1.10}.get(keras.backend.backend())
CONTENDERS = {  # the plain optimizer, how the other is made, the target
    "LayerwiseLR(Adam), 11 values": ("Adam", lambda: LayerwiseLR(adam(), MANY), MULTIPLIERS_11),
    "LayerwiseLR(Adam), 2 values": ("Adam", lambda: LayerwiseLR(adam(), TWO), 1.05),
    "MultiOptimizer of Adam, 11 values": ("Adam", lambda: several(adam, MANY), None),
    "MultiOptimizer of Adam, 2 values": ("Adam", lambda: several(adam, TWO), None),
    "LayerwiseLR(AdamW), 11 values": ("AdamW", lambda: LayerwiseLR(adamw(), MANY), MULTIPLIERS_11),
    "LayerwiseLR(AdamW), 2 values": ("AdamW", lambda: LayerwiseLR(adamw(), TWO), 1.05),
    "LayerwiseLR(SGD), 11 values": (
        "SGD with momentum",
        lambda: LayerwiseLR(sgd(), MANY),
        MULTIPLIERS_11,
    ),
    "LayerwiseLR(SGD), 2 values": ("SGD with momentum", lambda: LayerwiseLR(sgd(), TWO), 1.05),
    "Hypergradient(Adam)": ("Adam", lambda: Hypergradient(adam()), 1.25),
    "Hypergradient(SGD)": ("SGD with momentum", lambda: Hypergradient(sgd()), 1.25),
    "AdaptiveGains(Adam)": ("Adam", lambda: AdaptiveGains(adam()), 1.4),
    "AdaptiveGains(SGD)": ("SGD with momentum", lambda: AdaptiveGains(sgd()), 1.4),
    "Prodigy": ("Adam", lambda: Prodigy(), None),
    "ScheduleFree(AdamW)": ("AdamW", lambda: ScheduleFree(adamw()), 1.10),
    "ScheduleFree(SGD)": ("SGD with momentum", lambda: ScheduleFree(sgd()), 1.10),
}


class Contender:
    """A compiled model that runs bursts of steps."""

    def __init__(self, make, batches, names=NAMES):
        keras.utils.set_random_seed(0)
        # Orthogonal and linear, so that nothing explodes or vanishes into slow denormal numbers.
        dense = [
            keras.layers.Dense(WIDTH, kernel_initializer="orthogonal", name=name) for name in names
        ]
        self.model = keras.Sequential([keras.Input((WIDTH,)), *dense])
        self.model.compile(make(), "mse")
        self.model.train_on_batch(*batches[0])  # compiles
        self.steps = len(batches)
        self.run = {"tensorflow": self.on_tensorflow, "jax": self.on_jax, "torch": self.on_torch}[
            keras.backend.backend()
        ](batches)

    def on_tensorflow(self, batches):
        import tensorflow as tf

        stacked = tuple(np.stack(part) for part in zip(*batches, strict=True))
        iterator = iter(tf.data.Dataset.from_tensor_slices(stacked).repeat())

        def run():
            for _ in batches:
                logs = self.model.train_function(iterator)
            return float(logs["loss"])

        return run

    def on_jax(self, batches):
        import jax

        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = self.model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
        batches = [(*map(jax.numpy.asarray, batch), None) for batch in batches]

        def run():
            nonlocal state
            for batch in batches:
                logs, state = self.model.train_function(state, iter([batch]))
            jax.block_until_ready(state)
            return float(logs["loss"])

        return run

    def on_torch(self, batches):
        import torch

        batches = [tuple(map(torch.from_numpy, batch)) for batch in batches]

        def run():
            for batch in batches:
                logs = self.model.train_function([batch])
            return float(logs["loss"])

        return run

    def burst(self):
        """CPU and wall seconds per step of one burst."""
        begin = np.array([time.process_time(), time.perf_counter()])
        loss = self.run()
        seconds = np.array([time.process_time(), time.perf_counter()]) - begin
        assert np.isfinite(loss)
        return seconds / self.steps

    def copies(self):
        """The state of the optimizer, in copies of the weights."""

        def size(variables):  # all are of 4 bytes an element, or scalars
            return sum(math.prod(variable.shape) for variable in variables)

        kept = {id(variable): variable for variable in self.model.optimizer.variables}
        return size(kept.values()) / size(self.model.trainable_variables)


def measure(makers, steps, rounds, names=NAMES):
    """Seconds per step, shape (rounds, 2), and copies of state, for each contender.

    Args:
        names: Of the layers.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, steps, BATCH, WIDTH)).astype("float32")
    batches = list(zip(x, y, strict=True))
    # Two of each, made in mirrored order: earlier ones have better places in memory.
    order = [*makers, *reversed(makers)]
    running = [(name, Contender(makers[name], batches, names)) for name in order]
    for _, contender in running * 2:  # to warm up
        contender.burst()
    gc.collect()
    gc.freeze()  # garbage collection must not count here
    seconds = {name: np.zeros((rounds, 2)) for name in makers}
    for turn in range(rounds):
        for index in rng.permutation(len(running)):
            name, contender = running[index]
            seconds[name][turn] += contender.burst() / (len(running) / len(makers))
    gc.unfreeze()
    return seconds, {name: contender.copies() for name, contender in running}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, help="of a burst; by default 60, on torch 20")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    backend = keras.backend.backend()
    makers = PLAIN | {name: CONTENDERS[name][1] for name in options.only}
    steps = options.steps or (20 if backend == "torch" else 60)
    seconds, copies = measure(makers, steps, options.rounds)
    rows = []
    for name in options.only:
        floor, _, mark = CONTENDERS[name]
        ratios = (seconds[name] / seconds[floor]).T
        rows.append(row("optimizers", name, "over the plain optimizer", *ratios, mark=mark))
        more = f"{copies[name] - copies[floor]:.2f}"
        rows.append(row("optimizers", name, "more copies kept", text=more))
    tell({"part": "optimizers", "backend": backend, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
