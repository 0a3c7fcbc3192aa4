"""A borrowed model, trained from the same weights as often as needed; see `borrowing`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lr._keras.metrics import should_rise
from keras_lr._keras.optimizers import put_rate, stored_rate
from keras_lr._keras.random_state import reseed, seed_everything
from keras_lr._keras.snapshot import KeptState, Snapshot
from keras_lr._util.interrupts import check_interrupt
from keras_lr.loops import CHUNK, Loop, keep_loop, loop_dependencies, make_loop
from keras_lr.loops.data import Batches, DataEnded
from keras_lr.optimizers import ScheduleFree
from keras_lr.range_test.progress import Report
from keras_lr.range_test.recording import Recording, Run
from keras_lr.range_test.stopping import has_diverged
from keras_lr.range_test.update_counter import UpdateCounter
from keras_lr.steering import BorrowedRate, innermost_optimizers, model_optimizers

MOST_BATCHES = 100  # in which a training step must update the optimizer once
LARGEST_STATE = 2**28  # bytes of weights and slots above which no state of a short run is kept


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
        report: Shows the progress; or None.
        ratios: The rate of each group of the optimizer relative to the highest.
        steps_trained: Updates of all runs so far.
        run_seed: For the data and the noise of short runs.
    """

    def __init__(
        self,
        model: Any,
        stream: Batches,
        rate: BorrowedRate,
        snapshot: Snapshot,
        optimizer: Any,
        monitor: str,
        seed: int | None = None,
    ) -> None:
        self.stream = stream
        self._streams: dict[int, Batches] = {}  # those of `replace_stream`, by their seed
        self.report: Report | None = None
        self.ratios = rate.ratios
        self.steps_trained = 0
        self._seed = seed
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
        self._counter = UpdateCounter(model, optimizer, self._held, self.loop)
        self._random = random.getstate()  # seeds the variables that the first step creates
        self.run_seed = int(np.random.randint(2**31))
        self._fresh = True
        self._monitors_loss = monitor == "loss"
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
        record = self._begin(learning_rates, resume)
        stride = max(1, CHUNK // self._counter.every) if validation is None else validation_every
        while True:
            check_interrupt()
            try:
                self._train_some(record, stride)
            except DataEnded:
                reason = "data_ended"
                break
            if not self._monitors_loss:
                self._check_monitor()
            if not record.finite:
                reason = "non_finite"
                break
            if self._counter.steady is None and (record.batches >= CHUNK or record.complete):
                if not self._counter.find_out(record.batches):
                    record = self._begin(learning_rates, resume)  # count anew, batch by batch
                    continue
            losses = record.losses()
            self._report(record, losses)
            if has_diverged(losses, stop_factor, ceiling, more_follow=not record.complete):
                reason = "diverged"
                break
            due = record.complete or record.updates % validation_every == 0
            if validation is not None and due and record.between_updates:
                record.add_check(self._evaluate(validation))
            if record.complete:
                reason = "completed"
                break
        if reason == "data_ended" and self._counter.steady is None and record.batches:
            self._counter.check_called(record.batches)
        self.steps_trained += record.updates
        return record.result(reason, stop_factor)

    def _begin(self, learning_rates: np.ndarray, resume: KeptState | None) -> Recording:
        """Go back to where a run starts."""
        self._rewind(resume)
        return Recording(learning_rates, self._counter.ends(len(learning_rates)), self._monitor)

    def _check_monitor(self) -> None:
        """Refuse a metric that should rise as the loss; the first step has created the metrics."""
        if should_rise(self._model, self._monitor):
            raise ValueError(
                f"monitor must be a loss; got {self._monitor!r}, which should rise. Pass the name "
                f"of a loss; suggest(monitor={self._monitor!r}) reads the curve of the metric."
            )
        self._monitors_loss = True

    def _train_some(self, record: Recording, updates: int) -> None:
        """Train the batches of some updates, or of one if only the counters show its end."""
        rates = record.learning_rates
        if self._counter.steady is False:
            record.add_update(self._until_update(rates[record.updates]))
        else:
            record.add(self.loop.train(self.stream, record.rates_of(updates, most=CHUNK)))

    def _report(self, record: Recording, losses: np.ndarray) -> None:
        if self.report is not None and record.updates:
            rate = record.learning_rates[record.updates - 1]
            self.report(self.steps_trained + record.updates, float(rate), float(losses[-1]))

    def replace_stream(self, make_stream: Callable[[], Batches], seed: int) -> None:
        """Train on another stream; its order and the noise of the steps follow from a seed.

        With a seed that was used before, the stream of then begins again; one whose batches a
        program makes is made anew, because its threads may have drawn before the seed.
        """
        self.stream.close()
        program = self.stream.from_program
        seed_everything(seed, operations=program or self.loop.draws)
        if program or seed not in self._streams:
            self._streams[seed] = make_stream()
        self.stream = self._streams[seed]

    def loss_at_start(self, batches: list[Any]) -> float:
        """The loss over the batches, of the weights that every run starts from."""
        self._rewind()
        return self.loss_now(batches)

    def loss_now(self, batches: list[Any]) -> float:
        """The loss over the batches, of the weights that the last run left."""
        return float(self._evaluate(batches)[self._monitor])

    def state_now(self) -> KeptState | None:
        """What `run` can resume; None if it is large, or if its variables will be made anew."""
        if self._grows or self.snapshot_bytes > LARGEST_STATE:
            return None
        self.loop.store()
        return self._snapshot.capture()

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
        self._counter.begin()

    def _until_update(self, learning_rate: float) -> dict[str, np.ndarray]:
        """Train batch by batch until the optimizer has made an update."""
        before = self._counter.made()
        parts: list[dict[str, np.ndarray]] = []
        while self._counter.made() == before:
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
