"""Freezing the moving statistics of batch normalization, which no optimizer changes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import keras

from keras_lr._keras.layers import all_layers, own_variables
from keras_lr._util.patching import replaced


class FrozenStatistics:
    """Lets batch normalization layers compute as at inference, from `freeze` to `thaw`.

    Keras does the same for a layer whose `trainable` is False: it normalizes with its moving
    statistics and does not update them. But `trainable` would also remove its scale and offset
    from the trainable weights, which would no longer match the optimizer's slots. So the layer's
    `call` gets `training=False` instead. This affects only functions that are traced afterwards.

    Args:
        layers: Layers and models; the `BatchNormalization` layers among and inside them matter.

    Attributes:
        frozen: Whether any layer is frozen now.

    Raises:
        ValueError: In `freeze`, if the `call` of a layer takes no argument `training`.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        found = {id(part): part for layer in layers for part in all_layers(layer)}
        kind = keras.layers.BatchNormalization
        self.layers = [part for part in found.values() if isinstance(part, kind)]

        self._calls = ExitStack()
        self.frozen = False

    def freeze(self) -> None:
        for layer in self.layers:
            if not isinstance(layer.call, _AtInference):  # two groups may share a layer
                self._calls.enter_context(replaced(layer, "call", _AtInference(layer)))
        self.frozen = bool(self.layers)

    def __enter__(self) -> FrozenStatistics:
        self.freeze()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.thaw()

    def thaw(self) -> None:
        self._calls.close()
        self.frozen = False


def owning_layers(model: Any) -> dict[int, Any]:
    """The innermost layer that each variable belongs to, by the variable's id."""
    return {id(variable): layer for layer in all_layers(model) for variable in own_variables(layer)}


class _AtInference:
    """The `call` of a layer, which may be a program's own, with `training=False`."""

    def __init__(self, layer: Any) -> None:
        self._own = layer.call
        self._signature = inspect.signature(self._own)
        names = self._signature.parameters
        if "training" not in names and not any(p.kind is p.VAR_KEYWORD for p in names.values()):
            raise ValueError(
                f"The statistics of {layer.name!r} cannot be frozen, because its call takes no "
                "argument training. Add it, or leave the statistics as they are."
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind_partial(*args)
        bound.arguments.pop("training", None)
        return self._own(*bound.args, **{**bound.kwargs, **kwargs, "training": False})
