"""Callbacks: their model without a sync of JAX's state, and the list that `fit` makes of them."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["Callback", "callbacks_of_keras", "end_batches_in_order"]


class Callback(keras.callbacks.Callback):
    """Keras's callback, with its model as it is.

    On JAX, `self.model` copies the training state into the model's variables, and `fit` then
    copies it back.
    """

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        # What is set from here on belongs to the fit.
        self.__dict__.setdefault("_of_a_copy", frozenset(vars(self)))

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, which is in no fit: Keras Tuner copies callbacks for each trial."""
        names = vars(self).get("_of_a_copy", vars(self))
        return {name: value for name, value in vars(self).items() if name in names} | {
            "_model": None
        }

    @property
    def _unsynced_model(self) -> Any:
        return self._model


def callbacks_of_keras(callbacks: keras.callbacks.CallbackList) -> list[Any]:
    """The callbacks that Keras added to a list itself: the history and the progress bar."""
    return [callbacks._history, callbacks._progbar]


def end_batches_in_order(callbacks: keras.callbacks.CallbackList) -> None:
    """Call the hooks at the end of a batch from the training loop, not from a thread."""
    callbacks._async_train = False
