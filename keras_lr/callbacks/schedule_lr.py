"""`ScheduleLR`: any schedule, for a model that was compiled with a number."""

from __future__ import annotations

from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.timed import TimedCallback
from keras_lr.schedules.base import ConstantCurve, as_schedule
from keras_lr.schedules.stretched import StretchedCurve, end_of
from keras_lr.steering import Length, Plan
from keras_lr.steering.clock import TICKS


class ScheduleLR(TimedCallback):
    """Follow a schedule during a `fit`, instead of the rate that the model was compiled with.

    The schedule counts the updates of this `fit`, from 0: a second `fit` starts it again, whereas
    a schedule in `compile` continues. The groups of a `MultiOptimizer` keep the ratios of their
    rates; the fastest group follows the schedule itself.

    With `minutes` the schedule is stretched over a time budget, from its first step to its last:
    `ScheduleLR(keras.optimizers.schedules.CosineDecay(0.1, 1000), minutes=30)` is half a cosine
    over half an hour.

    Args:
        schedule: A schedule of `keras_lr.schedules` or of Keras.
        momentum: A function from the same count to the momentum, with operations of `keras.ops`;
            or a number; None leaves the momentum unchanged.
        minutes: Time budget of the `fit`, above 0; None if the schedule counts updates. The rate
            follows the clock, and the training stops when the budget is over; pass more epochs
            than it allows. Everything from the first epoch on counts: the first step, which
            compiles, validation, other callbacks. The schedule begins after the first step, so
            that no part of it passes meanwhile. The steps of one execution (`steps_per_execution`)
            share a reading. A resumed run goes on with what was left of the budget at its backup.
            The schedule needs an end: one of `keras_lr.schedules` with `total_steps`, `CosineDecay`
            or `PolynomialDecay`.
        couple_weight_decay: Whether the product of rate and weight decay is constant, that of the
            compiled optimizer: a rate ten times as large decays a tenth as much. Otherwise the
            weight decay is constant, and the product follows the rate, as in Keras. See Wang and
            Aitchison, 2024 (arXiv 2405.13698), whose averaging time of the weights, 1 / (rate x
            decay) updates, it keeps. The logs get `weight_decay`.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        updates: With `minutes`, how many updates the last budget was; otherwise None.

    Raises:
        TypeError: If `schedule` is not a schedule, or `momentum` neither function nor number.
        ValueError: If `minutes` is out of its range, or given for a schedule without an end; when
            `fit` begins, if another callback sets the rate, or `momentum` is given
            and the optimizer has none.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> decay = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=12)
    >>> history = model.fit(x, x.sum(axis=1), epochs=3, batch_size=16, verbose=0,
    ...                     callbacks=[keras_lr.ScheduleLR(decay)])
    >>> [round(lr, 4) for lr in history.history["learning_rate"]]
    [0.0854, 0.0371, 0.0017]
    """

    def __init__(
        self,
        schedule: Any,
        momentum: Any = None,
        *,
        minutes: float | None = None,
        couple_weight_decay: bool = False,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.schedule = as_schedule(schedule)
        self.momentum = momentum
        self._momentum = momentum
        if momentum is not None and not callable(momentum):
            self._momentum = ConstantCurve(checks.number("momentum", momentum, least=0, below=1))
        self.roles = ("schedule",) if momentum is None else ("schedule", "momentum")
        self._couple(couple_weight_decay)
        self._follow_clock(minutes)
        self._end = 0
        if minutes is not None:
            end = end_of(self.schedule)
            if end is None or end < 1:
                raise ValueError(
                    "With minutes, schedule must have an end after its first step; got "
                    f"{type(self.schedule).__name__}. Pass CosineDecay, PolynomialDecay or a "
                    "schedule of keras_lr with total_steps of at least 2."
                )
            self._end = end

    def plan(self, length: Length) -> Plan:
        if self.minutes is None:
            return Plan(self.schedule, momentum=self._momentum)
        schedule, momentum = (
            None if each is None else self._timed(StretchedCurve(each, self._end, TICKS - 1))
            for each in (self.schedule, self._momentum)
        )
        return Plan(schedule, momentum=momentum)
