"""A learning rate for each variable in torch's fused steps, which take one rate for all.

Most of them end in `weights += rate x direction`, and no slot contains the rate. They get tensors
of zeros in the place of the weights; the result is the step, which is then scaled and added.
SGD's velocities contain the rate and are linear in the gradient, so its gradients are scaled
instead. The others are called once for each distinct rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch

from keras_lr.optimizers.multipliers import Multiplier, grouped

FusedStep = Callable[[list[Any], list[Any], Any], None]
_ENDS_WITH_RATE = ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "Nadam", "RMSprop")


class BlankVariable:
    """Replaces a variable in a fused step: it has the variable's slots, and zeros as weights.

    Args:
        variable: The variable, or a `BlankVariable` of it.
        value: A tensor of zeros that receives the step; a new one by default.
    """

    def __init__(self, variable: Any, value: Any = None) -> None:
        self.stands_for = variable
        self.value = torch.zeros_like(variable.value) if value is None else value


def ends_with_rate(optimizer: Any) -> bool:
    """Whether an optimizer multiplies by the rate last, and no slot contains the rate."""
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
    """Take a fused step with a multiplier for each variable; 0 leaves the weights unchanged."""
    values = {each: each.at(optimizer.iterations) for each in dict.fromkeys(multipliers)}
    factors = [values[each] for each in multipliers]
    late = ends_with_rate(optimizer)
    targets = [
        BlankVariable(variable)
        if each.frozen or each.curves or (late and not each.plain)
        else variable
        for variable, each in zip(variables, multipliers, strict=True)
    ]
    if late:
        step(grads, targets, learning_rate)
    elif isinstance(optimizer, keras.optimizers.SGD):
        step(scaled(grads, factors), targets, learning_rate)
    else:
        for each, places in grouped(multipliers).items():
            group = [grads[i] for i in places], [targets[i] for i in places]
            step(*group, learning_rate * values[each])
    pairs = zip(targets, variables, multipliers, strict=True)
    moved = [i for i, (t, v, each) in enumerate(pairs) if t is not v and not each.frozen]
    if not moved:
        return
    steps = [targets[i].value for i in moved]
    if late:
        steps = scaled(steps, [factors[i] for i in moved])
    for place, i in enumerate(moved):
        if multipliers[i].curves:
            # A velocity from before the freeze would move them, and 0 times infinity is not 0.
            steps[place] = torch.where(factors[i] == 0, 0.0, steps[place])
    add([variables[i] for i in moved], steps)


def step_into(
    step: FusedStep, grads: list[Any], variables: list[Any], tensors: list[Any], rate: Any
) -> None:
    """Write into tensors what a fused step would add to the variables. Updates the slots."""
    torch._foreach_zero_(tensors)
    step(grads, [BlankVariable(*pair) for pair in zip(variables, tensors, strict=True)], rate)


def add(variables: list[Any], steps: list[Any]) -> None:
    """Add the steps to the variables."""
    torch._foreach_add_([variable.value for variable in variables], steps)


def update_gains(
    gains: list[Any],
    grads: list[Any],
    references: list[Any],
    *,
    sign: float,
    increase: float,
    decrease: float,
    low: float,
    high: float,
) -> None:
    """Apply the rule of `AdaptiveGains` to all gains at once."""
    agreements = torch._foreach_mul(torch._foreach_sign(grads), torch._foreach_sign(references))
    torch._foreach_mul_(agreements, sign)
    falls = torch._foreach_clamp_max(agreements, 0.0)
    torch._foreach_mul_(falls, 1.0 - decrease)
    torch._foreach_add_(falls, 1.0)
    torch._foreach_mul_(gains, falls)
    rises = torch._foreach_clamp_min(agreements, 0.0)
    torch._foreach_add_(gains, rises, alpha=increase)
    torch._foreach_clamp_min_(gains, low)
    torch._foreach_clamp_max_(gains, high)


def scaled(tensors: list[Any], factors: Any) -> list[Any]:
    """The tensors times a factor for each, a number or a tensor, or times one for all."""
    if isinstance(factors, list) and len({isinstance(each, float) for each in factors}) > 1:
        return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]
    return list(torch._foreach_mul(tensors, factors))


def dot(left: list[Any], right: list[Any]) -> Any:
    """The dot product of two lists of tensors, in float32."""
    products = torch._foreach_mul(*([each.float() for each in side] for side in (left, right)))
    return torch.stack([product.sum() for product in products]).sum()


def update_traces(traces: list[Any], grads: list[Any], theta: float) -> None:
    """Replace each trace by `theta * trace + (1 - theta) * gradient`."""
    torch._foreach_mul_(traces, theta)
    torch._foreach_add_(traces, grads, alpha=1.0 - theta)


def _on_host(scalar: Any) -> bool:
    """Whether a scalar can be read as a number at no cost.

    A GPU would wait for it, and the graph of `torch.compile` would be broken.
    """
    return bool(scalar.device.type == "cpu") and not torch.compiler.is_compiling()


def schedule_free_step(
    y: list[Any],
    to_z: list[Any],
    squares: list[Any] | None,
    grads: list[Any],
    *,
    c: Any,
    along_y: Any,
    along_slot: Any,
    correction: Any,
    beta_2: Any,
    epsilon: Any,
    decays: list[float],
    multipliers: list[float],
) -> None:
    """Make the update of `ScheduleFree` for all variables: it changes y, z - y, mean squares.

    Args:
        y, to_z: The weights, and z - y of each.
        squares, correction, beta_2, epsilon: Of Adam; the first two are None for SGD.
        c, along_y, along_slot: Scalar tensors, as in `ScheduleFree`.
        decays, multipliers: Of each variable.
    """
    if squares is None:
        u = list(grads)
    else:
        torch._foreach_mul_(squares, beta_2)
        torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta_2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_mul_(roots, (1.0 / correction.sqrt()).to(y[0].dtype))
        torch._foreach_add_(roots, epsilon)
        u = list(torch._foreach_div(grads, roots))
    decayed = [place for place, decay in enumerate(decays) if decay]
    if decayed:
        alike = decays[decayed[0]]
        parts = [[each[place] for place in decayed] for each in (u, y)]
        for place, value in zip(decayed, torch._foreach_add(*parts, alpha=alike), strict=True):
            u[place] = value
    if any(each != 1.0 for each in multipliers):
        u = scaled(u, multipliers)
    if _on_host(c):
        torch._foreach_add_(y, to_z, alpha=float(c))
        torch._foreach_add_(y, u, alpha=float(along_y))
        torch._foreach_mul_(to_z, 1.0 - float(c))
        torch._foreach_add_(to_z, u, alpha=float(along_slot))
        return
    c, along_y, along_slot = (each.to(y[0].dtype) for each in (c, along_y, along_slot))
    torch._foreach_add_(y, torch._foreach_mul(to_z, c))
    torch._foreach_add_(y, torch._foreach_mul(u, along_y))
    torch._foreach_mul_(to_z, 1.0 - c)
    torch._foreach_add_(to_z, torch._foreach_mul(u, along_slot))
