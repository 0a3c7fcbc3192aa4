"""What `keras_lr` promises, checked on the device against NumPy in double precision.

Each check returns one figure for each of three seeds, and the tolerance.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_lr

SEEDS = range(3)
STEPS, BATCH = 24, 16
TOLERANCE = 1e-4  # relative; float32 against float64
Memory = Callable[[], "dict[str, int] | None"]
Figures = tuple[list[float], float]


def network(seed: int, **options: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """A network with one hidden layer under SGD with momentum, and data."""
    keras.utils.set_random_seed(seed)
    dense = [keras.layers.Dense(8, "tanh", name="hidden"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((5,)), *dense])
    model.compile(keras.optimizers.SGD(0.01, **({"momentum": 0.9} | options)), "mse")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS * BATCH, 5)).astype("float32")
    return model, x, rng.normal(size=(STEPS * BATCH, 2)).astype("float32")


def trained(
    weights: list[np.ndarray], x: Any, y: Any, rates: Any, momenta: Any, multipliers: Any = (1, 1)
) -> tuple[list[np.ndarray], np.ndarray]:
    """The same network and optimizer in NumPy: its weights, and the true loss of each batch."""
    w, b, v, c = values = [np.array(each, np.float64) for each in weights]
    slots, losses = [np.zeros_like(each) for each in values], []
    factors = [multipliers[0]] * 2 + [multipliers[1]] * 2
    for step, (rate, momentum) in enumerate(zip(rates, momenta, strict=True)):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        inputs, targets = x[rows].astype(np.float64), y[rows].astype(np.float64)
        hidden = np.tanh(inputs @ w + b)
        error = hidden @ v + c - targets
        losses.append(np.mean(error**2))
        out = 2 * error / error.size
        back = (out @ v.T) * (1 - hidden**2)
        gradients = [inputs.T @ back, back.sum(0), hidden.T @ out, out.sum(0)]
        for value, slot, gradient, factor in zip(values, slots, gradients, factors, strict=True):
            slot *= momentum
            slot -= rate * factor * gradient
            value += slot
    return values, np.array(losses)


def furthest(ours: Any, theirs: Any) -> float:
    """Largest difference, relative to the largest value of each array."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)


def losses(memory: Memory) -> Figures:
    found = []
    for seed in SEEDS:
        model, x, y = network(seed)
        options = {"batch_size": BATCH, "shuffle": False, "stop_factor": None, "verbose": 0}
        start = model.get_weights()
        result = keras_lr.lr_find(model, x, y, start_lr=1e-4, end_lr=0.5, steps=STEPS, **options)
        true = trained(start, x, y, np.geomspace(1e-4, 0.5, STEPS), [0.9] * STEPS)[1]
        found.append(furthest([np.array(result.losses)], [true]))
    return found, TOLERANCE


def restored(memory: Memory) -> Figures:
    """The number of values that differ in weights, slots, metrics and random generators."""
    found = []
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        layers = [
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
        ]
        model = keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(2)])
        model.compile("adam", "mse", metrics=["mae"])
        _, x, y = network(seed)
        model.fit(x, y, batch_size=BATCH, verbose=0)

        def state(model: Any = model) -> list[np.ndarray]:
            held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
            values = [np.array(keras.ops.convert_to_numpy(v.value)) for v in held]
            if keras.backend.backend() == "torch":
                import torch

                on = torch.cuda.is_available()
                values += [each.numpy() for each in torch.cuda.get_rng_state_all()] if on else []
                values.append(torch.get_rng_state().numpy())
            return [*values, np.random.get_state()[1].copy()]

        before = state()
        keras_lr.lr_find(model, x, y, batch_size=BATCH, steps=STEPS, verbose=0)
        found.append(float(sum(np.sum(a != b) for a, b in zip(before, state(), strict=True))))
    return found, 0.0


def momentum(memory: Memory) -> Figures:
    """The weights after a cycle of rate and momentum in straight lines, half of it up."""
    found = []
    up = STEPS // 2 - 1  # the peak is the last step of the first half, as in torch
    for seed in SEEDS:
        model, x, y = network(seed)
        start = model.get_weights()
        cycle = {"pct_start": 0.5, "anneal": "linear", "div_factor": 10, "final_div_factor": 10}
        callback = keras_lr.OneCycle(0.2, **cycle)
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])
        at = [0, up, STEPS - 1]
        rates = np.interp(range(STEPS), at, [0.02, 0.2, 0.002])
        momenta = np.interp(range(STEPS), at, [0.95, 0.85, 0.95])
        found.append(furthest(model.get_weights(), trained(start, x, y, rates, momenta)[0]))
    return found, TOLERANCE


def multipliers(memory: Memory) -> Figures:
    found = []
    for seed in SEEDS:
        model, x, y = network(seed)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        model.compile(
            keras_lr.optimizers.LayerwiseLR(optimizer, {"hidden": 0.1, "head": 2.0}), "mse"
        )
        start = model.get_weights()
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        expected = trained(start, x, y, [0.05] * STEPS, [0.9] * STEPS, (0.1, 2.0))[0]
        found.append(furthest(model.get_weights(), expected))
    return found, TOLERANCE


def memory_given_back(memory: Memory) -> Figures:
    """Relative growth of the bytes in use on the device; unknown on a CPU."""
    found = []
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        width = 1024 if memory() else 8
        dense = [keras.layers.Dense(width, "relu") for _ in range(4)]
        model = keras.Sequential([keras.Input((width,)), *dense])
        model.compile("adam", "mse")
        x = np.random.default_rng(seed).normal(size=(64, width)).astype("float32")
        options = {"batch_size": 16, "verbose": 0}
        for _ in range(2):
            model.fit(x, x, **options)
            keras_lr.lr_find(model, x, x, steps=8, **options)
        model.fit(x, x, **options)
        gc.collect()
        before = memory()
        keras_lr.lr_find(model, x, x, steps=8, **options)
        after = memory()
        found.append(after["now"] / before["now"] - 1 if before and after else 0.0)
    return found, 0.01


CHECKS: dict[str, Callable[[Memory], Figures]] = {
    "losses of lr_find against NumPy, relative": losses,
    "values that lr_find has not restored": restored,
    "weights after OneCycle against NumPy, relative": momentum,
    "weights under LayerwiseLR against NumPy, relative": multipliers,
    "growth of the device's memory after lr_find": memory_given_back,
}
