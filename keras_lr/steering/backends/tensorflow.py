"""TensorFlow: the graph of the training step computes the curves, from its own count of batches.

So each step inside `steps_per_execution` gets its own rate. The scales of plateau callbacks, which
change while the compiled graph is in use, and the ticks of time budgets are variables of the graph.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lr._keras.optimizers import number
from keras_lr._util.patching import replaced
from keras_lr.steering.backends.base import TrainFunctionPatch, make_anew
from keras_lr.steering.binding import Binding


class TensorFlowPatch(TrainFunctionPatch):
    _variable: Any = None
    _count: Any = None
    _tick_variable: Any = None

    @property
    def batches(self) -> int:
        # The end of the data may have ended an execution of several steps early.
        together = self.model.steps_per_execution > 1
        if self._count is not None and together:
            return int(number(self._count))
        return super().batches

    def install(self) -> None:
        # Only the graph can count the steps of an execution.
        self.steers = self.steers or self.model.steps_per_execution > 1
        with self.model.distribute_strategy.scope():
            if self.steers:
                self._count = _shared(self._first, "batches")
            if self.scales is not None:
                self._variable = keras.Variable(self.scales, trainable=False, name="scales")
            if self._clocks:
                self._tick_variable = _shared(self._ticks, "ticks")
            super().install()
            if self._clocks:
                self._tick_variable.assign(self._ticks)  # that of a kept step has older ones

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._variable.assign(self.scales)

    def _set_ticks(self, ticks: np.ndarray) -> None:
        super()._set_ticks(ticks)
        self._tick_variable.assign(ticks)

    def go_back(self, batches: int) -> None:
        super().go_back(batches)
        if self._count is not None:
            self._count.assign(batches)

    def counted_in_graph(self) -> int | None:
        return None if self._count is None else int(number(self._count)) - self._first

    def _make(self) -> None:
        own, count, holder = self.model.train_step, self._count, self._holder

        def step(data: Any) -> Any:
            with holder.patch._in_step():
                logs = own(data)
            # Otherwise the graph would count at the end of data of unknown length, where no batch
            # is left. Keras's own counters do.
            with _after_data(data):
                count.assign_add(1)
            return logs

        with replaced(self.model, "train_step", step):
            make_anew(self.model)

    def _step_state(self) -> dict[str, Any]:
        return {"count": self._count, "scales": self._variable, "ticks": self._tick_variable}

    def _take_state(self, state: dict[str, Any]) -> None:
        self._count, self._variable = state["count"], state["scales"]
        self._tick_variable = state["ticks"]
        self._count.assign(self._first)

    def _clock(self) -> Any:
        return self._count.value

    def _trace_of(self, binding: Binding) -> Any:
        import tensorflow as tf

        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def _all_ticks(self) -> Any:
        return self._tick_variable.value

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self._variable.value[index]


def _shared(value: Any, name: str) -> Any:
    """A variable of counts that every replica reads, and that the first one changes."""
    return keras.Variable(
        value, dtype="int32", trainable=False, aggregation="only_first_replica", name=name
    )


def _after_data(data: Any) -> Any:
    """A context in which the operations of a graph wait for the tensors of a batch."""
    import tensorflow as tf

    leaves = tf.nest.flatten(data, expand_composites=True)
    return tf.control_dependencies([each for each in leaves if tf.is_tensor(each)])
