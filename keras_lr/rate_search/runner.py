"""Trains one job of a search: a `fit` that starts from the same state as every other."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_lr._keras.building import layers_are_built
from keras_lr._keras.callbacks import Callback
from keras_lr._keras.distribution import check_alone, check_shares, sharing_devices
from keras_lr._keras.optimizers import number
from keras_lr._keras.random_state import random_generators_kept, reseed, seed_everything
from keras_lr._keras.snapshot import Snapshot
from keras_lr._util import checks
from keras_lr._util.interrupts import check_interrupt
from keras_lr._util.terminal import cause_of
from keras_lr.callbacks import LRFinder
from keras_lr.callbacks.divergence import Level, Stretch
from keras_lr.loops.data import is_array_data, take_rows
from keras_lr.loops.overridden_fit import overrides_fit
from keras_lr.range_test import RangeTest, lr_find
from keras_lr.range_test.borrowing import build
from keras_lr.range_test.checks import NotFinite, check_kinds, check_model
from keras_lr.range_test.training_data import TrainingData, passed_to_fit
from keras_lr.rate_search.data import Data, is_read_once
from keras_lr.rate_search.jobs import Job, Outcome
from keras_lr.rate_search.policies import callbacks_for
from keras_lr.rate_search.remade import (
    Returned,
    Template,
    check_alike,
    compiled_parts,
    made,
    weights_of,
)
from keras_lr.rate_search.split import part
from keras_lr.steering import fit_optimizers, follows_rate, model_optimizers

CHECK_EVERY = 10  # batches between two checks for divergence
THRESHOLD = 4.0  # of divergence, as `HalveOnDivergence` has it
Report = Callable[[int, float], bool]


class Runner:
    """Trains the jobs of a search, each from the same state; `borrow` makes one.

    Args:
        model: A compiled model.
        make: A function that makes one; then each run trains a new model, and the seed of the
            run chooses its initial weights. None trains `model`.
        data: The data.
        objective: The log entry to optimize.
        split_seed: Chooses the rows of a run on a part of the data.
        callbacks: Makes further callbacks for each run.
        snapshot: The state of `model` that the runs start from.
    """

    def __init__(
        self,
        model: Any,
        make: Callable[[], Any] | None,
        data: Data,
        objective: str,
        split_seed: int,
        callbacks: Callable[[], list[Any]] | None,
        snapshot: Snapshot,
    ) -> None:
        self.model = model
        self._make = make
        self.data = data
        self._objective = objective
        self._split_seed = split_seed
        self.callbacks = callbacks
        self._snapshot = snapshot
        self._template: Template | None = None
        self._returned = Returned(model)
        self._first: list[str] = []
        self._compiled: list[str] = []
        self._part: tuple[float, Any] = (1.0, None)
        self._judged: tuple[Any, int | None] = data.validation, None

    @staticmethod
    @contextmanager
    def borrow(
        model: Any,
        data: Data,
        objective: str,
        batch_size: int | None,
        split_seed: int,
        callbacks: Callable[[], list[Any]] | None = None,
    ) -> Iterator[Runner]:
        """Borrow the model in the block; afterwards it is restored bit for bit.

        Raises:
            ValueError: If the model cannot be trained, if the devices cannot share its batches
                equally, or if the logs have no such objective.
        """
        check_alone()
        make = None if isinstance(model, keras.Model) else model
        if make is not None and not callable(make):
            raise TypeError(
                f"model must be a Keras model or a function that returns one; got {model!r}."
            )
        with random_generators_kept(), contextlib.ExitStack() as stack:
            if make is not None:
                model = made(make, split_seed)
            _check_optimizer(model)
            template = None if make is None else Template(model)
            snapshot = stack.enter_context(Snapshot(model).guarding())
            given = TrainingData(model, data.x, data.y, fit_options={"batch_size": batch_size})
            with passed_to_fit(given, data.validation) as (sent, held, size):
                check_kinds(model, sent.x, sent.y, data.sample_weight)
                if is_array_data(held):
                    x, y, weight = keras.utils.unpack_x_y_sample_weight(held)
                    check_kinds(model, x, y, weight, " of validation_data")
            source = sent.stream()
            try:
                build(model, source)
            finally:
                source.close()
            snapshot.copy_values()
            runner = Runner(model, make, data, objective, split_seed, callbacks, snapshot)
            runner._judged, runner._template = (held, size), template
            runner._compiled = compiled_parts(model)
            runner._check_objective(batch_size)
            if layers_are_built(model):  # on TensorFlow, by that evaluation
                runner._first = weights_of(model)
            yield runner

    def range_test(self, batch_size: int | None, seed: int) -> RangeTest | None:
        """A ramp on the training data; the search itself compares rates on held-out data.

        None for an optimizer whose rate must not change within a run.
        """
        if follows_rate(self.model.optimizer):
            return None
        self._snapshot.rewind()
        data, options = self.data, dict(self.data.fit_options)
        if data.rows is not None:
            options.update(batch_size=batch_size, sample_weight=data.sample_weight)
        ramp: dict[str, Any] = {"start_lr": 1e-7, "end_lr": 10.0, "steps": 100, "budget": 100}
        try:
            return lr_find(self.model, data.x, data.y, seed=seed, verbose=0, **ramp, **options)
        except NotFinite as error:  # it counts the rows without those that are held out
            raise ValueError(
                f"{data.first_not_finite()}, and the loss of the range test was not finite. Fill "
                "or drop such rows."
            ) from error

    def run(self, job: Job, report: Report | None = None) -> Outcome:
        """Train a job.

        Args:
            report: Called after each epoch with the number of epochs and the objective; if it
                returns True, the run stops early.
        """
        started = time.perf_counter()
        model = self._start(job.seed)
        once = is_read_once(self.data.x)
        counted = once or "steps_per_epoch" in self.data.fit_options
        watch = _Watch(self._objective, report, counted=counted)
        seed_everything(job.seed)
        try:
            model.fit(
                **self._data_of(job),
                epochs=job.epochs,
                verbose=0,
                callbacks=[*callbacks_for(model, job.setting), *self._further(), watch],
            )
        except ValueError as error:
            if once and "empty generator" in str(error):
                raise _used_up(self.data.batches or 1, 0) from error
            raise
        if model is not self.model:
            self._check_weights(model, model.built)  # the fit may have built it
        return Outcome(job, watch.ended, watch.value, watch.history, time.perf_counter() - started)

    def _further(self) -> list[Any]:
        """The user's callbacks of a run.

        Raises:
            TypeError: If the function returns something else.
            ValueError: If one of them is an `LRFinder`.
        """
        if self.callbacks is None:
            return []
        found = self.callbacks()
        listed = found if isinstance(found, (list, tuple)) else [found]
        if listed is not found or not all(isinstance(e, keras.callbacks.Callback) for e in found):
            kinds = ", ".join(type(each).__name__ for each in listed)
            raise TypeError(
                "callbacks must be a function that returns a list of Keras callbacks; it returned "
                + (f"a list of {kinds}." if listed is found else f"{kinds}. Let it return a list.")
            )
        if any(isinstance(each, LRFinder) for each in found):
            raise ValueError(
                "callbacks must leave the rate to the search; got LRFinder, which tries its own. "
                "Leave it out."
            )
        return list(found)

    def _start(self, seed: int) -> Any:
        if self._make is not None:
            model = made(self._make, seed)
            self._returned.check_new(model)
            self._snapshot.rewind()
            if self._template is not None and self._template.take(model):
                return self.model
            check_alike(self._compiled, compiled_parts(model), "nothing of the kind")
            self._check_weights(model, layers_are_built(model))
            return model
        self._snapshot.rewind()
        reseed(self.model, seed)
        return self.model

    def _check_weights(self, model: Any, built: bool) -> None:
        """Refuse a model with weights of other shapes than the first that was built.

        On TensorFlow that may be one which `fit` has built.
        """
        if built:
            self._first = self._first or weights_of(model)
            check_alike(self._first, weights_of(model), "no further weight")

    def _data_of(self, job: Job) -> dict[str, Any]:
        data = self.data
        options = {"validation_data": data.validation, **data.fit_options}
        if data.rows is None:
            if is_read_once(data.x) or getattr(data.x, "num_batches", 0) is None:
                options["shuffle"] = False  # True has no effect on them but a warning
            if job.fraction < 1.0:
                options["steps_per_epoch"] = max(1, round(job.fraction * (data.batches or 1)))
            elif "steps_per_epoch" in options:
                options["steps_per_epoch"] = data.batches
            return {"x": data.x, "y": data.y, **options}
        if self._part[0] != job.fraction or self._part[1] is None:
            rows = part(data.y, data.rows, job.fraction, self._split_seed, sharing_devices())
            taken = (data.x, data.y, data.sample_weight)
            self._part = (
                job.fraction,
                taken if len(rows) == data.rows else take_rows(taken, rows),
            )
        x, y, weight = self._part[1]
        size = job.setting.batch_size
        steps = data.steps(len(keras.tree.flatten(x)[0]), size or 32, job.fraction)
        if steps is not None:
            options["steps_per_epoch"] = steps
        if is_array_data(data.validation) and not overrides_fit(self.model):
            # An overridden `fit` may batch them itself.
            options["validation_batch_size"] = size
        return {"x": x, "y": y, "sample_weight": weight, "batch_size": size, **options}

    def check_batches(self, batch_size: int) -> None:
        """Refuse a batch size with batches that the devices cannot share equally.

        Raises:
            ValueError: If the training or the validation data have such a batch.
        """
        if self.data.rows is not None:
            check_shares(self.data.rows, batch_size)
        held = self.data.validation
        if is_array_data(held):
            check_shares(len(keras.tree.flatten(held)[0]), batch_size, "validation_data")

    def updates(self, batch_size: int | None, epochs: int) -> int | None:
        """Updates of a run on all data; None if the length of the data is unknown."""
        rows, size = self.data.rows, batch_size or 32
        if rows is None:
            given = self.data.batches
        else:
            given = self.data.steps(rows, size) or math.ceil(rows / size)
        return epochs * given if given else None

    def untrained(self) -> float:
        """The objective before training; NaN if it is not one of validation."""
        name = self._objective.removeprefix("val_")
        if name == self._objective:
            return math.nan
        self._snapshot.rewind()
        return number(self._evaluated()[name])

    def _check_objective(self, batch_size: int | None) -> None:
        """Evaluate one batch to see which entries the logs will have, before the long work."""
        self.check_batches(batch_size or 32)
        try:
            logs = self._evaluated(batches=1)
        except Exception as error:
            kind = type(self.model)
            own = kind.train_step is not keras.Model.train_step
            way_out = "Check the data that it is judged by, the loss and the metrics."
            if own and kind.test_step is keras.Model.test_step:
                way_out = (
                    "Give the model a call() or a test_step that can evaluate held-out data, or "
                    "use lr_find."
                )
            raise ValueError(
                f"A search needs model.evaluate, which fails for {kind.__name__}: "
                f"{_sentence(error)} {way_out}"
            ) from error
        names = [name for each in logs for name in (each, f"val_{each}")]
        if self._objective not in names:
            raise ValueError(
                f"objective must be in the logs of this model; got {self._objective!r}. The logs "
                f"have: {', '.join(names)}."
            )

    def _evaluated(self, batches: int | None = None) -> dict[str, Any]:
        """The logs of Keras's `evaluate` on the validation data, or on so many batches of it."""
        held, size = self._judged
        size = size or 32
        asked: dict[str, Any] = {"x": held, "steps": batches}
        if is_array_data(held):
            rows = len(keras.tree.flatten(held)[0])
            first = np.arange(rows if batches is None else min(size * batches, rows))
            parts = keras.utils.unpack_x_y_sample_weight(take_rows(held, first))
            asked = {"x": parts[0], "y": parts[1], "sample_weight": parts[2], "batch_size": size}
        return dict(keras.Model.evaluate(self.model, **asked, verbose=0, return_dict=True))


class _Watch(Callback):
    """Stops a run that diverges or falls behind, and keeps its logs.

    Divergence is judged by the rule of `HalveOnDivergence`, on the loss that `fit` logs: the mean
    of the epoch so far. The rule of the range test needs the loss of each batch, which only the
    loops of `lr_find` report, and it expects a rate that rises.
    """

    def __init__(self, objective: str, report: Report | None, *, counted: bool = False) -> None:
        super().__init__()
        self._counted = counted  # whether the user gave the number of batches
        self._objective = objective
        self._report = report
        self._level = Level(THRESHOLD)
        self._stretch = Stretch()
        self._done = 0
        self._fresh = True
        self.ended = "finished"
        self.value = math.nan
        self.history: dict[str, list[float]] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._stretch, self._done = Stretch(), 0

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        check_interrupt()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        check_interrupt()
        # With `steps_per_execution`, Keras's index of the last batch can be too high.
        self._done = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        if self._fresh or self._done - self._stretch.done >= CHECK_EVERY:
            self._judge(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        entries = {name: number(value) for name, value in (logs or {}).items()}
        for name, value in entries.items():
            self.history.setdefault(name, []).append(value)
        if self._counted and self.ended == "finished":
            self._check_length()
        if self._objective not in entries and self.ended == "finished":
            raise ValueError(
                f"objective must be in the logs of each run; got {self._objective!r}, and one has: "
                f"{', '.join(entries)}. Compile each model with the same metrics."
            )
        self.value = entries.get(self._objective, math.nan)
        if self._done > self._stretch.done and self.ended != "diverged":
            self._judge(entries)
        if self.ended == "diverged" or not math.isfinite(self.value):
            self._end("diverged")
        elif self._report is not None and self._report(epoch + 1, self.value):
            # The last epoch is reported too, but then the run has finished.
            if epoch + 1 < (self.params or {}).get("epochs", 0):
                self._end("behind")

    def _check_length(self) -> None:
        """Refuse an epoch for which the data had too few batches: policies count on all of them."""
        steps = (self.params or {}).get("steps") or 0
        if self._done < steps and not self._unsynced_model.stop_training:
            raise _used_up(steps, self._done)

    def _judge(self, logs: Any) -> None:
        """Judge the batches since the last check, from the mean loss of the epoch so far.

        If a custom training step logs no "loss", the training value of the objective is judged
        instead, provided that it is a loss; otherwise only the end of the epoch counts.
        """
        names = ("loss", self._objective.removeprefix("val_"))
        known = [each for each in names if each in logs and "loss" in each]
        if not known:
            return
        self._stretch.advance(self._done, number(logs[known[0]]))
        losses = self._stretch.close()
        if self._fresh and np.isfinite(losses).all():
            self._level.anchor(float(losses.mean()))
        self._fresh = False
        if self._level.judge(losses) == "diverged":
            self._end("diverged")

    def _end(self, why: str) -> None:
        self.ended = why
        if why == "diverged":
            self.value = math.nan
        self._unsynced_model.stop_training = True


def _used_up(steps: int, done: int) -> ValueError:
    return ValueError(
        f"x must have {steps} batches for each epoch of each run; it ended after {done}. Pass "
        "arrays, a data set, or a generator without an end."
    )


def _sentence(error: BaseException) -> str:
    return checks.shortened(cause_of(error).rstrip("."), 200) + "."


def _check_optimizer(model: Any) -> None:
    """Refuse a model whose rate a search cannot set."""
    compiled = getattr(model, "optimizer", None)
    check_model(model, compiled, "search", changes_rate=False)
    paths = [path for path in fit_optimizers(model_optimizers(model)) if path != "optimizer"]
    if compiled is None or paths:
        raise ValueError(
            "search sets the rate of model.optimizer, which must be the only optimizer of the "
            f"model; {model.name!r} holds {', '.join(paths)}. Compile it with one optimizer, or "
            "use lr_find(optimizer=...)."
        )
