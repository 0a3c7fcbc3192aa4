"""`WarmUp`: begin a run below the rate of the optimizer."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

from keras_lr._util.checks import choice, count, number
from keras_lr.callbacks.timed import TimedCallback
from keras_lr.schedules.warm_up import UntunedWarmUpFactor, WarmUpFactor
from keras_lr.steering import Length, Plan, innermost_optimizers, square_decay
from keras_lr.steering.clock import TICKS

_AUTO_SHARE = 20  # of the run, for optimizers without a mean of squares


class WarmUp(TimedCallback):
    """Multiply the rate by a factor that grows to 1 at the start of a run.

    The rate is that of the optimizer, a number or a schedule, or of `ScheduleLR` or `CyclicLR` in
    the same list. Pass exactly one of `steps`, `epochs`, `fraction` and `minutes`. A second `fit`
    warms up again.

    Args:
        steps: Updates of the warm-up, at least 1. Or `"auto"`: the untuned linear warm-up of Ma and
            Yarats for optimizers that divide by a running mean of squared gradients. Update t of
            1, 2, ... has the factor min(1, t / period); the period is 2 / (1 - `beta_2`) updates,
            2000 for the default of Adam, with `rho` in place of `beta_2` for RMSprop and Adadelta.
            For other optimizers (SGD, Lion, ...) the period is a twentieth of the run, about the 5
            of 90 epochs of Goyal et al. In a `MultiOptimizer` the longest period counts.
        epochs: Epochs of the warm-up, above 0; need not be whole.
        fraction: Fraction of the whole run, in (0, 1].
        minutes: Minutes of the warm-up, above 0: the factor follows the clock, and the training
            goes on after it. They begin after the first step, which compiles; validation and other
            callbacks count. The steps of one execution (`steps_per_execution`) share a reading. A
            resumed run goes on with the minutes that were left at its backup.
        start_factor: The factor at the first update, in [0, 1]; above 0 for the modes
            `"exponential"` and `"constant"`.
        mode: `"linear"`, `"exponential"`, or `"constant"` (`start_factor` until the end of the
            warm-up, then 1).
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        updates: With `minutes`, how many updates the last warm-up was; otherwise None.

    Raises:
        ValueError: If an argument is out of its range, or `start_factor` or `mode` is given with
            `"auto"`, which sets both; when `fit` begins, if the warm-up depends on the length of
            the run and the length is unknown, if `OneCycle`, which includes a warm-up, is in the
            list, or if `beta_2` is not in [0, 1).

    Source: Goyal et al., "Accurate, large minibatch SGD", 2017 (arXiv 1706.02677), section 2.2;
    `"auto"`: Ma and Yarats, "On the adequacy of untuned warmup for adaptive optimization", 2019
    (arXiv 1910.04209), section 5.

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
    _ends_fit = False

    def __init__(
        self,
        steps: int | Literal["auto"] | None = None,
        *,
        epochs: float | None = None,
        fraction: float | None = None,
        minutes: float | None = None,
        start_factor: float = 0.0,
        mode: str = "linear",
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        lengths = {"steps": steps, "epochs": epochs, "fraction": fraction, "minutes": minutes}
        given = [name for name, length in lengths.items() if length is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of steps, epochs, fraction and minutes must be given; got "
                f"{' and '.join(given) or 'none'}."
            )
        if isinstance(steps, str):
            choice("steps", steps, ["auto"])
            if start_factor != 0.0 or mode != "linear":
                raise ValueError(
                    "start_factor and mode must be omitted with steps='auto', which sets both; got "
                    f"start_factor={start_factor!r} and mode={mode!r}. Pass a number of steps."
                )
        elif steps is not None:
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
        # The decays of the mean squares of the inner optimizers; None before the first `fit`.
        self._decays: list[float | None] | None = None
        WarmUpFactor(1, start_factor, mode)  # refuses bad values now
        self._follow_clock(minutes)

    def read_optimizer(self, optimizer: Any) -> None:
        if self.steps == "auto":
            self._decays = [square_decay(each) for each in innermost_optimizers(optimizer)]
            for decay in self._decays:
                if decay is not None:
                    number(
                        "The decay of the squared gradients (beta_2 or rho)",
                        decay,
                        least=0,
                        below=1,
                        way_out="Pass a number of steps to WarmUp.",
                    )

    def plan(self, length: Length) -> Plan:
        if self.steps == "auto":
            return Plan(warm_up=UntunedWarmUpFactor(self._period(length)))
        if self.minutes is not None:
            return Plan(warm_up=self._timed(WarmUpFactor(TICKS, self.start_factor, self.mode)))
        return Plan(warm_up=WarmUpFactor(self._updates(length), self.start_factor, self.mode))

    def follows(self, length: Length) -> dict[str, Any]:
        if self.steps == "auto":
            if self._decays is None or None not in self._decays:
                return {}
            period = self._updates(length)
            return {"steps": max(1, period - 1), "start_factor": 1 / period}
        known = self.steps is not None or self.minutes is not None
        return {} if known else {"steps": self._updates(length)}

    def check(self, length: Length) -> None:
        if self.minutes is not None:
            return
        if length.total is not None and self._updates(length) > length.total:
            warnings.warn(
                f"The warm-up should end within the run; got a warm-up of {self._updates(length)} "
                f"updates, and this fit makes {length.total}.",
                UserWarning,
                stacklevel=2,
            )

    def _updates(self, length: Length) -> int:
        if self.steps == "auto":
            return math.ceil(self._period(length) - 1e-6)
        if self.steps is not None:
            return self.steps
        total = self._known_total(length, "epochs" if self.epochs is not None else "fraction")
        if self.epochs is not None:
            share = self.epochs / length.epochs
        else:
            assert self.fraction is not None  # noqa: S101
            share = self.fraction
        return max(1, math.ceil(share * total - 1e-9))

    def _period(self, length: Length) -> float:
        """Updates of the warm-up of `"auto"`."""
        if self._decays is None:
            raise ValueError(
                "The warm-up depends on the optimizer, which is unknown here; got steps='auto'. "
                "Pass a number of steps to WarmUp."
            )
        periods: list[float] = [2 / (1 - decay) for decay in self._decays if decay is not None]
        if None in self._decays:
            periods.append(math.ceil(self._known_total(length, "steps") / _AUTO_SHARE))
        return max(periods)

    def _known_total(self, length: Length, name: str) -> int:
        if length.total is None:
            raise ValueError(
                f"The length of the run is unknown for this data set; got {name}="
                f"{getattr(self, name)!r}. Pass a number of steps to WarmUp, or "
                "steps_per_epoch to fit."
            )
        return length.total
