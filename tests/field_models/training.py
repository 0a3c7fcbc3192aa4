"""One update, in hand-written training steps on each backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def on(backend: str) -> bool:
    return keras.backend.backend() == backend


def descend(loss_of: Callable[[], Any], variables: list[Any], optimizer: Any) -> Any:
    """One update of `variables` on TensorFlow and torch; returns the loss before it."""
    loss, gradients = gradients_of(loss_of, variables)
    apply(optimizer, gradients, variables)
    return loss


def gradients_of(loss_of: Callable[[], Any], variables: Any) -> tuple[Any, list[Any]]:
    """The loss and its gradients.

    Args:
        variables: A list; or a function that returns it, where the loss builds the model.
    """
    if on("tensorflow"):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of()
        return loss, tape.gradient(loss, variables() if callable(variables) else variables)
    variables = variables() if callable(variables) else variables
    for variable in variables:
        variable.value.grad = None
    loss = loss_of()
    loss.backward()
    return loss.detach(), [variable.value.grad for variable in variables]


def apply(optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
    if on("tensorflow"):
        optimizer.apply(gradients, variables)
        return
    import torch

    with torch.no_grad():
        optimizer.apply(gradients, variables)


def jax_gradients(
    loss_of: Callable[[], Any], variables: list[Any], values: list[Any], held: dict[Any, Any]
) -> tuple[Any, list[Any]]:
    """Loss and gradients on JAX; `held` maps further variables to values and is updated.

    Args:
        variables, values: What the gradients are for.
        held: The values of all other variables that the loss reads, by id, as (variable, value).
    """
    import jax

    def loss_and_state(values: list[Any]) -> Any:
        mapping = [*held.values(), *zip(variables, values, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            loss = loss_of()
        return loss, {key: scope.get_current_value(variable) for key, (variable, _) in held.items()}

    (loss, after), gradients = jax.value_and_grad(loss_and_state, has_aux=True)(values)
    for key, value in after.items():
        held[key] = (held[key][0], value)
    return loss, gradients


def jax_held(variables: list[Any], values: list[Any]) -> dict[Any, Any]:
    return {id(v): (v, value) for v, value in zip(variables, values, strict=True)}


def jax_descend(model: Any, loss_of: Callable[[], Any], state: Any) -> tuple[Any, Any]:
    """One update of the whole model by its own optimizer: the loss, and the state after it."""
    trainable, other, slots, metrics = state
    held = jax_held(model.non_trainable_variables, other)
    loss, gradients = jax_gradients(loss_of, model.trainable_variables, trainable, held)
    trainable, slots = model.optimizer.stateless_apply(slots, gradients, trainable)
    other = [value for _, value in held.values()]
    return loss, (trainable, other, slots, metrics)


def jax_track(model: Any, metrics: list[Any], values: dict[Any, Any]) -> tuple[Any, Any]:
    """Update trackers: the logs, and the values of the metrics' variables after it."""
    variables = model.metrics_variables
    mapping = list(zip(variables, metrics, strict=True))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        logs = {}
        for tracker, value in values.items():
            tracker.update_state(value)
            logs[tracker.name] = tracker.result()
    return logs, [scope.get_current_value(variable) for variable in variables]


def track(values: dict[Any, Any]) -> dict[str, Any]:
    """Update trackers: the logs."""
    for tracker, value in values.items():
        tracker.update_state(value)
    return {tracker.name: tracker.result() for tracker in values}
