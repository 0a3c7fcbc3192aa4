"""A compiled training step that a model keeps, for the next fit that is steered alike.

Keras keeps its train function from one fit to the next. A steered one computes the curves of its
run, so it can be used again only if the next run has equal curves, for the same optimizers and
variables. Without this, each fit with a callback would compile the step again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from keras.optimizers.schedules import LearningRateSchedule

from keras_lr.schedules.base import Curve
from keras_lr.steering.binding import Binding
from keras_lr.steering.composition import Factor
from keras_lr.steering.dependencies import same_objects, step_dependencies
from keras_lr.steering.optimizers import all_optimizers

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
    object.__setattr__(model, _KEPT, step)


def kept_step(model: Any, compiled: list[Any], curves: Any) -> KeptStep | None:
    """The kept step, if it was compiled from the same objects for equal curves."""
    step: KeptStep | None = vars(model).get(_KEPT)
    if step is None or step.curves != curves or not same_objects(step.compiled, compiled):
        return None
    return step


def compiled_from(model: Any, optimizers: list[Any], bindings: list[Binding]) -> list[Any]:
    """The objects that a compiled step depends on.

    Args:
        optimizers: All optimizers of the model.
        bindings: The steered ones.
    """
    settings = [_settings(part)[1] for each in optimizers for part in all_optimizers(each)]
    return [
        getattr(model.train_step, "__func__", model.train_step),
        *(each.own for each in bindings),
        *(value for values in settings for value in values),
        *step_dependencies(model, optimizers),
    ]


def described(model: Any, optimizers: list[Any], bindings: list[Binding], scaled: bool) -> Any:
    """Everything that a compiled step computes as a constant; None if it cannot be described.

    Args:
        scaled: Whether plateau callbacks scale a schedule.
    """
    try:
        return (
            scaled,
            bool(model.run_eagerly),
            str(model.jit_compile),
            model.steps_per_execution,
            tuple(_settings(part)[0] for each in optimizers for part in all_optimizers(each)),
            tuple(_of_binding(each) for each in bindings),
        )
    except TypeError:
        return None


def _settings(optimizer: Any) -> tuple[Any, list[Any]]:
    """The settings of an optimizer: a description of those that have one, and the others."""
    found, others = [], []
    for name, value in sorted(vars(optimizer).items()):
        if not name.startswith("_") and name != "built":
            try:
                found.append((name, _of_value(value)))
            except TypeError:
                others.append(value)
    return tuple(found), others


def _of_binding(binding: Binding) -> Any:
    rule, attributes = binding.rule, binding.attribute_curves
    bases = tuple((name, float(getattr(binding.optimizer, name))) for name in attributes)
    factors = (rule.schedule, rule.warm_up, *attributes.values())
    curves = tuple(_of_factor(each) for each in factors)
    numbers = (float(rule.ratio), float(rule.low), float(rule.high))
    places = (binding.steers, binding.every, binding.phase, binding.owner, binding.decay_product)
    return curves, numbers, bases, places


def _of_factor(factor: Factor | None) -> Any:
    if factor is None:
        return None
    return _of_value(factor.curve), factor.own, factor.batches, factor.budget


def _of_value(value: Any) -> Any:
    """A description of a value: of numbers and text, containers of these, and curves.

    Raises:
        TypeError: If it is anything else. A curve of another library may depend on anything.
    """
    if isinstance(value, (Curve, LearningRateSchedule)):
        kind = type(value)
        if kind.__module__.partition(".")[0] not in ("keras", "keras_lr"):
            raise TypeError(kind)
        return kind, tuple((name, _of_value(part)) for name, part in sorted(vars(value).items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(_of_value, value))
    return json.dumps(value, sort_keys=True)
