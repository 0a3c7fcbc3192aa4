"""Building: whether a model's variables exist, and Keras's way to make them without a step."""

from __future__ import annotations

from typing import Any

from keras_lr._keras.layers import all_layers
from keras_lr._keras.replicas import variable_scope
from keras_lr._keras.trainer import compiled_loss_and_metrics

__all__ = ["build_optimizer", "is_built", "layers_are_built", "symbolic_build"]


def layers_are_built(model: Any) -> bool:
    """Whether a model and all its layers have their variables."""
    return all(layer.built for layer in all_layers(model))


def is_built(model: Any) -> bool:
    """Whether the layers, the loss and the metrics have their variables."""
    compiled = [part for part in compiled_loss_and_metrics(model) if part is not None]
    return layers_are_built(model) and all(part.built for part in compiled)


def symbolic_build(model: Any, batch: Any = None) -> None:
    """Build what `fit` builds before its first step, from the shapes of a batch.

    Args:
        batch: A batch; None is enough where `is_built`, and builds the optimizer.
    """
    model._symbolic_build(data_batch=batch)


def build_optimizer(model: Any) -> None:
    """Make the slots of an optimizer that has none yet, as the first training step would."""
    with variable_scope(model):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
