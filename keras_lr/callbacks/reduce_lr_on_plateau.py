"""`ReduceLROnPlateau`: lower the rate when a metric stops improving, over any schedule."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lr._util.checks import choice, count, flag, log_entry, number, verbosity
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.callbacks.plateau_rule import PlateauRule
from keras_lr.steering import Length, Plan, innermost_optimizers


@dataclass(frozen=True)
class PlateauEvent:
    """An action of `ReduceLROnPlateau`.

    Attributes:
        epoch: The epoch, from 0.
        step: Updates of the run so far.
        action: "reduce", "grow" or "stop".
        reason: The reason, in words.
        old, new: Learning rate before and after; of the fastest group that changed.
    """

    epoch: int
    step: int
    action: str
    reason: str
    old: float
    new: float


class ReduceLROnPlateau(SteeringCallback):
    """Lower the learning rate when a metric has stopped improving.

    The arguments up to `min_lr` are those of Keras's callback, with the same effects; the others
    are new. It scales any rate: a number, the schedule that the model was compiled with, or the
    rate of `WarmUp`, `ScheduleLR`, `CyclicLR` or `OneCycle` in the same list. If the optimizer
    has a number for its rate, this number changes and stays changed after the fit, as with
    Keras's callback; the scale of a schedule ends with the fit. All groups of a `MultiOptimizer`
    are scaled by the same factor, each within its own bounds.

    With `keras.callbacks.BackupAndRestore` in the list, a run that was killed resumes with its
    best value, counters, scale and best weights.

    Args:
        monitor: Name of the metric in the logs.
        factor: Factor of a reduction, in (0, 1).
        patience: Epochs (or windows) without improvement before a reduction, at least 0.
        verbose: 1 prints each change and the reason; 0 prints nothing.
        mode: `"min"`, `"max"`, or `"auto"`: the direction of the metric.
        min_delta: How much better than the best value a value must be; at least 0.
        cooldown: Epochs (or windows) after a reduction that do not count, as Keras counts them;
            at least 0.
        min_lr: Lower bound of the rate, at least 0, or one for each optimizer of a
            `MultiOptimizer`. It is also the lower bound of a scaled schedule; a warm-up is a
            factor on the result.
        threshold_mode: `"abs"`: `min_delta` is in the unit of the metric; `"rel"`: a fraction of
            the best value.
        smoothing: Decay of the moving average of the metric, in [0, 1); 0 is no smoothing.
        window: `"epoch"`, or a number of batches, at least 1: then the callback monitors the mean
            of each such window of batches. Windows need a training metric that is a mean over
            batches, such as `"loss"`.
        warmup: Epochs (or windows) at the start that do not count, at least 0.
        restore_best_weights: Whether to restore the weights of the best value at each reduction
            and when stopping. They are copied to host memory at each new best value; the
            optimizer's slots do not change. `SwapEMAWeights(swap_on_epoch=True)` must come
            after this callback.
        max_reductions: Stop the training when a reduction is due after this many, at least 0; None
            never stops it.
        growth_factor: Factor above 1 of a growth after repeated improvements; None for no growth.
        growth_patience: Improvements in a row before a growth, at least 0; by default `patience`.
        max_lr: Upper bound for growth, or one for each optimizer; by default none. It is also the
            upper bound of a scaled schedule.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        events: A `PlateauEvent` for each change of the last `fit`, its reason included.

    Raises:
        ValueError, TypeError: If an argument is out of its range or of the wrong kind; when
            `fit` begins, if the number of bounds differs from the number of optimizers.

    Source: GreedyLR for growth (Subramanian et al., 2025, arXiv 2512.14527). See `PlateauRule`
    for the arguments of other libraries.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> plateau = keras_lr.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)
    >>> history = model.fit(x, x.sum(axis=1), epochs=3, verbose=0, callbacks=[plateau])
    >>> [round(lr, 4) for lr in history.history["learning_rate"]]
    [0.1, 0.1, 0.05]
    >>> plateau.events[0].action
    'reduce'
    """

    rescales = True

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        *,
        threshold_mode: str = "abs",
        smoothing: float = 0.0,
        window: str | int = "epoch",
        warmup: int = 0,
        restore_best_weights: bool = False,
        max_reductions: int | None = None,
        growth_factor: float | None = None,
        growth_patience: int | None = None,
        max_lr: float | Sequence[float] | None = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        monitor = log_entry("monitor", monitor)
        mode = choice("mode", mode, ["auto", "min", "max"])
        if not isinstance(window, str):
            window = count("window", window)
            if monitor.startswith("val_"):
                raise ValueError(
                    f"A window of batches needs a training metric; got {monitor!r}, which is known "
                    "once an epoch. Pass monitor='loss', or window='epoch'."
                )
        elif window != "epoch":
            raise ValueError(
                f"window must be 'epoch' or a number of batches; got {window!r}. window=50 "
                "monitors the mean of each 50 batches."
            )
        for name, bound in (("min_lr", min_lr), ("max_lr", max_lr)):
            for value in [] if bound is None else np.atleast_1d(bound).tolist():
                number(name, value, least=0.0)
        if max_lr is not None and growth_factor is None:
            raise ValueError(
                f"max_lr needs a growth_factor; got max_lr={max_lr!r} and growth_factor=None. Pass "
                "growth_factor too, or omit max_lr."
            )
        if np.any(np.asarray(min_lr) > np.asarray(np.inf if max_lr is None else max_lr)):
            raise ValueError(f"min_lr must not be above max_lr; got {min_lr!r} and {max_lr!r}.")
        self.monitor = monitor
        self.mode = mode
        self.verbose = verbosity(verbose)
        self.window: str | int = window
        # Keras reads this to know whether it must wait for each batch before the next one.
        self.async_safe = window == "epoch"
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.restore_best_weights = flag("restore_best_weights", restore_best_weights)
        self.copies_weights = self.restore_best_weights
        self._arguments: dict[str, Any] = {
            "factor": factor,
            "patience": patience,
            "min_delta": min_delta,
            "cooldown": cooldown,
            "threshold_mode": threshold_mode,
            "smoothing": smoothing,
            "warmup": warmup,
            "max_reductions": max_reductions,
            "growth_factor": growth_factor,
            "growth_patience": growth_patience,
        }
        self._rule = self._make_rule()
        self.events: list[PlateauEvent] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.events = []
        self._epoch = 0
        self._best_weights: list[np.ndarray] = []
        self._mean = _WindowMean()
        self._known = False
        super().on_train_begin(logs)
        groups = len(innermost_optimizers(self._steered.optimizer))
        for name in ("min_lr", "max_lr"):
            bound = getattr(self, name)
            if np.ndim(bound) and len(bound) != groups:
                raise ValueError(
                    f"{name} must be a number, or one for each optimizer; got {len(bound)} numbers "
                    f"for {groups} optimizers."
                )
        self._low = np.broadcast_to(self.min_lr, groups)
        self._high = np.broadcast_to(self._most, groups)

    @property
    def _most(self) -> Any:
        return np.inf if self.max_lr is None else self.max_lr

    def plan(self, length: Length) -> Plan:
        return Plan(low=np.asarray(self.min_lr, float), high=np.asarray(self._most, float))

    def begin(self, length: Length) -> None:
        self._rule = self._make_rule()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
        self._mean.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.window == "epoch":
            return
        # With several steps an execution, Keras's index of the last batch overshoots.
        done = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        if self._mean.advance(done) >= int(self.window):
            value = self._value(logs)
            if value is not None:
                self._observe(self._mean.close(value))

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        value = self._value(logs)
        if value is None:
            return
        if self.window == "epoch":
            self._observe(value)
        else:
            self._mean.end_epoch(value)

    def remember(self) -> dict[str, Any]:
        return {
            "rule": self._rule.state(),
            "window": self._mean.state(),
            "best_weights": self._best_weights,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        self._rule.load(memory["rule"])
        self._mean.load(memory["window"])
        self._best_weights = list(memory["best_weights"])

    def _make_rule(self) -> PlateauRule:
        unit = "epoch" if self.window == "epoch" else f"window of {self.window} batches"
        return PlateauRule(mode=self.mode, monitor=self.monitor, unit=unit, **self._arguments)

    def _value(self, logs: Any) -> float | None:
        value = (logs or {}).get(self.monitor)
        if value is not None:
            self._known = True
            self._rule.look_up_direction(self._unsynced_model)  # the metrics exist only now
            return float(keras.ops.convert_to_numpy(value))
        if not self._known:
            self._known = True
            warnings.warn(
                f"ReduceLROnPlateau monitors {self.monitor!r}, which is not in the logs; they "
                f"have {', '.join(sorted(logs or {})) or 'nothing'}. The callback does nothing "
                "until the metric is there.",
                UserWarning,
                stacklevel=2,
            )
        return None

    def _observe(self, value: float) -> None:
        growth = self._rule.growth_factor
        decision = self._rule.observe(
            value,
            can_reduce=self._steered.can_rescale(self._rule.factor, self._low, self._high),
            can_grow=growth is None or self._steered.can_rescale(growth, self._low, self._high),
        )
        if decision.improved and self.restore_best_weights:
            self._best_weights = [np.array(each) for each in self.model.get_weights()]
        if decision.action == "none":
            return
        if decision.action != "grow" and self._best_weights:
            self.model.set_weights(self._best_weights)
        changes = []
        if decision.action == "stop":
            self._unsynced_model.stop_training = True
        else:
            changes = self._steered.rescale(decision.factor, self._low, self._high)
        self._report(decision, changes)

    def _report(self, decision: Any, changes: list[Any]) -> None:
        step = self._steered.account.updates_done()
        if not changes:
            now = max(float(rate[0]) for rate in self._steered.account.rates(np.array([step])))
            old = new = now
        else:
            largest = max(changes, key=lambda change: change.old)
            old, new = largest.old, largest.new
        event = PlateauEvent(self._epoch, step, decision.action, decision.reason, old, new)
        self.events.append(event)
        if self.verbose:
            what = "training stops" if decision.action == "stop" else "learning rate "
            if changes:
                several = len(changes) > 1
                what += ", ".join(
                    f"{change.name + ' ' if several else ''}{change.old:.4g} -> {change.new:.4g}"
                    for change in changes
                )
            print(f"\nEpoch {self._epoch + 1}: {what}: {decision.reason}.")


class _WindowMean:
    """The mean of a metric over a window of batches, from the running means of the logs.

    The logs have the mean since the epoch began. Two of these means give the sum between them, so
    the device is read only at the ends of windows and epochs.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0  # of earlier epochs
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self._done, self._from, self._sum_from = 0, 0, 0.0

    def advance(self, done: int) -> int:
        """Note how many batches of the epoch are done, and return how many the window has."""
        self._done = done
        return self._count + done - self._from

    def close(self, mean: float) -> float:
        """End the window, begin the next, and return the mean of the ended one."""
        total = self._done * mean
        result = (self._sum + total - self._sum_from) / (self._count + self._done - self._from)
        self._sum, self._count = 0.0, 0
        self._from, self._sum_from = self._done, total
        return result

    def end_epoch(self, mean: float) -> None:
        """Carry an unfinished window over into the next epoch."""
        self._sum += self._done * mean - self._sum_from
        self._count += self._done - self._from
        self._from, self._sum_from = self._done, self._done * mean

    def state(self) -> list[float]:
        return [self._sum, self._count]

    def load(self, state: list[float]) -> None:
        self._sum, self._count = float(state[0]), int(state[1])
