"""`LayerwiseLR`: one optimizer with a learning rate for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._keras.frames import caller_self
from keras_lr._keras.optimizers import ftrl_slots
from keras_lr.optimizers.multipliers import (
    Multiplier,
    Rule,
    check_multipliers,
    grouped,
    resolve,
    resolve_in,
)
from keras_lr.optimizers.prodigy import Prodigy
from keras_lr.optimizers.variable_paths import holding_models, paths_in
from keras_lr.optimizers.wrapper import OptimizerWrapper, registered
from keras_lr.steering import check_rate_may_change, innermost_optimizers


@registered
class LayerwiseLR(OptimizerWrapper):
    """Multiply the learning rate of an optimizer by a factor for each layer.

    The result is the given optimizer with its slots, config and state, and with other rates:

        learning rate of a variable = learning rate of the optimizer x its multiplier

    This scales the rate, not the gradient (Adam would cancel that), and the decoupled weight decay
    with the rate. Callbacks and schedules that set the optimizer's rate keep the ratios between
    layers. A multiplier of 0 freezes weights, but their slots are still updated: when the weights
    thaw, Adam's averages are ready. Multipliers do not affect BatchNorm statistics: to freeze them
    set `trainable` of the layer to False, or use `GradualUnfreeze` or `fine_tune`.

    Args:
        optimizer: A Keras optimizer, built or not; not `Prodigy`, which has one rate. Put a
            `LossScaleOptimizer` or `MultiOptimizer` around this one, not inside. The result
            shares the optimizer's variables: use only the result.
        multipliers: A dictionary; None for 1 everywhere. Variables that no key covers have 1.
            Keys: a layer or nested model, its name, or a regular expression on the paths of
            variables, which must match whole sections between slashes: `"head.*"` covers
            `head_2/kernel`, but `"dense"` does not cover `dense_1/kernel`. It may match the path
            that Keras gave the variable or its path in the model (`backbone/block1/kernel`). A
            nested model that is an attribute also has the attribute's name, unless a layer has
            that name.
            Values: a number in [0, inf), unitless; or a schedule of the step, which counts
            updates.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a multiplier is below 0 or not finite, or a schedule for `Ftrl`. When the
            optimizer is built, at the start of training: if a key covers no trainable variable, or
            two keys cover the same one.

    Sources: Caffe's `lr_mult`; Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification" (2018), section 3.2.

    >>> optimizer = LayerwiseLR(keras.optimizers.SGD(0.1), {"head.*": 10.0, "body": 0.1})
    >>> body, head = keras.layers.Dense(1, name="body"), keras.layers.Dense(1, name="head")
    >>> model = keras.Sequential([keras.Input((1,)), body, head])
    >>> model.compile(optimizer, loss="mse")
    """

    def __init__(self, optimizer: Any, multipliers: Mapping[Any, Any] | None = None) -> None:
        if isinstance(optimizer, Prodigy):
            raise ValueError(
                "LayerwiseLR needs an optimizer with a given learning rate; got Prodigy, which "
                "estimates one rate from the steps of all weights. Use AdamW."
            )
        rules = check_multipliers(multipliers)
        _check_constant(rules, optimizer)
        self._take_over(optimizer)
        self._set_untracked("_rules", rules)
        self._set_untracked("_gates", {})
        self._set_untracked("_active", None)
        self._set_untracked("_multipliers", [])
        self._set_untracked("_paths", None)
        if self.built:
            self._resolve_multipliers(rules, self._trained)

    @property
    def multipliers(self) -> dict[Any, Any]:
        """The multipliers by key. A new dictionary takes effect in the next `fit`."""
        return {rule.key: rule.value for rule in self._rules}

    @multipliers.setter
    def multipliers(self, multipliers: Mapping[Any, Any] | None) -> None:
        rules = check_multipliers(multipliers)
        _check_constant(rules, self)
        if self.built:
            self._resolve_multipliers(rules, self._trained)
        self._set_untracked("_rules", rules)

    def gate(self, gates: Mapping[int, Any]) -> None:
        """Multiply further, by index of the variable: by 0, or by a function of the step.

        For code that freezes layers for a while; {} removes the gates. It affects only functions
        that are traced afterwards.
        """
        self._set_untracked("_gates", dict(gates))
        self._resolve_multipliers(self._rules, self._trained)

    def multipliers_in(self, model: Any) -> list[Multiplier]:
        """The multiplier of each trainable variable of a model, before the optimizer is built."""
        return resolve_in(self._rules, model)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables, and find the multiplier of each weight."""
        if not self.built:
            self._resolve_multipliers(self._rules, variables)
        super().build(variables)

    def _resolve_multipliers(self, rules: Sequence[Rule], variables: Sequence[Any]) -> None:
        models = holding_models(variables)
        if models:
            self._set_untracked("_paths", paths_in(models, variables))
        multipliers = resolve(rules, variables, self._paths)
        for index, curve in self._gates.items():
            multipliers[index] = multipliers[index].times(curve) if curve else Multiplier(0.0)
        self._set_untracked("_multipliers", multipliers)

    def _multiplier_of(self, variable: Any) -> Multiplier:
        found: Multiplier = self._multipliers[self._index_of(variable)]
        return found

    # The step of one variable: on TensorFlow and JAX, and of optimizers that torch does not fuse

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take the optimizer's step at the rate of the variable."""
        multiplier = self._multiplier_of(variable)
        if multiplier.plain:
            super().update_step(gradient, variable, learning_rate)
            return
        value = multiplier.at(self.iterations)
        if not (multiplier.frozen or multiplier.curves):
            self._scaled_step(gradient, variable, learning_rate, value)
            return
        if self._capture.of(variable):
            # Another wrapper adds the step, which may contain a velocity from before the freeze.
            done = self._captured_step(
                super().update_step, gradient, variable, learning_rate * value
            )
            self.assign_add(variable, ops.where(value == 0.0, 0.0, done))
            return
        held = [variable, *self._slots_held(variable)]
        before = [ops.copy(each) for each in held]
        self._scaled_step(gradient, variable, learning_rate, value)
        for each, old in zip(held, before, strict=True):
            # Rate 0 is not enough: 0 times a gradient that overflowed is not 0.
            new = ops.convert_to_tensor(each)
            self.assign(each, old if multiplier.frozen else ops.where(value == 0.0, old, new))

    def _scaled_step(self, gradient: Any, variable: Any, learning_rate: Any, value: Any) -> None:
        step = super().update_step
        if isinstance(self, keras.optimizers.Adafactor):
            # It limits its rate to 1 / sqrt(t), so the multiplier scales the step instead.
            done = self._captured_step(step, gradient, variable, learning_rate)
            self.assign_add(variable, done * ops.cast(value, done.dtype))
            return
        step(gradient, variable, learning_rate * value)

    def _slots_held(self, variable: Any) -> list[Any]:
        """Slots that determine the weights by themselves, so they must freeze with the weights."""
        if not isinstance(self, keras.optimizers.Ftrl):
            return []
        return ftrl_slots(self, self._index_of(variable))

    # The step of all variables at once: torch's fused optimizers

    def _fused_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        from keras_lr.optimizers.torch_fused import scaled_step

        multipliers = [self._multiplier_of(variable) for variable in variables]
        scaled_step(
            self,
            super()._fused_step,
            list(grads),
            list(variables),
            learning_rate,
            multipliers,
        )

    # Weight decay reads the rate from the optimizer

    def _decay_weights(self, variables: Sequence[Any]) -> None:
        if self.weight_decay is None and getattr(self, "adam_weight_decay", None) is None:
            return  # the second is Muon's
        decayed = [variable for variable in variables if self._decays(variable)]
        groups = grouped(self._multiplier_of(variable) for variable in decayed)
        for multiplier, places in groups.items():
            self._set_untracked("_active", None if multiplier.plain else multiplier)
            try:
                super()._decay_weights([decayed[place] for place in places])
            finally:
                self._set_untracked("_active", None)

    def _rate_now(self) -> Any:
        rate = super()._rate_now()
        return rate if self._active is None else rate * self._active.at(self.iterations)

    # Saving

    def _arguments(self) -> dict[str, Any]:
        variables: Any = self._trained
        paths = self._paths
        if not self.built:
            model = _model_being_saved(self)
            variables = None if model is None else model.trainable_variables
            paths = None if variables is None else paths_in(model, variables)
        return {"multipliers": [rule.saved(variables, paths) for rule in self._rules]}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Create the optimizer from the result of `get_config`."""
        entries = config["multipliers"]
        made = super().from_config({**config, "multipliers": None}, custom_objects)
        made._set_untracked("_rules", [Rule.loaded(entry) for entry in entries])
        return made


def _model_being_saved(optimizer: Any) -> Any:
    """The built model with this optimizer whose method is being called; None if there is none."""
    model = caller_self(
        lambda each: (
            isinstance(each, keras.Model)
            and getattr(each, "optimizer", None) is not None
            and optimizer in innermost_optimizers(each.optimizer)
        )
    )
    return None if model is None or not model.built else model


def _check_constant(rules: Sequence[Rule], optimizer: Any) -> None:
    """Raise if a multiplier is a schedule, for an optimizer whose rate must stay the same."""
    if not all(rule.is_number for rule in rules):
        check_rate_may_change(optimizer, "A schedule as a multiplier")
