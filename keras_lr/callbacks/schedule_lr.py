"""`ScheduleLR`: any schedule, for a model that was compiled with a number."""

from __future__ import annotations

from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules.base import ConstantCurve, as_schedule
from keras_lr.steering import Length, Plan


class ScheduleLR(SteeringCallback):
    """Follow a schedule during a `fit`, instead of the rate that the model was compiled with.

    The schedule counts the updates of this `fit`, from 0: a second `fit` starts it again, whereas
    a schedule in `compile` continues. The groups of a `MultiOptimizer` keep the ratios of their
    rates; the fastest group follows the schedule itself.

    Args:
        schedule: A schedule of `keras_lr.schedules` or of Keras.
        momentum: A function from the same count to the momentum, with operations of `keras.ops`;
            or a number; None leaves the momentum unchanged.
        couple_weight_decay: Whether the product of rate and weight decay is constant, that of the
            compiled optimizer: a rate ten times as large decays a tenth as much. Otherwise the
            weight decay is constant, and the product follows the rate, as in Keras. See Wang and
            Aitchison, 2024 (arXiv 2405.13698), whose averaging time of the weights, 1 / (rate x
            decay) updates, it keeps. The logs get `weight_decay`.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        TypeError: If `schedule` is not a schedule, or `momentum` neither function nor number.
        ValueError: When `fit` begins, if another callback sets the rate, or `momentum` is given
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

    def plan(self, length: Length) -> Plan:
        return Plan(self.schedule, momentum=self._momentum)
