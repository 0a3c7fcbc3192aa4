"""`preview`: the learning rate and momentum of each update, computed without training."""

from __future__ import annotations

import copy
import dataclasses
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._util import checks
from keras_lr.schedule_preview.result import Preview
from keras_lr.schedule_preview.shape import turns
from keras_lr.schedules.base import Curve, evaluate
from keras_lr.steering import Length, Plan, Policy, Roles
from keras_lr.steering.companions import refuse_beside_finder
from keras_lr.steering.composition import Factor, RateRule, refuse_assigners

__all__ = ["preview"]

_MOST_STEPS = 2**24  # schedules count in float32, which has no larger exact integers
_PROBES = 8
_NO_RATE = "Pass learning_rate, the rate or schedule of the optimizer."


def preview(
    policy: Any,
    steps: int,
    *,
    learning_rate: Any = None,
    momentum: float | None = None,
    epochs: int = 1,
    gradient_accumulation_steps: int = 1,
) -> Preview:
    """Compute the learning rate and momentum of each update, without a model or training.

    The values equal those of training: the same curves, combined by the same rule. Callbacks
    that cannot be combined raise the same errors and warnings as in `fit`.

    Anything that depends on the course of training is left out: the preview assumes that a
    `ReduceLROnPlateau`, of keras_lr or of Keras, never lowers the rate. For a `MultiOptimizer`
    the rate is that of its fastest group.

    Args:
        policy: A learning rate or a schedule (of keras_lr, of Keras or your own), as passed to
            the optimizer; a callback that sets the rate (`OneCycle`, `CyclicLR`, `ScheduleLR`,
            `WarmUp`, Keras's `LearningRateScheduler`); or a list of these. The list may contain
            other callbacks of keras_lr and of Keras.
        steps: Updates of the weights in the run, at least 1.
        learning_rate: The optimizer's own rate or schedule, if `policy` does not contain it. As
            in training, it is ignored if a callback sets a schedule.
        momentum: The optimizer's own momentum, in [0, 1); used unless a callback sets the
            momentum.
        epochs: Epochs of the run, for callbacks that count epochs.
        gradient_accumulation_steps: Batches in one update, as set in the optimizer.

    Raises:
        ValueError: If an argument is out of range, the callbacks cannot be combined, or nothing
            sets a rate.
        TypeError: If an argument, or an entry of the list, has the wrong type.

    >>> import keras, keras_lr
    >>> decay = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    >>> shown = keras_lr.preview([decay, keras_lr.WarmUp(steps=10)], steps=100)
    >>> [(point.step, round(point.learning_rate, 4), point.what) for point in shown.key_points()]
    [(0, 0.0, 'start, lowest'), (10, 0.0976, 'highest'), (99, 0.0, 'end')]
    """
    checks.count("steps", steps)
    if steps > _MOST_STEPS:
        raise ValueError(
            f"steps must be at most {_MOST_STEPS}, the limit of the step counter; got {steps}."
        )
    checks.count("epochs", epochs)
    checks.count("gradient_accumulation_steps", gradient_accumulation_steps)
    if momentum is not None:
        momentum = checks.number("momentum", momentum, least=0, below=1)
    length = Length(steps, epochs)
    rule, held, plan, roles = _composed(policy, learning_rate, length, gradient_accumulation_steps)
    if momentum == 0.0 and (owner := roles.owner("momentum")):
        raise ValueError(f"{owner} cannot cycle a momentum that is 0; got momentum=0.0.")
    updates = np.arange(steps)
    rates = rule.values(updates, updates, held)

    momenta = None if momentum is None else np.full(steps, float(np.float32(momentum)))
    factor = plan.momentum_factor()
    if factor is not None:
        momenta = _vectorized(factor).values(updates)

    factors = (each for each in (rule.schedule, rule.warm_up) if each is not None)
    curves = [*(factor.values(updates) for factor in factors), held]
    curves += [] if momenta is None else [momenta]
    return Preview(rates, momenta, _turns_of(curves))


def rates_at(
    updates: np.ndarray, policy: Any, steps: int, *, learning_rate: Any = None, epochs: int = 1
) -> np.ndarray:
    """The learning rates that `preview` computes, but only those of some updates of the run."""
    rule, held, _, _ = _composed(policy, learning_rate, Length(steps, epochs), batches=1)
    return rule.values(updates, updates, held[updates])


def _composed(
    policy: Any, learning_rate: Any, length: Length, batches: int
) -> tuple[RateRule, np.ndarray, Plan, Roles]:
    """The rule of a run, the optimizer's variable at each update, and the callbacks' plan."""
    own, callbacks = _split(policy, learning_rate)
    plan, roles = _joined(callbacks, length)
    if own is None and plan.schedule is None:
        names = ", ".join(type(each).__name__ for each in callbacks) or "an empty list"
        raise ValueError(f"policy must include a rate or a schedule; got {names}. {_NO_RATE}")

    assert length.total is not None  # noqa: S101
    # A number is stored in a variable, as in the optimizer.
    variable = None if own is None or isinstance(own, LearningRateSchedule) else _Variable(own)
    rule = _vectorized_rule(plan.rate_rule(variable or own, batches=batches))
    value = 1.0 if variable is None or plan.schedule is not None else variable.value
    held = np.broadcast_to(value, length.total)
    schedule = None if isinstance(own, float) or own is None else type(own).__name__
    refuse_assigners(callbacks, roles.owner("schedule") or schedule, ())
    if any(isinstance(each, keras.callbacks.LearningRateScheduler) for each in callbacks):
        assert variable is not None  # noqa: S101  refused otherwise
        held = _scheduled(callbacks, variable, length.total, length.epochs)
    return rule, held, plan, roles


class _Variable:
    """The learning-rate variable of an optimizer: a number rounded to float32."""

    def __init__(self, value: float) -> None:
        self.assign(value)

    def assign(self, value: Any) -> None:
        self.value = float(np.float32(value))


class _Optimizer:
    """A stand-in optimizer with the attribute that Keras's `LearningRateScheduler` uses."""

    def __init__(self, variable: _Variable) -> None:
        self._variable = variable

    @property
    def learning_rate(self) -> Any:
        return ops.convert_to_tensor(self._variable.value, "float32")

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._variable.assign(value)


class _Vectorized(Curve):
    """Any curve, evaluated in as few calls as possible, with the values of single steps.

    The schedules of Keras and of users are only required to accept one step. Most of them also
    accept an array, which is much faster: a single step takes a millisecond, and 300 on JAX if
    the schedule contains a condition.
    """

    def __init__(self, curve: Any) -> None:
        self._curve = curve
        self._steps = np.array([])
        self._values = np.array([])

    def __call__(self, steps: Any) -> np.ndarray:
        if not np.array_equal(steps, self._steps):
            self._steps, self._values = steps, self._evaluate(steps)
        return self._values

    def _evaluate(self, steps: np.ndarray) -> np.ndarray:
        if not isinstance(self._curve, Curve) and len(steps) > 4 * _PROBES:
            schedule = isinstance(self._curve, LearningRateSchedule)
            array = ops.convert_to_tensor(steps, "int32") if schedule else steps
            values = _try(self._curve, array)
            if values is not None and self._agree(values, steps):
                return values
            if schedule:
                values = _try(lambda tensor: ops.vectorized_map(self._curve, tensor), array)
                if values is not None:
                    return values
        return evaluate(self._curve, steps)

    def _agree(self, values: np.ndarray, steps: np.ndarray) -> bool:
        """Whether a sample of single steps has the same values, up to float32 rounding."""
        some = np.linspace(0, len(steps) - 1, _PROBES).astype(int)
        expected = evaluate(self._curve, steps[some])
        return np.allclose(values[some], expected, rtol=0.0, atol=2.0**-21 * np.abs(expected).max())


def _try(function: Callable[[Any], Any], steps: Any) -> np.ndarray | None:
    """The values at all steps, or None if the function accepts only a single step."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.asarray(ops.convert_to_numpy(function(steps)), dtype="float64")
    except Exception:
        return None
    return values if values.shape == tuple(steps.shape) else None


def _vectorized(factor: Factor) -> Factor:
    return dataclasses.replace(factor, curve=_Vectorized(factor.curve))


def _vectorized_rule(rule: RateRule) -> RateRule:
    schedule = rule.schedule and _vectorized(rule.schedule)
    warm_up = rule.warm_up and _vectorized(rule.warm_up)
    return dataclasses.replace(rule, schedule=schedule, warm_up=warm_up)


def _split(policy: Any, learning_rate: Any) -> tuple[Any, list[Any]]:
    """The optimizer's own rate or schedule (None if there is none), and the callbacks."""
    parts = list(policy) if isinstance(policy, (list, tuple)) else [policy]
    callbacks = [part for part in parts if isinstance(part, keras.callbacks.Callback)]
    own = [part for part in parts if not isinstance(part, keras.callbacks.Callback)]
    for part in own:
        if not isinstance(part, LearningRateSchedule):
            _number("policy", part, "a rate, a schedule, a callback, or a list of them")
    for callback in callbacks:
        if not _is_known(callback):
            raise TypeError(
                "preview cannot evaluate a custom callback; got "
                f"{type(callback).__name__}. Leave it out."
            )
    if learning_rate is not None:
        own.append(learning_rate)
    if len(own) > 1:
        raise ValueError(
            f"An optimizer has only one rate or schedule; got {len(own)}. Join schedules with "
            "SequentialSchedule, or pass the schedule that overrides the optimizer's to ScheduleLR."
        )
    if not own:
        return None, callbacks
    if isinstance(own[0], LearningRateSchedule):
        return own[0], callbacks
    return _number("learning_rate", own[0], "a number or a LearningRateSchedule"), callbacks


def _number(name: str, value: Any, kinds: str) -> float:
    if isinstance(value, keras.Variable) or (ops.is_tensor(value) and not value.shape):
        value = float(ops.convert_to_numpy(value))
    try:
        return checks.number(name, value, least=0)
    except TypeError as error:
        raise TypeError(f"{name} must be {kinds}; got {value!r}.") from error


def _is_known(callback: Any) -> bool:
    """Whether it is a callback of keras_lr, or one of Keras that runs no user function."""
    if isinstance(callback, (Policy, keras.callbacks.LearningRateScheduler)):
        return True
    kind = type(callback)
    users = (keras.callbacks.LambdaCallback, keras.callbacks.CallbackList)
    return getattr(keras.callbacks, kind.__name__, None) is kind and kind not in users


def _joined(callbacks: list[Any], length: Length) -> tuple[Plan, Roles]:
    """The combined plan of the callbacks; raises the same errors as `fit`."""
    plan, roles = Plan(), Roles()
    policies = [each for each in callbacks if isinstance(each, Policy)]
    refuse_beside_finder(policies)
    for policy in policies:
        roles.add(type(policy).__name__, policy.roles)
        plan = plan.joined(policy.plan(length))
        if plan.timed:
            raise ValueError(
                f"preview knows no time per update; got {type(policy).__name__} with minutes="
                f"{policy.minutes!r}. Leave minutes out: the curve has the same shape over the "
                "updates that the budget allows."
            )
    if finder := roles.owner("find"):
        raise ValueError(
            f"{finder} stops fit before the model is trained, so there is nothing to preview."
        )
    for policy in policies:
        policy.check(length)
    return plan, roles


def _scheduled(callbacks: list[Any], variable: _Variable, steps: int, epochs: int) -> np.ndarray:
    """The optimizer's learning-rate variable at each update if Keras's schedulers set it.

    The schedulers run unchanged, on a stand-in for the optimizer.
    """
    if steps % epochs:
        raise ValueError(
            "steps must be a multiple of epochs for LearningRateScheduler, which sets the rate "
            f"when an epoch begins; got steps={steps} and epochs={epochs}."
        )
    each_epoch = steps // epochs
    held = np.ones(steps)
    for epoch in range(epochs):
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.LearningRateScheduler):
                continue
            scheduler = copy.copy(callback)
            scheduler.verbose = 0
            scheduler.set_model(types.SimpleNamespace(optimizer=_Optimizer(variable)))
            scheduler.on_epoch_begin(epoch)
        held[epoch * each_epoch : (epoch + 1) * each_epoch] = variable.value
    return held


def _turns_of(curves: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Where the curves turn; turns of several curves at about the same step count once."""
    found: list[int] = []
    for curve in curves:
        apart = len(curve) // 500
        found += [
            turn for turn in turns(curve) if all(abs(turn - other) > apart for other in found)
        ]
    return tuple(sorted(found))
