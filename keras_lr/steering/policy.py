"""What a callback contributes to a steered fit."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from keras_lr._keras.callbacks import Callback
from keras_lr.steering.composition import Length, Plan


class Policy(Callback):
    """A callback that takes part in a steered fit.

    A `SteeredFit` calls these methods; `callbacks/base.py` calls the `SteeredFit` from the hooks
    of Keras.

    Attributes:
        optimizer: The optimizer to steer, or its name in the model; None for the only one.
        roles: What only one callback can do for an optimizer: "schedule", "rate" (it sets the
            optimizer's own rate), "warm-up", "momentum", "find", "unfreezing", and the name of any
            other attribute of the optimizer that it sets.
        rescales: Whether it scales the rate while the compiled training step is in use.
        watches: Whether it reads the rate of every single batch.
        couples_decay: Whether the weight decay follows the rate so that their product is constant.
        retraces: Whether it changes what the training step computes during the fit, other than by
            scaling the rate.
        copies_weights: Whether it copies or restores the weights at the end of an epoch.
        trains_between_epochs: Whether it trains the model, and restores it, when an epoch begins.
        ends_after: The time budget with which the training stops; or None.
    """

    optimizer: Any = None
    roles: tuple[str, ...] = ()
    rescales = False
    watches = False
    couples_decay = False
    retraces = False
    copies_weights = False
    trains_between_epochs = False
    ends_after: Any = None

    # Comments instead of docstrings, which the API reference would show for every callback.

    # Whether the rate changes within the run.
    @property
    def changes_rate(self) -> bool:
        return self.rescales or not {"schedule", "rate", "warm-up"}.isdisjoint(self.roles)

    # Read what the curves need from the optimizer, before `plan`; refuse one that does not suit.
    def read_optimizer(self, optimizer: Any) -> None:
        pass

    # The curves of this callback, for a run of this length.
    def plan(self, length: Length) -> Plan:
        return Plan()

    # The arguments that make the same plan for a run of any other length.
    def follows(self, length: Length) -> dict[str, Any]:
        return {}

    # Warn if the callback does not suit a run of this length.
    def check(self, length: Length) -> None:
        pass

    # Prepare for the run; called once, when its length is known.
    def begin(self, length: Length) -> None:
        pass

    # Act at the end of an epoch.
    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        pass

    # The state that a resumed run needs: JSON values, and lists of arrays.
    def remember(self) -> dict[str, Any]:
        return {}

    # Restore the state that `remember` returned in the interrupted process.
    def recall(self, memory: dict[str, Any]) -> None:
        pass

    # Within the block another training runs, which this callback does not steer.
    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    # Undo the changes to the model; also called when a `fit` was interrupted.
    def leave(self) -> None:
        pass

    # Restore a model that the `fit` was not to train; called last, however the `fit` ends.
    def hand_back(self) -> None:
        pass
