"""First and last place in Keras's list of callbacks, for the rate in the logs of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_lr._keras.callbacks import callbacks_of_keras, end_batches_in_order
from keras_lr._keras.frames import caller_locals
from keras_lr.steering.backends import gains_from_threads


class ExtendedList:
    """Keras's list of callbacks, with a first and a last callback at the end of each epoch.

    Keras's `LearningRateScheduler` and `ReduceLROnPlateau` write the rate that they read to the
    logs. They read the optimizer's variable; the rate of the training is this variable times the
    warm-up.

    Args:
        callbacks: A `keras.callbacks.CallbackList`.
        first: Called with the epoch, before other callbacks change the rate.
        last: Called with the logs, after other callbacks wrote to them.
    """

    def __init__(
        self,
        callbacks: Any,
        first: Callable[[int], None],
        last: Callable[[dict[str, Any]], None],
    ) -> None:
        self._list, self._own = callbacks, callbacks.callbacks
        late = [each for each in self._own if each in callbacks_of_keras(callbacks)]
        early = [each for each in self._own if each not in late]
        # A new list: Keras is iterating over the old one.
        callbacks.callbacks = [_First(first), *early, _Last(last), *late]

    @classmethod
    def of_running_fit(
        cls,
        model: Any,
        first: Callable[[int], None],
        last: Callable[[dict[str, Any]], None],
    ) -> ExtendedList | None:
        """Extend the list whose epoch begins now; None if a loop of the user has no such list."""
        beginning = caller_locals("on_epoch_begin", keras.callbacks.CallbackList)
        if beginning is None:
            return None
        if not gains_from_threads(model):
            # Keras starts threads if no callback uses a batch hook; a small model is faster
            # without them.
            end_batches_in_order(beginning["self"])
        return cls(beginning["self"], first, last)

    def restore(self) -> None:
        """Restore the list that Keras had."""
        self._list.callbacks = self._own


class _First(keras.callbacks.Callback):
    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self._act = act

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._act(epoch)


class _Last(keras.callbacks.Callback):
    def __init__(self, act: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._act = act

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            self._act(logs)
