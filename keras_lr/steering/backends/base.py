"""The patched train function: it counts batches, and makes the optimizers follow their curves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._keras.optimizers import RATE, number
from keras_lr.steering.backends.kept_step import (
    Holder,
    KeptStep,
    compiled_from,
    described,
    keep_step,
    kept_step,
)
from keras_lr.steering.binding import Binding, SteeredAttribute, SteeredRate
from keras_lr.steering.clock import Budget, Clocks
from keras_lr.steering.composition import Factor
from keras_lr.steering.dependencies import includes_objects

DECAY = "weight_decay"


class TrainFunctionPatch:
    """Replaces a model's train function from `install` to `remove`, and calls it.

    It counts the batches of the run, makes the optimizers follow their curves, and notes the
    value of each optimizer's variable before each batch, which another callback may change
    between batches.

    Args:
        model: The model that a `fit` trains.
        bindings: The steered optimizers with their curves.
        optimizers: All optimizers of the model.
        batches: Batches of the run that an earlier process has trained.
        scaled: Whether plateau callbacks scale a schedule.
        watched: Whether a callback reads the rates of single batches.
        clocks: The clocks of the time budgets that the curves follow.
        by_hand: Whether a loop of the user calls the callbacks, around `train_on_batch` or around
            its own steps. Then the optimizers' counters count the batches.
        keeps: Whether the compiled step may serve another fit: a callback may change what it
            computes.
        after_batch: Called with the batches of this process and, on JAX, the training state.
    """

    def __init__(
        self,
        model: Any,
        bindings: list[Binding],
        *,
        optimizers: list[Any],
        batches: int,
        scaled: bool,
        watched: bool,
        clocks: Clocks,
        by_hand: bool,
        keeps: bool,
        after_batch: Callable[[int, Any], None],
    ) -> None:
        self.model = model
        self.bindings = bindings
        self._optimizers = optimizers
        self.scales: np.ndarray | None = np.ones(len(bindings), np.float32) if scaled else None
        self.steers = any(each.steers or each.attribute_curves for each in bindings)
        self._first = batches
        self._done = 0  # in this process
        self._watched = watched
        self._clocks = clocks
        self._ticks = np.zeros(len(clocks.budgets), np.int32)
        self._by_hand = by_hand
        self._keeps = keeps and self.compiles and not by_hand
        self._after_batch = after_batch
        # For each binding, an entry per call.
        self._noted_rates: list[list[Any]] = [[] for _ in bindings]
        self._noted_counts: list[list[int]] = [[] for _ in bindings]
        self._original: Any = None
        self._inner: Any = None
        self._holder = Holder(self)
        self._compiled: list[Any] = []
        self._curves: Any = None

    @property
    def batches(self) -> int:
        """Batches that the run has trained."""
        return self._first + self._done

    def install(self) -> None:
        """Replace the train function, and the rates and the attributes of the optimizers."""
        self._original = self.model.train_function
        if self.steers:
            if self._keeps:
                scaled = self.scales is not None
                self._curves = described(self.model, self._optimizers, self.bindings, scaled)
            if self._curves is not None:
                self._compiled = self._compiled_from()
            for index, binding in enumerate(self.bindings):
                self._steer(index, binding)
        kept = None
        if self._curves is not None:
            kept = kept_step(self.model, self._compiled, self._curves)
        if kept is not None:
            self._go_on_with(kept)
        else:
            self.remake()
        if self.scales is not None:
            self.set_scales(self.scales)

    def remove(self) -> None:
        """Restore the train function and the optimizers; keep a compiled step."""
        for binding in self.bindings:
            binding.attributes.release()
            binding.kept.clear()
        if self.model.train_function == self._call:
            self.model.train_function = self._original
            self._holder.patch = None
            self._keep_step()

    def remake(self) -> None:
        """Make the train function again; if it is steered, Keras traces it again."""
        self.model.train_function = self._original
        if self.steers:
            self._make()
        elif self._original is None:
            self.model.make_train_function()
        self._inner = self.model.train_function
        self.model.train_function = self._call

    def set_scales(self, scales: np.ndarray) -> None:
        """Scale the schedules in the updates to come; one scale per binding."""
        self.scales = scales.astype(np.float32)

    def go_back(self, batches: int) -> None:
        """Continue to count from an earlier batch of the run."""
        self._done = batches - self._first

    def has_trained(self) -> bool:
        """Whether this process has trained a batch."""
        return self._done > 0

    def counted_in_graph(self) -> int | None:
        """Steps of this process that the graph has counted; None if it does not count."""
        return None

    def plain_function(self) -> Any:
        """The train function without the patch; None if none was made."""
        return self._original

    def keep_plain_function(self, function: Any) -> None:
        """Restore this function in `remove`."""
        self._original = function

    def take_notes(self, place: slice) -> tuple[np.ndarray, np.ndarray]:
        """The variables and the counters of some bindings at the calls since the last time.

        Returns:
            Two arrays, calls x bindings.
        """
        rates, counts = [], []
        for index in range(len(self.bindings))[place]:
            noted, self._noted_rates[index] = self._noted_rates[index], []
            values = [keras.ops.convert_to_numpy(value) for value in noted]
            rates.append(np.array(values, np.float64).reshape(len(values)))
            counts.append(np.array(self._noted_counts[index], np.int64))
            self._noted_counts[index] = []
        return np.stack(rates, axis=1), np.stack(counts, axis=1)

    def _keep_step(self) -> None:
        """Keep the compiled step, if it has trained and the model was not changed meanwhile."""
        if self._curves is None or not self.has_trained():
            return
        now = self._compiled_from()
        if includes_objects(now, self._compiled):  # the first step may create variables
            keep_step(
                self.model,
                KeptStep(self._inner, self._holder, self._step_state(), now, self._curves),
            )

    def _compiled_from(self) -> list[Any]:
        return compiled_from(self.model, self._optimizers, self.bindings)

    def _go_on_with(self, kept: KeptStep) -> None:
        """Train with a kept step in place of a new one."""
        self._holder = kept.holder
        self._holder.patch = self
        self._inner = kept.function
        self._take_state(kept.state)
        self.model.train_function = self._call

    # For the backends

    compiles = True  # whether Keras compiles the step, and so it is worth keeping

    def _step_state(self) -> dict[str, Any]:
        """Variables that the compiled step reads."""
        return {}

    def _take_state(self, state: dict[str, Any]) -> None:
        """Use the variables of a kept step, from the first batch of this run on."""

    def _call(self, data: Any) -> Any:
        """The train function while the patch is in place."""
        self._read_clocks()
        noted = self._note() if self._watched else None
        logs = self._train(data)
        self._clocks.start()
        self._keep(noted)
        self._after_batch(self._done, None)
        return logs

    def _train(self, data: Any) -> Any:
        logs = self._inner(data)
        self._done += self.model.steps_per_execution
        return logs

    def _read_clocks(self) -> None:
        if self._clocks:
            ticks = self._clocks.read(self.batches)
            if (ticks != self._ticks).any():
                self._set_ticks(ticks)

    def _set_ticks(self, ticks: np.ndarray) -> None:
        self._ticks = ticks

    def _ticks_in_graph(self, budget: Budget) -> Any:
        """The ticks of a time budget, for the step that is traced or that runs now."""
        return self._all_ticks()[self._clocks.budgets.index(budget)]

    def _all_ticks(self) -> Any:
        return self._ticks

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        with ExitStack() as stack:
            for binding in self.bindings:
                stack.enter_context(binding.attributes.in_step())
            yield

    def _note(self) -> tuple[list[Any], list[int]]:
        rates = [_copied(b.own_rate()) if b.own_counts else 1.0 for b in self.bindings]
        return rates, [b.counter() if follows_counter(b) else 0 for b in self.bindings]

    def _keep(self, noted: Any) -> None:
        if noted is not None:
            for index, (rate, count) in enumerate(zip(*noted, strict=True)):
                self._noted_rates[index].append(rate)
                self._noted_counts[index].append(count)

    def _steer(self, index: int, binding: Binding) -> None:
        if binding.steers:
            rate = SteeredRate(
                binding.own,
                self._reader(index, binding),
                binding.owner,
                binding.attributes.updating,
            )
            binding.attributes.put(RATE, rate)
        for name, curve in binding.attribute_curves.items():
            self._put_attribute(binding, name, self._curve_at(curve))
        if binding.decay_product is not None:
            read = self._reader(index, binding)
            self._put_attribute(binding, DECAY, lambda update: binding.coupled_decay(read()))

    def _reader(self, index: int, binding: Binding) -> Callable[[], Any]:
        def read() -> Any:
            update = self.update_in_graph(binding)
            return binding.rule.at(
                update,
                binding.own_update,
                binding.own_rate,
                self._scale(index),
                self._ticks_in_graph,
            )

        return read

    def _curve_at(self, curve: Factor) -> Callable[[Any], Any]:
        return lambda update: curve.at(update, self._ticks_in_graph)

    def _put_attribute(self, binding: Binding, name: str, at: Callable[[Any], Any]) -> None:
        """Replace an attribute by its value at each update, a function of the count of updates."""

        def read() -> Any:
            # An optimizer reads it for each of its variables; the first read of an update computes
            # the curve.
            trace, kept = self._trace_of(binding), binding.kept.get(name)
            if trace is not None and kept is not None and kept[0] is trace:
                return kept[1]
            update = self.update_in_graph(binding)
            value = ops.cast(at(update), "float32")
            if trace is not None:
                binding.kept[name] = trace, value
            return value

        base = float(getattr(binding.optimizer, name))
        binding.attributes.put(name, SteeredAttribute(base, read))

    def update_in_graph(self, binding: Binding) -> Any:
        """Updates of the run, for the step that is traced or that runs now."""
        return binding.update_of(self._batches_in_graph(binding))

    def _batches_in_graph(self, binding: Binding) -> Any:
        """Batches of the run, for the step that is traced or that runs now."""
        return binding.counted_batches() if self._by_hand else self._clock()

    def _clock(self) -> Any:
        return self.batches

    def _trace_of(self, binding: Binding) -> Any:
        """The trace in which a tensor can be reused until the update is over, or None."""
        return None

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else self.scales[index]

    def _make(self) -> None:
        """Make a train function that Keras traces again."""
        make_anew(self.model)


def follows_counter(binding: Binding) -> bool:
    """Whether the rate depends on the optimizer's own count, which may differ from the run's.

    A loss-scale optimizer skips updates, and a custom training step may make any number of them.
    """
    schedule = binding.rule.schedule
    return schedule is not None and schedule.own


def make_anew(model: Any) -> None:
    """Make the train function; some models override the method without the argument `force`."""
    parameters = inspect.signature(model.make_train_function).parameters
    if "force" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        model.make_train_function(force=True)
    else:
        model.train_function = None
        model.make_train_function()


def _copied(value: Any) -> Any:
    """A number; on torch a copy of the tensor, which needs no wait for the device."""
    return value.clone() if hasattr(value, "clone") else number(value)
