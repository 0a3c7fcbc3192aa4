"""How each backend's train function is made to follow curves. Nothing else asks which it is.

TensorFlow and JAX compute the curves in the graph of the training step, from the optimizer's own
counter: nothing runs between two batches, a step inside `steps_per_execution` gets its own rate,
and a resumed run continues by itself. Eager torch would pay for every operation of a curve, so
it looks up a table, made a block at a time from the same curve.

The plateau's scales change while a compiled graph is in use. They enter it as a variable on
TensorFlow, and beside the batch on JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr.steering.optimizers import (
    Steered,
    SteeredMomentum,
    SteeredRate,
    momentum_names,
    number,
)
from keras_lr.steering.rule import Course

_BLOCK = 256
_SMALL = 64  # variables


class Leaf:
    """A driven optimizer and what this run makes of its rate and momentum.

    Args:
        optimizer: See `driven_optimizers`.
        start: Updates that it had done when the run began.
        course: The curves of its rate, in updates of the optimizer.
        momentum: The curve of its momentum, or None to leave that alone.
        owner: Name of the callback whose schedule takes the place of the optimizer's own rate;
            None if none does.
        steers: Whether the rate is steered at all; if not, the optimizer sees to it itself.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        start: int,
        course: Course,
        momentum: Course | None,
        owner: str | None,
        steers: bool,
    ) -> None:
        self.optimizer = optimizer
        self.start = start
        self.course = course
        self.momentum = momentum
        self.owner = owner
        self.steers = steers
        self.own = optimizer._learning_rate
        self.steered = Steered(optimizer)
        self.kept: tuple[Any, Any] | None = None

    @property
    def own_counts(self) -> bool:
        """Whether the optimizer's own variable is a factor of the rate."""
        schedule = keras.optimizers.schedules.LearningRateSchedule
        return self.owner is None and not isinstance(self.own, schedule)

    @property
    def settable(self) -> bool:
        """Whether that variable can be set, not only read."""
        return self.own_counts and hasattr(self.own, "assign")

    def own_rate(self) -> Any:
        """The value of that variable (or of the callable that stands there)."""
        return self.own.value if hasattr(self.own, "value") else self.own()

    def rate(self, course: Any, scale: Any) -> Any:
        """The composition rule, for whoever has the product of the curves at hand."""
        rate = course if scale is None else course * scale
        return rate * self.own_rate() if self.own_counts else rate


class Rig:
    """Steers a model's train function from `install` to `remove`."""

    def __init__(self, model: Any, leaves: list[Leaf], scaled: bool) -> None:
        self.model = model
        self.leaves = leaves
        self.scales: np.ndarray | None = np.ones(len(leaves), np.float32) if scaled else None
        self._train_function: Any = None
        self._installed: Any = None

    def install(self) -> None:
        self._train_function = self.model.train_function
        for index, leaf in enumerate(self.leaves):
            if leaf.steers:
                read = self._reader(index, leaf)
                leaf.steered.put("_learning_rate", SteeredRate(leaf.own, read, leaf.owner))
            if leaf.momentum is not None:
                self._put_momentum(leaf, leaf.momentum)
        self._make()
        self._installed = self.model.train_function

    def remove(self) -> None:
        for leaf in self.leaves:
            leaf.steered.release()
            leaf.kept = None
        if self.model.train_function is self._installed:
            self.model.train_function = self._train_function

    def remake(self) -> None:
        """Make the train function anew, to be traced again."""
        self._make()
        self._installed = self.model.train_function

    def set_scales(self, scales: np.ndarray) -> None:
        self.scales = scales

    def recount(self) -> None:
        """Take note that an optimizer's counter was set."""

    def _reader(self, index: int, leaf: Leaf) -> Callable[[], Any]:
        def read() -> Any:
            leaf.kept = None  # an update begins with the rate
            return leaf.rate(leaf.course.at(leaf.optimizer.iterations), self._scale(index))

        return read

    def _put_momentum(self, leaf: Leaf, momentum: Course) -> None:
        def read() -> Any:
            # An optimizer asks for each of its variables; the curve is computed for the first.
            trace = self._trace_of(leaf) if leaf.steers else None
            if trace is not None and leaf.kept is not None and leaf.kept[0] is trace:
                return leaf.kept[1]
            value = ops.cast(momentum.at(leaf.optimizer.iterations), "float32")
            leaf.kept = None if trace is None else (trace, value)
            return value

        for name in momentum_names(leaf.optimizer):
            base = float(getattr(leaf.optimizer, name))
            leaf.steered.put(name, SteeredMomentum(base, read))

    def _trace_of(self, leaf: Leaf) -> Any:
        """What a tensor computed now can be used in again until the update is over, or None."""
        return None

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self.scales[index]

    def _make(self) -> None:
        """Make a train function that is traced anew."""
        self.model.make_train_function(force=True)


class TensorFlowRig(Rig):
    def install(self) -> None:
        with self.model.distribute_strategy.scope():
            if self.scales is not None:
                self._variable = keras.Variable(self.scales, trainable=False, name="scales")
            super().install()

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._variable.assign(scales)

    def _trace_of(self, leaf: Leaf) -> Any:
        import tensorflow as tf

        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self._variable.value[index]


class JaxRig(Rig):
    _traced: Any = None
    _on_device: Any = None

    def _make(self) -> None:
        # A new function each time: JAX caches a trace by the function, and would use the one of
        # the step as it was before.
        model, own = self.model, self.model.train_step
        instance = vars(model).get("train_step")

        def step(state: Any, data: Any) -> Any:
            return own(state, data)

        def scaled_step(state: Any, data: Any) -> Any:
            self._traced, batch = data
            try:
                return own(state, batch)
            finally:
                self._traced = None

        object.__setattr__(model, "train_step", step if self.scales is None else scaled_step)
        try:
            model.make_train_function(force=True)
        finally:
            object.__delattr__(model, "train_step")
            if instance is not None:
                object.__setattr__(model, "train_step", instance)
        if self.scales is not None:
            self.set_scales(self.scales)
            inner = model.train_function
            model.train_function = lambda state, data: inner(state, self._with_scales(data))

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._on_device = ops.convert_to_tensor(scales)  # once, and not with every batch

    def _with_scales(self, batches: Any) -> Any:
        for batch in batches:
            yield self._on_device, batch

    def _trace_of(self, leaf: Leaf) -> Any:
        import jax

        updates = leaf.optimizer._iterations.value  # of all batches, where some accumulate
        return updates if isinstance(updates, jax.core.Tracer) else None

    def _scale(self, index: int) -> Any:
        if self.scales is None:
            return None
        return (self.scales if self._traced is None else self._traced)[index]


class TorchRig(Rig):
    """Eager torch: a table, and a count of batches on the host, so that no step waits for it.

    A loss-scale optimizer skips updates whose gradients overflow. It has waited for the answer
    by then, and its counter can be read at no further cost.
    """

    def install(self) -> None:
        self._eager = not self.model._should_torch_compile()
        self._reads_counter = hasattr(self.model.optimizer, "inner_optimizer")
        if self._eager:
            self._clocks = [_Clock(leaf.optimizer) for leaf in self.leaves]
            self._tables = [_Table(leaf.course) for leaf in self.leaves]
            self._momenta = [_Table(leaf.momentum) for leaf in self.leaves]
        super().install()

    def remake(self) -> None:
        if not self._eager:  # where nothing is traced there is nothing to do
            super().remake()

    def recount(self) -> None:
        for clock in self._clocks if self._eager else []:
            clock.read()

    def _reader(self, index: int, leaf: Leaf) -> Callable[[], Any]:
        if not self._eager:
            return super()._reader(index, leaf)
        clock, table = self._clocks[index], self._tables[index]
        return lambda: leaf.rate(table.tensor_at(clock.update), self._scale(index))

    def _put_momentum(self, leaf: Leaf, momentum: Course) -> None:
        if not self._eager:
            super()._put_momentum(leaf, momentum)

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else float(self.scales[index])

    def _make(self) -> None:
        if not self._eager:
            super()._make()
            return
        inner = self.model.train_function
        steered = [
            (leaf, clock, table, momentum_names(leaf.optimizer))
            for leaf, clock, table in zip(self.leaves, self._clocks, self._momenta, strict=True)
            if leaf.momentum is not None
        ]

        def train_function(data: Any) -> Any:
            for leaf, clock, table, names in steered:
                value = table.number_at(clock.update)
                for name in names:
                    leaf.steered.put(name, value)
            logs = inner(data)
            for clock in self._clocks:
                if self._reads_counter:
                    clock.read()
                else:
                    clock.tick()
            return logs

        self.model.train_function = train_function


class _Clock:
    """Counts an optimizer's batches on the host."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._every = optimizer.gradient_accumulation_steps or 1
        self.read()

    def read(self) -> None:
        self._batches = int(self._optimizer._iterations.value)
        self.update = self._batches // self._every

    def tick(self) -> None:
        self._batches += 1
        self.update = self._batches // self._every


class _Table:
    """The values of a course, computed a block at a time."""

    def __init__(self, course: Course | None) -> None:
        self._course = course
        self._first = 0
        self._values: np.ndarray = np.empty(0)
        self._tensor: Any = None

    def tensor_at(self, update: int) -> Any:
        index = self._index(update)
        return self._tensor[index]

    def number_at(self, update: int) -> float:
        index = self._index(update)
        return float(self._values[index])

    def _index(self, update: int) -> int:
        index = update - self._first
        if not 0 <= index < len(self._values):
            assert self._course is not None  # noqa: S101
            self._values = self._course.values(np.arange(update, update + _BLOCK))
            self._tensor = ops.convert_to_tensor(self._values, "float32")
            self._first, index = update, 0
        return index


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


class OwnRates:
    """Notes the rate that each optimizer holds itself, at each call of the train function.

    Only so is it known what a step used when another callback sets the rate between batches.
    """

    def __init__(self, model: Any, leaves: list[Leaf]) -> None:
        self._model = model
        self._leaves = leaves
        self._rows: list[list[Any]] = []
        jax = keras.backend.backend() == "jax"
        self._outer = self._watch_state if jax else self._watch
        self._places = _places(model, leaves) if jax else []
        self._carried: list[Any] = [None] * len(leaves)
        self._last: list[Any] = []
        self.install()

    def install(self) -> None:
        """Stand before the model's train function."""
        self._inner = self._model.train_function
        self._model.train_function = self._outer

    def take(self) -> np.ndarray:
        """What was noted since the last time, calls x optimizers."""
        rows, self._rows = self._rows, []
        values = [[keras.ops.convert_to_numpy(value) for value in row] for row in rows]
        return np.array(values, np.float64).reshape(len(rows), len(self._leaves))

    def remove(self) -> None:
        if self._model.train_function == self._outer:
            self._model.train_function = self._inner

    def _watch(self, data: Any) -> Any:
        row = [_copied(leaf.own_rate()) if leaf.own_counts else 1.0 for leaf in self._leaves]
        logs = self._inner(data)
        self._rows.append(row)
        return logs

    def _watch_state(self, state: Any, data: Any) -> Any:
        """JAX: the variables are in the state. One that came out of the last step is unchanged."""
        row = []
        for index, place in enumerate(self._places):
            if place is None:
                row.append(1.0)
            elif state[2][place] is self._carried[index]:
                row.append(self._last[index])
            else:
                row.append(float(state[2][place]))
        logs, state = self._inner(state, data)
        self._last = row
        self._rows.append(row)
        self._carried = [None if place is None else state[2][place] for place in self._places]
        return logs, state


def _places(model: Any, leaves: list[Leaf]) -> list[int | None]:
    """Where each optimizer's own rate stands among the variables of the model's optimizer."""
    places: dict[int, int] = {id(v): place for place, v in enumerate(model.optimizer.variables)}
    return [places.get(id(leaf.own)) if leaf.own_counts else None for leaf in leaves]


def _copied(value: Any) -> Any:
    """A number; on torch, a tensor that nobody assigns to, so that no device is waited for."""
    return value.clone() if hasattr(value, "clone") else number(value)


def make_rig(model: Any, leaves: list[Leaf], scaled: bool) -> Rig:
    backend = keras.backend.backend()
    rigs = {"tensorflow": TensorFlowRig, "jax": JaxRig, "torch": TorchRig}
    if backend not in rigs:
        raise RuntimeError(
            f"Callbacks of keras_lr steer tensorflow, jax or torch; the Keras backend is "
            f"{backend!r}. Set KERAS_BACKEND before Keras is imported."
        )
    return rigs[backend](model, leaves, scaled)
