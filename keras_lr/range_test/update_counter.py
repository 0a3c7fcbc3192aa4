"""Which batches of a run make an update of the optimizer that gets the rates."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lr._keras.optimizers import batch_counter, counters, number
from keras_lr.loops import Loop
from keras_lr.steering import all_optimizers, innermost_optimizers, updates_every

_UNKNOWN = np.iinfo(np.int64).max  # the end of an update that is still to come


class UpdateCounter:
    """Counts the updates of one optimizer of a model, by its own counters.

    Args:
        optimizer: The optimizer, one of `held`.
        held: The `model_optimizers` of the model.
        loop: Reads the counters while it trains.

    Attributes:
        every: Batches that the optimizer accumulates for an update.
        steady: Whether every batch (or every `every` batches) makes an update; None until the
            first run has shown it.
    """

    def __init__(self, model: Any, optimizer: Any, held: dict[str, Any], loop: Loop) -> None:
        self.every = updates_every(optimizer)
        self.steady: bool | None = None
        self._model = model
        self._optimizer = optimizer
        self._held = held
        self._loop = loop
        self._inner = innermost_optimizers(optimizer)
        self._name = next(name for name, each in held.items() if each is optimizer)
        # An optimizer in the middle of an accumulation needs fewer batches for its next update.
        self._pending = int(number(batch_counter(self._inner[0]))) % self.every
        self._counts_before: dict[str, list[float]] = {}
        self._calls_before: list[int] = []

    def begin(self) -> None:
        """Read the counters before a run.

        Raises:
            ValueError: If the loop cannot read them.
        """
        if self._loop.read(batch_counter(self._inner[0])) is None:
            raise ValueError(
                f"On JAX, fit trains only with optimizers whose variables the model tracks; those "
                f"of {self._name!r} are not among them. Build it, and assign its variables to an "
                "attribute of the model: "
                f"self.optimizer_variables = self.{self._name}.variables."
            )
        if self.steady is None:
            self._counts_before = self._counts()
            self._calls_before = self._calls()

    def ends(self, updates: int) -> np.ndarray:
        """How many batches of a run have been read at the end of each of its updates.

        As far as it is known: the ends of unsteady updates lie beyond all batches.
        """
        if self.steady is False:
            return np.full(updates, _UNKNOWN)
        batches = np.full(updates, self.every)
        batches[0] -= self._pending
        return np.cumsum(batches)

    def made(self) -> int:
        """Updates that the optimizer has made; accumulated batches count as one."""
        return sum(calls // self.every for calls in self._calls())

    def find_out(self, batches: int) -> bool:
        """Set `steady`, from the counters after the first batches.

        A loss scale skips updates that overflow, so its updates count as steady.

        Raises:
            ValueError: If the optimizer was not called at all.
        """
        self.check_called(batches)
        pairs = zip(self._calls(), self._calls_before, strict=True)
        scaled = any(hasattr(part, "dynamic_scale") for part in all_optimizers(self._optimizer))
        self.steady = scaled or max(now - before for now, before in pairs) >= batches
        return self.steady

    def check_called(self, batches: int) -> None:
        """Refuse an optimizer that training does not call.

        Raises:
            ValueError: If no counter of it has changed in these batches.
        """
        before, now = self._counts_before, self._counts()
        moved = [name for name in now if now[name] != before[name]]
        if self._name not in moved:
            raise ValueError(_no_update(self._model, self._name, moved, batches))

    def _calls(self) -> list[int]:
        """How often each optimizer that gets the rate was called since it was made."""
        return [int(np.asarray(self._loop.read(batch_counter(each)))) for each in self._inner]

    def _counts(self) -> dict[str, list[float]]:
        """For each optimizer, counters that change in each call, even for a skipped update."""
        return {name: self._counts_of(each) for name, each in self._held.items()}

    def _counts_of(self, optimizer: Any) -> list[float]:
        found = [each for part in all_optimizers(optimizer) for each in counters(part)]
        read = [self._loop.read(each) for each in found]
        return [float(value) for value in read if value is not None]


def _no_update(model: Any, name: str, moved: list[str], batches: int) -> str:
    """The message for an optimizer `name` that was never called."""
    start = f"The optimizer {name!r} made no update in {batches} batches, so its learning rate "
    start += "has no effect."
    if moved:
        return f"{start} Pass the one that trains: optimizer={moved[0]!r}."
    if not model.trainable_variables:
        return (
            f"{start} The model has no trainable weights: set trainable=True for one of its layers."
        )
    return f"{start} Its training step must call apply() of an optimizer that the model holds."
