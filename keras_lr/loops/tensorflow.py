"""The TensorFlow loop: a chunk of steps is one call of a graph that draws its own batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_lr._keras.replicas import replicas
from keras_lr._keras.trainer import autoconverted, reduced_over_replicas
from keras_lr._util.interrupts import uninterrupted
from keras_lr.loops.base import CHUNK, check_updated, scalar_logs
from keras_lr.loops.data import Batches, DataEnded
from keras_lr.steering import BorrowedRate

# The memory of the loop is allocated before the first step is traced, when the number of metrics
# that a step reports is unknown.
_WIDTH = 64
_ITERATORS = (tf.data.Iterator, tf.distribute.DistributedIterator)


class TensorFlowLoop:
    def __init__(self, model: Any, rate: BorrowedRate, monitor: str) -> None:
        self._model = model
        self.rate = rate
        self._monitor = monitor
        self.eager = bool(model.run_eagerly)
        self.stateless = False
        self._drawing: list[bool] = []  # for each graph that was traced
        self._names: list[str] = []
        self._step = self._make_step()
        self._chunk = self._make_chunk()
        self._open_chunk = self._make_open_chunk()
        self._test = self._make_test()

    @property
    def draws(self) -> bool:
        return not self._drawing or any(self._drawing)

    def build(self, stream: Batches) -> None:
        if self.eager:
            return
        iterator = stream.iterator()
        batch = iterator.element_spec if isinstance(iterator, _ITERATORS) else stream.peek()
        with uninterrupted(patience=1):
            self._step.get_concrete_function(batch, tf.TensorSpec((), tf.float32))

    def read(self, variable: Any) -> np.ndarray | None:
        value = replicas(variable.value)[0]
        return np.asarray(value)

    def start(self) -> None:
        self._model.reset_metrics()

    def store(self) -> None:
        """Do nothing: the variables of the model are the state."""

    def release(self) -> None:
        """Do nothing: the variables of the model are the state."""

    def train(self, stream: Batches, rates: np.ndarray) -> dict[str, np.ndarray]:
        fused = isinstance(stream.iterator(), _ITERATORS) and not self._model.run_eagerly
        # A Ctrl-C in TensorFlow's Python code during tracing can stop the recording of gradients in
        # this process for good. It cannot stop a running graph in any case.
        with uninterrupted(patience=1):
            rows = self._train_fused(stream, rates) if fused else self._train_eagerly(stream, rates)
        return dict(zip(self._names, rows.astype(np.float64).T, strict=True))

    def evaluate(self, batches: list[Any]) -> dict[str, float]:
        logs: dict[str, Any] = {}
        self._model.reset_metrics()
        for batch in batches:
            logs = scalar_logs(self._test(batch), self._monitor, "test")
        result = {name: float(value) for name, value in logs.items()}
        check_updated(self._model, self._monitor, result, self.read)
        self._model.reset_metrics()
        return result

    def _train_fused(self, stream: Batches, rates: np.ndarray) -> np.ndarray:
        """Train by one call of a graph for each epoch that the steps belong to."""
        padded = tf.constant(np.pad(rates.astype(np.float32), (0, CHUNK - len(rates))))
        parts: list[np.ndarray] = []
        done, begun = 0, False
        while True:
            rows = self._train_within_epoch(stream, padded, done, len(rates))
            parts.append(rows)
            done += len(rows)
            loss = self._names.index(self._monitor)
            if done == len(rates) or (len(rows) and not np.isfinite(rows[-1, loss])):
                break
            try:
                if begun and not len(rows):
                    raise DataEnded  # a whole epoch without a batch
                stream.next_epoch()
                begun = True
            except DataEnded:
                if not done:
                    raise
                break
        return np.concatenate(parts)

    def _train_within_epoch(
        self, stream: Batches, rates: tf.Tensor, begin: int, end: int
    ) -> np.ndarray:
        """Train with the rates `begin` to `end`, or until the epoch ends or a loss is not finite.

        Returns:
            The metrics of each step, shape (steps, metrics).
        """
        iterator, chunk = stream.iterator(), self._open_chunk
        if stream.left is not None:
            chunk, end = self._chunk, min(end, begin + stream.left)
        reached, rows = chunk(iterator, rates, tf.constant(begin), tf.constant(end))
        stream.took(int(reached) - begin)
        return rows.numpy()[begin : int(reached), : len(self._names)]

    def _train_eagerly(self, stream: Batches, rates: np.ndarray) -> np.ndarray:
        rows = [
            self._step(batch, tf.constant(rate, tf.float32))
            for batch, rate in zip(stream.take(len(rates)), rates, strict=False)
        ]
        return np.stack([row.numpy() for row in rows])

    def _make_step(self) -> Any:
        model = self._model

        def train_step(data: Any) -> Any:
            logs = model.train_step(data)
            # In the graph and after the step: each step then reports its own values, and metrics
            # that the first step builds are reset as well.
            model.reset_metrics()
            return logs

        train_step = autoconverted(model, train_step)

        @tf.autograph.experimental.do_not_convert
        def step(data: Any, rate: Any) -> Any:
            self.rate.value = rate
            strategy = model.distribute_strategy
            logs = strategy.run(train_step, args=(data,))
            logs = reduced_over_replicas(logs, strategy)
            logs = scalar_logs(logs, self._monitor)
            self._names = list(logs)
            self._look_for_draws()
            return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])

        if model.run_eagerly:
            return step
        return tf.function(step, reduce_retracing=True, jit_compile=model.jit_compile)

    def _make_chunk(self) -> Any:
        """For an epoch of known length: train on the batches `begin` to `end`."""

        @tf.autograph.experimental.do_not_convert
        def chunk(iterator: Any, rates: Any, begin: Any, end: Any) -> Any:
            def more(index: Any, finite: Any, rows: Any) -> Any:
                return (index < end) & finite

            def body(index: Any, finite: Any, rows: Any) -> Any:
                row, finite = self._padded_step(iterator.get_next(), rates[index])
                return index + 1, finite, rows.write(index, row)

            start = (begin, tf.constant(True), _rows())
            index, _, rows = tf.while_loop(more, body, start, parallel_iterations=1)
            return index, rows.stack()

        return tf.function(chunk, reduce_retracing=True)

    def _make_open_chunk(self) -> Any:
        """For an epoch of unknown length: check before each step whether there is a batch."""

        @tf.autograph.experimental.do_not_convert
        def chunk(iterator: Any, rates: Any, begin: Any, end: Any) -> Any:
            def more(index: Any, finite: Any, batch: Any, rows: Any) -> Any:
                return (index < end) & finite & batch.has_value()

            def body(index: Any, finite: Any, batch: Any, rows: Any) -> Any:
                row, finite = self._padded_step(batch.get_value(), rates[index])
                following = tf.cond(
                    (index + 1 < end) & finite,
                    lambda: iterator.get_next_as_optional(),
                    lambda: batch,
                )
                return index + 1, finite, following, rows.write(index, row)

            start = (begin, tf.constant(True), iterator.get_next_as_optional(), _rows())
            index, _, _, rows = tf.while_loop(more, body, start, parallel_iterations=1)
            return index, rows.stack()

        return tf.function(chunk, reduce_retracing=True)

    def _padded_step(self, batch: Any, rate: Any) -> tuple[Any, Any]:
        row = self._step(batch, rate)
        finite = tf.math.is_finite(row[self._names.index(self._monitor)])
        return tf.pad(row, [[0, _WIDTH - len(self._names)]]), finite

    def _look_for_draws(self) -> None:
        """Note whether the graph that is traced has random operations with a state of their own.

        They have a seed as an attribute. Those that Keras uses get it as an input, from a variable.
        """
        if self.eager:
            return
        match tf.compat.v1.get_default_graph().as_graph_def():
            case tf.compat.v1.GraphDef(node=nodes, library=functions):
                inner = (node for function in functions.function for node in function.node_def)
                self._drawing.append(any("seed" in each.attr for each in (*nodes, *inner)))

    def _make_test(self) -> Any:
        model = self._model
        test_step = autoconverted(model, model.test_step)

        @tf.autograph.experimental.do_not_convert
        def test(data: Any) -> Any:
            strategy = model.distribute_strategy
            logs = strategy.run(test_step, args=(data,))
            self._look_for_draws()
            return reduced_over_replicas(logs, strategy)

        if model.run_eagerly:
            return test
        return tf.function(test, reduce_retracing=True, jit_compile=model.jit_compile)


def _rows() -> Any:
    return tf.TensorArray(tf.float32, size=CHUNK, element_shape=(_WIDTH,))
