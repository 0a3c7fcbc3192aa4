"""`ScheduleHyperparameter`: a schedule for the weight decay, or another number of the optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules.base import ConstantCurve, as_schedule, evaluate
from keras_lr.steering import MOMENTUM_NAMES, SQUARE_NAMES, Length, Plan, innermost_optimizers

_INSTEAD = {
    "learning_rate": "Use ScheduleLR, OneCycle or CyclicLR.",
    "ema_overwrite_frequency": "It counts updates and has no schedule.",
    "gradient_accumulation_steps": "It counts batches and has no schedule.",
}
_BELOW_1 = (*MOMENTUM_NAMES, *SQUARE_NAMES, "ema_momentum")
_SAMPLES = 33  # values of the schedule that are checked when `fit` begins


class ScheduleHyperparameter(SteeringCallback):
    """Follow a schedule for one number of the optimizer: weight decay, `beta_2`, `clipnorm`, ...

    Each update uses the value of the schedule, inside the compiled step, on every backend, also
    with `steps_per_execution` and `jit_compile`. The schedule counts the updates of this `fit`,
    from 0. After the `fit` the optimizer has its own value again, and a model that is saved
    meanwhile has this value too. Pass one callback for each attribute. The logs of an epoch have
    the value of its last update, under the name of the attribute.

    All groups of a `MultiOptimizer` follow the same schedule.

    Args:
        name: The attribute, as the optimizer calls it: `"weight_decay"`, `"beta_1"`, `"beta_2"`,
            `"epsilon"`, `"rho"`, `"momentum"`, `"clipnorm"`, `"clipvalue"`, `"global_clipnorm"`,
            `"ema_momentum"`, or any other that holds a number.
        schedule: A schedule of `keras_lr.schedules` or of Keras; a function from the count of
            updates to the value, with operations of `keras.ops`; or a number. The values are at
            least 0, and below 1 for momenta and other decay rates of running means.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        TypeError: If `name` is not a string, or `schedule` neither schedule, function nor number.
        ValueError: If `name` is the learning rate or a count; when `fit` begins, if the optimizer
            has no such attribute, if it was made with None or 0 there (the optimizer then leaves
            out what the attribute controls), if a value of the schedule is out of its range, or
            if another callback sets the same attribute; on JAX for `"clipvalue"`, which Keras reads
            as a number there.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    >>> decay = keras_lr.schedules.LinearRampSchedule(0.1, 0.01, total_steps=16)
    >>> history = model.fit(x, x.sum(axis=1), epochs=4, batch_size=16, verbose=0,
    ...                     callbacks=[keras_lr.ScheduleHyperparameter("weight_decay", decay)])
    >>> [round(value, 3) for value in history.history["weight_decay"]]
    [0.082, 0.058, 0.034, 0.01]
    >>> model.optimizer.weight_decay
    0.1
    """

    def __init__(self, name: str, schedule: Any, *, optimizer: Any = None) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"name must be the name of an attribute; got {name!r}.")
        if name in _INSTEAD:
            raise ValueError(
                f"name must be an attribute that one update uses; got {name!r}. {_INSTEAD[name]}"
            )
        self.name = name
        self.optimizer = optimizer
        self.schedule = schedule
        self._curve = _curve(name, schedule)
        self.roles = ("momentum",) if name in MOMENTUM_NAMES else (name,)

    def read_optimizer(self, optimizer: Any) -> None:
        for each in innermost_optimizers(optimizer):
            self._check_attribute(each)

    def plan(self, length: Length) -> Plan:
        return Plan(hyperparameters={self.name: self._curve})

    def check(self, length: Length) -> None:
        last = 0 if length.total is None else length.total - 1
        steps = np.unique(np.linspace(0, last, _SAMPLES).astype(int))
        for step, value in zip(steps, evaluate(self._curve, steps), strict=True):
            _check_value(f"{self.name} at update {step}", self.name, float(value))

    def _check_attribute(self, optimizer: Any) -> None:
        kind, name = type(optimizer).__name__, self.name
        value = getattr(optimizer, name, None)
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if name in getattr(optimizer, "constants", ()) or (value is not None and not is_number):
            raise ValueError(f"{kind} has no number {name!r} that a schedule can change.")
        if value is None and not hasattr(optimizer, name):
            raise ValueError(f"The optimizer must have the attribute {name!r}; got {kind}.")
        if not value:
            raise ValueError(
                f"{name} of the optimizer must be above 0 to be scheduled; got {value!r}, with "
                f"which {kind} leaves out what it controls. Create the optimizer with a number, "
                "which the schedule replaces."
            )
        if name == "ema_momentum" and not optimizer.use_ema:
            raise ValueError(
                f"ema_momentum has an effect only with use_ema=True; got {kind} with "
                f"use_ema={optimizer.use_ema!r}."
            )


def _curve(name: str, schedule: Any) -> Any:
    """The schedule as a function of the update."""
    if isinstance(schedule, LearningRateSchedule):
        return as_schedule(schedule)
    if callable(schedule):
        return schedule
    if isinstance(schedule, bool) or not isinstance(schedule, (int, float, np.number)):
        raise TypeError(
            f"schedule must be a schedule, a function of the update or a number; got {schedule!r}."
        )
    return ConstantCurve(_check_value("schedule", name, schedule))


def _check_value(what: str, name: str, value: Any) -> float:
    below = 1.0 if name in _BELOW_1 else None
    return checks.number(what, value, least=0.0, below=below)
