"""Torch's fused optimizers step all variables in one call, at one rate: a rate for each, here.

Most of them end in `weights += rate x direction`, and no slot contains the rate. They are given
blank tensors in the place of the weights; what stands there afterwards is the step, which is
scaled and added. SGD's velocities contain the rate, and are linear in the gradient: the
gradients are scaled instead. The others are called once for each distinct rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch

from keras_lr.optimizers.multipliers import Multiplier

FusedStep = Callable[[list[Any], list[Any], Any], None]
_ENDS_WITH_RATE = ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "Nadam", "RMSprop")


class Blank:
    """Stands for a variable in a fused step: its slots, and zeros for its weights."""

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.value = torch.zeros_like(variable.value)


def ends_with_rate(optimizer: Any) -> bool:
    """Whether the rate is the last thing that an optimizer multiplies by, and in no slot."""
    kinds = tuple(getattr(keras.optimizers, name) for name in _ENDS_WITH_RATE)
    return isinstance(optimizer, kinds) and not getattr(optimizer, "momentum", 0.0)


def scaled_step(
    optimizer: Any,
    step: FusedStep,
    grads: list[Any],
    variables: list[Any],
    learning_rate: Any,
    multipliers: Sequence[Multiplier],
) -> None:
    """A fused step with the rate of each variable multiplied; weights at 0 stay as they are."""
    values = {each: each.at(optimizer.iterations) for each in dict.fromkeys(multipliers)}
    factors = [values[each] for each in multipliers]
    late = ends_with_rate(optimizer)
    targets = [
        Blank(variable) if each.frozen or each.curves or (late and not each.plain) else variable
        for variable, each in zip(variables, multipliers, strict=True)
    ]
    if late:
        step(grads, targets, learning_rate)
    elif isinstance(optimizer, keras.optimizers.SGD):
        step(_scaled(grads, factors), targets, learning_rate)
    else:
        for value, group in _groups(multipliers, values):
            step([grads[i] for i in group], [targets[i] for i in group], learning_rate * value)
    moved = [i for i, t in enumerate(targets) if isinstance(t, Blank) and not multipliers[i].frozen]
    if not moved:
        return
    steps = [targets[i].value for i in moved]
    if late:
        steps = _scaled(steps, [factors[i] for i in moved])
    for place, i in enumerate(moved):
        if multipliers[i].curves:
            # A velocity that SGD still has would move them, and 0 times infinity is not 0.
            steps[place] = torch.where(factors[i] == 0, 0.0, steps[place])
    torch._foreach_add_([variables[i].value for i in moved], steps)


def _groups(
    multipliers: Sequence[Multiplier], values: dict[Multiplier, Any]
) -> list[tuple[Any, list[int]]]:
    indices: dict[Multiplier, list[int]] = {}
    for index, each in enumerate(multipliers):
        indices.setdefault(each, []).append(index)
    return [(values[each], group) for each, group in indices.items()]


def _scaled(tensors: list[Any], factors: list[Any]) -> list[Any]:
    if all(isinstance(factor, float) for factor in factors):
        return list(torch._foreach_mul(tensors, factors))
    return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]
