"""A model that has multipliers for a while, whatever optimizer it was compiled with."""

from __future__ import annotations

from typing import Any

from keras_lr._keras.building import build_optimizer
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.steering import all_optimizers, driven_optimizers


class LentMultipliers:
    """A `LayerwiseLR` in the place of a model's optimizer, until `give_back`.

    It shares the variables of the optimizer that the model was compiled with, which is there
    again afterwards, with all that was learnt. If the model has a `LayerwiseLR` already, that is
    the one.

    Args:
        model: A compiled model with its weights; one optimizer, in a loss scale or not.
        owner: Who asks, for messages.

    Raises:
        ValueError: If the model has several optimizers, or one that takes no multipliers.
    """

    def __init__(self, model: Any, owner: str) -> None:
        leaves = driven_optimizers(model.optimizer)
        if len(leaves) > 1:
            raise ValueError(
                f"{owner} needs a model with one optimizer; got {type(model.optimizer).__name__} "
                f"with {len(leaves)}. Use LayerwiseLR in the place of several optimizers."
            )
        self._model = model
        self._own = leaves[0]
        lends = not isinstance(self._own, LayerwiseLR)
        if lends:
            LayerwiseLR(self._own)  # refuses what takes no multipliers, before anything is built
        build_optimizer(model)
        self.optimizer: Any = LayerwiseLR(self._own) if lends else self._own
        replace_optimizer(model, self._own, self.optimizer)

    def give_back(self) -> None:
        """Put the model's own optimizer back."""
        replace_optimizer(self._model, self.optimizer, self._own)


def replace_optimizer(model: Any, old: Any, new: Any) -> None:
    """Put an optimizer in the place of one that a model has, in a loss scale or not."""
    if model.optimizer is old:
        # Past Keras's tracking, which has the variables already.
        object.__setattr__(model, "optimizer", new)
    for outer in all_optimizers(model.optimizer):
        if getattr(outer, "inner_optimizer", None) is old:
            object.__setattr__(outer, "inner_optimizer", new)
