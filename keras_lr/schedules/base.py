"""The base classes of schedules, and how any schedule is evaluated at steps."""

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
    """Convert a step to a float32 tensor that counts updates of the weights.

    Keras calls a schedule with the counter of its optimizer. With `gradient_accumulation_steps`
    the optimizer counts batches, and several batches make one update. The counter has no
    reference to its optimizer, so this function finds the optimizer among its callers.
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
    """A function of the step: one value for one step, an array of values for an array of steps.

    Subclasses define `_at`, which receives the result of `updates`. All computation is in
    float32, which counts steps exactly up to 2**24. The curves subtract only steps and add only
    positive terms, so that no digits cancel near the end of a long run.
    """

    def __call__(self, step: Any) -> Any:
        return self._at(updates(step))

    def _at(self, step: Any) -> Any:
        raise NotImplementedError


class ConstantCurve(Curve):
    """A constant of any value; `ConstantSchedule` is a learning rate, so above 0."""

    def __init__(self, value: float) -> None:
        self._value = value

    def _at(self, step: Any) -> Any:
        return self._value * ops.ones_like(step)


class Schedule(Curve, LearningRateSchedule):
    """A curve of learning rates. Each argument is an attribute of the same name."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that create an equal schedule."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


@keras.saving.register_keras_serializable(package="keras_lr")
class ConstantSchedule(Schedule):
    """Hold one learning rate, for instance as a part of a `SequentialSchedule`.

    Args:
        learning_rate: The learning rate; above 0.

    Raises:
        ValueError: If `learning_rate` is out of range.
        TypeError: If `learning_rate` is not a number.

    >>> schedule = ConstantSchedule(0.5)
    >>> [float(rate) for rate in schedule([0, 1000])]
    [0.5, 0.5]
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = checks.number("learning_rate", learning_rate, above=0)

    def _at(self, step: Any) -> Any:
        return self.learning_rate * ops.ones_like(step)


def as_schedule(value: Any, name: str = "schedule") -> Any:
    """Convert a number to a constant schedule; return a schedule with float rates.

    Keras's own schedules compute in the type of their first value: if it is an integer, 0.1
    becomes 0 on JAX and torch, and TensorFlow raises. Such a schedule is rebuilt with floats.

    Raises:
        TypeError: If `value` is neither a number nor a `LearningRateSchedule`.
        ValueError: If `value` is a number that is not above 0.
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
    """Create a schedule from its config within another config; an object is returned as it is."""
    return (
        keras.saving.deserialize_keras_object(schedule) if isinstance(schedule, dict) else schedule
    )


def rates_of(schedule: Any, step: Any) -> Any:
    """Evaluate any schedule at a tensor of steps; some of Keras's accept only a single step."""
    if isinstance(schedule, Curve) or len(step.shape) == 0:
        rates = schedule(step)
    else:
        rates = ops.reshape(ops.map(schedule, ops.reshape(step, (-1,))), ops.shape(step))
    return ops.cast(rates, "float32")


def at_count(curve: Callable[[Any], Any], count: Any) -> Any:
    """The value of a curve at a count of updates: a number, or an integer tensor of a graph.

    Keras passes the counter of the optimizer, a variable, which every backend multiplies by 0.1.
    TensorFlow does not multiply an integer tensor by 0.1, so that a program's own curve may fail;
    it then gets the count as a float.
    """
    if isinstance(curve, Curve) or not ops.is_tensor(count):
        return curve(count)
    try:
        return curve(count)
    except (TypeError, ValueError):
        return curve(ops.cast(count, "float32"))


def evaluate(schedule: Callable[[Any], Any], steps: Any) -> np.ndarray:
    """Evaluate a schedule, or any function of the step, at an array of steps.

    A `Curve` is called once. Others are called for one step at a time, as in training: a
    schedule with an integer tensor, a plain function with a Python integer.
    """
    steps = np.asarray(steps)
    if isinstance(schedule, Curve):
        return np.asarray(ops.convert_to_numpy(schedule(steps)), dtype="float64")
    tensors = isinstance(schedule, LearningRateSchedule)
    inputs = (
        ops.convert_to_tensor(int(step), "int32") if tensors else int(step) for step in steps.flat
    )
    rates = [float(ops.convert_to_numpy(at_count(schedule, step))) for step in inputs]
    return np.asarray(rates, dtype="float64").reshape(steps.shape)
