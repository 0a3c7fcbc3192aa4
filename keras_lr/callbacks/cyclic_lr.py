"""`CyclicLR`: the rate rises and falls between two bounds, repeatedly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules import CyclicSchedule
from keras_lr.steering import Length, Plan


class CyclicLR(SteeringCallback):
    """Let the rate rise from `base_lr` to `max_lr` and fall back, repeatedly.

    Rate and momentum are set for every update, on each backend, also with `steps_per_execution`
    and `jit_compile`. A second `fit` begins with a new cycle.

    Args:
        base_lr: Lower bound of the learning rate, at least 0.
        max_lr: Upper bound of the learning rate, above 0 and at least `base_lr`.
        step_size: Updates of the first rise, at least 1; the paper recommends 2 to 10 epochs.
        step_size_down: Updates of the first fall, at least 1; by default `step_size`.
        mode: Height of the cycles: `"triangular"` (constant), `"triangular2"` (each cycle has
            half the height of the last) or `"exp_range"` (times `gamma` to the power of the step).
        gamma: For `"exp_range"`, the factor of each step, in (0, 1].
        scale_fn: A function from the number of the cycle, from 1, to a factor on the height;
            instead of `mode`.
        cycle_mult: Ratio of the lengths of a cycle and the one before it; at least 1.
        cycle_momentum: Whether the momentum falls while the rate rises.
        base_momentum: Momentum at the upper bound, in [0, 1).
        max_momentum: Momentum at the lower bound, in [base_momentum, 1).
        couple_weight_decay: Whether the product of rate and weight decay is constant, that of the
            compiled optimizer: a rate ten times as large decays a tenth as much. Otherwise the
            weight decay is constant, and the product follows the rate, as in Keras. See Wang and
            Aitchison, 2024 (arXiv 2405.13698), whose averaging time of the weights, 1 / (rate x
            decay) updates, it keeps. The logs get `weight_decay`.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        ValueError: If an argument is out of its range; when `fit` begins, if another callback
            sets the rate, or the optimizer has no momentum.
        TypeError: If an argument is of the wrong kind.

    Source: Smith, "Cyclical learning rates for training neural networks", 2015
    (arXiv 1506.01186); the curve is that of `CyclicSchedule`.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> cyclic = keras_lr.CyclicLR(base_lr=0.01, max_lr=0.05, step_size=4)
    >>> history = model.fit(x, x.sum(axis=1), epochs=4, batch_size=16, callbacks=[cyclic],
    ...                     verbose=0)
    >>> [round(lr, 3) for lr in history.history["learning_rate"]]
    [0.04, 0.02, 0.04, 0.02]
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
        *,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        couple_weight_decay: bool = False,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.schedule = CyclicSchedule(
            base_lr, max_lr, step_size, step_size_down, mode, gamma, scale_fn, cycle_mult
        )
        self._momentum = self.schedule.momentum(base_momentum, max_momentum)
        self.cycle_momentum = checks.flag("cycle_momentum", cycle_momentum)
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        self.roles = ("schedule", "momentum") if self.cycle_momentum else ("schedule",)
        self._couple(couple_weight_decay)

    def plan(self, length: Length) -> Plan:
        return Plan(self.schedule, momentum=self._momentum if self.cycle_momentum else None)
