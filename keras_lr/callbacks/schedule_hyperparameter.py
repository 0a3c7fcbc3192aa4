"""`ScheduleHyperparameter`: a schedule for the weight decay, or another number of the optimizer."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._keras.layers import all_layers
from keras_lr._keras.trainer import torch_compiles
from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules.base import ConstantCurve, as_schedule, evaluate
from keras_lr.steering import MOMENTUM_NAMES, SQUARE_NAMES, Length, Plan, innermost_optimizers
from keras_lr.steering.layer_rates import LayerRates

_INSTEAD = {
    "learning_rate": "Use ScheduleLR, OneCycle or CyclicLR.",
    "ema_overwrite_frequency": "It counts updates and has no schedule.",
    "gradient_accumulation_steps": "It counts batches and has no schedule.",
    "initial_accumulator_value": "The optimizer reads it before the first update only.",
}
_BELOW_1 = (*MOMENTUM_NAMES, *SQUARE_NAMES, "ema_momentum", "rate")
_SAMPLES = 33  # values of the schedule that are checked when `fit` begins


class ScheduleHyperparameter(SteeringCallback):
    """Follow a schedule for one number of the optimizer: weight decay, `beta_2`, `clipnorm`, ...

    Or for the dropout rate of layers: `ScheduleHyperparameter("rate", schedule, layers="drop.*")`.

    Each update uses the value of the schedule, inside the compiled step, on every backend, also
    with `steps_per_execution` and `jit_compile`. The schedule counts the updates of this `fit`,
    from 0. After the `fit` the optimizer has its own value again, and a model that is saved
    meanwhile has this value too. Pass one callback for each attribute. The logs of an epoch have
    the value of its last update, under the name of the attribute.

    All groups of a `MultiOptimizer` follow the same schedule. For layers, the logs have the rate
    under `rate_` and the name of the first.

    Args:
        name: The attribute, as the optimizer calls it: `"weight_decay"`, `"beta_1"`, `"beta_2"`,
            `"epsilon"`, `"rho"`, `"momentum"`, `"clipnorm"`, `"clipvalue"`, `"global_clipnorm"`,
            `"ema_momentum"`, or any other that holds a number.
        schedule: A schedule of `keras_lr.schedules` or of Keras; a function from the count of
            updates to the value, with operations of `keras.ops`; or a number. The values are at
            least 0, and below 1 for dropout, momenta and other decay rates of running means.
        layers: The layers, if `name` is `"rate"`: a layer of `Dropout` or `SpatialDropout`, a
            list of them, or a regular expression that matches the whole of their names. None for
            an attribute of the optimizer. Their own rates must be above 0: at 0, Keras leaves
            dropout out of the step.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        TypeError: If `name` is not a string, or `schedule` neither schedule, function nor number.
        ValueError: If `name` is the learning rate, a count or an initial value; when `fit` begins,
            if the optimizer has no such attribute, if it was made with None or 0 there (it then
            leaves out what the attribute controls), if a value of the schedule is out of its range,
            or if another callback sets the same attribute; if no layer matches, a layer is another
            one or does not compute in float32, or torch compiles the step (it would compile each
            step anew); on JAX for `"clipvalue"`, which Keras reads as a number there.

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

    def __init__(
        self, name: str, schedule: Any, *, layers: Any = None, optimizer: Any = None
    ) -> None:
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
        self.layers = layers
        self._rates: LayerRates | None = None
        if layers is not None:
            if name != "rate":
                raise ValueError(
                    f"name must be 'rate', the rate of dropout, with layers; got {name!r}."
                )
            _check_layers(layers)
            self.retraces = True  # the kept step of another fit has other rates
            return
        self.roles = ("momentum",) if name in MOMENTUM_NAMES else (name,)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if model is not None and self.layers is not None:
            self._found = _found_layers(model, self.layers)
            self.roles = tuple(f"rate of {layer.name}" for layer in self._found)

    def read_optimizer(self, optimizer: Any) -> None:
        if self.layers is not None:
            return
        for each in innermost_optimizers(optimizer):
            self._check_attribute(each)

    def begin(self, length: Length) -> None:
        if self.layers is None:
            return
        model, session, steered = self._unsynced_model, self._session, self._steered
        if keras.backend.backend() == "torch" and torch_compiles(model):
            raise ValueError(
                "torch would compile the step anew for each dropout rate; got jit_compile=True. "
                "Compile the model with jit_compile=False."
            )
        self._rates = LayerRates(
            self._found,
            self._curve,
            lambda: session.run.installed.update_in_graph(steered.bindings[0]),
        )
        self._rates.replace()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch, logs)
        if self._rates is not None:
            self._rates.put(self._session.updates_of(self._steered))

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if self._rates is not None:
            last = max(self._session.updates_of(self._steered) - 1, 0)
            logs[f"rate_{self._found[0].name}"] = self._rates.value_at(last)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext() if self._rates is None else self._rates.paused()

    def leave(self) -> None:
        if self._rates is not None:
            self._rates.release()
            self._rates = None

    def plan(self, length: Length) -> Plan:
        if self.layers is not None:
            return Plan()
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


def _check_layers(layers: Any) -> None:
    """Raise unless it names layers."""
    if isinstance(layers, str):
        try:
            re.compile(layers)
        except re.error as error:
            raise ValueError(
                f"layers must be a regular expression; got {layers!r} ({error})."
            ) from error
        return
    some = layers if isinstance(layers, (list, tuple)) else [layers]
    if not some or not all(isinstance(each, keras.layers.Layer) for each in some):
        raise TypeError(
            f"layers must be a layer, a list of layers or a regular expression; got {layers!r}."
        )


def _found_layers(model: Any, layers: Any) -> list[Any]:
    """The layers of dropout in a model whose rate can be scheduled."""
    everything = all_layers(model)
    dropouts = [each for each in everything if isinstance(each, keras.layers.Dropout)]
    if isinstance(layers, str):
        found = [each for each in everything if re.fullmatch(layers, each.name)]
    else:
        found = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    names = ", ".join(each.name for each in dropouts) or "none"
    if not found:
        raise ValueError(f"No layer matches {layers!r}; the layers of dropout are: {names}.")
    for each in found:
        kind = type(each)
        if all(each is not other for other in everything):
            raise ValueError(f"The layer {each.name!r} is not in the model {model.name!r}.")
        if not isinstance(each, keras.layers.Dropout) or kind.__module__.split(".")[0] != "keras":
            raise ValueError(
                f"layers must be Dropout or SpatialDropout of Keras, which use the rate as a "
                f"tensor; got {kind.__name__} {each.name!r}. The layers of dropout are: {names}."
            )
        if not each.rate:
            raise ValueError(
                f"The rate of {each.name!r} must be above 0 to be scheduled; got {each.rate!r}, "
                "with which Keras leaves dropout out of the step. Create the layer with a number "
                "above 0, which the schedule replaces."
            )
        if each.compute_dtype != "float32":
            raise ValueError(
                f"A scheduled rate needs a layer that computes in float32; got "
                f"{each.compute_dtype} for {each.name!r}. Create it with dtype='float32'."
            )
    return found


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
