"""Optimizers: the rate as they store it, their counters and slots, and their hooks for subclasses.

Keras reads the rate from `optimizer._learning_rate`, which may be a variable, a schedule or a
callable. `object.__setattr__` puts another object there: the normal assignment tracks what it is
given into `optimizer.variables` (or untracks the variable that it replaces), and so changes the
layout in which the optimizer is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = [
    "RATE",
    "JointUpdate",
    "OptimizerHooks",
    "batch_counter",
    "counters",
    "dense",
    "ftrl_slots",
    "has_schedule",
    "innermost_optimizers",
    "mean_squares",
    "number",
    "number_outside",
    "put_rate",
    "stored_rate",
    "velocities",
]

RATE = "_learning_rate"  # the attribute that holds the rate
_COUNTERS = ("_iterations", "step_counter", "dynamic_scale")
_VELOCITIES = ("momentums", "_momentums", "_m")


def stored_rate(optimizer: Any) -> Any:
    """The rate as an optimizer stores it: a variable, a schedule or a callable."""
    return optimizer._learning_rate


def has_schedule(optimizer: Any) -> bool:
    """Whether an optimizer was made with a schedule of Keras for its rate."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(getattr(optimizer, RATE, None), schedule)


def put_rate(optimizer: Any, rate: Any) -> None:
    """Store another object as the rate of an optimizer, which does not track it."""
    object.__setattr__(optimizer, RATE, rate)


def batch_counter(optimizer: Any) -> Any:
    """The variable that counts the calls of `apply`.

    With `gradient_accumulation_steps`, `optimizer.iterations` counts updates instead.
    """
    return optimizer._iterations


def counters(optimizer: Any) -> list[Any]:
    """The variables of which one changes in each `apply`, also when a loss scale skips it."""
    found = [getattr(optimizer, name, None) for name in _COUNTERS]
    return [each for each in found if isinstance(each, keras.Variable)]


def number(value: Any) -> float:
    """The value of a scalar variable or tensor, read on the host."""
    value = value.value if isinstance(value, keras.Variable) else value
    # TensorFlow's variables that live on several devices cannot be converted, but read.
    value = value.read_value() if hasattr(value, "read_value") else value
    return float(ops.convert_to_numpy(value))


def number_outside(variable: Any) -> float | None:
    """The value of a variable, read on the host also while a step is traced; None if it has none.

    JAX traces the variables of a step, and a TensorFlow strategy reads them on each device. One
    that a `tf.function` creates has no value until the function is traced.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():
            return None
        with tf.init_scope():
            return number(variable) if variable.value.is_initialized() else None
    if backend == "jax":
        import jax

        if isinstance(variable.value, jax.core.Tracer):
            return None
    return number(variable)


def dense(gradient: Any) -> Any:
    """A gradient as a tensor: on TensorFlow an embedding's is a list of rows, some repeated."""
    if keras.backend.backend() != "tensorflow":
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


def velocities(optimizer: Any) -> list[Any] | None:
    """The slots with running means of the gradients or steps; None if an optimizer has none.

    In SGD and RMSprop without a momentum the lists are empty.
    """
    slots = (getattr(optimizer, name, None) for name in _VELOCITIES)
    return next((list(each) for each in slots if each), None)


def mean_squares(optimizer: Any) -> list[Any]:
    """The slots of `Adam` with running means of the squared gradients."""
    slots: list[Any] = optimizer._velocities
    return slots


def ftrl_slots(optimizer: Any, index: int) -> list[Any]:
    """The slots of `Ftrl` from which it computes the weights anew in each step."""
    return [optimizer._accumulators[index], optimizer._linears[index]]


def innermost_optimizers(optimizer: Any) -> list[Any]:
    """The innermost optimizers: those that a wrapper wraps, or the optimizer itself.

    `LossScaleOptimizer` and `MultiOptimizer` have a learning rate that nothing reads; the rates
    that count are those of the optimizers that they wrap.
    """
    if hasattr(optimizer, "inner_optimizer"):
        return innermost_optimizers(optimizer.inner_optimizer)
    if hasattr(optimizer, "optimizers"):
        return [each for part in optimizer.optimizers for each in innermost_optimizers(part)]
    return [optimizer]


_Optimizer: Any = object  # in the made classes, an optimizer of Keras comes next


class OptimizerHooks(_Optimizer):
    """Gives Keras's private hooks for subclasses of its optimizers names of ours.

    Keras calls a hook of its own, which calls ours; ours, unless a subclass overrides it, does
    what Keras does. So a subclass overrides only names that are ours, and calls `super()`.
    It stands before Keras's class among the bases.

    Attributes:
        constants: Names of settings that an update reads as Python numbers, not as tensors: no
            schedule can change them within a compiled step.
        constant_rate: Whether callbacks must leave the rate as it is, for the whole run.
    """

    constants: tuple[str, ...] = ()
    constant_rate = False

    @property
    def _trained(self) -> list[Any]:
        """The variables that the optimizer was built for."""
        variables: list[Any] = self._trainable_variables
        return variables

    def _index_of(self, variable: Any) -> int:
        """The place of a variable among those that the optimizer was built for.

        An object that stands for a variable has it in an attribute `stands_for`.
        """
        while hasattr(variable, "stands_for"):
            variable = variable.stands_for
        index: int = super()._get_variable_index(variable)
        return index

    _get_variable_index = _index_of  # Keras calls it for each slot: without a call between

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        self._update_all(grads, trainable_variables, learning_rate)

    def _update_all(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Make the update of all variables."""
        super()._backend_update_step(grads, variables, learning_rate)

    def _parallel_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        self._fused_step(grads, variables, learning_rate)

    def _fused_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Make the step of all variables in one call; only torch has such steps."""
        super()._parallel_update_step(grads, variables, learning_rate)

    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        self._update_on_replicas(distribution, grads_and_vars, learning_rate)

    def _update_on_replicas(self, strategy: Any, pairs: Any, learning_rate: Any) -> None:
        """Make the update on each device of a strategy; only TensorFlow calls it."""
        super()._distributed_tf_update_step(strategy, pairs, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return self._sum_over_replicas(grads_and_vars)

    def _sum_over_replicas(self, pairs: Any) -> Any:
        """Pairs of gradient and variable, summed over replicas; only TensorFlow has them."""
        add = getattr(super(), "_all_reduce_sum_gradients", None)
        return pairs if add is None else add(pairs)

    def _apply_weight_decay(self, variables: Any) -> None:
        self._decay_weights(variables)

    def _decay_weights(self, variables: Sequence[Any]) -> None:
        """Apply the decoupled weight decay."""
        super()._apply_weight_decay(variables)

    def _decays(self, variable: Any) -> bool:
        """Whether weight decay applies to a variable."""
        applies: bool = self._use_weight_decay(variable)
        return applies

    def _get_current_learning_rate(self) -> Any:
        return self._rate_now()

    def _rate_now(self) -> Any:
        """The rate that the next update uses."""
        return super()._get_current_learning_rate()


class JointUpdate(OptimizerHooks):
    """The hooks of an optimizer whose `_update` gets all gradients and variables at once.

    A subclass defines `_update(grads, variables, learning_rate)`, which applies the weight decay
    as well, and `_place`, a variable of its own that is on every device.
    """

    def _decay_weights(self, variables: Sequence[Any]) -> None:
        """Do nothing: the decay is part of the update."""

    def _update_all(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # TensorFlow's own method sums the gradients over the replicas and calls
        # `_update_on_replicas` below with all of them.
        backend = keras.backend.backend()
        if backend == "tensorflow":
            super()._update_all(grads, variables, learning_rate)
        elif backend == "torch":
            import torch

            with torch.no_grad():
                self._update(grads, variables, learning_rate)
        else:
            self._update(grads, variables, learning_rate)

    def _update_on_replicas(self, strategy: Any, pairs: Any, learning_rate: Any) -> None:
        grads, variables = zip(*pairs, strict=True)

        # `update` runs this on each device, where a mirrored variable is the device's copy.
        def on_device(_: Any, learning_rate: Any, *grads: Any) -> None:
            self._update(grads, variables, learning_rate)

        strategy.extended.update(
            self._place.value, on_device, args=(learning_rate, *grads), group=False
        )
