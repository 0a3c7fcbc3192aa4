"""How a callback joins the steering of a `fit`: the hooks of Keras."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_lr._keras.distribution import check_distribution
from keras_lr._util.checks import flag
from keras_lr.steering import Policy, SteeredFit


class SteeringCallback(Policy):
    """A policy that joins the `SteeredFit` of the `fit` that calls it.

    An instance can be used for several fits, one after the other. It adds `learning_rate`, and
    `momentum` if a callback sets it, to the logs of each epoch: the values of the epoch's last
    update. In a fit that steers several optimizers, `learning_rate_<optimizer>` is the rate of
    each, and `learning_rate` the largest.

    A training loop of your own can use it: put the callbacks into a `keras.callbacks.CallbackList`
    with the model, and call its hooks around `train_on_batch` or your own step.
    """

    def _couple(self, couple_weight_decay: bool) -> None:
        """Keep the argument, for a callback that sets the schedule; call it when `roles` are set.

        The weight decay is a role then, which no other callback can have.
        """
        self.couple_weight_decay = self.couples_decay = flag(
            "couple_weight_decay", couple_weight_decay
        )
        if self.couples_decay:
            self.roles = (*self.roles, "weight_decay")

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if model is not None:
            check_distribution(model)
            SteeredFit.attach(model)

    def on_train_begin(self, logs: Any = None) -> None:
        self._session = SteeredFit.of(self._unsynced_model)
        try:
            self._steered = self._session.join(self, self.params or {})
        except BaseException:
            self._session.finish()  # there may be no `fit` that would do it
            raise

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._session.begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._session.begun:  # in a loop of the user without epochs
            self._session.begin(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._session.settle(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._session.finish()


def monitored(logs: Any, monitor: str, whose: str) -> float | None:
    """The value of a metric in the logs of an epoch; None, with a warning, if it is not there."""
    value = (logs or {}).get(monitor)
    if value is not None:
        return float(keras.ops.convert_to_numpy(value))
    warnings.warn(
        f"{whose} monitors {monitor!r}, which is not in the logs; they have "
        f"{', '.join(sorted(logs or {})) or 'nothing'}.",
        UserWarning,
        stacklevel=2,
    )
    return None
