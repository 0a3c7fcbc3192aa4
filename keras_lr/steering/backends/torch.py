"""torch: each step looks its rate up in a table, which is made a block at a time from the curve.

Eager torch would run every operation of a curve again at each step. If Keras compiles the step
(`jit_compile`), the compiled step computes the curves from a count on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from keras_lr._keras.optimizers import RATE
from keras_lr._keras.trainer import torch_compiles
from keras_lr.schedules.base import Curve
from keras_lr.steering.backends.base import DECAY, TrainFunctionPatch, follows_counter
from keras_lr.steering.binding import Binding, SteeredRate
from keras_lr.steering.clock import Budget
from keras_lr.steering.composition import Factor, RateRule
from keras_lr.steering.value_table import ValueTable


class TorchPatch(TrainFunctionPatch):
    """Counts batches on the host, so that no step waits for the device."""

    compiles = False  # or only by torch.compile, which keeps its own cache

    def install(self) -> None:
        self._eager = not torch_compiles(self.model)
        self._tables = [ValueTable(self._values_of(i, b)) for i, b in enumerate(self.bindings)]
        self._attribute_tables = [
            {name: ValueTable(_values_of(curve)) for name, curve in b.attribute_curves.items()}
            for b in self.bindings
        ]
        self._timed_rules = [_tabulated(each.rule) for each in self.bindings]
        self._on_device: Any = None
        self._ticks_on_device: Any = None
        if not self._eager and self._clocks:
            self._ticks_on_device = ops.convert_to_tensor(self._ticks)
        if not self._eager:
            self._on_device = ops.convert_to_tensor(self.batches, "int32")
        super().install()

    def set_scales(self, scales: np.ndarray) -> None:
        super().set_scales(scales)
        for table in self._tables:
            table.forget()

    def _make(self) -> None:
        for table in self._tables:
            table.forget()  # the schedule may have been replaced
        self._timed_rules = [_tabulated(each.rule) for each in self.bindings]
        if self._eager:  # nothing is traced
            if self._original is None:
                self.model.make_train_function()
        else:
            super()._make()

    def _train(self, data: Any) -> Any:
        if self._on_device is not None:
            self._on_device.fill_(self.batches)
        elif not self._by_hand:
            for index, binding in enumerate(self.bindings):
                update = binding.update_of(self.batches)
                for name, table in self._attribute_tables[index].items():
                    budget = binding.attribute_curves[name].budget
                    count = update if budget is None else int(self._ticks_in_graph(budget))
                    binding.attributes.put(name, table.number_at(count, 0))
                if binding.decay_product is not None:
                    rate = self._number_at(index, update, 0)
                    binding.attributes.put(DECAY, float(binding.coupled_decay(rate)))
        with self._in_step():
            return super()._train(data)

    def _steer(self, index: int, binding: Binding) -> None:
        super()._steer(index, binding)
        if not self._eager and binding.steers:  # a compiled step cannot tell who reads
            rate = SteeredRate(binding.own, self._reader(index, binding), binding.owner)
            binding.attributes.put(RATE, rate)

    def _reader(self, index: int, binding: Binding) -> Callable[[], Any]:
        if not self._eager:
            return super()._reader(index, binding)
        table, follows = self._tables[index], follows_counter(binding)

        def read() -> Any:
            batches = int(binding.counted_batches()) if self._by_hand else self.batches
            update = binding.update_of(batches)
            ahead = binding.counter() // binding.every - update if follows else 0
            if binding.rule.budgets:
                value = ops.convert_to_tensor(self._number_at(index, update, ahead), "float32")
            else:
                value = table.tensor_at(update, ahead)
            if not binding.own_counts:
                return value
            if self.scales is None or binding.settable:
                return value * binding.own_rate()
            return binding.rule.at(
                update, None, binding.own_rate, self._scale(index), self._ticks_in_graph
            )

        return read

    def _number_at(self, index: int, update: int, ahead: int) -> float:
        """What the table of the binding holds for an update; it cannot foresee a time budget."""
        rule = self._timed_rules[index]
        if rule is None:
            return self._tables[index].number_at(update, ahead)
        scale = None if self.scales is None else float(self.scales[index])
        now = np.array([update])
        return float(rule.values(now, now + ahead, 1.0, scale, self._ticks_now)[0])

    def _ticks_now(self, budget: Budget) -> np.ndarray:
        return np.array([self._ticks_in_graph(budget)])

    def _values_of(self, index: int, binding: Binding) -> Callable[[np.ndarray, int], np.ndarray]:
        """The rates of a block of updates; for an optimizer's variable, the factors on it."""

        def values(updates: np.ndarray, ahead: int) -> np.ndarray:
            scale = None if self.scales is None else float(self.scales[index])
            return binding.rule.values(updates, updates + ahead, 1.0, scale)

        return values

    def _put_attribute(self, binding: Binding, name: str, at: Callable[[Any], Any]) -> None:
        if self._by_hand or not self._eager:
            super()._put_attribute(binding, name, at)

    def _set_ticks(self, ticks: np.ndarray) -> None:
        super()._set_ticks(ticks)
        if self._ticks_on_device is not None:
            self._ticks_on_device.copy_(ops.convert_to_tensor(ticks))

    def _all_ticks(self) -> Any:
        return self._ticks if self._ticks_on_device is None else self._ticks_on_device

    def _clock(self) -> Any:
        return self.batches if self._on_device is None else self._on_device

    def _scale(self, index: int) -> Any:
        return None if self.scales is None else float(self.scales[index])


class _Blocks(Curve):
    """A curve at one count at a time, computed a block at a time."""

    def __init__(self, curve: Factor) -> None:
        self._table = ValueTable(_values_of(replace(curve, own=False, batches=1)))

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return np.array([self._table.number_at(int(counts[0]), 0)])


def _tabulated(rule: RateRule) -> RateRule | None:
    """The rule with its curves in blocks, if one of them follows a time budget."""
    if not rule.budgets:
        return None
    schedule, warm_up = (
        each and replace(each, curve=_Blocks(each)) for each in (rule.schedule, rule.warm_up)
    )
    return replace(rule, schedule=schedule, warm_up=warm_up)


def _values_of(curve: Factor) -> Callable[[np.ndarray, int], np.ndarray]:
    counts = replace(curve, budget=None)
    return lambda updates, ahead: counts.values(updates)
