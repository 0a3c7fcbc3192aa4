"""What the callbacks that steer the rate have in common."""

from __future__ import annotations

from typing import Any

from keras_lr._keras.callbacks import Callback
from keras_lr._keras.distribution import check_distribution
from keras_lr.steering import Length, Plan, SteeredFit


class Policy(Callback):
    """A callback that takes part in the steering of a `fit`; see `keras_lr.steering`.

    An instance serves one fit after the other. It adds `learning_rate`, and `momentum` if that
    is steered, to the logs of each epoch: what the epoch's last update used. In a fit that steers
    several optimizers, `learning_rate_<optimizer>` is that of each, and `learning_rate` the
    largest.

    A training loop of your own can drive it: put the callbacks into a
    `keras.callbacks.CallbackList` with the model, and call its hooks around `train_on_batch` or
    your own step.
    """

    optimizer: Any = None
    claims: tuple[str, ...] = ()
    rescales = False
    watches = False
    retraces = False

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal callback."""
        raise NotImplementedError

    def plan(self, length: Length) -> Plan:
        return Plan()

    def follows(self, length: Length) -> dict[str, Any]:
        return {}

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

    def on_train_begin(self, logs: Any = None) -> None:
        fit = SteeredFit.of(self._unsynced_model)
        try:
            self._fit = fit.join(self, self.params or {})
        except BaseException:
            fit.finish()  # no `fit` may be there to see to it
            raise

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._fit.fit.begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._fit.fit.begun:  # a loop of the user's that has no epochs
            self._fit.fit.begin(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._fit.fit.settle(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._fit.fit.finish()
