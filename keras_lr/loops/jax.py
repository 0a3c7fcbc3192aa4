"""The JAX loop: one compiled step a batch, or one compiled loop a chunk for small models."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import tree

from keras_lr._keras.values import drop_values, put_values
from keras_lr.loops.base import CHUNK, check_updated, scalar_logs
from keras_lr.loops.data import Batches, DataEnded
from keras_lr.steering import BorrowedRate

# Fusing a chunk pays if launching a step takes longer than running it. Above these sizes the step
# itself dominates, and so would the copies of a stacked chunk.
_FUSED_WORK = 2**24  # weights x samples of a batch
_FUSED_BYTES = 2**26  # a stacked chunk


class JaxLoop:
    def __init__(self, model: Any, rate: BorrowedRate, monitor: str) -> None:
        self._model = model
        self.rate = rate
        self._monitor = monitor
        self.eager = False
        self.stateless = True
        self.draws = True
        self._names: list[str] = []
        self._compiled = bool(model.jit_compile) and not model.run_eagerly
        self._state: Any = None
        # Every step starts from these; the metrics that it returns are dropped.
        self._metrics: list[Any] | None = None
        # New function objects each time: JAX caches a trace by the function, and the trace of
        # a model whose optimizer was changed since would be stale.
        self._step = self._jit(lambda state, data, rate: self._run_step(state, data, rate))
        self._chunk = self._jit(lambda *arguments: self._run_chunk(*arguments))
        self._test = jax.jit(self._run_test) if self._compiled else self._run_test
        self._fuses: bool | None = None if self._compiled else False

    def build(self, stream: Batches) -> None:
        """Do nothing: as in `fit`, all variables exist before a step is compiled."""

    def start(self) -> None:
        model = self._model
        model.reset_metrics()
        self._metrics = [jnp.array(v.value, copy=True) for v in model.metrics_variables]
        seen: set[int] = set()

        def own(variable: Any) -> Any:
            # Buffers are donated to the step, and one that two variables share (Keras's moving
            # average does that) cannot be donated twice.
            value = variable.value
            if id(value) in seen:
                value = jnp.array(value, copy=True)
            seen.add(id(value))
            return value

        groups = self._variables()
        self._state = tuple([own(variable) for variable in variables] for variables in groups)
        # As in `fit`: if the model kept its values, there would be two copies, because a step
        # cannot overwrite buffers that are in use elsewhere.
        drop_values(itertools.chain(*groups))

    def store(self) -> None:
        for variables, values in zip(self._variables(), self._state, strict=True):
            put_values(variables, values)

    def release(self) -> None:
        self._state = self._metrics = None

    def _variables(self) -> tuple[list[Any], ...]:
        model = self._model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )

    def read(self, variable: Any) -> np.ndarray | None:
        for variables, values in zip(self._variables(), self._state, strict=True):
            for each, value in zip(variables, values, strict=True):
                if each is variable:
                    return np.asarray(value)
        return None

    def train(self, stream: Batches, rates: np.ndarray) -> dict[str, np.ndarray]:
        rates = np.asarray(rates, np.float32)
        rows: list[np.ndarray] = []
        while len(rows) < len(rates):
            try:
                batches = _draw(stream, len(rates) - len(rows))
            except DataEnded:
                if not rows:
                    raise
                break
            at = rates[len(rows) : len(rows) + len(batches)]
            rows.extend(self._train_alike(batches, at))
            if not np.isfinite(rows[-1][self._names.index(self._monitor)]):
                break
        return dict(zip(self._names, np.array(rows, np.float64).T, strict=True))

    def evaluate(self, batches: list[Any]) -> dict[str, float]:
        trainable, non_trainable, _ = self._state
        variables, metrics, logs = self._model.metrics_variables, self._metrics or [], {}
        for batch in batches:
            logs, metrics = self._test(trainable, non_trainable, metrics, batch)
        scalars = scalar_logs(logs, self._monitor, "test")
        result = {name: float(value) for name, value in scalars.items()}
        values = {id(each): value for each, value in zip(variables, metrics, strict=False)}
        check_updated(self._model, self._monitor, result, lambda each: values.get(id(each)))
        return result

    def _train_alike(self, batches: list[Any], rates: np.ndarray) -> list[np.ndarray]:
        """Train on batches of one shape; returns a row of numbers for each step that ran."""
        if self._fuses is None:
            self._fuses = self._should_fuse(batches[0], rates[0])
        if self._fuses and len(batches) > 1:
            stacked = tree.map_structure(lambda *leaves: _stack(leaves), *batches)
            padded = np.zeros(CHUNK, np.float32)
            padded[: len(rates)] = rates
            self._state, count, rows = self._chunk(self._state, stacked, padded, len(rates))
            return list(np.asarray(rows)[: int(count)])
        rows = []
        for batch, rate in zip(batches, rates, strict=True):
            self._state, row = self._step(self._state, batch, rate)
            rows.append(row)
        rows = [np.asarray(row) for row in rows]
        finite = [np.isfinite(row[self._names.index(self._monitor)]) for row in rows]
        return rows if all(finite) else rows[: finite.index(False) + 1]

    def _should_fuse(self, batch: Any, rate: Any) -> bool:
        """Whether a chunk of steps is faster as one compiled loop."""
        if keras.distribution.distribution() is not None:
            return False
        leaves = [leaf for leaf in tree.flatten(batch) if leaf is not None]
        if not all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in leaves):
            return False  # sparse matrices, which cannot be stacked
        weights = sum(int(np.prod(v.shape)) for v in self._model.trainable_variables)
        samples = leaves[0].shape[0]
        size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
        if weights * samples > _FUSED_WORK or size * CHUNK > _FUSED_BYTES:
            return False
        if jax.default_backend() != "cpu":
            return True
        # XLA runs a convolution inside a loop on one CPU thread and without its fast kernels:
        # 8 times slower. The trace is not wasted, the step is compiled from it.
        return "conv_general_dilated" not in str(self._step.trace(self._state, batch, rate).jaxpr)

    def _jit(self, function: Any) -> Any:
        if not self._compiled:
            return function
        return jax.jit(function, donate_argnums=0)

    def _run_step(self, state: Any, data: Any, rate: Any) -> Any:
        self.rate.value = rate
        logs, (trainable, non_trainable, optimizer, _) = self._model.train_step(
            (*state, self._metrics), data
        )
        scalars = scalar_logs(logs, self._monitor)
        self._names = list(scalars)
        row = jnp.stack([jnp.asarray(value, jnp.float32) for value in scalars.values()])
        return (trainable, non_trainable, optimizer), row

    def _run_chunk(self, state: Any, stacked: Any, rates: Any, count: Any) -> Any:
        def batch(index: Any) -> Any:
            return tree.map_structure(lambda leaf: None if leaf is None else leaf[index], stacked)

        row = jax.eval_shape(self._step, state, batch(0), rates[0])[1]

        def more(carry: Any) -> Any:
            index, finite, _, _ = carry
            return (index < count) & finite

        def body(carry: Any) -> Any:
            index, _, state, rows = carry
            state, row = self._step(state, batch(index), rates[index])
            finite = jnp.isfinite(row[self._names.index(self._monitor)])
            return index + 1, finite, state, rows.at[index].set(row)

        start = (0, True, state, jnp.zeros((CHUNK, *row.shape), row.dtype))
        index, _, state, rows = jax.lax.while_loop(more, body, start)
        return state, index, rows

    def _run_test(self, trainable: Any, non_trainable: Any, metrics: Any, data: Any) -> Any:
        logs, (_, _, metrics) = self._model.test_step((trainable, non_trainable, metrics), data)
        return logs, metrics


def _draw(stream: Batches, most: int) -> list[Any]:
    """One batch, and those that follow with the same shapes."""
    batches: list[Any] = []
    shapes: list[Any] = []
    for batch in stream.take(most):
        shapes = shapes or _shapes(batch)
        if _shapes(batch) != shapes:
            stream.give_back(batch)
            break
        batches.append(batch)
    return batches


def _shapes(batch: Any) -> list[Any]:
    return [None if leaf is None else leaf.shape for leaf in tree.flatten(batch)]


def _stack(leaves: tuple[Any, ...]) -> Any:
    """Stack batches, padded to a whole chunk: one shape needs one compiled program."""
    if leaves[0] is None:
        return None
    padded = [*leaves, *[leaves[-1]] * (CHUNK - len(leaves))]
    if isinstance(leaves[0], np.ndarray):
        return np.stack(padded)
    return jnp.stack(padded)
