"""The dropout rates of layers while a run schedules them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from keras_lr.schedules.base import evaluate
from keras_lr.steering.binding import SteeredAttribute
from keras_lr.steering.value_table import ValueTable


class _Rate(SteeredAttribute):
    def get_shape(self) -> Any:
        """Part of what TensorFlow's dropout asks of a tensor; Keras's variables lack it."""
        return self.value.shape


class LayerRates:
    """Replaces the `rate` of layers; `release` restores it.

    Compiled steps read a value that the graph computes. On torch the layers need a number, which
    `put` sets before each step.

    Args:
        layers: Layers of dropout.
        curve: The rate, a function of the count of updates.
        update: Returns the count, for the step that is traced.
    """

    def __init__(
        self, layers: Sequence[Any], curve: Callable[[Any], Any], update: Callable[[], Any]
    ) -> None:
        self._layers = [(layer, layer.rate) for layer in layers]
        self._curve, self._update = curve, update
        self._table = ValueTable(lambda updates, _: evaluate(curve, updates))

    def replace(self) -> None:
        """Replace the rates, and the method that would save them."""
        for layer, own in self._layers:
            if keras.backend.backend() != "torch":
                rate = _Rate(own, lambda: ops.cast(self._curve(self._update()), "float32"))
                object.__setattr__(layer, "rate", rate)
            object.__setattr__(layer, "get_config", lambda layer=layer: self._config(layer))

    def release(self) -> None:
        """Restore the layers' own rates."""
        for layer, own in self._layers:
            object.__setattr__(layer, "rate", own)
            vars(layer).pop("get_config", None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block the layers have their own rates."""
        now = [layer.rate for layer, _ in self._layers]
        self.release()
        try:
            yield
        finally:
            self.replace()
            for (layer, _), rate in zip(self._layers, now, strict=True):
                object.__setattr__(layer, "rate", rate)

    def put(self, update: int) -> None:
        """On torch, set the rates of the step that comes next."""
        if keras.backend.backend() == "torch":
            for layer, _ in self._layers:
                object.__setattr__(layer, "rate", self.value_at(update))

    def value_at(self, update: int) -> float:
        """The rate at an update."""
        return self._table.number_at(update, 0)

    def _config(self, layer: Any) -> dict[str, Any]:
        with self.paused():
            config: dict[str, Any] = layer.get_config()
        return config
