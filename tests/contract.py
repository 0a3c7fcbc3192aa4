"""What holds for every class of a kind, and one row a class. A class without a row fails."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import keras

import keras_lr

# Each row makes the object anew: run-time state must not travel from one test to the next.
CALLBACKS: dict[type, Callable[[], Any]] = {
    keras_lr.LRFinder: lambda: keras_lr.LRFinder(steps=8, end_lr=1.0, seed=3),
}


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
    "keras_lr.schedules": (keras.optimizers.schedules.LearningRateSchedule, {}),
    "keras_lr.optimizers": (keras.optimizers.Optimizer, {}),
}
