"""One run of training: its model, its length, and how many batches it has trained."""

from __future__ import annotations

from typing import Any

from keras_lr._keras.trainer import synchronise
from keras_lr.steering.backends.base import TrainFunctionPatch
from keras_lr.steering.clock import Clocks
from keras_lr.steering.composition import Length
from keras_lr.steering.guard import fits_running


class Run:
    """A run of training.

    Attributes:
        model: The model.
        by_hand: Whether a loop of the user calls the callbacks, instead of `fit`.
        params: The `params` of callbacks in Keras: `epochs` and `steps`.
        epochs_from: The number of the first epoch, 0; a loop of the user may count from 1.
        first_epoch: The epoch that this process begins with, counted from 0.
        first_batches: Batches that an earlier process has trained.
        patch: The patched train function; None before the first epoch.
        clocks: The clocks of the time budgets, which start with the first epoch.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.by_hand = fits_running(model) == 0
        self.params: dict[str, Any] = {}
        self.epochs_from = 0
        self.first_epoch = 0
        self.first_batches = 0
        self.patch: TrainFunctionPatch | None = None
        self.clocks = Clocks()

    def start(self, params: dict[str, Any]) -> None:
        """Set `params`, when the training begins."""
        self.params = params
        self.by_hand = fits_running(self.model) == 0

    @property
    def batches(self) -> int:
        """Batches of the run so far, including those of an earlier process."""
        return self.first_batches if self.patch is None else self.patch.batches

    @property
    def installed(self) -> TrainFunctionPatch:
        """The patched train function, which the first epoch installs."""
        assert self.patch is not None  # noqa: S101
        return self.patch

    def length(self, start_batch: int, every: int) -> Length:
        """Length of the run for an optimizer.

        Args:
            start_batch: What the optimizer's counter of batches showed when the run began.
            every: Batches per update.
        """
        epochs, steps = self.params.get("epochs") or 1, self.params.get("steps")
        if steps is None:
            return Length(None, epochs)
        return Length((start_batch % every + epochs * steps) // every, epochs)

    def synchronise(self) -> None:
        """Make the variables of the model readable within an epoch."""
        synchronise(self.model)
