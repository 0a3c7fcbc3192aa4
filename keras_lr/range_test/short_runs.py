"""The short runs of a range test: prepared and trained on a borrowed model, and continued later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from keras_lr._util import checks
from keras_lr._util.terminal import cause_of
from keras_lr.loops.data import DataEnded, batch_rows
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.curve_rule import TooUneven
from keras_lr.range_test.prior import UNKNOWN_RATE
from keras_lr.range_test.probes import Prober, Probes
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

    def stream(self) -> Any:
        """The batches that `fit` would train on."""

    def hold_out(self, samples: int, used: Any) -> HeldOut:
        """Hold data out for the comparison of short runs; `used` is the stream of the ramp."""

    def all_rows(self) -> Callable[[], Any] | None:
        """Makes the streams of short runs that hold nothing out; None: the ramp's goes on."""


def prepare(bench: Workbench, data: RunData, samples: int, sample: list[Any] | None) -> str | None:
    """Choose the held-out batches, and measure the loss there before any training.

    Args:
        samples: Examples to hold out of the training data.
        sample: Batches of validation data to use instead; or None.

    Returns:
        Why short runs cannot be compared, as a warning of the suggestion; None if they can. A
        model may train without being able to evaluate: a GAN has no loss on held-out data.
    """
    try:
        if sample is None:
            sample, bench.make_stream = data.hold_out(samples, bench.stream)
        else:
            bench.make_stream = data.all_rows()
        bench.held_out, bench.rows = sample, sum(map(batch_rows, sample))
        start = bench.start()
    except DataEnded:
        return DATA_ENDED
    except Exception as error:
        reason = checks.shortened(f"{type(error).__name__}: {cause_of(error)}", 200)
        return (
            "The model could not be evaluated on held-out data, so there were no short runs. "
            f"Define test_step for them. ({reason})"
        )
    return None if np.isfinite(start) else "The loss on held-out data is not finite."


def short_runs(
    bench: Workbench, test: RangeTest, usual: float | None, budget: int
) -> Prober | None:
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
    prober = Prober(bench, centre, budget, planned)
    try:
        return prober if prober.run() is not None else None
    except DataEnded:
        test.provenance["hints"].append(DATA_ENDED)
        return None


def continuation(
    model: Any,
    optimizer: Any,
    prober: Prober,
    first: Workbench,
    seed: int | None,
    monitor: str,
) -> Callable[[int], tuple[Probes, int]] | None:
    """What `RangeTest.continue_` calls; None if the data or the states are not there again.

    It returns the new evidence, and the updates that it took.
    """
    make_stream, held_out, rows = first.make_stream, first.held_out, first.rows
    run_seed, start = first.run_seed, first.start_loss
    needs = [optimizer, *model.variables]
    prober.runs = None  # type: ignore[assignment]
    if make_stream is None or not prober.can_go_on():
        return None

    def go_on(steps: int) -> tuple[Probes, int]:
        now = {id(each) for each in (*model_optimizers(model).values(), *model.variables)}
        if not {id(each) for each in needs} <= now:
            raise ValueError(
                "The model has been compiled or built anew since this test. Call lr_find again."
            )
        before = prober.cost
        with borrow(model, make_stream, seed, optimizer=optimizer, monitor=monitor) as bench:
            bench.make_stream, bench.held_out, bench.rows = make_stream, held_out, rows
            bench.run_seed, bench.start_loss, prober.runs = run_seed, start, bench
            prober.go_on(steps)
        prober.runs = None  # type: ignore[assignment]
        return prober.probes(), prober.cost - before

    return go_on
