"""What a callback costs per training step, beside the floor and the usual way, in one process.

    KERAS_BACKEND=jax python benchmarks/speed/callbacks.py

Chains of Dense(8), SGD with momentum, batches of 32. Every contender trains a model of its own
in a thread of its own, and only one of them runs at a time: an epoch each, in a new order each
round. So each is compiled once, and that is not counted. What is counted is all between the
beginnings of two epochs, the callback's work at an epoch's end included.

Printed are medians of the ratios to the floor's epoch of the same round, and their quartiles, of
process CPU time and wall time:

* floor: plain `fit`, or `fit` with a callback whose `on_train_batch_end` does nothing, whichever
  takes less CPU time. Keras hands the ends of batches to a thread on JAX and torch, unless a
  callback overrides that method; on a small model the hand-over can be most of the step;
* the usual way: a callback that sets `self.model.optimizer.learning_rate` before each batch.

Traces are how often `train_step` was traced by a plain `fit`, two of the callback's, and a plain
one; on JAX and TensorFlow, where a `fit` without a trace compiles nothing either.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_lr

BATCH = 32
RATE = 1e-6  # nobody is to learn: the numbers stay in the same range for all
DECAY = {"initial_learning_rate": RATE, "decay_steps": 10**6}
PATIENT = {"monitor": "loss", "patience": 10**6}  # judges, and changes nothing


class Nothing(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class UsualWay(keras.callbacks.Callback):
    """As in the old packages: a rate for each batch; on JAX a sync of the whole state."""

    def on_train_begin(self, logs=None):
        self.step = 0

    def on_train_batch_begin(self, batch, logs=None):
        rate = 0.5 * RATE * (1.0 + math.cos(math.pi * self.step / 10**6))
        self.model.optimizer.learning_rate = rate
        self.step += 1


def decay():
    return keras.optimizers.schedules.CosineDecay(**DECAY)


# The rate that the model is compiled with, and the callbacks.
CONTENDERS = {
    "plain fit": lambda: (RATE, []),
    "fit, empty on_train_batch_end": lambda: (RATE, [Nothing()]),
    "the usual way": lambda: (RATE, [UsualWay()]),
    "OneCycle, rate": lambda: (RATE, [keras_lr.OneCycle(RATE, cycle_momentum=False)]),
    "OneCycle, rate and momentum": lambda: (RATE, [keras_lr.OneCycle(RATE)]),
    "CyclicLR": lambda: (RATE, [keras_lr.CyclicLR(RATE / 10, RATE, step_size=100)]),
    "WarmUp": lambda: (RATE, [keras_lr.WarmUp(steps=100)]),
    "ScheduleLR(CosineDecay)": lambda: (RATE, [keras_lr.ScheduleLR(decay())]),
    "ReduceLROnPlateau": lambda: (RATE, [keras_lr.ReduceLROnPlateau(**PATIENT)]),
    "ReduceLROnPlateau, every 50 batches": lambda: (
        RATE,
        [keras_lr.ReduceLROnPlateau(**PATIENT, every=50)],
    ),
    "fit, compiled with CosineDecay": lambda: (decay(), []),
    "ReduceLROnPlateau over CosineDecay": lambda: (
        decay(),
        [keras_lr.ReduceLROnPlateau(**PATIENT)],
    ),
    "LRLogger": lambda: (RATE, [keras_lr.LRLogger()]),
}
FLOORS = list(CONTENDERS)[:2]


class Chain(keras.Sequential):
    """Notes how often Python runs through its training step."""

    def train_step(self, *arguments):
        object.__setattr__(self, "traces", getattr(self, "traces", 0) + 1)
        return super().train_step(*arguments)


def compiled(variables, rate):
    keras.utils.set_random_seed(0)
    # Orthogonal and linear, so that nothing explodes or vanishes into slow denormal numbers.
    dense = [
        keras.layers.Dense(8, kernel_initializer="orthogonal", name=f"dense_{index}")
        for index in range(variables // 2)
    ]
    model = Chain([keras.Input((8,)), *dense])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def data(steps):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(steps * BATCH, 8)).astype("float32") for _ in range(2)]


class Turns(keras.callbacks.Callback):
    """Waits before each epoch for its turn, and notes what the one before has taken."""

    def __init__(self):
        super().__init__()
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_epoch_begin(self, epoch, logs=None):
        self.hand_over()

    def on_train_end(self, logs=None):
        self.hand_over()

    def hand_over(self):
        # Seconds of the process, in which nothing else runs meanwhile.
        self.ended = np.array([time.process_time(), time.perf_counter()])
        self.done.release()
        self.go.acquire()
        self.begun = np.array([time.process_time(), time.perf_counter()])


class Contender:
    """A `fit` that goes on for an epoch at a time."""

    def __init__(self, make, variables, x, y, epochs):
        rate, callbacks = make()
        self.turns = Turns()
        model = compiled(variables, rate)
        self.thread = ThreadPoolExecutor(1)
        # First of the callbacks, so that what the others do at an epoch's end is counted.
        self.fit = self.thread.submit(
            model.fit,
            x,
            y,
            batch_size=BATCH,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[self.turns, *callbacks],
        )
        self.fit.add_done_callback(lambda fit: self.turns.done.release())
        self.turns.done.acquire()

    def epoch(self):
        """CPU and wall seconds of the next epoch."""
        self.turns.go.release()
        self.turns.done.acquire()
        if self.fit.done():
            self.fit.result()  # raises what the fit has raised
        return self.turns.ended - self.turns.begun

    def finish(self):
        self.turns.go.release()
        self.fit.result()
        self.thread.shutdown()


def measure(names, variables, steps, repeats):
    """CPU and wall seconds per step: an array of repeats x 2 for each contender."""
    x, y = data(steps)
    # Two of each, made in mirrored order: what is made earlier lies better in memory.
    running = [
        (name, Contender(CONTENDERS[name], variables, x, y, epochs=2 + repeats))
        for name in names + names[::-1]
    ]
    rng = np.random.default_rng(0)
    for _ in range(2):  # to compile, and to warm up
        for _, contender in running:
            contender.epoch()
    gc.collect()
    gc.freeze()  # a collection is not to pay for the other models
    seconds = {name: np.zeros((repeats, 2)) for name in names}
    for repeat in range(repeats):
        for index in rng.permutation(len(running)):
            name, contender = running[index]
            seconds[name][repeat] += contender.epoch() / (2 * steps)
    for _, contender in running:
        contender.finish()
    gc.unfreeze()
    return seconds


def traces(make):
    """Traces of a plain `fit`, two with the callbacks, and a plain one."""
    rate, callbacks = make()
    model, (x, y) = compiled(6, rate), data(4)
    counts = []
    for extra in ([], callbacks, callbacks, []):
        model.traces = 0
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=extra)
        counts.append(str(model.traces))
    return " + ".join(counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 20, 200])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, help="of an epoch; by default fewer for more layers")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    options = parser.parse_args()
    names = FLOORS + [name for name in options.only if name not in FLOORS]
    cells = {name: [] for name in names}
    floors = []
    most = 300 if keras.backend.backend() == "jax" else 150
    for variables in options.sizes:
        steps = options.steps or min(most, max(50, 40 * most // variables))
        seconds = measure(names, variables, steps, options.repeats)
        floor = min(FLOORS, key=lambda name: np.median(seconds[name][:, 0]))
        floors.append(f"{1e3 * np.median(seconds[floor][:, 0]):.2f} ms")
        for name in names:
            low, middle, high = np.percentile(seconds[name] / seconds[floor], [25, 50, 75], axis=0)
            cell = f"{middle[0]:.2f} ({low[0]:.2f}-{high[0]:.2f}), {middle[1]:.2f}"
            cells[name].append("floor" if name == floor else cell)
    eager = keras.backend.backend() == "torch"
    print(f"| {keras.backend.backend()}: CPU time (quartiles), wall time over the floor |", end="")
    print("".join(f" {variables} variables |" for variables in options.sizes), "traces |")
    print("| --- |" + " --- |" * (len(options.sizes) + 1))
    print("| CPU time of the floor's step | " + " | ".join(floors) + " | |")
    for name, row in cells.items():
        counts = "-" if eager else traces(CONTENDERS[name])
        print(f"| {name} | " + " | ".join(row) + f" | {counts} |")


if __name__ == "__main__":
    main()
