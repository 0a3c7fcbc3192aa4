"""A `LayerwiseLR` around a model's optimizer for a while: `fine_tune`, `GradualUnfreeze`."""

from __future__ import annotations

from typing import Any

from keras_lr._keras.building import build_optimizer
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.steering import all_optimizers, innermost_optimizers

__all__ = ["TemporaryLayerwiseLR", "replace_optimizer"]


class TemporaryLayerwiseLR:
    """Puts a `LayerwiseLR` in the place of a model's optimizer, until `restore`.

    It shares its variables with the optimizer that the model was compiled with, so that one has
    the whole state afterwards. Call `restore` when no callback steers its attributes any more. If
    the model's optimizer is a `LayerwiseLR` already, it stays.

    Args:
        model: A compiled, built model with one optimizer, which may be in a loss scale.
        owner: The name of the caller, for messages.

    Attributes:
        optimizer: The `LayerwiseLR`.

    Raises:
        ValueError: If the model has several optimizers, or one that `LayerwiseLR` does not take.
    """

    def __init__(self, model: Any, owner: str) -> None:
        optimizers = innermost_optimizers(model.optimizer)
        if len(optimizers) > 1:
            raise ValueError(
                f"{owner} needs a model with one optimizer; got {type(model.optimizer).__name__} "
                f"with {len(optimizers)}. Use LayerwiseLR in the place of several optimizers."
            )
        self._model = model
        self._own = optimizers[0]
        wraps = not isinstance(self._own, LayerwiseLR)
        if wraps:
            try:
                LayerwiseLR(self._own)  # checks the optimizer before anything is built
            except (TypeError, ValueError) as error:
                raise type(error)(f"{owner} trains with LayerwiseLR. {error}") from None
        build_optimizer(model)
        self.optimizer: Any = LayerwiseLR(self._own) if wraps else self._own
        replace_optimizer(model, self._own, self.optimizer)

    def restore(self) -> None:
        """Put the model's own optimizer back, with what a program has set on this one meanwhile."""
        own = vars(self._own)
        for name, value in vars(self.optimizer).items():
            if name in own and own[name] is not value:
                object.__setattr__(self._own, name, value)
        replace_optimizer(self._model, self.optimizer, self._own)


def replace_optimizer(model: Any, old: Any, new: Any) -> None:
    """Replace the optimizer of a model, or the one in its loss scale, by one on its variables."""
    if model.optimizer is old:
        # Not through Keras's tracking: the model has tracked the shared variables already.
        object.__setattr__(model, "optimizer", new)
    for outer in all_optimizers(model.optimizer):
        if getattr(outer, "inner_optimizer", None) is old:
            object.__setattr__(outer, "inner_optimizer", new)
