"""What a compiled training step depends on, to know whether it is still valid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_lr._keras.trainer import compiled_loss_and_metrics

# Objects are compared by identity, and kept: the id of one that is gone may be used again.


def step_dependencies(model: Any, optimizers: Iterable[Any]) -> list[Any]:
    """The objects that a compiled step depends on, whatever sets the rates.

    Args:
        optimizers: All optimizers of the model.
    """
    held = list(optimizers)
    return [
        *held,
        *compiled_loss_and_metrics(model),
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.metrics_variables,
        *(variable for each in held for variable in each.variables),
    ]


def same_objects(left: list[Any], right: list[Any]) -> bool:
    """Whether two lists hold the same objects in the same order."""
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def includes_objects(whole: list[Any], part: list[Any]) -> bool:
    """Whether a list holds all objects of another one."""
    return {*map(id, part)} <= {*map(id, whole)}
