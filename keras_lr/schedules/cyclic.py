"""Climb and fall in cycles."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._util import checks
from keras_lr.schedules.momentum import CyclingSchedule
from keras_lr.schedules.phases import between, power

_MODES = ("triangular", "triangular2", "exp_range")
_COUNTED_EXACTLY = 2.0**24  # steps, in float32


@keras.saving.register_keras_serializable(package="keras_lr")
class CyclicSchedule(CyclingSchedule):
    """Climb from `base_lr` to `max_lr` and back in straight lines, over and over.

    Cyclical learning rates of Smith (2015, arXiv 1506.01186, section 3.1), with the same rates
    as torch's `CyclicLR`. In addition to the paper, cycles can grow longer (`cycle_mult`).

    Args:
        base_lr: Smallest learning rate, at the start and the end of each cycle; at least 0.
        max_lr: Largest learning rate, `step_size` steps into each cycle; above 0 and at least
            `base_lr`.
        step_size: Steps of the first climb, at least 1. Smith recommends 2 to 10 epochs.
        step_size_down: Steps of the first fall, at least 1; `step_size` by default.
        mode: How the height `max_lr - base_lr` changes: "triangular" keeps it, "triangular2"
            halves it after each cycle, and "exp_range" multiplies it by `gamma ** step` (a power
            of the step, not of the cycle, as in the paper and in torch).
        gamma: Factor of "exp_range", in (0, 1].
        scale_fn: A function to use instead of a mode. It receives the number of the cycle, a
            float32 tensor that starts at 1, and returns the factor on the height (torch's
            `scale_mode="cycle"`). Write it with `keras.ops` or arithmetic, and register it with
            `keras.saving.register_keras_serializable` so that a saved model can be loaded.
        cycle_mult: Ratio of the lengths of a cycle and the one before it; at least 1. Cycle n
            begins at step `length * (cycle_mult ** n - 1) / (cycle_mult - 1)`.

    Raises:
        ValueError: If an argument is out of range, or the mode ignores an argument that is
            given.
        TypeError: If an argument has the wrong type.

    >>> schedule = CyclicSchedule(base_lr=0.25, max_lr=1.25, step_size=2, mode="triangular2")
    >>> [float(rate) for rate in schedule(range(9))]
    [0.25, 0.75, 1.25, 0.75, 0.25, 0.5, 0.75, 0.5, 0.25]
    """

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size: int,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[Any], Any] | None = None,
        cycle_mult: float = 1.0,
    ) -> None:
        self.base_lr = checks.number("base_lr", base_lr, least=0)
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        checks.ordered("base_lr", self.base_lr, "max_lr", self.max_lr)
        self.step_size = checks.count("step_size", step_size)
        self.step_size_down = step_size_down
        if step_size_down is not None:
            self.step_size_down = checks.count("step_size_down", step_size_down)
        self.mode = checks.choice("mode", mode, _MODES)
        self.gamma = checks.number("gamma", gamma, above=0, most=1)
        if self.gamma != 1.0 and self.mode != "exp_range":
            raise ValueError(f"gamma must be 1 unless mode is 'exp_range'; got {gamma!r}.")
        if scale_fn is not None and not callable(scale_fn):
            raise TypeError(f"scale_fn must be a function of the cycle number; got {scale_fn!r}.")
        if scale_fn is not None and self.mode != "triangular":
            raise ValueError(
                f"scale_fn cannot be combined with a mode; got mode={mode!r}. Leave mode out."
            )
        self.scale_fn = scale_fn
        self.cycle_mult = checks.number("cycle_mult", cycle_mult, least=1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.scale_fn is not None:
            config["scale_fn"] = keras.saving.serialize_keras_object(self.scale_fn)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CyclicSchedule:
        """Create the schedule from the output of `get_config`."""
        scale_fn = config.get("scale_fn")
        if isinstance(scale_fn, dict):
            scale_fn = keras.saving.deserialize_keras_object(scale_fn)
        return cls(**{**config, "scale_fn": scale_fn})

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """The steps at which cycles begin, up to the largest step that float32 can count.

        The last entry is the end of the last cycle. They are float64: powers in float32 are not
        exact.
        """
        mult = self.cycle_mult
        cycles = math.log1p(_COUNTED_EXACTLY * (mult - 1.0) / self._length) / math.log(mult)
        starts = self._length * (mult ** np.arange(int(cycles) + 2) - 1.0) / (mult - 1.0)
        return np.round(starts, 9)  # whole steps become whole numbers again

    @property
    def _length(self) -> float:
        return float(self.step_size + (self.step_size_down or self.step_size))

    def _cycle(self, step: Any) -> tuple[Any, Any, Any, Any]:
        """The cycle, the steps since its start and until its end, and its relative length."""
        if self.cycle_mult == 1.0:
            since = ops.mod(step, self._length)
            return ops.round((step - since) / self._length), since, self._length - since, 1.0
        starts = self._starts
        near = starts.astype("float32")
        rest = starts - near  # without it, positions in late cycles are off by steps
        last = len(starts) - 2

        def at(table: np.ndarray, cycle: Any) -> Any:
            return ops.take(ops.convert_to_tensor(table, "float32"), ops.cast(cycle, "int32"))

        def since_start(cycle: Any) -> Any:
            return (step - at(near, cycle)) - at(rest, cycle)

        ratio = step * ((self.cycle_mult - 1.0) / self._length)
        guess = ops.floor(ops.log1p(ratio) / math.log(self.cycle_mult))
        guess = ops.clip(guess, 0.0, float(last))  # off by one at most, by rounding at a boundary
        late, early = since_start(guess + 1.0) >= 0.0, since_start(guess) < 0.0
        cycle = guess + ops.cast(late, "float32") - ops.cast(early, "float32")
        cycle = ops.clip(cycle, 0.0, float(last))
        size = at(np.diff(starts) / self._length, cycle)
        return cycle, since_start(cycle), -since_start(cycle + 1.0), size

    def _height(self, step: Any) -> Any:
        cycle, since, left, size = self._cycle(step)
        up, down = float(self.step_size), float(self.step_size_down or self.step_size)
        height = ops.clip(ops.minimum(since / (up * size), left / (down * size)), 0.0, 1.0)
        if self.scale_fn is not None:
            return height * ops.cast(self.scale_fn(cycle + 1.0), "float32")
        if self.mode == "triangular2":
            return height * power(0.5, cycle)
        if self.mode == "exp_range":
            return height * power(self.gamma, step)
        return height

    def _at(self, step: Any) -> Any:
        return between(self.base_lr, self.max_lr, self._height(step))
