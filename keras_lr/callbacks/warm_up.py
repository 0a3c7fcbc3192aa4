"""`WarmUp`: begin a run below the rate of the optimizer."""

from __future__ import annotations

import math
import warnings
from typing import Any

from keras_lr._util.checks import count, number
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules.warm_up import WarmUpFactor
from keras_lr.steering import Length, Plan


class WarmUp(SteeringCallback):
    """Multiply the rate by a factor that grows to 1 at the start of a run.

    The rate is that of the optimizer, a number or a schedule, or of `ScheduleLR` or `CyclicLR` in
    the same list. Pass exactly one of `steps`, `epochs` and `fraction`. A second `fit` warms up
    again.

    Args:
        steps: Updates of the warm-up, at least 1.
        epochs: Epochs of the warm-up, above 0; need not be whole.
        fraction: Fraction of the whole run, in (0, 1].
        start_factor: The factor at the first update, in [0, 1]; above 0 for the modes
            `"exponential"` and `"constant"`.
        mode: `"linear"`, `"exponential"`, or `"constant"` (`start_factor` until the end of the
            warm-up, then 1).
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        ValueError: If an argument is out of its range; when `fit` begins, if `epochs` or
            `fraction` is given and the length of the run is unknown, or if `OneCycle`, which
            includes a warm-up, is in the list.

    Source: Goyal et al., "Accurate, large minibatch SGD", 2017 (arXiv 1706.02677), section 2.2.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(0.01), "mse")
    >>> history = model.fit(x, x.sum(axis=1), epochs=4, batch_size=16, verbose=0,
    ...                     callbacks=[keras_lr.WarmUp(epochs=2)])
    >>> [round(lr, 5) for lr in history.history["learning_rate"]]
    [0.00375, 0.00875, 0.01, 0.01]
    """

    roles = ("warm-up",)

    def __init__(
        self,
        steps: int | None = None,
        *,
        epochs: float | None = None,
        fraction: float | None = None,
        start_factor: float = 0.0,
        mode: str = "linear",
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        lengths = {"steps": steps, "epochs": epochs, "fraction": fraction}
        given = [name for name, length in lengths.items() if length is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of steps, epochs and fraction must be given; got "
                f"{' and '.join(given) or 'none'}."
            )
        if steps is not None:
            count("steps", steps)
        if epochs is not None:
            number("epochs", epochs, above=0.0)
        if fraction is not None:
            number("fraction", fraction, above=0.0, most=1.0)
        self.steps = steps
        self.epochs = epochs
        self.fraction = fraction
        self.start_factor = start_factor
        self.mode = mode
        WarmUpFactor(1, start_factor, mode)  # refuses bad values now

    def plan(self, length: Length) -> Plan:
        return Plan(warm_up=WarmUpFactor(self._updates(length), self.start_factor, self.mode))

    def follows(self, length: Length) -> dict[str, Any]:
        return {"steps": self._updates(length)} if self.steps is None else {}

    def check(self, length: Length) -> None:
        if length.total is not None and self._updates(length) > length.total:
            warnings.warn(
                f"The warm-up should end within the run; got a warm-up of {self._updates(length)} "
                f"updates, and this fit makes {length.total}.",
                UserWarning,
                stacklevel=2,
            )

    def _updates(self, length: Length) -> int:
        if self.steps is not None:
            return self.steps
        if length.total is None:
            name = "epochs" if self.epochs is not None else "fraction"
            raise ValueError(
                f"The length of the run is unknown for this data set; got {name}="
                f"{getattr(self, name)}. Pass steps to WarmUp, or steps_per_epoch to fit."
            )
        if self.epochs is not None:
            share = self.epochs / length.epochs
        else:
            assert self.fraction is not None  # noqa: S101
            share = self.fraction
        return max(1, math.ceil(share * length.total - 1e-9))
