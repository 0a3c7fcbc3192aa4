"""Freezing what no optimizer changes: the moving statistics of batch normalisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_lr._keras.layers import all_layers, own_variables


class FrozenStatistics:
    """Layers of batch normalisation that compute as they do at inference, until `thaw`.

    That is what Keras does with a layer whose `trainable` is False: it normalises with its
    moving statistics and leaves them alone. Setting `trainable` would take its scale and offset
    out of the model's weights that train, and so the optimizer's state apart; the layer's `call`
    is told instead that it is not training. Only what is traced afterwards follows.

    Args:
        layers: Layers and models; those of batch normalisation among them and in them count.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        found = {id(part): part for layer in layers for part in all_layers(layer)}
        kind = keras.layers.BatchNormalization
        self.layers = [part for part in found.values() if isinstance(part, kind)]

    @property
    def frozen(self) -> bool:
        """Whether any layer is frozen now."""
        return any("call" in vars(layer) for layer in self.layers)

    def freeze(self) -> None:
        for layer in self.layers:
            object.__setattr__(layer, "call", _as_at_inference(layer))

    def __enter__(self) -> FrozenStatistics:
        self.freeze()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.thaw()

    def thaw(self) -> None:
        for layer in self.layers:
            if "call" in vars(layer):
                object.__delattr__(layer, "call")


def owning_layers(model: Any) -> dict[int, Any]:
    """The layer that each variable belongs to, the innermost one, by the variable's id."""
    return {id(variable): layer for layer in all_layers(model) for variable in own_variables(layer)}


def _as_at_inference(layer: Any) -> Any:
    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call
