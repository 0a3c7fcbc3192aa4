"""`lr_find`: the range test as a function, from the data to the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._keras.metrics import directions_of
from keras_lr._util import checks
from keras_lr._util.versions import environment
from keras_lr.loops.data import is_array_data
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.checks import (
    NotFinite,
    check_kinds,
    check_model,
    first_not_finite,
    scale_hints,
)
from keras_lr.range_test.options import (
    RAMP_ALONE,
    Options,
    checked_options,
    divided_budget,
    ramp_rates,
    takes_options,
)
from keras_lr.range_test.planned_run import PlannedRun, planned_run, schedule_free_run
from keras_lr.range_test.prior import SCHEDULE_FREE_FAMILIES, usual_rate
from keras_lr.range_test.progress import progress
from keras_lr.range_test.recording import Run
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.short_runs import (
    CannotCompare,
    HeldOutRuns,
    RunData,
    continuation,
    prepare,
    short_runs,
)
from keras_lr.range_test.training_data import (
    TrainingData,
    passed_to_fit,
    sample_batches,
)
from keras_lr.range_test.workbench import Workbench
from keras_lr.steering import innermost_optimizers, updates_every

if TYPE_CHECKING:
    from typing_extensions import Unpack


MANY_EPOCHS = 200


@takes_options
def lr_find(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool | str = True,
    steps_per_epoch: int | None = None,
    optimizer: Any = None,
    validation_data: Any = None,
    **options: Unpack[Options],
) -> RangeTest:
    """Test learning rates for a run that you plan, by brief training, and restore the model.

    `suggest()` of the result returns the learning rate and its interval. Describe the planned run
    by `policy` and by `total_steps` or `epochs`.

    The test has two parts. A ramp of rising rates is the learning-rate range test of Smith (2015,
    arXiv 1506.01186, section 3.3), exponential as in fastai; it records the true loss of each
    batch. Short runs at constant rates, from the same weights, are then compared on held-out data.
    By default a test with a `budget` of 100 to 199 steps has only short runs, and one below 100
    steps has only a ramp.

    Afterwards the model, its optimizer, its metrics and the random generators are as before, bit
    for bit, also after an exception or Ctrl-C: `fit` after `lr_find` equals `fit` without it.
    `lr_find` cannot restore the position of your data object: a generator has yielded its batches,
    and a shuffled `tf.data.Dataset` continues with its next order.

    Args:
        model: A compiled Keras model.
        x, y, batch_size, sample_weight, class_weight, shuffle, steps_per_epoch: As in
            `model.fit`. If the model's class overrides `fit`, as KerasHub's tasks do to
            preprocess, that `fit` is called with them, without training, and the test uses what
            it passes to Keras's `fit`. Data shorter than the ramp is repeated; if it cannot be
            (a generator that ends), the test ends there.
        optimizer: The optimizer that gets the rates if the model holds several, as a GAN does:
            its name (`"d_optimizer"`, `"optimizers[0]"`) or the optimizer itself. All others
            train at their own rates. None takes the only one.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set. The short runs are
            compared by the loss on a fixed sample of it, which is also measured along the ramp.
        options: The options of the range test; see `keras_lr.range_test.options.Options`.

    Returns:
        A `RangeTest`.

    Raises:
        ValueError: If an argument is out of its range, the model is not compiled or has no
            trainable weights, there is no data, arrays hold text or Python objects instead of
            numbers, or the loss was not finite and arrays hold NaN or infinity (the message
            names the first row and column).
        TypeError: If an argument is of the wrong kind.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> y = x.sum(axis=1)
    >>> test = keras_lr.lr_find(model, x, y, policy="one-cycle", epochs=10, verbose=0)
    >>> found = test.suggest()
    >>> found.low < found.learning_rate < found.high
    True
    >>> found.run
    'one-cycle, 80 updates'
    """
    settings = checked_options(options, "lr_find")
    chosen = check_model(model, optimizer, "lr_find")
    if x is None:
        raise ValueError("lr_find needs data; got x=None. Pass x and y, or a data set as x.")
    checks.class_weights("class_weight", class_weight)
    fit_options = {"batch_size": batch_size, "shuffle": shuffle, "class_weight": class_weight}
    data = TrainingData(model, x, y, sample_weight, steps_per_epoch, fit_options)
    with passed_to_fit(data, validation_data) as (data, validation_data, batch_size):
        arrays = is_array_data(data.x, data.y, data.sample_weight)
        check_kinds(model, data.x, data.y, data.sample_weight)
        test = run_range_test(model, chosen, data, settings, validation_data, batch_size)
        if not arrays:
            return test
        if test.stop_reason == "non_finite":
            # Only then: a loss may mask NaN in its targets on purpose.
            found = first_not_finite(data.x, data.y, data.sample_weight)
            if found is not None:
                raise NotFinite(
                    f"{found}, and the loss was not finite after {len(test.losses)} steps. Fill "
                    "or drop such rows."
                )
        test.provenance["batch_size"] = batch_size or 32
        test.provenance["hints"] += scale_hints(model, data.x, data.y)
        return test


def run_range_test(
    model: Any,
    optimizer: Any,
    data: RunData,
    options: Options,
    validation_data: Any,
    batch_size: int | None,
    total_steps: int | None = None,
) -> RangeTest:
    """Run the test on any source of batches; `LRFinder` calls this too.

    Args:
        optimizer: The optimizer of the model that gets the rates.
        batch_size: Of the validation data.
        total_steps: Length of the planned run, unless the options have one.
    """
    usual, family = usual_rate(optimizer)
    seed, monitor = options["seed"], options["monitor"]
    if family in SCHEDULE_FREE_FAMILIES:
        schedule_free_run(options["policy"], None)  # refuses a policy before anything is trained
    with borrow(model, data.stream, seed, optimizer=optimizer, monitor=monitor) as bench:
        batches = bench.stream.batches
        length = planned_length(options, batches, optimizer) or total_steps
        per_epoch = updates_per_epoch(batches, optimizer)
        planned = _planned_run(options["policy"], family, length, per_epoch)
        hints = _epochs_hint(length, batches, optimizer)
        samples, sample = options["validation_samples"], None
        if validation_data is not None:
            sample = sample_batches(model, validation_data, samples, batch_size)

        ramp, rest = divided_budget(options, length)
        runs = None
        if not ramp:  # nothing but the short runs can answer
            runs = _held_out_runs(bench, data, samples, sample, hints)
            if runs is None:
                ramp, rest = min(rest, RAMP_ALONE), 0
        rates = ramp_rates(options, ramp, usual)
        total = ramp * options["repeats"] + rest
        with progress(options["verbose"], total) as bench.report:
            test = _assemble(rates, _ramps(bench, rates, options, sample))
            test.planned = planned
            test.provenance = {
                **environment(),
                "model": model.name,
                "optimizer": type(innermost_optimizers(optimizer)[0]).__name__,
                "group_ratios": bench.ratios,
                "snapshot_bytes": bench.snapshot_bytes,
                "options": _used_options(options, rates, total, planned),
                "family": family,
                "updates_per_epoch": per_epoch,
                "hints": hints,
                "directions": directions_of(model, test.metrics),
            }
            if ramp and rest and test.stop_reason != "data_ended":
                runs = _held_out_runs(bench, data, samples, sample, hints)
            left = total - bench.steps_trained
            prober = None if runs is None else short_runs(runs, test, usual, left)
        test.training_steps = bench.steps_trained
    if runs is not None and prober is not None:
        test.probes = prober.probes()
        test._continue = continuation(model, optimizer, prober, runs, seed, monitor)
    return test


def _held_out_runs(
    bench: Workbench, data: RunData, samples: int, sample: list[Any] | None, hints: list[str]
) -> HeldOutRuns | None:
    """Prepare the short runs; where they cannot be compared, add the reason to the hints."""
    try:
        return prepare(bench, data, samples, sample)
    except CannotCompare as error:
        hints.append(str(error))
        return None


def _planned_run(
    policy: Any, family: str, length: int | None, per_epoch: int | None
) -> PlannedRun | None:
    if family in SCHEDULE_FREE_FAMILIES:
        return schedule_free_run(policy, length)
    return planned_run(policy, length, per_epoch)


def _used_options(
    options: Options, rates: np.ndarray, budget: int, planned: PlannedRun | None
) -> dict[str, Any]:
    """The options with the defaults that the test has chosen."""
    used = {**options, "steps": len(rates), "budget": budget}
    used["policy"] = None if planned is None else planned.policy
    if len(rates):
        used["start_lr"], used["end_lr"] = float(rates[0]), float(rates[-1])
    return used


def _ramps(
    bench: Workbench, rates: np.ndarray, options: Options, sample: list[Any] | None
) -> list[Run]:
    """The ramps, each from the same weights on the next batches; fewer if the data end."""
    runs: list[Run] = []
    for _ in range(options["repeats"] if len(rates) else 0):
        if runs and runs[-1].stop_reason == "data_ended":
            break
        run = bench.run(
            rates,
            stop_factor=options["stop_factor"],
            validation=sample,
            validation_every=options["validation_every"] or max(1, len(rates) // 25),
        )
        runs.append(run)
    return runs


def _epochs_hint(length: int | None, batches: int | None, optimizer: Any) -> list[str]:
    """A warning for a run that sees its data so often that overfitting decides."""
    epochs = (length or 0) * updates_every(optimizer) // (batches or 1)
    if not batches or epochs < MANY_EPOCHS:
        return []
    return [
        f"The planned run passes over the data {epochs} times, so overfitting will decide more "
        "than the rate; regularize, or end the run by the validation loss."
    ]


def planned_length(options: Options, batches: int | None, optimizer: Any) -> int | None:
    """Updates of the planned run, as far as the options tell.

    Raises:
        ValueError: If they are given in epochs, and the length of an epoch is unknown.
    """
    if options["epochs"] is None:
        return options["total_steps"]
    if batches is None:
        raise ValueError(
            f"The length of an epoch of this data is unknown, so epochs={options['epochs']!r} "
            "says nothing about the planned run. Pass total_steps."
        )
    return max(1, options["epochs"] * batches // updates_every(optimizer))


def updates_per_epoch(batches: int | None, optimizer: Any) -> int | None:
    """Updates in an epoch; None if its length is unknown."""
    return None if batches is None else max(1, batches // updates_every(optimizer))


def _assemble(rates: np.ndarray, runs: list[Run]) -> RangeTest:
    """One result of all repeats; those that stopped early are padded with NaN."""
    if not runs:
        return RangeTest(np.empty(0), np.empty(0))
    reasons = [run.stop_reason for run in runs]
    runs = [run for run in runs if len(run.losses)] or runs[:1]  # the data may end between two
    steps = max(len(run.losses) for run in runs)

    def joined(columns: list[np.ndarray]) -> np.ndarray:
        rows = np.full((len(runs), steps), np.nan)
        for row, column in zip(rows, columns, strict=True):
            row[: len(column)] = column
        return rows[0] if len(runs) == 1 else rows

    return RangeTest(
        learning_rates=rates[:steps],
        losses=joined([run.losses for run in runs]),
        metrics={name: joined([run.metrics[name] for run in runs]) for name in runs[0].metrics},
        validation=_mean_validation([run.validation for run in runs if run.validation]),
        stop_reason=next((reason for reason in reasons if reason != "completed"), "completed"),
    )


def _mean_validation(checks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray] | None:
    """The mean over repeats, up to the step that all of them reached."""
    if not checks:
        return None
    shortest = min(len(check["learning_rates"]) for check in checks)
    return {
        name: np.mean([check[name][:shortest] for check in checks], axis=0) for name in checks[0]
    }
