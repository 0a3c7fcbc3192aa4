"""The dropout rates of layers while a run schedules them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_lr._util.patching import replaced
from keras_lr.schedules.base import at_count, evaluate
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
        self._methods = ExitStack()

    def replace(self) -> None:
        """Replace the rates, and the method that would save them."""
        for layer, own in self._layers:
            if keras.backend.backend() != "torch":
                rate = _Rate(own, self._rate_in_graph)
                object.__setattr__(layer, "rate", rate)
            config = functools.partial(self._config, layer)
            self._methods.enter_context(replaced(layer, "get_config", config))

    def release(self) -> None:
        """Restore the layers' own rates."""
        for layer, own in self._layers:
            object.__setattr__(layer, "rate", own)
        self._methods.close()

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

    def _rate_in_graph(self) -> Any:
        return ops.cast(at_count(self._curve, self._update()), "float32")

    def _config(self, layer: Any) -> dict[str, Any]:
        with self.paused():
            config: dict[str, Any] = layer.get_config()
        return config
