"""`find_warmup`: the shortest warm-up with which training survives a rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lr._util import checks
from keras_lr.optimizers import ScheduleFree
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.checks import check_kinds, check_model
from keras_lr.range_test.probes import unmoved
from keras_lr.range_test.progress import progress
from keras_lr.range_test.recording import Run
from keras_lr.range_test.training_data import TrainingData, passed_to_fit
from keras_lr.range_test.workbench import Workbench
from keras_lr.steering import innermost_optimizers
from keras_lr.steering.binding import schedule_of
from keras_lr.steering.optimizers import current_rate

LENGTHS = (0, 10, 30, 100, 300, 1000, 3000, 10000)  # updates, in half decades
LONGEST = 1000  # of a run of unknown length
SHARE = 10  # a warm-up is at most a tenth of the run
HOLD = 100  # updates at the rate, at least
_LOOK = 10  # updates that show the loss before training
_MEDIAN = 5  # losses that smooth one


@dataclass(frozen=True)
class WarmUpTrial:
    """One warm-up that `find_warmup` tried.

    Attributes:
        warmup_steps: Its length in updates.
        survived: Whether training survived it.
        loss: Median of the last five losses; infinite if the loss was not finite.
        updates: Updates that were recorded until it ended.
    """

    warmup_steps: int
    survived: bool
    loss: float
    updates: int


@dataclass(frozen=True)
class WarmUpSearch:
    """The result of `find_warmup`.

    Attributes:
        max_lr: The rate after the warm-up.
        warmup_steps: Updates of the shortest warm-up that survived: 0 if none is needed, None if
            none survived.
        trials: The warm-ups that were tried, the shortest first.
        start_loss: Median loss before training.
        untried: Shortest warm-up that the budget left out; None if there is none.
    """

    max_lr: float
    warmup_steps: int | None
    trials: tuple[WarmUpTrial, ...]
    start_loss: float
    untried: int | None

    def __str__(self) -> str:
        rate = f"{self.max_lr:.3g}"
        if self.warmup_steps == 0:
            return f"No warm-up is needed: training survives the rate {rate} from the first update."
        if self.warmup_steps is not None:
            shorter = self.trials[-2].warmup_steps
            without = f"one of {shorter}" if shorter else "none"
            return (
                f"A warm-up of {self.warmup_steps} updates survives the rate {rate}, and {without} "
                "does not."
            )
        if not self.trials:
            return f"The budget has no room for a run at the rate {rate}."
        longest = self.trials[-1].warmup_steps
        more = "" if self.untried is None else f" The budget left out {self.untried} updates."
        return (
            f"No warm-up of up to {longest} updates survives the rate {rate}. Lower the rate.{more}"
        )


def find_warmup(
    model: Any,
    x: Any,
    y: Any = None,
    max_lr: float | None = None,
    *,
    total_steps: int | None = None,
    budget: int = 5000,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    optimizer: Any = None,
    monitor: str = "loss",
    stop_factor: float = 4.0,
    seed: int | None = None,
    verbose: str | int = "auto",
) -> WarmUpSearch:
    """Find the shortest linear warm-up with which training survives a rate; restore the model.

    It tries no warm-up, then 10, 30, 100, 300, ... updates, at most a tenth of the planned run.
    Each trial starts from the same weights, warms up from 0 to `max_lr`, and holds the rate for
    twice as long, at least 100 updates. It survives if the loss stays finite and does not diverge
    (by the rule of `lr_find`, and the median of five losses in a row stays below twice the loss
    before training), and if it ends below the loss before training, with at least half of its best
    improvement. The search ends with the first that survives. Afterwards the model, its optimizer
    and the random generators are as before, as with `lr_find`.

    Args:
        model: A compiled Keras model.
        x, y, batch_size, sample_weight, class_weight, shuffle, steps_per_epoch: As in `lr_find`.
        max_lr: Learning rate after the warm-up, above 0. None for the optimizer's own rate.
        total_steps: Updates of the planned run; None if it is unknown: then warm-ups of up to 1000
            updates are tried.
        budget: Most updates of all trials; at least 1. A trial that does not fit is left out.
        optimizer, monitor, seed, verbose: As in `lr_find`.
        stop_factor: How far the loss may rise, above 1, as in `lr_find`.

    Returns:
        A `WarmUpSearch`; `print` shows the answer as a sentence.

    Raises:
        ValueError: If an argument is out of its range, the optimizer has a schedule and `max_lr`
            is None, it is a `ScheduleFree` with a warm-up of its own, the loss is not finite before
            training, the rate does not change it, or the data ends before a trial.
        TypeError: If an argument is of the wrong kind.

    Source: Godbole et al., "Deep learning tuning playbook" (2023), "How to choose the length of
    the warm-up", with half decades in place of its lengths.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> print(keras_lr.find_warmup(model, x, x.sum(axis=1), max_lr=0.01, verbose=0))
    No warm-up is needed: training survives the rate 0.01 from the first update.
    """
    if max_lr is not None:
        max_lr = checks.number("max_lr", max_lr, above=0)
    if total_steps is not None:
        total_steps = checks.count("total_steps", total_steps)
    budget = checks.count("budget", budget)
    stop_factor = checks.number("stop_factor", stop_factor, above=1)
    monitor = checks.log_entry("monitor", monitor)
    seed = None if seed is None else checks.count("seed", seed, 0)
    verbose = checks.verbosity(verbose, auto=True)
    chosen = check_model(model, optimizer, "find_warmup")
    _check_no_warm_up(chosen)
    if max_lr is None:
        max_lr = own_rate(chosen)
    if x is None:
        raise ValueError("find_warmup needs data; got x=None. Pass x and y, or a data set as x.")
    checks.class_weights("class_weight", class_weight)
    fit_options = {"batch_size": batch_size, "shuffle": shuffle, "class_weight": class_weight}
    data = TrainingData(model, x, y, sample_weight, steps_per_epoch, fit_options)
    lengths = candidate_lengths(total_steps)
    with passed_to_fit(data, None) as (passed, _, _):
        check_kinds(model, passed.x, passed.y, passed.sample_weight)
        borrowed = borrow(model, passed.stream, seed, optimizer=chosen, monitor=monitor)
        with borrowed as bench, progress(verbose, budget, "Warm-up") as bench.report:
            return _search(bench, max_lr, lengths, budget, stop_factor)


def candidate_lengths(total_steps: int | None) -> list[int]:
    """The warm-ups to try for a run of so many updates; 1000 at most if that is unknown."""
    most = LONGEST if total_steps is None else total_steps // SHARE
    return [length for length in LENGTHS if length <= most]


def trial_rates(max_lr: float, length: int) -> np.ndarray:
    """The rate of each update of a trial: the warm-up of `WarmUp(steps=length)`, then the rate."""
    warm_up = np.arange(length) / max(length, 1)
    return max_lr * np.concatenate([warm_up, np.ones(max(2 * length, HOLD))])


def survives(losses: np.ndarray, stop_reason: str, start: float) -> bool:
    """Whether training survived a trial.

    Args:
        losses: Of its batches.
        stop_reason: "completed", or why it ended early.
        start: The loss before training.
    """
    if stop_reason != "completed":
        return False
    smooth = _smoothed(losses)
    best, end = float(np.min(smooth)), float(smooth[-1])
    return end < start and end <= (start + min(best, start)) / 2


def _check_no_warm_up(optimizer: Any) -> None:
    """Raise if an optimizer warms up itself, which every trial would include."""
    for each in innermost_optimizers(optimizer):
        if isinstance(each, ScheduleFree) and (each.warmup_steps or each.rectify):
            raise ValueError(
                "find_warmup needs an optimizer without a warm-up of its own; got ScheduleFree "
                f"with warmup_steps={each.warmup_steps} and rectify={each.rectify}. Compile the "
                "model without them, and pass the answer as warmup_steps."
            )


def own_rate(optimizer: Any) -> float:
    """The number that an optimizer was compiled with.

    Raises:
        ValueError: If it has a schedule, or the rate is not above 0.
    """
    inner = innermost_optimizers(optimizer)
    schedule = next((name for name in map(schedule_of, inner) if name is not None), None)
    if schedule is not None:
        raise ValueError(
            f"max_lr must be given for an optimizer with a schedule; got {schedule} and "
            "max_lr=None. Pass the largest rate of the run."
        )
    return checks.number("The optimizer's learning rate", max(map(current_rate, inner)), above=0)


def _search(
    bench: Workbench, max_lr: float, lengths: list[int], budget: int, stop_factor: float
) -> WarmUpSearch:
    look = bench.run(np.zeros(_LOOK))
    if look.stop_reason != "completed":
        raise ValueError(_no_start(look))
    start = float(np.median(look.losses))
    ceiling = start + max(abs(start), float(np.ptp(look.losses)))
    trials: list[WarmUpTrial] = []
    spent = 0
    for length in lengths:
        rates = trial_rates(max_lr, length)
        spent += len(rates)
        if spent > budget:
            return WarmUpSearch(max_lr, None, tuple(trials), start, length)
        run = bench.run(rates, stop_factor=stop_factor, ceiling=ceiling)
        if run.stop_reason == "data_ended":
            raise ValueError(
                f"The data ended after {len(run.losses)} of {len(rates)} updates of a trial. Pass "
                "data that can be repeated, not a generator that ends."
            )
        first = run.losses[:_LOOK]  # of the batches that the look saw
        if length == 0 and len(first) == _LOOK and unmoved(look.losses, first):
            raise ValueError(
                f"The rate {max_lr:.3g} must change the loss; it did not, in {_LOOK} updates. "
                "Raise it, scale inputs that may saturate the outputs, and check that the loss "
                "depends on weights that train."
            )
        survived = survives(run.losses, run.stop_reason, start)
        finite = run.stop_reason != "non_finite"
        loss = float(_smoothed(run.losses)[-1]) if finite and len(run.losses) else np.inf
        trials.append(WarmUpTrial(length, survived, loss, len(run.losses)))
        if survived:
            return WarmUpSearch(max_lr, length, tuple(trials), start, None)
    return WarmUpSearch(max_lr, None, tuple(trials), start, None)


def _no_start(look: Run) -> str:
    if look.stop_reason == "data_ended":
        return (
            f"The data must have at least {_LOOK} batches for find_warmup; got {len(look.losses)}. "
            "Pass data that can be repeated, not a generator that ends."
        )
    return "The loss must be finite before training; it was not. Check the data and the model."


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """The median of each five losses in a row."""
    width = min(_MEDIAN, len(losses))
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(losses, width), axis=1))
