"""`OneCycle`: the rate rises once and falls for longer, and the momentum does the reverse."""

from __future__ import annotations

import warnings
from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.timed import TimedCallback
from keras_lr.schedules import OneCycleSchedule
from keras_lr.steering import Length, Plan
from keras_lr.steering.clock import TICKS


class OneCycle(TimedCallback):
    """Train with the 1cycle policy: the rate rises to `max_lr` and falls, the momentum mirrors it.

    The length of the run comes from `fit`: epochs x steps, in updates of the weights. Rate and
    momentum are set for every update, on each backend, also with `steps_per_execution` and
    `jit_compile`. A second `fit` runs a second cycle. The groups of a `MultiOptimizer` keep the
    ratios of their rates; `max_lr` is the rate of the fastest group.

    Args:
        max_lr: Largest learning rate, above 0.
        total_steps: Updates of the cycle; at least 1. Needed only if the length of the data is
            unknown (a generator without a length).
        minutes: Time budget of the `fit`, above 0, instead of a number of updates: rate and
            momentum follow the clock, and the training stops when the budget is over; pass more
            epochs than it allows. Everything from the first epoch on counts: the first step, which
            compiles, validation, other callbacks. The cycle begins after the first step, so that
            no part of it passes meanwhile. The steps of one execution (`steps_per_execution`)
            share a reading. A resumed run goes on with what was left of the budget at its backup.
        pct_start: Fraction of the cycle in which the rate rises, in [0, 1]; with `three_phase`,
            in (0, 0.5].
        anneal: Shape of the phases, `"cos"` or `"linear"`.
        div_factor: The cycle starts at `max_lr / div_factor`; at least 1.
        final_div_factor: The cycle ends at the first rate divided by this; at least 1.
        three_phase: Whether the rate falls to the first rate as steeply as it rose, and then to
            the last rate.
        cycle_momentum: Whether the momentum falls while the rate rises. The momentum is
            `SGD.momentum`, `Adam.beta_1` or the like.
        base_momentum: Momentum at the largest rate, in [0, 1).
        max_momentum: Momentum at the start and at the end, in [base_momentum, 1).
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
        ValueError: If an argument is out of its range, or both `total_steps` and `minutes` are
            given; when `fit` begins, if the length of the run is unknown, another callback sets
            the rate or warms it up, or the optimizer has no momentum.
        TypeError: If an argument is of the wrong kind.

    Source: Smith, "A disciplined approach to neural network hyper-parameters", 2018
    (arXiv 1803.09820); the curve is that of `OneCycleSchedule`.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    >>> history = model.fit(x, x.sum(axis=1), epochs=5, batch_size=16, verbose=0,
    ...                     callbacks=[keras_lr.OneCycle(max_lr=0.1)])
    >>> [round(lr, 4) for lr in history.history["learning_rate"]]
    [0.0668, 0.095, 0.0611, 0.0188, 0.0]
    >>> [round(m, 3) for m in history.history["momentum"]]
    [0.885, 0.855, 0.889, 0.931, 0.95]
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int | None = None,
        *,
        minutes: float | None = None,
        pct_start: float = 0.3,
        anneal: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        couple_weight_decay: bool = False,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.cycle_momentum = checks.flag("cycle_momentum", cycle_momentum)
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        self._shape: dict[str, Any] = {
            "max_lr": max_lr,
            "pct_start": pct_start,
            "anneal": anneal,
            "div_factor": div_factor,
            "final_div_factor": final_div_factor,
            "three_phase": three_phase,
        }
        some = 1 if total_steps is None else total_steps
        schedule = OneCycleSchedule(total_steps=some, **self._shape)  # refuses bad values now
        schedule.momentum(base_momentum, max_momentum)
        self.roles = ("schedule", "momentum") if self.cycle_momentum else ("schedule",)
        self._couple(couple_weight_decay)
        self._follow_clock(minutes, total_steps=total_steps)

    def plan(self, length: Length) -> Plan:
        total = TICKS if self.minutes is not None else self.total_steps or length.total
        if total is None:
            raise ValueError(
                "The length of the run is unknown for this data set; got total_steps=None. Pass "
                "total_steps to OneCycle, or steps_per_epoch to fit."
            )
        schedule = OneCycleSchedule(total_steps=total, **self._shape)
        curves: list[Any] = [schedule]
        if self.cycle_momentum:
            curves.append(schedule.momentum(self.base_momentum, self.max_momentum))
        if self.minutes is not None:
            curves = [self._timed(each) for each in curves]
        return Plan(curves[0], momentum=curves[1] if self.cycle_momentum else None)

    def follows(self, length: Length) -> dict[str, Any]:
        known = self.total_steps is not None or self.minutes is not None
        return {} if known else {"total_steps": length.total}

    def check(self, length: Length) -> None:
        if None not in (self.total_steps, length.total) and self.total_steps != length.total:
            warnings.warn(
                f"OneCycle should end with the training; got total_steps={self.total_steps}, and "
                f"this fit makes {length.total} updates. Omit total_steps to follow fit.",
                UserWarning,
                stacklevel=2,
            )
