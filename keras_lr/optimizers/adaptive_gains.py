"""`AdaptiveGains`: an adaptive gain on the learning rate of each weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._keras.optimizers import velocities
from keras_lr._util import checks
from keras_lr.optimizers.wrapper import OptimizerWrapper, check_linear, registered


@registered
class AdaptiveGains(OptimizerWrapper):
    """Give each weight a gain on its learning rate, which grows while its gradients agree.

    With the gradient g of this step and the reference r, the gradient of the step before:

        gain += increase   if g * r > 0
        gain *= decrease   if g * r < 0

    A gain starts at 1 and stays in [min_gain, max_gain]. A gradient of 0 (an unused row of an
    embedding) does not change it.

    With a momentum, r is the optimizer's running mean of the gradients (its velocity), as in
    Jacobs, and no gradient is stored. With SGD the gain scales the gradient that enters the
    velocity. Other optimizers normalize the gradient, which would cancel the gain, so it scales
    their step. Callbacks and schedules of the learning rate work as with the given optimizer.

    Memory: one copy of the weights for the gains, and one for the last gradient if there is no
    velocity.

    Args:
        optimizer: A Keras optimizer whose step is its rate times a direction: Adadelta, Adagrad,
            Adam, AdamW, Adamax, Lamb, Lion, Muon, Nadam, RMSprop, SGD; or a `LayerwiseLR` of
            one of them.
        increase: Added to a gain; in [0, inf).
        decrease: Factor on a gain; in (0, 1].
        min_gain: Lower bound of a gain; in (0, 1].
        max_gain: Upper bound of a gain; in [1, inf).
        theta: For the full delta-bar-delta rule, in [0, 1): r is a moving average of the
            gradients, `theta * r + (1 - theta) * g` after each step. None for r as above.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the optimizer is not one of these.

    Sources: Hinton, "Neural Networks for Machine Learning", lecture 6d; Jacobs, "Increased Rates
    of Convergence Through Learning Rate Adaptation" (1988), equations 5 and 6, where `decrease`
    is 1 - phi. The lecture also shrinks a gain if the product of the gradients is 0.

    >>> optimizer = AdaptiveGains(keras.optimizers.SGD(0.5))
    >>> weight = keras.Variable([0.0, 0.0])
    >>> for slope in (1.0, 1.0, -1.0):
    ...     optimizer.apply([keras.ops.convert_to_tensor([slope, 1.0])], [weight])
    >>> [round(float(gain), 4) for gain in optimizer.gains[0]]
    [0.9975, 1.1]
    """

    constants = ("increase", "decrease", "min_gain", "max_gain", "theta")

    def __init__(
        self,
        optimizer: Any,
        increase: float = 0.05,
        decrease: float = 0.95,
        min_gain: float = 0.1,
        max_gain: float = 10.0,
        theta: float | None = None,
    ) -> None:
        check_linear("AdaptiveGains", optimizer)
        increase = checks.number("increase", increase, least=0)
        decrease = checks.number("decrease", decrease, above=0, most=1)
        min_gain = checks.number("min_gain", min_gain, above=0, most=1)
        max_gain = checks.number("max_gain", max_gain, least=1)
        if theta is not None:
            theta = checks.number("theta", theta, least=0, below=1)
        self._take_over(optimizer)
        self._set_untracked("increase", increase)
        self._set_untracked("decrease", decrease)
        self._set_untracked("min_gain", min_gain)
        self._set_untracked("max_gain", max_gain)
        self._set_untracked("theta", theta)
        if self.built:
            self._add_gains(self._trained)

    @property
    def gains(self) -> list[Any]:
        """The gains of each weight, tensors of its shape, in the order of the variables."""
        return [gain.value for gain in self._gains]

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables and the gains."""
        if self.built:
            return
        super().build(variables)
        self._add_gains(variables)

    def _add_gains(self, variables: Sequence[Any]) -> None:
        self._set_untracked("_gains", self.add_optimizer_variables(variables, "gain", "ones"))
        references = self._slots_with_velocities()
        self._set_untracked("_traced", references is None)
        if references is None:
            references = self.add_optimizer_variables(variables, "gradient")
        self._set_untracked("_references", references)
        # SGD's velocities point along the step, those of other optimizers along the gradient.
        self._set_untracked(
            "_downhill", isinstance(self, keras.optimizers.SGD) and not self._traced
        )

    def _slots_with_velocities(self) -> list[Any] | None:
        """The slots with a velocity for each weight, or None if the optimizer has none."""
        if self.theta is not None or not float(getattr(self, "beta_1", 1.0)):
            return None
        return velocities(self)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take the optimizer's step with the gains of one variable."""
        step, index = super().update_step, self._index_of(variable)
        gradient = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        reference = ops.convert_to_tensor(self._references[index])
        agreement = ops.sign(gradient) * ops.sign(reference)  # -1, 0 or 1
        if self._downhill:
            agreement = -agreement
        gain = ops.convert_to_tensor(self._gains[index])
        # A falling gain can only pass the lower bound, a growing one the upper bound. With the
        # bounds applied before the choice, XLA computes the gains once and makes no copy.
        fallen = ops.maximum(gain * self.decrease, self.min_gain)
        grown = ops.minimum(gain + self.increase * agreement, self.max_gain)
        new = ops.where(agreement < 0.0, fallen, grown)
        self.assign(self._gains[index], new)
        if self._traced:
            trace = gradient
            if self.theta:
                trace = self.theta * reference + (1.0 - self.theta) * gradient
            self.assign(self._references[index], trace)
        if isinstance(self, keras.optimizers.SGD):
            step(gradient * new, variable, learning_rate)
        else:
            self.assign_add(
                variable, self._captured_step(step, gradient, variable, learning_rate) * new
            )

    def _fused_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        from keras_lr.optimizers import torch_fused

        step, grads, variables = super()._fused_step, list(grads), list(variables)
        indices = [self._index_of(variable) for variable in variables]
        references = [self._references[index].value for index in indices]
        gains = [self._gains[index].value for index in indices]
        torch_fused.update_gains(
            gains,
            grads,
            references,
            sign=-1.0 if self._downhill else 1.0,
            increase=self.increase,
            decrease=self.decrease,
            low=self.min_gain,
            high=self.max_gain,
        )
        if self._traced:
            torch_fused.update_traces(references, grads, self.theta or 0.0)
        if isinstance(self, keras.optimizers.SGD):
            step(torch_fused.scaled(grads, gains), variables, learning_rate)
        else:
            blanks = [torch_fused.BlankVariable(variable) for variable in variables]
            step(grads, blanks, learning_rate)
            torch_fused.add(variables, torch_fused.scaled([blank.value for blank in blanks], gains))

    def _arguments(self) -> dict[str, Any]:
        names = ("increase", "decrease", "min_gain", "max_gain", "theta")
        return {name: getattr(self, name) for name in names}
