"""The weights that no weight decay should shrink: norms and biases."""

from __future__ import annotations

from typing import Any

from keras_lr.optimizers.batch_norm import owning_layers
from keras_lr.optimizers.presets import check_model

__all__ = ["no_weight_decay"]


def no_weight_decay(model: Any) -> list[Any]:
    """The weights that weight decay should leave out: biases, and the weights of normalization.

    These are the trainable weights with at most one dimension, those named `bias` (in attention
    and recurrent layers they have two), and those of layers whose class name has `Norm` in it.
    Kernels and embeddings remain. Without this, Keras decays every weight.

    Pass the list to `exclude_from_weight_decay` of the optimizer before it trains. Keras does not
    save the exclusion with a model: after loading, set it again on a new optimizer.

    Args:
        model: A built Keras model.

    Returns:
        Variables of the model, in the order of `model.trainable_variables`.

    Raises:
        ValueError: If the model is not built, or has no trainable weights.
        TypeError: If it is not a Keras model.

    Sources: He et al., "Bag of tricks for image classification with convolutional neural networks"
    (2018, arXiv 1812.01187), section 3.1. The first two rules are those of timm's
    `param_groups_weight_decay`.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="body")])
    >>> model.add(keras.layers.LayerNormalization(name="norm"))
    >>> excluded = no_weight_decay(model)
    >>> [variable.path.split("/")[-2:] for variable in excluded]
    [['body', 'bias'], ['norm', 'gamma'], ['norm', 'beta']]
    >>> optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    >>> optimizer.exclude_from_weight_decay(var_list=excluded)
    >>> model.compile(optimizer, "mse")
    """
    check_model(model, "no_weight_decay")
    owners = owning_layers(model)
    return [each for each in model.trainable_variables if _is_left_out(each, owners.get(id(each)))]


def _is_left_out(variable: Any, owner: Any) -> bool:
    return (
        len(variable.shape) <= 1
        or variable.name.endswith("bias")
        or "norm" in type(owner).__name__.lower()
    )
