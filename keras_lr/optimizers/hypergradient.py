"""`Hypergradient`: gradient descent on the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._keras.optimizers import stored_rate, velocities
from keras_lr._util import checks
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.optimizers.wrapper import OptimizerWrapper, check_linear, registered

_BETA_OF_GRADIENTS = 1e-3  # the paper's, for SGD and SGDN
_BETA_OF_NORMALIZED_STEPS = 1e-7  # the paper's, for Adam
_BETA_OF_COSINES = 0.02
_SMALL = 2**14  # most elements of a tensor that is concatenated with others


@registered
class Hypergradient(OptimizerWrapper):
    """Tune the learning rate of an optimizer by gradient descent while it trains.

    A step is `weights += rate x direction`. The derivative of the loss with respect to the rate of
    the last step is the dot product of the current gradient and the last direction. The rate
    descends along it:

        additive:        rate -= beta * (gradient . last direction)
        multiplicative:  rate *= 1 - beta * cos(gradient, last direction)

    With plain SGD this is SGD-HD, with a momentum SGDN-HD, with Adam Adam-HD. The rate is the
    optimizer's `learning_rate`: loggers see it, `ReduceLROnPlateau` can reduce it, and it is saved.
    During a range test (`lr_find`, `LRFinder`) the rate is that of the test. Velocities of SGD and
    RMSprop do not contain the rate, as in the paper.

    Memory: one copy of the weights, for the last direction. SGD with a momentum needs none, as its
    velocity is that direction, unless it is Nesterov's or in a `LayerwiseLR`.

    Args:
        optimizer: A Keras optimizer whose step is its rate times a direction: Adadelta, Adagrad,
            Adam, AdamW, Adamax, Lamb, Lion, Muon, Nadam, RMSprop, SGD; or a `LayerwiseLR` of
            one of them. Its learning rate, a number, is the start.
        beta: Learning rate of the learning rate; in (0, inf) if additive, in (0, 1) if
            multiplicative. By default the paper's 1e-3 for SGD and 1e-7 for the others if
            additive, and 0.02 if multiplicative.
        mode: "additive" or "multiplicative".
        min_lr: Lower bound of the rate, above 0.

    Raises:
        TypeError: If an argument has the wrong type, or the optimizer's rate is a schedule.
        ValueError: If an argument is out of range, or the optimizer is not one of these. When
            training begins: if a callback sets the rate as well.

    Source: Baydin et al., "Online Learning Rate Adaptation with Hypergradient Descent" (2018),
    algorithms 4 to 6 and equation 8. The paper has no lower bound; there, the rate can become
    negative.

    >>> optimizer = Hypergradient(keras.optimizers.SGD(0.01), beta=1e-4)
    >>> weight = keras.Variable([1.0])
    >>> for _ in range(3):
    ...     optimizer.apply([2 * weight.value], [weight])
    >>> round(float(optimizer.learning_rate), 5)
    0.01077
    """

    constants = ("beta", "min_lr")
    constant_rate = True

    def __init__(
        self,
        optimizer: Any,
        beta: float | None = None,
        mode: str = "additive",
        min_lr: float = 1e-8,
    ) -> None:
        check_linear("Hypergradient", optimizer)
        mode = checks.choice("mode", mode, ("additive", "multiplicative"))
        if beta is not None:
            beta = checks.number("beta", beta, above=0, below=None if mode == "additive" else 1)
        min_lr = checks.number("min_lr", min_lr, above=0)
        if not isinstance(stored_rate(optimizer), keras.Variable):
            raise TypeError(
                "Hypergradient needs an optimizer with a number as learning_rate, which it tunes; "
                f"got {type(stored_rate(optimizer)).__name__}. Pass a number."
            )
        self._take_over(optimizer)
        self._set_untracked("beta", beta)
        self._set_untracked("mode", mode)
        self._set_untracked("min_lr", min_lr)
        self._set_untracked("_reduced", False)
        if self.built:
            self._take_rate_out_of_velocities()
            self._add_directions(self._trained)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables and those for the last direction."""
        if self.built:
            return
        super().build(variables)
        self._add_directions(variables)

    def _add_directions(self, variables: Sequence[Any]) -> None:
        # A step of SGD at rate 1 is its velocity, a slot that exists already. That does not hold
        # for weights that a multiplier of 0 freezes.
        sgd = isinstance(self, keras.optimizers.SGD) and not isinstance(self, LayerwiseLR)
        follows = sgd and bool(self.momentum) and not self.nesterov
        self._set_untracked("_follows_velocities", follows)
        directions = self.momentums if follows else None
        directions = directions or self.add_optimizer_variables(variables, "direction")
        self._set_untracked("_directions", list(directions))

    def _take_rate_out_of_velocities(self) -> None:
        if isinstance(self, (keras.optimizers.SGD, keras.optimizers.RMSprop)) and self.momentum:
            for velocity in velocities(self) or ():
                velocity.assign(velocity / stored_rate(self))

    # The rate: once a step, from all gradients

    def _update_all(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        rate = stored_rate(self)
        if not isinstance(rate, keras.Variable):  # a range test sets the rate
            super()._update_all(grads, variables, learning_rate)
            return
        grads = self._over_all_devices(grads, variables)
        learning_rate = self._adapted(grads, variables)
        rate.assign(learning_rate)
        self._set_untracked("_reduced", True)
        try:
            super()._update_all(grads, variables, learning_rate)
        finally:
            self._set_untracked("_reduced", False)

    def _adapted(self, grads: Sequence[Any], variables: Sequence[Any]) -> Any:
        directions = [self._directions[self._index_of(v)] for v in variables]
        rate = ops.convert_to_tensor(stored_rate(self))
        slope = _dot(grads, directions)
        if self.mode == "additive":
            change = -self._beta() * slope
        else:
            lengths = ops.sqrt(_dot(grads, grads) * _dot(directions, directions))
            change = -self._beta() * rate * slope / ops.where(lengths > 0.0, lengths, 1.0)
        new = ops.maximum(rate + ops.cast(change, rate.dtype), self.min_lr)
        # A gradient that is not finite leaves the rate as it is.
        return ops.stop_gradient(ops.where(ops.isfinite(change), new, rate))

    def _beta(self) -> float:
        if self.beta is not None:
            return float(self.beta)
        if self.mode == "multiplicative":
            return _BETA_OF_COSINES
        sgd = isinstance(self, keras.optimizers.SGD)
        return _BETA_OF_GRADIENTS if sgd else _BETA_OF_NORMALIZED_STEPS

    def _over_all_devices(self, grads: Sequence[Any], variables: Sequence[Any]) -> Sequence[Any]:
        """The gradients summed over replicas, which TensorFlow has not done yet."""
        pairs = super()._sum_over_replicas(list(zip(grads, variables, strict=True)))
        return [gradient for gradient, _ in pairs]

    def _sum_over_replicas(self, pairs: Any) -> Any:
        """Sum the gradients once in a step: TensorFlow's update calls this again."""
        return pairs if self._reduced else super()._sum_over_replicas(pairs)

    # The step

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take the optimizer's step, and store its direction."""
        # A 1 that depends on the rate. Otherwise XLA schedules the new directions before it has
        # read the old ones, and copies them all.
        one = ops.where(ops.isfinite(learning_rate), 1.0, 0.0)
        direction = self._captured_step(super().update_step, gradient, variable, one)
        if not self._follows_velocities:
            self.assign(self._directions[self._index_of(variable)], direction)
        self.assign_add(variable, direction * ops.cast(learning_rate, direction.dtype))

    def _fused_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        from keras_lr.optimizers import torch_fused

        directions = [self._directions[self._index_of(v)].value for v in variables]
        step = super()._fused_step
        if self._follows_velocities:
            step(list(grads), [torch_fused.BlankVariable(each) for each in variables], 1.0)
        else:
            torch_fused.step_into(step, list(grads), list(variables), directions, 1.0)
        torch_fused.add(list(variables), torch_fused.scaled(directions, learning_rate))

    def _arguments(self) -> dict[str, Any]:
        return {"beta": self.beta, "mode": self.mode, "min_lr": self.min_lr}


def _dot(left: Sequence[Any], right: Sequence[Any]) -> Any:
    """The dot product of two lists of tensors, in float32."""
    if keras.backend.backend() == "torch":
        from keras_lr.optimizers import torch_fused

        return torch_fused.dot(
            *([ops.convert_to_tensor(each) for each in side] for side in (left, right))
        )
    pairs = [
        tuple(ops.reshape(ops.cast(ops.convert_to_tensor(each), "float32"), (-1,)) for each in pair)
        for pair in zip(left, right, strict=True)
    ]
    small = [pair for pair in pairs if pair[0].shape[0] <= _SMALL]
    if len(small) > 1:  # one sum for all of them is faster than one for each
        pairs = [pair for pair in pairs if pair[0].shape[0] > _SMALL]
        pairs.append(tuple(ops.concatenate(each) for each in zip(*small, strict=True)))
    return sum(ops.sum(a * b) for a, b in pairs)
