"""How each backend's train function is made to follow curves. Nothing else asks which it is.

TensorFlow and JAX compute the curves in the graph of the training step, from the count of batches
that the run has trained: a step inside `steps_per_execution` gets its own rate. On TensorFlow the
count is a variable of the graph, on JAX it enters beside the batch. Eager torch would pay for
every operation of a curve, so it looks up a table, made a block at a time from the same curve.

The plateau's scales change while a compiled graph is in use. They enter it as a variable on
TensorFlow, and beside the batch on JAX.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._keras.optimizers import RATE, batch_counter, number
from keras_lr._keras.trainer import torch_compiles
from keras_lr._util.patching import replaced
from keras_lr.steering.binding import Binding
from keras_lr.steering.optimizers import SteeredMomentum, SteeredRate, momentum_names

_BLOCK = 256
_SMALL = 64  # variables


class TrainFunctionPatch:
    """Stands before a model's train function from `install` to `remove`.

    It counts the batches of the run, steers the optimizers, and notes the rates that they hold
    themselves: only so is it known what a step used when another callback sets the rate between
    batches.

    Args:
        model: The model that a `fit` trains.
        bindings: The optimizers that are driven, with their curves.
        batches: Batches of the run that were trained before.
        scaled: Whether plateau callbacks scale a schedule.
        watched: Whether the rates of single batches are asked for.
        by_hand: Whether no `fit` runs: the callbacks are called around `train_on_batch`, or around
            a training loop that only the optimizers know of. Their counters are the clock then.
        after_batch: Called with the batches of this process and, on JAX, the training state.
    """

    def __init__(
        self,
        model: Any,
        bindings: list[Binding],
        *,
        batches: int,
        scaled: bool,
        watched: bool,
        by_hand: bool,
        after_batch: Callable[[int, Any], None],
    ) -> None:
        self.model = model
        self.bindings = bindings
        self.scales: np.ndarray | None = np.ones(len(bindings), np.float32) if scaled else None
        self.steers = any(each.steers or each.momentum is not None for each in bindings)
        self._first = batches
        self._done = 0  # in this process
        self._watched = watched
        self._by_hand = by_hand
        self._after_batch = after_batch
        self._rows: list[list[Any]] = []
        self._counts: list[list[int]] = []
        self._original: Any = None
        self._inner: Any = None

    @property
    def batches(self) -> int:
        """Batches that the run has trained."""
        return self._first + self._done

    def install(self) -> None:
        self._original = self.model.train_function
        if self.steers:
            for index, binding in enumerate(self.bindings):
                self._steer(index, binding)
        self.remake()

    def remove(self) -> None:
        for binding in self.bindings:
            binding.steered.release()
            binding.kept = None
        if self.model.train_function == self._call:
            self.model.train_function = self._original

    def remake(self) -> None:
        """Make the train function anew, to be traced again if it is steered."""
        self.model.train_function = self._original
        if self.steers:
            self._make()
        elif self._original is None:
            self.model.make_train_function()
        self._inner = self.model.train_function
        self.model.train_function = self._call

    def set_scales(self, scales: np.ndarray) -> None:
        self.scales = scales.astype(np.float32)

    def go_back(self, batches: int) -> None:
        """Count on from an earlier batch of the run."""
        self._done = batches - self._first

    def has_trained(self) -> bool:
        """Whether this process has trained a batch."""
        return self._done > 0

    def counted_in_graph(self) -> int | None:
        """Steps of this process that the graph itself has counted; None if it counts none."""
        return None

    def plain_function(self) -> Any:
        """The train function without the patch; None if none was made."""
        return self._original

    def keep_plain_function(self, function: Any) -> None:
        """Leave this one in place after the patch."""
        self._original = function

    def take_notes(self) -> tuple[np.ndarray, np.ndarray]:
        """What was noted since the last time: own rates and own counters, calls x optimizers."""
        rows, self._rows = self._rows, []
        counts, self._counts = self._counts, []
        shape = (len(rows), len(self.bindings))
        values = [[keras.ops.convert_to_numpy(value) for value in row] for row in rows]
        rates = np.array(values, np.float64).reshape(shape)
        return rates, np.array(counts, np.int64).reshape(shape)

    # For the backends

    def _call(self, data: Any) -> Any:
        """The train function while the patch is in place."""
        noted = self._note() if self._watched else None
        logs = self._train(data)
        self._keep(noted)
        self._after_batch(self._done, None)
        return logs

    def _train(self, data: Any) -> Any:
        logs = self._inner(data)
        self._done += self.model.steps_per_execution
        return logs

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        with ExitStack() as stack:
            for binding in self.bindings:
                stack.enter_context(binding.steered.in_step())
            yield

    def _note(self) -> tuple[list[Any], list[int]]:
        rates = [_copied(b.own_rate()) if b.own_counts else 1.0 for b in self.bindings]
        return rates, [b.counter() if _follows_counter(b) else 0 for b in self.bindings]

    def _keep(self, noted: Any) -> None:
        if noted is not None:
            self._rows.append(noted[0])
            self._counts.append(noted[1])

    def _steer(self, index: int, binding: Binding) -> None:
        if binding.steers:
            rate = SteeredRate(
                binding.own, self._reader(index, binding), binding.owner, binding.steered.updating
            )
            binding.steered.put(RATE, rate)
        if binding.momentum is not None:
            self._put_momentum(binding, binding.momentum)

    def _reader(self, index: int, binding: Binding) -> Callable[[], Any]:
        def read() -> Any:
            binding.kept = None  # an update begins with the rate
            update = binding.update_of(self._batches_in_graph(binding))
            return binding.rule.at(update, binding.own_update, binding.own_rate, self._scale(index))

        return read

    def _put_momentum(self, binding: Binding, momentum: Any) -> None:
        def read() -> Any:
            # An optimizer asks for each of its variables; the curve is computed for the first.
            trace = self._trace_of(binding) if binding.steers else None
            if trace is not None and binding.kept is not None and binding.kept[0] is trace:
                return binding.kept[1]
            update = binding.update_of(self._batches_in_graph(binding))
            value = ops.cast(momentum.at(update), "float32")
            binding.kept = None if trace is None else (trace, value)
            return value

        for name in momentum_names(binding.optimizer):
            base = float(getattr(binding.optimizer, name))
            binding.steered.put(name, SteeredMomentum(base, read))

    def _batches_in_graph(self, binding: Binding) -> Any:
        """Batches of the run, for the step that is traced or runs now."""
        return binding.counted_batches() if self._by_hand else self._clock()

    def _clock(self) -> Any:
        return self.batches

    def _trace_of(self, binding: Binding) -> Any:
        """What a tensor computed now can be used in again until the update is over, or None."""
        return None

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self.scales[index]

    def _make(self) -> None:
        """Make a train function that is traced anew."""
        _make_anew(self.model)


class TensorFlowPatch(TrainFunctionPatch):
    _variable: Any = None
    _count: Any = None

    @property
    def batches(self) -> int:
        # An execution of several steps may have been cut short by the end of the data.
        together = self.model.steps_per_execution > 1
        if self._count is not None and together:
            return int(number(self._count))
        return super().batches

    def install(self) -> None:
        # Only the graph knows how many of its steps an execution made.
        self.steers = self.steers or self.model.steps_per_execution > 1
        with self.model.distribute_strategy.scope():
            if self.steers:
                self._count = _counter(self._first)
            if self.scales is not None:
                self._variable = keras.Variable(self.scales, trainable=False, name="scales")
            super().install()

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._variable.assign(self.scales)

    def go_back(self, batches: int) -> None:
        super().go_back(batches)
        if self._count is not None:
            self._count.assign(batches)

    def counted_in_graph(self) -> int | None:
        return None if self._count is None else int(number(self._count)) - self._first

    def _make(self) -> None:
        own, count = self.model.train_step, self._count

        def step(data: Any) -> Any:
            with self._in_step():
                logs = own(data)
            count.assign_add(1)
            return logs

        with replaced(self.model, "train_step", step):
            _make_anew(self.model)

    def _clock(self) -> Any:
        return self._count.value

    def _trace_of(self, binding: Binding) -> Any:
        import tensorflow as tf

        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self._variable.value[index]


class JaxPatch(TrainFunctionPatch):
    _traced: Any = None
    _on_device: Any = None

    def install(self) -> None:
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError(
                "Callbacks of keras_lr steer Keras's own JAX trainer; got NNX. Disable it with "
                "keras.config.disable_nnx, or compile the model with a schedule."
            )
        self._places = _places(self.model, [each.own for each in self.bindings])
        counters = [
            batch_counter(b.optimizer) if _follows_counter(b) else None for b in self.bindings
        ]
        self._counter_places = _places(self.model, counters)
        self._carried: list[Any] = [None] * len(self.bindings)
        self._last: list[Any] = []
        super().install()

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._on_device = ops.convert_to_tensor(self.scales)  # once, and not with every batch

    def _make(self) -> None:
        # A new function each time: JAX caches a trace by the function, and would use the one of
        # the step as it was before.
        own = self.model.train_step

        def step(state: Any, data: Any) -> Any:
            self._traced, batch = data
            try:
                with self._in_step():
                    return own(state, batch)
            finally:
                self._traced = None

        with replaced(self.model, "train_step", step):
            _make_anew(self.model)
        if self.scales is not None:
            self.set_scales(self.scales)

    def _call(self, state: Any, data: Any) -> Any:  # type: ignore[override]
        noted = self._note_state(state) if self._watched else None
        logs, state = self._inner(state, self._counted(data))
        if noted is not None:
            self._keep(noted)
            self._carried = [None if at is None else state[at[0]][at[1]] for at in self._places]
        self._after_batch(self._done, state)
        return logs, state

    def _counted(self, batches: Any) -> Any:
        for batch in batches:
            clock = np.int32(self.batches)
            self._done += 1
            yield ((clock, self._on_device), batch) if self.steers else batch

    def _note_state(self, state: Any) -> tuple[list[Any], list[int]]:
        """The variables are in the state. One that came out of the last step is unchanged."""
        row = []
        for index, (binding, at) in enumerate(zip(self.bindings, self._places, strict=True)):
            if not binding.own_counts:
                row.append(1.0)
            elif at is None:
                row.append(number(binding.own_rate()))
            elif state[at[0]][at[1]] is self._carried[index]:
                row.append(self._last[index])
            else:
                row.append(float(state[at[0]][at[1]]))
        self._last = row
        counts = [0 if at is None else int(state[at[0]][at[1]]) for at in self._counter_places]
        return row, counts

    def _clock(self) -> Any:
        return self.batches if self._traced is None else self._traced[0]

    def _trace_of(self, binding: Binding) -> Any:
        import jax

        updates = batch_counter(binding.optimizer).value  # of all batches, where some accumulate
        return updates if isinstance(updates, jax.core.Tracer) else None

    def _scale(self, index: int) -> Any:
        if self.scales is None:
            return None
        return (self.scales if self._traced is None else self._traced[1])[index]


class TorchPatch(TrainFunctionPatch):
    """Eager torch: a table, and a count of batches on the host, so that no step waits for it."""

    def install(self) -> None:
        self._eager = not torch_compiles(self.model)
        self._tables = [_Table(self._values_of(i, b)) for i, b in enumerate(self.bindings)]
        self._momenta = [
            None if b.momentum is None else _Table(_momenta_of(b.momentum)) for b in self.bindings
        ]
        self._on_device: Any = None
        if not self._eager:
            self._on_device = ops.convert_to_tensor(self.batches, "int32")
        super().install()

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        for table in self._tables:
            table.forget()

    def _make(self) -> None:
        if self._eager:  # nothing is traced
            if self._original is None:
                self.model.make_train_function()
        else:
            super()._make()

    def _train(self, data: Any) -> Any:
        if self._on_device is not None:
            self._on_device.fill_(self.batches)
        elif not self._by_hand:
            for binding, table in zip(self.bindings, self._momenta, strict=True):
                if table is not None:
                    value = table.number_at(binding.update_of(self.batches), 0)
                    for name in momentum_names(binding.optimizer):
                        binding.steered.put(name, value)
        with self._in_step():
            return super()._train(data)

    def _steer(self, index: int, binding: Binding) -> None:
        super()._steer(index, binding)
        if not self._eager and binding.steers:  # what is compiled cannot ask who reads
            rate = SteeredRate(binding.own, self._reader(index, binding), binding.owner)
            binding.steered.put(RATE, rate)

    def _reader(self, index: int, binding: Binding) -> Callable[[], Any]:
        if not self._eager:
            return super()._reader(index, binding)
        table, follows = self._tables[index], _follows_counter(binding)

        def read() -> Any:
            batches = int(binding.counted_batches()) if self._by_hand else self.batches
            update = binding.update_of(batches)
            ahead = binding.counter() // binding.every - update if follows else 0
            value = table.tensor_at(update, ahead)
            if not binding.own_counts:
                return value
            if self.scales is None or binding.settable:
                return value * binding.own_rate()
            return binding.rule.at(update, None, binding.own_rate, self._scale(index))

        return read

    def _values_of(self, index: int, binding: Binding) -> Callable[[np.ndarray, int], np.ndarray]:
        """The rates of a block of updates, those that multiply the own variable included."""

        def values(updates: np.ndarray, ahead: int) -> np.ndarray:
            scale = None if self.scales is None else float(self.scales[index])
            return binding.rule.values(updates, updates + ahead, 1.0, scale)

        return values

    def _put_momentum(self, binding: Binding, momentum: Any) -> None:
        if self._by_hand or not self._eager:
            super()._put_momentum(binding, momentum)

    def _clock(self) -> Any:
        return self.batches if self._on_device is None else self._on_device

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else float(self.scales[index])


class _Table:
    """The values of a curve, computed a block at a time.

    Args:
        values: Given updates of the run, and by how much the optimizer's own count is ahead.
    """

    def __init__(self, values: Callable[[np.ndarray, int], np.ndarray]) -> None:
        self._compute = values
        self.forget()

    def forget(self) -> None:
        """Compute the values anew when they are asked for."""
        self._first, self._ahead = 0, 0
        self._values: np.ndarray = np.empty(0)
        self._tensor: Any = None

    def tensor_at(self, update: int, ahead: int) -> Any:
        index = self._index(update, ahead)
        return self._tensor[index]

    def number_at(self, update: int, ahead: int) -> float:
        index = self._index(update, ahead)
        return float(self._values[index])

    def _index(self, update: int, ahead: int) -> int:
        index = update - self._first
        if not 0 <= index < len(self._values) or ahead != self._ahead:
            self._values = self._compute(np.arange(update, update + _BLOCK), ahead)
            self._tensor = ops.convert_to_tensor(self._values, "float32")
            self._first, self._ahead, index = update, ahead, 0
        return index


def _momenta_of(momentum: Any) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda updates, ahead: momentum.values(updates)


def _follows_counter(binding: Binding) -> bool:
    """Whether the rate depends on the optimizer's own count, and that may differ from the run's.

    A loss-scale optimizer skips updates, and a custom training step may make any number.
    """
    schedule = binding.rule.schedule
    return schedule is not None and schedule.own


def _make_anew(model: Any) -> None:
    """Make the train function; some models override the method without Keras's argument."""
    parameters = inspect.signature(model.make_train_function).parameters
    if "force" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        model.make_train_function(force=True)
    else:
        model.train_function = None
        model.make_train_function()


def _counter(value: int) -> Any:
    """A variable that every replica reads and one of them counts."""
    return keras.Variable(
        value, dtype="int32", trainable=False, aggregation="only_first_replica", name="batches"
    )


def gains_from_threads(model: Any) -> bool:
    """Whether Keras should hand the end of each batch to a thread, as it does by default.

    That keeps an accelerator busy, and costs more than it gains where a step is short and runs
    on the host: on a small model it is half of the step.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return any(v.value.device.type != "cpu" for v in model.trainable_variables[:1])
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu" or len(model.trainable_variables) > _SMALL
    return False


def place_in_state(model: Any, variable: Any) -> tuple[int, int] | None:
    """Where a variable stands in the state that JAX's train function carries; None if nowhere."""
    optimizer = getattr(model, "optimizer", None)
    parts = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables if optimizer is not None else [],
        model.metrics_variables,
    )
    for part, variables in enumerate(parts):
        for place, each in enumerate(variables):
            if each is variable:
                return part, place
    return None


def _places(model: Any, variables: list[Any]) -> list[tuple[int, int] | None]:
    return [None if each is None else place_in_state(model, each) for each in variables]


def _copied(value: Any) -> Any:
    """A number; on torch, a tensor that nobody assigns to, so that no device is waited for."""
    return value.clone() if hasattr(value, "clone") else number(value)


def make_patch(model: Any, bindings: list[Binding], **options: Any) -> TrainFunctionPatch:
    backend = keras.backend.backend()
    patches = {"tensorflow": TensorFlowPatch, "jax": JaxPatch, "torch": TorchPatch}
    if backend not in patches:
        raise RuntimeError(
            f"Callbacks of keras_lr steer tensorflow, jax or torch; the Keras backend is "
            f"{backend!r}. Set KERAS_BACKEND before Keras is imported."
        )
    return patches[backend](model, bindings, **options)
