"""A compiled training step that a model keeps, for the next fit that is steered alike.

Keras keeps its train function from one fit to the next. A steered one computes the curves of its
run, so it can be used again only if the next run has equal curves, for the same optimizers and
variables. Without this, each fit with a callback would compile the step again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._keras.trainer import compiled_loss_and_metrics
from keras_lr.schedules.base import Curve
from keras_lr.steering.binding import Binding
from keras_lr.steering.composition import Factor
from keras_lr.steering.optimizers import all_optimizers, momentum_names

_KEPT = "_keras_lr_step"


class Holder:
    """The patch that a compiled step belongs to now; a trace reads it from here."""

    def __init__(self, patch: Any) -> None:
        self.patch = patch


@dataclass
class KeptStep:
    """A compiled step.

    Attributes:
        function: The train function.
        holder: Connects it with the patch of the running fit.
        state: Variables that the step reads, by name.
        compiled: What the step was compiled from; compared by identity.
        curves: A description of everything that the step computes as a constant.
    """

    function: Any
    holder: Holder
    state: dict[str, Any]
    compiled: list[Any] = field(repr=False)
    curves: Any


def keep_step(model: Any, step: KeptStep) -> None:
    """Keep a step with the model that it trains, in place of an earlier one."""
    step.holder.patch = None
    object.__setattr__(model, _KEPT, step)


def kept_step(model: Any, compiled: list[Any], curves: Any) -> KeptStep | None:
    """The kept step, if it was compiled from the same objects for equal curves."""
    step: KeptStep | None = vars(model).get(_KEPT)
    if step is None or curves is None or step.curves != curves:
        return None
    if len(step.compiled) != len(compiled):
        return None
    same = all(a is b for a, b in zip(step.compiled, compiled, strict=True))
    return step if same else None


def compiled_from(model: Any, bindings: list[Binding]) -> list[Any]:
    """The objects that a compiled step depends on."""
    return [
        model.optimizer,
        *(part for each in bindings for part in (each.optimizer, each.own)),
        *compiled_loss_and_metrics(model),
        getattr(model.train_step, "__func__", model.train_step),
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.metrics_variables,
        *(variable for each in bindings for variable in each.optimizer.variables),
    ]


def described(model: Any, bindings: list[Binding], scaled: bool) -> Any:
    """Everything that a compiled step computes as a constant; None if it cannot be described."""
    try:
        return (
            scaled,
            bool(model.run_eagerly),
            str(model.jit_compile),
            model.steps_per_execution,
            tuple(_settings(each) for each in all_optimizers(model.optimizer)),
            tuple((_settings(each.optimizer), _of_binding(each)) for each in bindings),
        )
    except TypeError:
        return None


def _settings(optimizer: Any) -> Any:
    """The numbers, flags and strings that an optimizer holds, and containers of these."""
    found = {}
    for name, value in vars(optimizer).items():
        if not name.startswith("_") and name != "built":
            try:
                found[name] = json.dumps(value, sort_keys=True)
            except (TypeError, ValueError):
                continue  # a variable, a schedule, a function: compared by identity, or not at all
    return tuple(sorted(found.items()))


def _of_binding(binding: Binding) -> Any:
    rule, momentum = binding.rule, binding.momentum
    names = momentum_names(binding.optimizer) if momentum is not None else ()
    bases = tuple(float(getattr(binding.optimizer, name)) for name in names)
    curves = tuple(_of_factor(each) for each in (rule.schedule, rule.warm_up, momentum))
    numbers = (float(rule.ratio), float(rule.low), float(rule.high))
    places = (binding.steers, binding.every, binding.phase, binding.owner)
    return curves, numbers, bases, places


def _of_factor(factor: Factor | None) -> Any:
    if factor is None:
        return None
    return _of_curve(factor.curve), factor.own, factor.batches


def _of_curve(curve: Any) -> Any:
    """A curve of Keras or of this library, by its class and its arguments.

    Raises:
        TypeError: If it is another one, which may depend on anything.
    """
    kind = type(curve)
    if kind.__module__.partition(".")[0] not in ("keras", "keras_lr"):
        raise TypeError(kind)
    if isinstance(curve, LearningRateSchedule):
        config = keras.saving.serialize_keras_object(curve)
        return kind, json.dumps(config, sort_keys=True)
    if isinstance(curve, Curve):
        parts = {
            name: _of_curve(value) if isinstance(value, Curve) else json.dumps(value)
            for name, value in vars(curve).items()
        }
        return kind, tuple(sorted(parts.items()))
    raise TypeError(kind)
