"""Measure what a callback adds to a training step, against a baseline and the usual way.

    KERAS_BACKEND=jax python benchmarks/speed/callbacks.py

Chains of Dense(8), SGD with momentum, batches of 32. Each contender trains its own model in its own
thread, and only one runs at a time: an epoch each, in a new order each round. So each is compiled
once, which is not counted. Everything between the starts of two epochs is counted, including the
work of the callback at the end of an epoch.

The script prints medians and quartiles of the ratios to the baseline of the same round, for CPU
time of the process and wall time:

* floor, the baseline: plain `fit`, or `fit` with a callback whose `on_train_batch_end` does
  nothing, whichever takes less CPU time. On JAX and torch, Keras calls `on_train_batch_end` in
  another thread unless a callback overrides it; on a small model that can be most of the step;
* the usual way: a callback that sets `self.model.optimizer.learning_rate` before each batch;
* `LRFinder(every=1)` runs a range test before each epoch with as many steps as the epoch: a ratio
  of 2 means that a step of the test costs as much as a step of `fit`;
* `GradualUnfreeze` has half of the layers frozen, and `HalveOnDivergence` checks the loss every 50
  batches and at the end of the epoch, and then copies the weights to the host.

Traces counts how often `train_step` was traced by a plain `fit`, two with the callback, and a plain
one; on JAX and TensorFlow, where a `fit` without a trace compiles nothing either.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import warnings
from collections import Counter
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from figures import row, tell
from turns import Contender

import keras_lr

# Neither may reach its end: a step in the middle is measured.
warnings.filterwarnings(
    "ignore", "The last group should be unfrozen|The warm-up should end|The training should"
)

BATCH = 32
RATE = 1e-6  # too low to learn: the numbers stay in the same range for all
DECAY = {"initial_learning_rate": RATE, "decay_steps": 10**6}
FALLING = keras_lr.schedules.LinearRampSchedule(1e-4, 1e-5, 10**6)
PATIENT = {"monitor": "loss", "patience": 10**6}  # checks, and changes nothing


class Nothing(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class UsualWay(keras.callbacks.Callback):
    """As in older packages: set the rate for each batch; on JAX this syncs the whole state."""

    def on_train_begin(self, logs=None):
        self.step = 0

    def on_train_batch_begin(self, batch, logs=None):
        rate = 0.5 * RATE * (1.0 + math.cos(math.pi * self.step / 10**6))
        self.model.optimizer.learning_rate = rate
        self.step += 1


def decay():
    return keras.optimizers.schedules.CosineDecay(**DECAY)


class Size(NamedTuple):
    """The size of a run: variables of the model, steps of an epoch."""

    variables: int
    steps: int


def decayed():
    """SGD with a weight decay, which a callback can schedule."""
    return keras.optimizers.SGD(RATE, momentum=0.9, weight_decay=1e-4)


def layer_names(variables):
    return [f"dense_{index}" for index in range(variables // 2)]


def unfreeze(size):
    names = layer_names(size.variables)
    middle = len(names) // 2
    return keras_lr.GradualUnfreeze([names[middle:], names[:middle]], epochs_per_group=10**6)


def finder(size):
    # Where nothing diverges, so that every test makes all of its steps.
    ramp = {"start_lr": RATE / 10, "end_lr": RATE, "stop_factor": None}
    # The data again, since TensorFlow's fit does not get arrays.
    again = tuple(data(size.steps))
    steps = {"steps": size.steps, "budget": size.steps}
    return keras_lr.LRFinder(every=1, verbose=0, data=again, **steps, **ramp)


# The rate that the model is compiled with, and the callbacks.
CONTENDERS = {
    "plain fit": lambda size: (RATE, []),
    "fit, empty on_train_batch_end": lambda size: (RATE, [Nothing()]),
    "the usual way": lambda size: (RATE, [UsualWay()]),
    "OneCycle, rate": lambda size: (RATE, [keras_lr.OneCycle(RATE, cycle_momentum=False)]),
    "OneCycle, rate and momentum": lambda size: (RATE, [keras_lr.OneCycle(RATE)]),
    "CyclicLR": lambda size: (RATE, [keras_lr.CyclicLR(RATE / 10, RATE, step_size=100)]),
    "OneCycle(minutes)": lambda size: (RATE, [keras_lr.OneCycle(RATE, minutes=60)]),
    "WarmUp": lambda size: (RATE, [keras_lr.WarmUp(steps=100)]),
    "WarmUpStableDecay": lambda size: (RATE, [keras_lr.WarmUpStableDecay(RATE)]),
    "ScheduleLR(CosineDecay)": lambda size: (RATE, [keras_lr.ScheduleLR(decay())]),
    "ReduceLROnPlateau": lambda size: (RATE, [keras_lr.ReduceLROnPlateau(**PATIENT)]),
    "ReduceLROnPlateau, every 50 batches": lambda size: (
        RATE,
        [keras_lr.ReduceLROnPlateau(**PATIENT, window=50)],
    ),
    "fit, compiled with CosineDecay": lambda size: (decay(), []),
    "ReduceLROnPlateau over CosineDecay": lambda size: (
        decay(),
        [keras_lr.ReduceLROnPlateau(**PATIENT)],
    ),
    "fit, weight decay": lambda size: (decayed(), []),
    "ScheduleHyperparameter(weight_decay)": lambda size: (
        decayed(),
        [keras_lr.ScheduleHyperparameter("weight_decay", FALLING)],
    ),
    "ScheduleLR, coupled weight decay": lambda size: (
        decayed(),
        [keras_lr.ScheduleLR(decay(), couple_weight_decay=True)],
    ),
    "LRLogger": lambda size: (RATE, [keras_lr.LRLogger()]),
    "Diagnose": lambda size: (RATE, [keras_lr.Diagnose()]),
    "HalveOnDivergence": lambda size: (RATE, [keras_lr.HalveOnDivergence()]),
    "GradualUnfreeze": lambda size: (RATE, [unfreeze(size)]),
    "LRFinder(every=1)": lambda size: (RATE, [finder(size)]),
}
FLOORS = list(CONTENDERS)[:2]
FLOOR = "floor"
# What is compared with another row than the floor: a step with a weight decay is dearer itself.
PLAIN = {
    "ScheduleHyperparameter(weight_decay)": "fit, weight decay",
    "ScheduleLR, coupled weight decay": "fit, weight decay",
}
_RATE = {"tensorflow": 1.10, "jax": 1.05, "torch": 1.05}
_BOTH = {"tensorflow": 1.05, "jax": 1.05, "torch": 1.10}
_ATTRIBUTE = {"tensorflow": 1.05, "jax": 1.05, "torch": 1.05}
MARKS = {
    "OneCycle, rate": _RATE,
    "OneCycle, rate and momentum": _BOTH,
    "OneCycle(minutes)": _BOTH,
    "CyclicLR": _RATE,
    "WarmUp": _RATE,
    "WarmUpStableDecay": _RATE,
    "ScheduleLR(CosineDecay)": _RATE,
    "ReduceLROnPlateau": _RATE,
    "ReduceLROnPlateau, every 50 batches": _RATE,
    "ReduceLROnPlateau over CosineDecay": _RATE,
    "ScheduleHyperparameter(weight_decay)": _ATTRIBUTE,
}


class Chain(keras.Sequential):
    """Counts how often Python runs through its training step."""

    def train_step(self, *arguments):
        object.__setattr__(self, "traces", getattr(self, "traces", 0) + 1)
        return super().train_step(*arguments)


def compiled(variables, rate):
    """A chain under SGD with momentum at a rate, or under the given optimizer."""
    keras.utils.set_random_seed(0)
    # Orthogonal and linear, so that nothing explodes or vanishes into slow denormal numbers.
    dense = [
        keras.layers.Dense(8, kernel_initializer="orthogonal", name=name)
        for name in layer_names(variables)
    ]
    model = Chain([keras.Input((8,)), *dense])
    given = isinstance(rate, keras.optimizers.Optimizer)
    model.compile(rate if given else keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def data(steps):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(steps * BATCH, 8)).astype("float32") for _ in range(2)]


def batches(x, y):
    """The arguments of `fit` for these data.

    On TensorFlow, the data set that `fit` makes of arrays but without autotuning: the tuner sleeps
    for seconds, and a `fit` that waits for its turn would wait for the tuner too.
    """
    if keras.backend.backend() != "tensorflow":
        return {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}
    import tensorflow as tf
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    options = tf.data.Options()
    options.autotune.enabled = False
    made = ArrayDataAdapter(x, y, batch_size=BATCH, shuffle=False).get_tf_dataset()
    count = tf.data.experimental.assert_cardinality(len(x) // BATCH)
    return {"x": made.with_options(options).apply(count)}


def contender(make, size, x, y, epochs):
    """A `fit` that advances one epoch at a time."""
    rate, callbacks = make(size)
    model = compiled(size.variables, rate)
    options = {"epochs": epochs, "verbose": 0}
    return Contender(
        lambda turns: model.fit(**batches(x, y), callbacks=[turns, *callbacks], **options)
    )


def in_turn(running, steps, repeats):
    """CPU and wall seconds per step, shape (repeats, 2) for each name, of alternating runs."""
    rng = np.random.default_rng(0)
    for _ in range(2):  # to compile, and to warm up
        for _, contender in running:
            contender.epoch()
    gc.collect()
    gc.freeze()  # garbage collection must not count here
    copies = Counter(name for name, _ in running)
    seconds = {name: np.zeros((repeats, 2)) for name in copies}
    for repeat in range(repeats):
        for index in rng.permutation(len(running)):
            name, contender = running[index]
            seconds[name][repeat] += contender.epoch() / (copies[name] * steps)
    for _, contender in running:
        contender.finish()
    gc.unfreeze()
    return seconds


def floor_of(seconds):
    """The baseline that takes less CPU time."""
    return min(FLOORS, key=lambda name: np.median(seconds[name][:, 0]))


def measure(names, size, repeats):
    """The rows of one size."""
    x, y = data(size.steps)
    # Two of each, made in mirrored order: earlier ones have better places in memory. Where it
    # takes long to compile, and a step takes longer than that matters, one.
    twice = names[::-1] if size.variables < 200 else []
    running = [
        (name, contender(CONTENDERS[name], size, x, y, epochs=2 + repeats))
        for name in names + twice
    ]
    seconds = in_turn(running, size.steps, repeats)
    floor, column = floor_of(seconds), f"{size.variables} variables"
    rows = []
    for name in names:
        if name == floor:
            rows.append(row("callbacks", name, column, text=FLOOR))
            continue
        mark = MARKS.get(name, {}).get(keras.backend.backend())
        against = PLAIN.get(name, floor)
        ratios = (seconds[name] / seconds[against]).T
        rows.append(row("callbacks", name, column, *ratios, mark=mark))
    return rows


def traces(make):
    """Traces of a plain `fit`, two with the callbacks, and a plain one."""
    size = Size(variables=6, steps=4)
    rate, callbacks = make(size)
    model, (x, y) = compiled(size.variables, rate), data(size.steps)
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
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    needed = [PLAIN[name] for name in options.only if name in PLAIN]
    names = list(dict.fromkeys([*FLOORS, *needed, *options.only]))
    rows = []
    most = 300 if keras.backend.backend() == "jax" else 150
    for variables in options.sizes:
        steps = options.steps or min(most, max(30, 40 * most // variables))
        rows += measure(names, Size(variables, steps), options.repeats)
    if keras.backend.backend() != "torch":
        rows += [row("callbacks", n, "traces", text=traces(CONTENDERS[n])) for n in names]
    tell({"part": "callbacks", "backend": keras.backend.backend(), "rows": rows}, options.json)


if __name__ == "__main__":
    main()
