"""A borrowed model, trained from the same weights as often as needed; see `borrowing`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lr._keras.optimizers import batch_counter, counters, number, put_rate, stored_rate
from keras_lr._keras.random_state import reseed, seed_everything
from keras_lr._keras.snapshot import KeptState, Snapshot
from keras_lr._util.interrupts import check_interrupt
from keras_lr.loops import CHUNK, Loop, keep_loop, loop_dependencies, make_loop
from keras_lr.loops.data import DataEnded
from keras_lr.optimizers import ScheduleFree
from keras_lr.range_test.probes import Outcome
from keras_lr.range_test.progress import Report
from keras_lr.range_test.stopping import first_divergence
from keras_lr.steering import (
    BorrowedRate,
    all_optimizers,
    innermost_optimizers,
    model_optimizers,
    updates_every,
)

MOST_BATCHES = 100  # in which a training step must update the optimizer once
LARGEST_STATE = 2**28  # bytes of weights and slots above which no state of a short run is kept


@dataclass(frozen=True)
class Run:
    """One pass over a list of rates: what its steps reported."""

    learning_rates: np.ndarray
    losses: np.ndarray
    metrics: dict[str, np.ndarray]
    validation: dict[str, np.ndarray] | None
    stop_reason: str


class Workbench:
    """Runs a borrowed model at given rates. Made by `borrow`, which also restores the model.

    One step is one update of the weights. With gradient accumulation, or a training step that
    does not call the optimizer for every batch, it takes several batches at one rate and reports
    their mean. A training step that calls the optimizer several times for a batch does so at one
    rate.

    Args:
        optimizer: The optimizer of the model that gets the rates; it reads `rate`.
        monitor: The log entry that is the loss.

    Attributes:
        stream: The training batches.
        make_stream: Makes the stream of each short run; None to go on with `stream`.
        held_out: The batches that judge the short runs.
        rows: Examples in them.
        start_loss: The loss there before any training; None until it is measured.
        report: Called with the steps trained so far, the rate and the loss.
        run_seed: Seeds the data and the noise of the short runs.
    """

    def __init__(
        self,
        model: Any,
        stream: Any,
        rate: BorrowedRate,
        snapshot: Snapshot,
        optimizer: Any,
        monitor: str,
        seed: int | None = None,
    ) -> None:
        self.stream = stream
        self.make_stream: Callable[[], Any] | None = None
        self.held_out: list[Any] = []
        self.rows = 0
        self.start_loss: float | None = None
        self.report: Report | None = None
        self._seed = seed
        self.ratios = rate.ratios
        self.steps_trained = 0
        self._model = model
        self._optimizer = optimizer
        self._monitor = monitor
        self._snapshot = snapshot
        self._held = model_optimizers(model)  # a walk over the model
        self._needs = loop_dependencies(model, optimizer, monitor, self._held)
        self.loop: Loop = make_loop(model, rate, monitor, self._needs)
        self._inner = innermost_optimizers(optimizer)
        held = [part for each in self._held.values() for part in innermost_optimizers(each)]
        self._averaging = [part for part in held if isinstance(part, ScheduleFree)]
        self._borrowed = [stored_rate(optimizer) for optimizer in self._inner]
        self._every = updates_every(optimizer)
        # An optimizer in the middle of an accumulation needs fewer batches for its next update.
        self._pending = int(number(batch_counter(self._inner[0]))) % self._every
        # Whether every batch (or every `_every` batches) makes an update; the first run shows it.
        self._steady: bool | None = None
        self._counted: dict[str, list[float]] = {}
        self._called: list[int] = []
        self._random = random.getstate()  # seeds the variables that the first step creates
        self.run_seed = int(np.random.randint(2**31))  # of the short runs' data and noise
        self._fresh = True
        self._grows = False

    @property
    def snapshot_bytes(self) -> int:
        return self._snapshot.nbytes

    def run(
        self,
        learning_rates: np.ndarray,
        *,
        stop_factor: float | None = None,
        validation: list[Any] | None = None,
        validation_every: int = 1,
        ceiling: float | None = None,
        resume: KeptState | None = None,
    ) -> Run:
        """Train one step at each rate, from the model's starting point or from a kept state.

        Stops where the loss is not finite, where it diverges (`first_divergence`), where the
        median of the last five losses exceeds `ceiling`, or where the data ends. The loop trains
        in chunks, so some steps may be trained past the stop: they take time and count in
        `steps_trained`, but are not recorded.
        """
        self._rewind(resume)
        total = len(learning_rates)
        stride = max(1, CHUNK // self._every) if validation is None else validation_every
        parts: list[dict[str, np.ndarray]] = []
        checks: list[tuple[int, dict[str, float]]] = []
        ends = self._ends_of(total)  # of each update, in batches
        trained, done, reason = 0, 0, "completed"
        while done < total:
            check_interrupt()
            try:
                if self._steady is False:
                    parts.append(self._until_update(learning_rates[done]))
                    ends[done] = trained + len(parts[-1][self._monitor])
                else:
                    until = min(ends[min(done + stride, total) - 1], trained + CHUNK)
                    steps = np.searchsorted(ends, np.arange(trained, until), "right")
                    parts.append(self.loop.train(self.stream, learning_rates[steps]))
            except DataEnded:
                reason = "data_ended"
                break
            trained += len(parts[-1][self._monitor])
            done = int(np.searchsorted(ends, trained, "right"))
            losses = _by_update(parts, self._monitor, ends[:done])
            if not np.all(np.isfinite(parts[-1][self._monitor])):
                reason = "non_finite"
                break
            if self._steady is None and (trained >= CHUNK or done == total):
                self._steady = self._is_steady(trained)
                if not self._steady:
                    return self.run(
                        learning_rates,
                        stop_factor=stop_factor,
                        validation=validation,
                        validation_every=validation_every,
                        ceiling=ceiling,
                        resume=resume,
                    )
            if self.report is not None and done:
                self.report(
                    self.steps_trained + done, float(learning_rates[done - 1]), float(losses[-1])
                )
            if stop_factor is not None:
                more = done < total
                if first_divergence(losses, stop_factor, more_follow=more) is not None:
                    reason = "diverged"
                    break
            # The noise of the first losses matters where the loss starts near zero.
            limit = None if ceiling is None or not done else ceiling + np.ptp(losses[:3])
            if limit is not None and np.median(losses[-5:]) > limit:
                reason = "diverged"
                break
            due = done % validation_every == 0 or done == total
            if validation is not None and due and done and trained == ends[done - 1]:
                checks.append((done, self._evaluate(validation)))
        if self._steady is None and reason == "data_ended" and trained:
            self._is_steady(trained)  # raises if the optimizer was not called
        return self._record(learning_rates, ends, parts, checks, reason, stop_factor)

    def start(self) -> float:
        """Held-out loss of the weights that every run starts from."""
        if self.start_loss is None:
            self._rewind()
            self.start_loss = float(self._evaluate(self.held_out)[self._monitor])
        return self.start_loss

    def train(
        self, learning_rate: float, steps: int, ceiling: float, resume: KeptState | None = None
    ) -> Outcome:
        """Train a short run, and measure the loss on the held-out batches.

        All short runs see the same noise and, where data can be read again, the same batches;
        those that go on from a kept state see others.

        Raises:
            DataEnded: If the data ends before the run.
        """
        if self.make_stream is not None:
            self.stream.close()
            again = self.loop.draws or self.stream.from_program
            seed_everything(self.run_seed + (resume is not None), operations=again)
            self.stream = self.make_stream()
        before = self.steps_trained
        rates = np.full(steps, learning_rate)
        run = self.run(rates, ceiling=ceiling, resume=resume)
        if run.stop_reason == "data_ended":
            raise DataEnded
        loss, cost = float("inf"), self.steps_trained - before
        if run.stop_reason == "completed":
            loss = float(self._evaluate(self.held_out)[self._monitor])
        if not np.isfinite(loss):
            return Outcome(float("inf"), cost)
        return Outcome(loss, cost, self._kept())

    def _evaluate(self, batches: list[Any]) -> dict[str, float]:
        """Loss and metrics over the batches; with `ScheduleFree`, at the average of the weights."""
        if not self._averaging:
            return self.loop.evaluate(batches)
        self._put_weights("eval")
        result = self.loop.evaluate(batches)
        self._put_weights("train")
        return result

    def _put_weights(self, point: str) -> None:
        self.loop.store()
        for optimizer in self._averaging:
            getattr(optimizer, point)()
        self.loop.start()

    def _kept(self) -> KeptState | None:
        """The state after a run; None if it is large, or if its variables will be made anew."""
        if self._grows or self.snapshot_bytes > LARGEST_STATE:
            return None
        self.loop.store()
        return self._snapshot.capture()

    def keep_loop(self) -> None:
        """Store the compiled loop with the model, for the next range test."""
        now = loop_dependencies(self._model, self._optimizer, self._monitor, self._held)
        keep_loop(self._model, self.loop, self._needs, now)

    def _rewind(self, resume: KeptState | None = None) -> None:
        if not self._fresh or resume is not None:
            self.loop.release()
            grown = self._snapshot.rewind()
            if self.loop.eager and grown:
                # The first step created variables, and creates them again.
                self._grows = True
                random.setstate(self._random)
                for optimizer, borrowed in zip(self._inner, self._borrowed, strict=True):
                    put_rate(optimizer, borrowed)
            if resume is not None:
                self._snapshot.resume(resume)
        self._fresh = False
        for optimizer in self._averaging:
            optimizer.train()  # after a fit the weights are at the average
        if self._seed is not None and resume is None:
            reseed(self._model, self._seed)
        self.loop.start()
        if self.loop.read(batch_counter(self._inner[0])) is None:
            name = self._name_of_optimizer()
            raise ValueError(
                f"On JAX, fit trains only with optimizers whose variables the model tracks; those "
                f"of {name!r} are not among them. Build it, and assign its variables to an "
                f"attribute of the model: self.optimizer_variables = self.{name}.variables."
            )
        if self._steady is None:
            self._counted = {name: self._counts(each) for name, each in self._held.items()}
            self._called = self._calls()

    def _name_of_optimizer(self) -> str:
        return next(name for name, each in self._held.items() if each is self._optimizer)

    def _ends_of(self, updates: int) -> np.ndarray:
        if self._steady is False:
            return np.full(updates, np.iinfo(np.int64).max)
        batches = np.full(updates, self._every)
        batches[0] -= self._pending
        return np.cumsum(batches)

    def _calls(self) -> list[int]:
        """How often each optimizer that gets the rate was called since it was made."""
        return [int(np.asarray(self.loop.read(batch_counter(each)))) for each in self._inner]

    def _counts(self, optimizer: Any) -> list[float]:
        """Counters that change when an optimizer is called, even for a skipped update."""
        found = [each for part in all_optimizers(optimizer) for each in counters(part)]
        read = [self.loop.read(each) for each in found]
        return [float(value) for value in read if value is not None]

    def _updates(self) -> int:
        """Updates that the optimizer has made; accumulated batches count as one."""
        every = updates_every(self._optimizer)
        return sum(calls // every for calls in self._calls())

    def _is_steady(self, trained: int) -> bool:
        """Whether each batch called the optimizer at least once, as far as its counters show.

        Raises:
            ValueError: If the optimizer was not called at all.
        """
        before = self._counted
        now = {name: self._counts(each) for name, each in self._held.items()}
        moved = [name for name in now if now[name] != before.get(name)]
        name = self._name_of_optimizer()
        if name not in moved:
            raise ValueError(_no_update(self._model, name, moved, trained))
        if any(hasattr(part, "dynamic_scale") for part in all_optimizers(self._optimizer)):
            return True  # it skips updates that overflow
        pairs = zip(self._calls(), self._called, strict=True)
        return max(calls - earlier for calls, earlier in pairs) >= trained

    def _until_update(self, learning_rate: float) -> dict[str, np.ndarray]:
        """Train batch by batch until the optimizer has made an update."""
        before = self._updates()
        parts: list[dict[str, np.ndarray]] = []
        while self._updates() == before:
            if len(parts) == MOST_BATCHES:
                raise ValueError(
                    "The training step must call the optimizer at least once in "
                    f"{MOST_BATCHES} batches; it did not. Use a smaller batch_size, or update "
                    "more often."
                )
            try:
                parts.append(self.loop.train(self.stream, np.array([learning_rate])))
            except DataEnded:
                if not parts:
                    raise
                break
            if not np.isfinite(parts[-1][self._monitor]).all():
                break
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _record(
        self,
        learning_rates: np.ndarray,
        ends: np.ndarray,
        parts: list[dict[str, np.ndarray]],
        checks: list[tuple[int, dict[str, float]]],
        reason: str,
        stop_factor: float | None,
    ) -> Run:
        monitor = self._monitor
        trained = sum(len(part[monitor]) for part in parts)
        done = int(np.searchsorted(ends, trained, "right"))
        self.steps_trained += done
        names = list(parts[0]) if parts else [monitor]
        logs = {name: _by_update(parts, name, ends[:done]) for name in names}
        kept = done
        if reason == "non_finite":
            kept = int(np.argmin(np.isfinite(logs[monitor]))) if done else 0
            if done and np.all(np.isfinite(logs[monitor])):
                kept = done  # an interrupted accumulation is not an update
        if stop_factor is not None:
            stop = first_divergence(logs[monitor][:kept], stop_factor)
            if stop is not None:
                kept, reason = stop + 1, "diverged"
        validation = None
        checks = [(step, values) for step, values in checks if step <= kept]
        if checks:
            at = np.array([step - 1 for step, _ in checks])
            validation = {"learning_rates": learning_rates[at]}
            names = [name for name in checks[0][1] if name not in ("loss", monitor)]
            for key, name in {"loss": monitor, **{name: name for name in names}}.items():
                validation[key] = np.array([values[name] for _, values in checks])
        losses = logs.pop(monitor)
        return Run(
            learning_rates[:kept],
            losses[:kept],
            {name: values[:kept] for name, values in logs.items()},
            validation,
            reason,
        )


def _no_update(model: Any, name: str, moved: list[str], batches: int) -> str:
    """The message for an optimizer `name` that was never called."""
    start = f"The optimizer {name!r} made no update in {batches} batches, so its learning rate "
    start += "has no effect."
    if moved:
        return f"{start} Pass the one that trains: optimizer={moved[0]!r}."
    if not model.trainable_variables:
        return (
            f"{start} The model has no trainable weights: set trainable=True for one of its layers."
        )
    return f"{start} Its training step must call apply() of an optimizer that the model holds."


def _by_update(parts: list[dict[str, np.ndarray]], name: str, ends: np.ndarray) -> np.ndarray:
    """The mean over the batches of each update."""
    if not len(ends):
        return np.empty(0)
    values = np.concatenate([part[name] for part in parts])[: ends[-1]]
    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, ends[-1]))
