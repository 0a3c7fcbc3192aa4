"""JAX: the compiled training step computes the curves, from a count that enters beside the batch.

So each step inside `steps_per_execution` gets its own rate. The scales of plateau callbacks, which
change while the compiled step is in use, and the ticks of time budgets enter beside the batch too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._keras.optimizers import batch_counter, number
from keras_lr._util.patching import replaced
from keras_lr.steering.backends.base import TrainFunctionPatch, follows_counter, make_anew
from keras_lr.steering.binding import Binding


class JaxPatch(TrainFunctionPatch):
    _traced: Any = None
    _on_device: Any = None
    _ticks_on_device: Any = None

    def install(self) -> None:
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError(
                "Callbacks of keras_lr need Keras's own JAX trainer; got NNX. Disable it with "
                "keras.config.disable_nnx, or compile the model with a schedule."
            )
        self._places = _places(self.model, [each.own for each in self.bindings])
        counters = [
            batch_counter(b.optimizer) if follows_counter(b) else None for b in self.bindings
        ]
        self._counter_places = _places(self.model, counters)
        self._carried: list[Any] = [None] * len(self.bindings)
        self._last: list[Any] = []
        super().install()
        if self._clocks:
            self._set_ticks(self._ticks)

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        self._on_device = ops.convert_to_tensor(self.scales)  # once, not with every batch

    def _set_ticks(self, ticks: np.ndarray) -> None:
        super()._set_ticks(ticks)
        self._ticks_on_device = ops.convert_to_tensor(ticks)

    def _make(self) -> None:
        # A new function each time: JAX caches traces by function, and would reuse the trace of the
        # earlier step.
        own, holder = self.model.train_step, self._holder

        def step(state: Any, data: Any) -> Any:
            patch = holder.patch
            patch._traced, batch = data
            try:
                with patch._in_step():
                    return own(state, batch)
            finally:
                patch._traced = None

        with replaced(self.model, "train_step", step):
            make_anew(self.model)

    def _call(self, state: Any, data: Any) -> Any:  # type: ignore[override]
        self._read_clocks()
        noted = self._note_state(state) if self._watched else None
        logs, state = self._inner(state, self._counted(data))
        self._clocks.start()
        if noted is not None:
            self._keep(noted)
            self._carried = [None if at is None else state[at[0]][at[1]] for at in self._places]
        self._after_batch(self._done, state)
        return logs, state

    def _counted(self, batches: Any) -> Any:
        for batch in batches:
            clock = np.int32(self.batches)
            self._done += 1
            yield ((clock, self._on_device, self._ticks_on_device), batch) if self.steers else batch

    def _note_state(self, state: Any) -> tuple[list[Any], list[int]]:
        """The variables are in the state; one that the last step returned is unchanged."""
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

    def _put_attribute(self, binding: Binding, name: str, at: Callable[[Any], Any]) -> None:
        if name == "clipvalue":  # `jnp.clip` takes it without a conversion
            raise ValueError(
                "On JAX the clipvalue of an optimizer of Keras must be a number; got a schedule. "
                "Schedule clipnorm or global_clipnorm instead."
            )
        super()._put_attribute(binding, name, at)

    def _clock(self) -> Any:
        return self.batches if self._traced is None else self._traced[0]

    def _trace_of(self, binding: Binding) -> Any:
        import jax

        updates = batch_counter(binding.optimizer).value  # counts all batches
        return updates if isinstance(updates, jax.core.Tracer) else None

    def _all_ticks(self) -> Any:
        return self._ticks if self._traced is None else self._traced[2]

    def _scale(self, index: int) -> Any:
        if self.scales is None:
            return None
        return (self.scales if self._traced is None else self._traced[1])[index]


def place_in_state(model: Any, variable: Any) -> tuple[int, int] | None:
    """Position of a variable in the state of JAX's train function; None if it is not there."""
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
