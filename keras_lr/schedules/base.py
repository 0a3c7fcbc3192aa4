"""What every curve has in common: the step that it is asked for, and how it is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._keras.frames import caller_self
from keras_lr._keras.optimizers import batch_counter
from keras_lr._util import checks

_RATES_OF_KERAS = ("initial_learning_rate", "end_learning_rate", "warmup_target", "values")


def updates(step: Any) -> Any:
    """The step as a float32 tensor that counts updates of the weights.

    Keras gives a schedule the counter of its optimizer, and with `gradient_accumulation_steps`
    that counts batches, of which several make one update. The counter does not say whose it is,
    so the optimizer is looked up among the callers.
    """
    if isinstance(step, keras.Variable):
        optimizer = caller_self(
            lambda each: (
                isinstance(each, keras.optimizers.Optimizer) and batch_counter(each) is step
            )
        )
        batches = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        step = step.value if batches == 1 else ops.floor_divide(step.value, batches)
    elif not ops.is_tensor(step):
        step = np.asarray(step, dtype="float32")
    return ops.cast(step, "float32")


class Curve:
    """A value for each step: one step, or an array of steps, gives one value or an array.

    Subclasses define `_at`, which gets what `updates` makes of the step. It is all in float32,
    exact up to step 2**24; the curves take distances from whole steps and add positive terms
    only, so that no digits cancel near the end of a long run.
    """

    def __call__(self, step: Any) -> Any:
        return self._at(updates(step))

    def _at(self, step: Any) -> Any:
        raise NotImplementedError


class Schedule(Curve, LearningRateSchedule):
    """A curve of learning rates, which keeps its arguments as attributes of the same names."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal schedule."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


@keras.saving.register_keras_serializable(package="keras_lr")
class ConstantSchedule(Schedule):
    """Stay at one rate: a part for `SequentialSchedule`.

    Args:
        learning_rate: The rate, above 0.

    Raises:
        ValueError: If the rate is out of its range.
        TypeError: If it is no number.

    >>> schedule = ConstantSchedule(0.5)
    >>> [float(rate) for rate in schedule([0, 1000])]
    [0.5, 0.5]
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = checks.number("learning_rate", learning_rate, above=0)

    def _at(self, step: Any) -> Any:
        return self.learning_rate * ops.ones_like(step)


def as_schedule(value: Any, name: str = "schedule") -> Any:
    """A number as a constant schedule, and any schedule as one that is safe to ask.

    Keras's own schedules compute in the type of their first value: with an integer there, 0.1
    becomes 0 on JAX and torch, and TensorFlow raises. Those are made anew with floats.

    Raises:
        TypeError: If `value` is neither a number nor a `LearningRateSchedule`.
        ValueError: If it is a number that is no learning rate.
    """
    if isinstance(value, LearningRateSchedule):
        return _with_floats(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{name} must be a number above 0 or a LearningRateSchedule; got {value!r}."
        )
    return ConstantSchedule(checks.number(name, value, above=0))


def _with_floats(schedule: Any) -> Any:
    if getattr(keras.optimizers.schedules, type(schedule).__name__, None) is not type(schedule):
        return schedule
    config = schedule.get_config()
    rates = {name: config[name] for name in _RATES_OF_KERAS if config.get(name) is not None}
    floats = keras.tree.map_structure(float, rates)
    if all(type(rate) is float for rate in keras.tree.flatten(rates)):
        return schedule
    return type(schedule).from_config({**config, **floats})


def deserialized(schedule: Any) -> Any:
    """A schedule within the config of another: as Keras wrote it, or as an object already."""
    return (
        keras.saving.deserialize_keras_object(schedule) if isinstance(schedule, dict) else schedule
    )


def rates_of(schedule: Any, step: Any) -> Any:
    """The rates of any schedule at a tensor of steps; some of Keras's take one step only."""
    if isinstance(schedule, Curve) or len(step.shape) == 0:
        rates = schedule(step)
    else:
        rates = ops.reshape(ops.map(schedule, ops.reshape(step, (-1,))), ops.shape(step))
    return ops.cast(rates, "float32")


def evaluate(schedule: Callable[[Any], Any], steps: Any) -> np.ndarray:
    """The values of a schedule, or of any function of the step, at an array of steps.

    Ours are asked once. Others get one step at a time, as in training: a schedule an integer
    tensor, a plain function a Python integer.
    """
    steps = np.asarray(steps)
    if isinstance(schedule, Curve):
        return np.asarray(ops.convert_to_numpy(schedule(steps)), dtype="float64")
    tensors = isinstance(schedule, LearningRateSchedule)
    asked = (
        ops.convert_to_tensor(int(step), "int32") if tensors else int(step) for step in steps.flat
    )
    rates = [float(ops.convert_to_numpy(schedule(step))) for step in asked]
    return np.asarray(rates, dtype="float64").reshape(steps.shape)
