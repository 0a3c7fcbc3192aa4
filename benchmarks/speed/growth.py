"""Measure how the overhead of keras_lr grows with the model and with the number of steps.

    KERAS_BACKEND=jax python benchmarks/speed/growth.py

As in callbacks.py: chains of Dense(8) under SGD with momentum, alternating runs, ratios to the
baseline of the same round. Here with 20, 200 and 2,000 variables (TensorFlow: 600); with epochs of
25, 100 and 400 batches at 20 variables; and `lr_find` with 30, 100 and 300 steps against a `fit` of
as many. A thousand layers take long to compile, and each contender compiles them once.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

import callbacks
import keras
import numpy as np
from callbacks import FLOOR, RATE, Size, compiled, contender, data, floor_of, in_turn, layer_names
from figures import row, tell

import keras_lr

NAMES = [
    "plain fit",
    "fit, empty on_train_batch_end",
    "the usual way",
    "OneCycle, rate and momentum",
    "ReduceLROnPlateau over CosineDecay",
]
LAYERWISE, LR_FIND = "LayerwiseLR, 11 values", "lr_find"
# XLA had not compiled a thousand layers for TensorFlow after eight minutes, on a busy machine.
SIZES = {"tensorflow": (20, 200, 600), "jax": (20, 200, 2000), "torch": (20, 200, 2000)}
STEPS_OF_TEST = (30, 100, 300)
STEPS_OF_EPOCH = (25, 100, 400)
VARIABLES = 20  # while the steps grow
# A chain of a thousand layers is walked by recursion, in Keras and in the backends.
DEPTH, STACK = 50_000, 512 * 2**20


def layerwise(size):
    """Eleven multipliers; ten for a chain of 10 layers."""
    values = [0.8**place for place in range(11)]
    names = layer_names(size.variables)
    multipliers = {name: values[place * 11 // len(names)] for place, name in enumerate(names)}
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    return keras_lr.optimizers.LayerwiseLR(optimizer, multipliers), []


class RangeTests:
    """Each of its epochs is a range test of as many steps, on a model trained before."""

    def __init__(self, size, x, y):
        self.model, self.x, self.y, self.steps = compiled(size.variables, RATE), x, y, size.steps
        batch = slice(callbacks.BATCH)
        self.model.fit(x[batch], y[batch], verbose=0)

    def epoch(self):
        begun = np.array([time.process_time(), time.perf_counter()])
        test = keras_lr.lr_find(
            self.model,
            self.x,
            self.y,
            batch_size=callbacks.BATCH,
            start_lr=RATE / 10,
            end_lr=RATE,
            steps=self.steps,
            budget=self.steps,
            stop_factor=None,
            verbose=0,
        )
        spent = np.array([time.process_time(), time.perf_counter()]) - begun
        assert test.training_steps == self.steps
        return spent

    def finish(self):
        pass


def measure(size, repeats, names, table, column):
    """The rows of one size, with one contender of each: a thousand layers compile slowly."""
    x, y = data(size.steps)
    makers = callbacks.CONTENDERS | {LAYERWISE: layerwise}
    running = [
        (
            name,
            RangeTests(size, x, y)
            if name == LR_FIND
            else contender(makers[name], size, x, y, epochs=2 + repeats),
        )
        for name in names
    ]
    print(f"growth: {size}", file=sys.stderr, flush=True)
    seconds = in_turn(running, size.steps, repeats)
    floor = floor_of(seconds)
    backend = keras.backend.backend()
    rows = []
    for name in names:
        if name == floor:
            rows.append(row(table, name, column, text=FLOOR))
            continue
        mark = callbacks.MARKS.get(name, {}).get(backend)
        rows.append(row(table, name, column, *(seconds[name] / seconds[floor]).T, mark=mark))
    return rows


def run(options):
    rows = []
    every = [*NAMES, LAYERWISE, LR_FIND]
    for variables in options.sizes:
        most = 100 if keras.backend.backend() == "jax" else 50
        steps = options.steps or (most if variables <= 200 else most // 5)
        column = f"{variables} variables"
        size = Size(variables, steps)
        rows += measure(size, options.repeats, every, "growth with the model", column)
    for steps in options.epochs:
        column, size = f"{steps} steps", Size(VARIABLES, steps)
        rows += measure(size, options.repeats, every[:-1], "growth with the epoch", column)
    for steps in options.tests:
        column, size = f"{steps} steps", Size(VARIABLES, steps)
        names = [*callbacks.FLOORS, LR_FIND]
        rows += measure(size, options.repeats, names, "growth of a range test", column)
    tell({"part": "growth", "backend": keras.backend.backend(), "rows": rows}, options.json)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES[keras.backend.backend()])
    parser.add_argument("--epochs", type=int, nargs="*", default=STEPS_OF_EPOCH)
    parser.add_argument("--tests", type=int, nargs="*", default=STEPS_OF_TEST)
    parser.add_argument("--steps", type=int, help="of an epoch while the model grows")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.setrecursionlimit(DEPTH)
    threading.stack_size(STACK)
    failed = []

    def guarded():
        try:
            run(options)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)  # the main thread's stack is what it is
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main()
