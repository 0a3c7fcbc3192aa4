"""The properties of a field model that the tests use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

BACKENDS = ("tensorflow", "jax", "torch")


@dataclass(frozen=True)
class FieldModel:
    """A small model as users write them, with what the tests need to train it.

    Args:
        make: Returns the compiled model. It takes a function that is applied to the optimizer
            to steer, as a user wraps it in `LayerwiseLR`.
        data: Returns `x` and `y` as `fit` takes them: NumPy arrays made from a seed.
        batch_size: Rows of a batch, as `fit` takes it.
        fit_options: Further arguments of `fit`.
        optimizer: Name of the optimizer to steer, as in `held_optimizers`.
        others: Names of the other optimizers that train a part of the model.
        choose: Whether the model holds several optimizers, so that the name is required.
        monitor: The log to monitor.
        momentum: Whether the momentum of the optimizer to steer can be cycled.
        updates: Updates of the optimizer in a batch; below 1 if several batches make one.
        inside: Whether a condition decides if a batch makes an update.
        accumulates: Whether the optimizer accumulates itself, and declares over how many batches.
        backends: The backends on which `fit` can train the model.
        why_not: Why the other backends cannot.
        validates: Whether the model can be evaluated by `monitor`, as a search does.
        saved: Whether Keras can save and load the complete model.
    """

    make: Callable[..., keras.Model]
    data: Callable[[], tuple[Any, Any]]
    batch_size: int = 8
    fit_options: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "optimizer"
    others: tuple[str, ...] = ()
    choose: bool = False
    monitor: str = "loss"
    momentum: bool = True
    updates: float = 1
    inside: bool = False
    accumulates: bool = False
    backends: tuple[str, ...] = BACKENDS
    why_not: str = ""
    validates: bool = True
    saved: bool = True


MODELS: dict[str, FieldModel] = {}


def add(name: str, **options: Any) -> None:
    MODELS[name] = FieldModel(**options)


def as_given(optimizer: Any) -> Any:
    return optimizer
