"""`HalveOnDivergence`: start at a high rate, and halve it until the loss no longer diverges."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lr._keras.building import build_optimizer, layers_are_built
from keras_lr._keras.metrics import should_rise
from keras_lr._keras.optimizers import number
from keras_lr._keras.values import Values, trained_variables
from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.callbacks.divergence import Level, Stretch
from keras_lr.steering import Length


@dataclass(frozen=True)
class HalvingEvent:
    """An action of `HalveOnDivergence`.

    Attributes:
        epoch: The epoch, from 0.
        step: Updates of the run so far.
        restored: The number of updates that the restored weights have seen.
        action: "halve" or "stop".
        reason: The reason, in words.
        old, new: Learning rate before and after, at `step`; of the fastest group.
    """

    epoch: int
    step: int
    restored: int
    action: str
    reason: str
    old: float
    new: float


class HalveOnDivergence(SteeringCallback):
    """Multiply the rate by `factor` when the loss diverges, and restore the last good weights.

    A common recipe for the initial rate: start too high, and let the run find the highest rate at
    which it does not diverge. The callback checks the losses of every `check_every` batches, and
    those of the rest at the end of an epoch. They have diverged if one is not finite, or if three
    quarters of them (at the end of the run: their mean) are above

        best + (threshold - 1) * max(|best|, first - best)

    where `best` is the lowest mean of such a stretch so far, and `first` the loss of the first
    batch (of the first execution, with `steps_per_execution`). This level is like that of the range
    test: `threshold` times the best loss if the loss has not fallen; it also holds for losses near
    or below zero. Weights or a `val_loss` that are not finite count as divergence; a spike does
    not, nor do steps that a loss-scale optimizer skips.

    The weights at a check are good if the *next* stretch of batches, which begins with them, does
    not diverge, and its mean does not come half way to it. The callback restores the weights, the
    statistics and the whole state of the optimizer: its slots, which a diverging run has filled,
    and its counter, which Adam's bias correction and half-filled accumulators need. So the undone
    updates do not count: a schedule or a warm-up continues from the update of the good weights, at
    the lower scale, and a `OneCycle` ends as many updates before its end. Random generators and the
    scale of a loss-scale optimizer continue, the metrics of the epoch exclude the undone batches,
    and no data are repeated.

    It scales any rate, as `ReduceLROnPlateau` does: a number changes and stays changed after the
    fit, the scale of a schedule ends with the fit, and all groups of a `MultiOptimizer` are scaled
    by the same factor. With `keras.callbacks.BackupAndRestore` in the list, a run that was killed
    resumes with the same good weights and counters. `SwapEMAWeights(swap_on_epoch=True)` must come
    after this callback in the list.

    Args:
        factor: Factor of a halving, in (0, 1).
        threshold: How far the loss may rise, above 1; see the formula. 4, as in the range test,
            allows for the noise of batches; use more for batches of one or two samples.
        max_halvings: When a halving is due after this many, the callback restores the good weights,
            warns, and stops the training. At least 1.
        check_every: Batches between two checks, at least 1. A check of a good loss reads it and
            copies weights and optimizer state to host memory, which has two such copies.
        verbose: 1 prints each halving and the reason; 0 prints nothing.
        monitor: Name of the loss in the logs of a batch.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        events: A `HalvingEvent` for each halving of the last `fit`, and for a stop.

    Raises:
        ValueError, TypeError: If an argument is out of its range or of the wrong kind; when
            `fit` begins, if the model is not built, or `SwapEMAWeights` comes first; after the
            first batch, if `monitor` is not in the logs, or is a metric that should rise.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.ones((64, 1), "float32")  # loss = weight ** 2: stable below a rate of 1
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(keras.optimizers.SGD(3.0), "mse")
    >>> halve = keras_lr.HalveOnDivergence(check_every=4)
    >>> history = model.fit(x, 0 * x, batch_size=4, epochs=3, callbacks=[halve], verbose=0)
    >>> [(event.old, event.new) for event in halve.events]
    [(3.0, 1.5), (1.5, 0.75)]
    """

    rescales = True
    copies_weights = True

    def __init__(
        self,
        factor: float = 0.5,
        threshold: float = 4.0,
        max_halvings: int = 10,
        check_every: int = 50,
        verbose: int = 0,
        *,
        monitor: str = "loss",
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.monitor = checks.log_entry("monitor", monitor)
        self.optimizer = optimizer
        self.factor = checks.number("factor", factor, above=0.0, below=1.0)
        self.threshold = checks.number("threshold", threshold, above=1.0)
        self.max_halvings = checks.count("max_halvings", max_halvings)
        self.check_every = checks.count("check_every", check_every)
        self.verbose = checks.verbosity(verbose)
        # Keras reads this to know whether it must wait for each batch before the next one.
        self.async_safe = False
        self.events: list[HalvingEvent] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.events = []
        self._level = Level(self.threshold)
        self._halvings = 0
        self._stopped = False
        self._epoch = -1
        self._stretch = Stretch()
        super().on_train_begin(logs)
        if not layers_are_built(self._unsynced_model):
            raise ValueError(
                "HalveOnDivergence copies the weights when the training begins; the model "
                f"{self._unsynced_model.name!r} is not built. Add keras.Input, or call "
                "model.build(input_shape)."
            )

    def begin(self, length: Length) -> None:
        self._epochs = length.epochs
        build_optimizer(self._unsynced_model)
        self._variables = trained_variables(
            self._unsynced_model, [each.own for each in self._steered.bindings]
        )
        self._good = self._copied()
        self._candidate: _Copy | None = self._good
        # Other arrays are not finite on purpose: a mask of minus infinities, for example.
        self._finite = [_is_finite(array) for array in self._good.state.arrays]
        self._fresh = True  # the next loss is the first of these weights

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch - self._session.run.epochs_from
        self._stretch = Stretch()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With several steps an execution, Keras's index of the last batch overshoots.
        done = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        if self._stopped:
            return
        if self.monitor not in (logs or {}):
            names = ", ".join(sorted(logs or {})) or "nothing"
            raise ValueError(
                f"HalveOnDivergence monitors {self.monitor!r}, which is not in the logs; they have "
                f"{names}. Pass the name of the loss as monitor."
            )
        if self._fresh and should_rise(self._unsynced_model, self.monitor):
            raise ValueError(
                f"HalveOnDivergence monitors a loss; got {self.monitor!r}, which should rise. Pass "
                "the name of the loss as monitor."
            )
        self._stretch.advance(done, number(logs[self.monitor]))
        if self._stretch.length >= (1 if self._fresh else self.check_every):
            self._check()

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if self._stopped:
            return
        if self._stretch.done == 0:
            # All batches of the epoch were undone; Keras's metrics would be 0.
            logs.update(dict.fromkeys(self._unsynced_model.get_metrics_result(), math.nan))
            return
        value = logs.get(f"val_{self.monitor}")
        last = self._unsynced_model.stop_training or epoch + 1 >= self._epochs
        if value is not None and not math.isfinite(number(value)):
            self._go_back(f"val_{self.monitor} is not finite")
        elif self._stretch.length or (last and self._candidate is None):
            self._stretch.widen(max(1, self.check_every // 2))
            self._check(last)

    def remember(self) -> dict[str, Any]:
        return {
            "level": self._level.state(),
            "halvings": self._halvings,
            "good": self._good.state.arrays,
            "good_level": self._good.level,
            "good_updates": self._good.updates,
            "good_batches": self._good.batches,
            "fresh": self._fresh,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        self._level.load(memory["level"])
        self._halvings = int(memory["halvings"])
        self._fresh = bool(memory["fresh"])
        self._candidate = self._copied()
        state = Values(self._unsynced_model, self._variables, list(memory["good"]))
        updates, level = int(memory["good_updates"]), list(memory["good_level"])
        batches = int(memory.get("good_batches", updates * self._steered.every))
        self._good = _Copy(state, None, -1, (0, 0.0), updates, batches, level)

    def _check(self, last: bool = False) -> None:
        losses = self._stretch.close()
        if self._fresh and np.isfinite(losses).all():
            self._level.anchor(float(losses.mean()))
        self._fresh = False
        verdict = self._level.judge(losses, last)
        if verdict == "diverged":
            self._go_back(self._level.reason(losses))
        elif verdict == "good":
            copy = self._copied()
            arrays = zip(copy.state.arrays, self._finite, strict=True)
            if not all(_is_finite(array) for array, finite in arrays if finite):
                self._go_back("weights or optimizer state are not finite")
                return
            if self._candidate is not None:
                self._good = self._candidate
            self._candidate = copy
        else:
            self._candidate = None

    def _copied(self) -> _Copy:
        model = self.model  # on JAX this writes the training state to the variables
        return _Copy(
            Values(model, self._variables),
            Values(model, model.metrics_variables, tensors=False),
            self._epoch,
            self._stretch.mark,
            self._steered.account.updates_done(),
            self._steered.account.batches_done(),
            self._level.state(),
        )

    def _go_back(self, reason: str) -> None:
        model, good, step = self.model, self._good, self._steered.account.updates_done()
        old = self._rate(step)
        groups = len(self._steered.bindings)
        self._stopped = self._halvings >= self.max_halvings
        if not self._stopped:
            # Before the counter goes back: a warm-up may begin with a rate of 0.
            self._steered.rescale(self.factor, np.zeros(groups), np.full(groups, np.inf))
            self._halvings += 1
        new = self._rate(step)
        with self._steered.account.rolled_back(good.batches):
            good.state.restore()
        if good.epoch == self._epoch and good.metrics is not None:
            good.metrics.restore()
            self._stretch.go_back(good.mark)
        else:
            model.reset_metrics()
            self._stretch.go_back((0, 0.0))
        self._level.load(good.level)
        self._candidate = good
        self._fresh = True
        action = "stop" if self._stopped else "halve"
        self.events.append(HalvingEvent(self._epoch, step, good.updates, action, reason, old, new))
        self._report(self.events[-1])

    def _rate(self, step: int) -> float:
        return max(float(rate[0]) for rate in self._steered.account.rates(np.array([step])))

    def _report(self, event: HalvingEvent) -> None:
        if event.action == "stop":
            self._unsynced_model.stop_training = True
            warnings.warn(
                f"HalveOnDivergence stops the training after {self._halvings} of "
                f"{self.max_halvings} halvings, at a learning rate of {event.old:.4g}: "
                f"{event.reason}. The model has the weights of update {event.restored}. If the "
                "loss diverges at any rate, check the data and the model.",
                UserWarning,
                stacklevel=2,
            )
        elif self.verbose:
            print(
                f"\nEpoch {event.epoch + 1}: learning rate {event.old:.4g} -> {event.new:.4g}, "
                f"weights of update {event.restored}: {event.reason}."
            )


@dataclass
class _Copy:
    """A state to restore, with the counters at that point."""

    state: Values
    metrics: Values | None
    epoch: int
    mark: tuple[int, float]
    updates: int
    batches: int
    level: list[Any]


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind in "iub":
        return True
    # NumPy has no kind for bfloat16.
    return bool(np.isfinite(array if array.dtype.kind == "f" else array.astype("float32")).all())
