"""`WarmUp`: begin a run below the rate that the optimizer has."""

from __future__ import annotations

import math
import warnings
from typing import Any

from keras_lr._util.checks import count, number
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.schedules.warm_up import WarmUpFactor
from keras_lr.steering import Length, Plan


class WarmUp(SteeringCallback):
    """Raise the rate from a small part of itself to the whole of it, at the start of a run.

    The rate is whatever it would be otherwise, times a factor that grows to 1: the optimizer's
    own number or schedule, or that of `ScheduleLR` or `CyclicLR` beside it. Exactly one of
    `steps`, `epochs` and `fraction` says for how long. A second `fit` warms up again.

    Args:
        steps: Updates of the warm-up, at least 1.
        epochs: Epochs of the warm-up, above 0; a part of an epoch is possible.
        fraction: Share of the whole run, above 0 and at most 1.
        start_factor: The factor at the first update, from 0 to 1; above 0 for the modes
            `"exponential"` and `"constant"`.
        mode: `"linear"`, `"exponential"`, or `"constant"` (`start_factor` until the end of the
            warm-up, then 1).
        optimizer: Which optimizer of the model it is for, where the model trains with several: the
            optimizer, or its name in the model, as `"d_optimizer"` or `"optimizers[0]"`.

    Raises:
        ValueError: If an argument is out of its range; when `fit` begins, if `epochs` or
            `fraction` is given and the length of the run is unknown, or if `OneCycle`, which
            warms up by itself, is in the list as well.

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
        wishes = {"steps": steps, "epochs": epochs, "fraction": fraction}
        given = [name for name, wish in wishes.items() if wish is not None]
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
