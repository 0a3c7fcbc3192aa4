"""What the callbacks that steer the rate have in common."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._distribution import check_distribution
from keras_lr.steering import Length, Plan, SteeredFit


class Policy(keras.callbacks.Callback):
    """A callback that takes part in the steering of a `fit`; see `keras_lr.steering`.

    An instance serves one fit after the other. It adds `learning_rate`, and `momentum` if that
    is steered, to the logs of each epoch: what the epoch's last update used.
    """

    claims: tuple[str, ...] = ()
    rescales = False
    watches = False
    retraces = False

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal callback."""
        raise NotImplementedError

    def plan(self, length: Length) -> Plan:
        return Plan()

    def check(self, length: Length) -> None:
        pass

    def begin(self, length: Length) -> None:
        pass

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        pass

    def remember(self) -> dict[str, Any]:
        return {}

    def recall(self, memory: dict[str, Any]) -> None:
        pass

    def leave(self) -> None:
        pass

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if model is not None:
            check_distribution(model)
            SteeredFit.attach(model)

    # `self._model`, not `self.model`: on JAX the latter copies the state back and forth.

    def on_train_begin(self, logs: Any = None) -> None:
        self._fit = SteeredFit.of(self._model)
        self._fit.join(self, self.params or {})

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._fit.begin(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._fit.settle(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._fit.finish()
