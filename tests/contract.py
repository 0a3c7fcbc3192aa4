"""What holds for every class of a kind, and one row a class. A class without a row fails."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_lr
from keras_lr import optimizers, schedules

# Each row makes the object anew: run-time state must not travel from one test to the next.
CALLBACKS: dict[type, Callable[[], Any]] = {
    keras_lr.CyclicLR: lambda: keras_lr.CyclicLR(1e-3, 0.1, 2, cycle_momentum=True),
    keras_lr.Diagnose: lambda: keras_lr.Diagnose(verbose=0, patience=1),
    keras_lr.GradualUnfreeze: lambda: keras_lr.GradualUnfreeze([["dense.*", "batch.*"]]),
    keras_lr.HalveOnDivergence: lambda: keras_lr.HalveOnDivergence(check_every=3),
    keras_lr.LRFinder: lambda: keras_lr.LRFinder(steps=8, end_lr=1.0, seed=3),
    keras_lr.LRLogger: lambda: keras_lr.LRLogger(),
    keras_lr.OneCycle: lambda: keras_lr.OneCycle(0.1),
    keras_lr.ReduceLROnPlateau: lambda: keras_lr.ReduceLROnPlateau(
        "loss", restore_best_weights=True
    ),
    keras_lr.ScheduleHyperparameter: lambda: keras_lr.ScheduleHyperparameter(
        "weight_decay", keras_lr.schedules.LinearRampSchedule(0.5, 0.1, 6)
    ),
    keras_lr.ScheduleLR: lambda: keras_lr.ScheduleLR(
        keras.optimizers.schedules.CosineDecay(0.1, 6), momentum=0.8
    ),
    keras_lr.WarmUp: lambda: keras_lr.WarmUp(fraction=0.5),
    keras_lr.WarmUpStableDecay: lambda: keras_lr.WarmUpStableDecay(
        0.1, 1, 2, monitor="loss", patience=1, min_delta=9.0
    ),
}

# Optimizers for a model that has layers named `dense*`.
OPTIMIZERS: dict[type, Callable[[], Any]] = {
    optimizers.AdaptiveGains: lambda: optimizers.AdaptiveGains(keras.optimizers.RMSprop(0.01)),
    optimizers.Hypergradient: lambda: optimizers.Hypergradient(keras.optimizers.Adam(0.01), 1e-5),
    optimizers.LayerwiseLR: lambda: optimizers.LayerwiseLR(
        keras.optimizers.AdamW(0.01), {"dense.*/kernel": 0.5, "dense.*/bias": 2.0}
    ),
    optimizers.Prodigy: lambda: optimizers.Prodigy(d0=1e-4),
    optimizers.ScheduleFree: lambda: optimizers.ScheduleFree(
        keras.optimizers.AdamW(0.01), warmup_steps=4
    ),
}

# More of these, which take other ways through a class.
MORE_OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "ScheduleFree of LayerwiseLR": lambda: optimizers.ScheduleFree(
        optimizers.LayerwiseLR(
            keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), {"dense.*/kernel": 0.5}
        )
    ),
    "ScheduleFree, rectified": lambda: optimizers.ScheduleFree(
        keras.optimizers.Adam(0.01, beta_2=0.9), rectify=True
    ),
}

# Schedules for a run of so many steps.
SCHEDULES: dict[type, Callable[[int], Any]] = {
    schedules.ConstantSchedule: lambda steps: schedules.ConstantSchedule(0.1),
    schedules.CyclicSchedule: lambda steps: schedules.CyclicSchedule(
        0.01, 0.1, steps, 3, mode="exp_range", gamma=0.9, cycle_mult=1.5
    ),
    schedules.ExponentialRampSchedule: lambda steps: schedules.ExponentialRampSchedule(
        1e-4, 1.0, steps
    ),
    schedules.FlatCosineSchedule: lambda steps: schedules.FlatCosineSchedule(0.1, steps, 0.4),
    schedules.InverseSqrtSchedule: lambda steps: schedules.InverseSqrtSchedule(0.1, steps // 3, 9),
    schedules.LinearRampSchedule: lambda steps: schedules.LinearRampSchedule(0.1, 1e-3, steps),
    schedules.OneCycleSchedule: lambda steps: schedules.OneCycleSchedule(0.1, steps),
    schedules.SequentialSchedule: lambda steps: schedules.SequentialSchedule(
        [0.2, schedules.OneCycleSchedule(0.1, steps), _keras_warm_up(steps)], [2, steps + 2]
    ),
    schedules.SlantedTriangularSchedule: lambda steps: schedules.SlantedTriangularSchedule(
        0.1, steps, cut_frac=0.3
    ),
    schedules.StepDecaySchedule: lambda steps: schedules.StepDecaySchedule(0.1, steps, 0.5),
    schedules.WarmUpSchedule: lambda steps: schedules.WarmUpSchedule(
        _keras_warm_up(steps), steps, start_factor=0.1, mode="exponential"
    ),
    schedules.WarmUpStableDecaySchedule: lambda steps: schedules.WarmUpStableDecaySchedule(
        0.1, steps, warmup_steps=steps // 3, decay_steps=(steps + 1) // 2
    ),
}


def _keras_warm_up(steps: int) -> Any:
    """A schedule of Keras's that takes one step at a time."""
    return keras.optimizers.schedules.CosineDecay(
        0.01, steps, warmup_target=0.1, warmup_steps=steps
    )


def public_classes(module: str, base: type) -> set[type]:
    """The public classes of a package of ours; none while the package does not exist."""
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError:
        return set()
    classes = (getattr(package, name) for name in package.__all__)
    return {each for each in classes if inspect.isclass(each) and issubclass(each, base)}


KINDS = {
    "keras_lr.callbacks": (keras.callbacks.Callback, CALLBACKS),
    "keras_lr.schedules": (keras.optimizers.schedules.LearningRateSchedule, SCHEDULES),
    "keras_lr.optimizers": (object, OPTIMIZERS),
}


def fitted_weight(schedule: Any, x: np.ndarray, *callbacks: Any, **options: Any) -> float:
    """The weight of a linear model from 0 on, after a `fit` with one batch per value of `x`.

    The loss is the prediction, so each gradient is the value of `x`: SGD takes off the sum of
    rate times value.
    """
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    optimizer = keras.optimizers.SGD(schedule, **options)
    model.compile(optimizer, loss=lambda y_true, y_pred: y_pred)
    arrays = (x[:, None], x[:, None])
    model.fit(*arrays, batch_size=1, shuffle=False, verbose=0, callbacks=list(callbacks))
    return float(model.get_weights()[0].item())
