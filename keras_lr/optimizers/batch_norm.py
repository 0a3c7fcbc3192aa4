"""Freezing the moving statistics of batch normalization, which no optimizer changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_lr._keras.layers import all_layers, own_variables


class FrozenStatistics:
    """Lets batch normalization layers compute as at inference, from `freeze` to `thaw`.

    Keras does the same for a layer whose `trainable` is False: it normalizes with its moving
    statistics and does not update them. But `trainable` would also remove its scale and offset
    from the trainable weights, which would no longer match the optimizer's slots. So the layer's
    `call` gets `training=False` instead. This affects only functions that are traced afterwards.

    Args:
        layers: Layers and models; the `BatchNormalization` layers among and inside them matter.
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
    """The innermost layer that each variable belongs to, by the variable's id."""
    return {id(variable): layer for layer in all_layers(model) for variable in own_variables(layer)}


def _as_at_inference(layer: Any) -> Any:
    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call
