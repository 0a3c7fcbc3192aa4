"""The short runs of a range test: prepared and trained on a borrowed model, and continued later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from keras_lr._keras.snapshot import KeptState
from keras_lr._util import checks
from keras_lr._util.terminal import cause_of
from keras_lr.loops.data import Batches, DataEnded, batch_rows
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.curve_rule import TooUneven
from keras_lr.range_test.prior import UNKNOWN_RATE
from keras_lr.range_test.probes import Outcome, Prober, Probes, ShortRuns
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.rules import too_short
from keras_lr.range_test.suggestion import NoSuggestion
from keras_lr.range_test.training_data import HeldOut
from keras_lr.range_test.workbench import Workbench
from keras_lr.steering import model_optimizers

DATA_ENDED = (
    "The data ended before the short runs, so the suggestion comes from the curve alone. Pass data "
    "that can be repeated, not a generator that ends."
)


class RunData(Protocol):
    """The data of a range test: `TrainingData`, or batches that a `fit` has drawn."""

    def stream(self) -> Batches:
        """The batches that `fit` would train on."""

    def hold_out(self, samples: int, used: Batches) -> HeldOut:
        """Hold data out for the comparison of short runs; `used` is the stream of the ramp."""

    def all_rows(self) -> Callable[[], Batches] | None:
        """Makes the streams of short runs that hold nothing out; None: the ramp's goes on."""


class CannotCompare(Exception):
    """Why short runs cannot be compared, as a warning of the suggestion."""


class HeldOutRuns:
    """Trains short runs of a borrowed model, and judges them on held-out data: `ShortRuns`.

    All of them see the same noise and, where data can be read again, the same batches; those that
    go on from a kept state see others.

    Attributes:
        bench: The borrowed model. It is deleted when the model is restored, and set again to
            continue the test.
        rows: Examples in the held-out batches.
        make_stream: Makes the stream of each run; None to go on with that of the workbench.
    """

    def __init__(self, bench: Workbench, held_out: HeldOut) -> None:
        self.bench = bench
        self.rows = sum(map(batch_rows, held_out.batches))
        self.make_stream = held_out.make_stream
        self._batches = held_out.batches
        self._seed = bench.run_seed
        self._start: float | None = None

    def start(self) -> float:
        if self._start is None:
            self._start = self.bench.loss_at_start(self._batches)
        return self._start

    def train(
        self, learning_rate: float, steps: int, ceiling: float, resume: KeptState | None = None
    ) -> Outcome:
        bench = self.bench
        if self.make_stream is not None:
            bench.replace_stream(self.make_stream, self._seed + (resume is not None))
        before = bench.steps_trained
        run = bench.run(np.full(steps, learning_rate), ceiling=ceiling, resume=resume)
        if run.stop_reason == "data_ended":
            raise DataEnded
        loss, cost = float("inf"), bench.steps_trained - before
        if run.stop_reason == "completed":
            loss = bench.loss_now(self._batches)
        if not np.isfinite(loss):
            return Outcome(float("inf"), cost)
        return Outcome(loss, cost, bench.state_now())


def prepare(bench: Workbench, data: RunData, samples: int, sample: list[Any] | None) -> HeldOutRuns:
    """Choose the held-out batches, and measure the loss there before any training.

    Args:
        samples: Examples to hold out of the training data.
        sample: Batches of validation data to use instead; or None.

    Raises:
        CannotCompare: If the data have ended, or there is no finite loss on held-out data. A
            model may train without being able to evaluate, as a GAN does.
    """
    try:
        if sample is None:
            held_out = data.hold_out(samples, bench.stream)
        else:
            held_out = HeldOut(sample, data.all_rows())
        runs = HeldOutRuns(bench, held_out)
        start = runs.start()
    except DataEnded:
        raise CannotCompare(DATA_ENDED) from None
    except Exception as error:
        reason = checks.shortened(f"{type(error).__name__}: {cause_of(error)}", 200)
        raise CannotCompare(
            "The model could not be evaluated on held-out data, so there were no short runs. "
            f"Define test_step for them. ({reason})"
        ) from error
    if not np.isfinite(start):
        raise CannotCompare("The loss on held-out data is not finite.")
    return runs


def short_runs(runs: ShortRuns, test: RangeTest, usual: float | None, budget: int) -> Prober | None:
    """Train short runs; None if the curve shows that they would tell nothing.

    Args:
        test: The ramp before them.
        usual: log10 of the usual rate of the optimizer's family; None if it is unknown.
        budget: Most updates of all runs together.
    """
    centre = UNKNOWN_RATE if usual is None else usual
    if len(test.learning_rates):
        if too_short(test.losses, test.stop_reason) is not None:
            return None
        try:
            curve = float(np.log10(test._by_curve("curve", "loss").learning_rate))
            centre = curve if usual is None else usual
        except TooUneven:
            return None  # a held-out sample would be as uneven
        except NoSuggestion:
            pass
    planned = None if test.planned is None else test.planned.total_steps
    prober = Prober(runs, centre, budget, planned)
    try:
        return prober if prober.run() is not None else None
    except DataEnded:
        test.provenance["hints"].append(DATA_ENDED)
        return None


def continuation(
    model: Any,
    optimizer: Any,
    prober: Prober,
    runs: HeldOutRuns,
    seed: int | None,
    monitor: str,
) -> Callable[[int], tuple[Probes, int]] | None:
    """What `RangeTest.continue_` calls; None if the data or the states are not there again.

    It returns the new evidence, and the updates that it took.

    Args:
        prober: It has chosen the rates of `runs`.
    """
    del runs.bench
    make_stream, needs = runs.make_stream, [optimizer, *model.variables]
    if make_stream is None or not prober.can_go_on():
        return None

    def go_on(steps: int) -> tuple[Probes, int]:
        now = {id(each) for each in (*model_optimizers(model).values(), *model.variables)}
        if not {id(each) for each in needs} <= now:
            raise ValueError(
                "The model has been compiled or built anew since this test. Call lr_find again."
            )
        before = prober.cost
        with borrow(model, make_stream, seed, optimizer=optimizer, monitor=monitor) as runs.bench:
            prober.go_on(steps)
        del runs.bench
        return prober.probes(), prober.cost - before

    return go_on
