"""`lr_find`: the range test as a function, from the data to the result."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lr._keras.distribution import evenly_shared
from keras_lr._keras.metrics import directions_of
from keras_lr._util.stratify import stratified_order
from keras_lr._util.terminal import is_interactive, is_notebook
from keras_lr._util.versions import environment
from keras_lr.loops.data import (
    DataEnded,
    Part,
    Rows,
    batch_rows,
    is_array_data,
    stream,
    take_rows,
)
from keras_lr.loops.overridden_fit import FitArguments, overrides_fit, passed_to_keras
from keras_lr.range_test.checks import check_kinds, check_model, first_not_finite, scale_hints
from keras_lr.range_test.confirm import confirm
from keras_lr.range_test.options import Options, checked_options, ramp_rates, takes_options
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import Confirmation, NoSuggestion
from keras_lr.range_test.workbench import Run, Workbench, borrow
from keras_lr.steering import innermost_optimizers

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MAX_COPIED_BYTES = 2**26


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
    """Train briefly at rising learning rates, then restore the model.

    The learning-rate range test of Smith (2015, arXiv 1506.01186, section 3.3), with an
    exponential ramp as in fastai. The losses are the true losses of each batch. Afterwards the
    model, its optimizer, its metrics and the random generators are as before, bit for bit, also
    after an exception or Ctrl-C: `fit` after `lr_find` equals `fit` without it. The position of
    your own data object cannot be restored: a generator has yielded its batches, and a shuffled
    `tf.data.Dataset` continues with its next order.

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
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set. The loss on a fixed
            sample of it is measured along the ramp.
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
    >>> test = keras_lr.lr_find(model, x, x.sum(axis=1), verbose=0)
    >>> 1e-4 < test.suggest().learning_rate < 10.0
    True
    """
    settings = checked_options(options, "lr_find")
    chosen = check_model(model, optimizer, "lr_find")
    if x is None:
        raise ValueError("lr_find needs data; got x=None. Pass x and y, or a data set as x.")
    fit_options = {"batch_size": batch_size, "shuffle": shuffle, "class_weight": class_weight}
    data = TrainingData(model, x, y, sample_weight, steps_per_epoch, fit_options)
    with passed_to_fit(data, validation_data) as (data, validation_data, batch_size):
        arrays = is_array_data(data.x, data.y, data.sample_weight)
        check_kinds(model, data.x if arrays else None, data.y, data.sample_weight)
        test = run_range_test(
            model, chosen, data.stream, settings, validation_data, batch_size, data.hold_out
        )
        if not arrays:
            return test
        if test.stop_reason == "non_finite":
            # Only then: a loss may mask NaN in its targets on purpose.
            found = first_not_finite(data.x, data.y, data.sample_weight)
            if found is not None:
                raise ValueError(
                    f"{found}, and the loss was not finite after {len(test.losses)} steps. Fill "
                    "or drop such rows."
                )
        test.provenance["batch_size"] = batch_size or 32
        test.provenance["hints"] = scale_hints(model, data.x, data.y)
        return test


@dataclass(frozen=True)
class TrainingData:
    """The data of a `fit` of `model`; the arguments have their meanings there."""

    model: Any
    x: Any
    y: Any = None
    sample_weight: Any = None
    steps_per_epoch: int | None = None
    fit_options: dict[str, Any] = field(default_factory=dict)

    def stream(self) -> Any:
        weights, size = self.sample_weight, self.steps_per_epoch
        options = {"sample_weight": weights, "steps_per_epoch": size, **self.fit_options}
        return stream(self.model, self.x, self.y, **options)

    def hold_out(self, samples: int, used: Any) -> tuple[Any, list[Any]]:
        """Data for the confirmation: a stream without the held-out batches, and those batches.

        Args:
            samples: Examples to hold out.
            used: The stream that the ramp has read; closed, or returned without what is held out.
        """
        parts, size = (self.x, self.y, self.sample_weight), self.fit_options.get("batch_size")
        if not is_array_data(*parts):
            return self._hold_out_batches(samples, used)
        # A rare class must not be missing from the held-out rows.
        total, seed = len(keras.tree.flatten(self.x)[0]), np.random.randint(2**31)
        rows = stratified_order(self.y, total, seed)
        held = evenly_shared(min(samples, max(1, len(rows) // 5)))
        judged, weights = take_rows(parts, rows[:held]), self.fit_options.get("class_weight")
        sample = sample_batches(self.model, judged, held, size, weights)
        row_bytes = sum(
            take_rows(leaf, rows[:1]).nbytes
            for leaf in keras.tree.flatten(parts)
            if leaf is not None
        )
        if len(rows) == held:
            rest = parts
        elif len(rows) * row_bytes <= _MAX_COPIED_BYTES:
            rest = take_rows(parts, rows[held:])
        else:
            options = {**self.fit_options, "batch_size": None}
            shuffle = bool(options.get("shuffle", True))
            read = Rows(parts, rows[held:], size or 32, shuffle)
            return stream(self.model, read, **options), sample
        kept = stream(self.model, rest[0], rest[1], sample_weight=rest[2], **self.fit_options)
        return kept, sample

    def _hold_out_batches(self, samples: int, used: Any) -> tuple[Any, list[Any]]:
        count = getattr(self.x, "num_batches", None)
        if not isinstance(self.x, keras.utils.PyDataset) or count is None or count < 2:
            return used, used.hold_out(samples)
        # Its batches have numbers: those held out stay out in any order.
        order = np.random.permutation(count)
        per_batch = max(1, batch_rows(self.x[int(order[0])]))
        held = min(-(-samples // per_batch), max(1, count // 5))
        judged = stream(self.model, Part(self.x, order[:held]), shuffle=False)
        sample = list(judged.iterator())
        judged.close()
        used.close()
        kept = Part(self.x, order[held:])
        return stream(
            self.model, kept, steps_per_epoch=self.steps_per_epoch, **self.fit_options
        ), sample


@contextmanager
def passed_to_fit(
    data: TrainingData, validation_data: Any
) -> Iterator[tuple[TrainingData, Any, int | None]]:
    """Training data, validation data and its batch size as `model.fit` passes them to Keras.

    They are unchanged unless the model's class overrides `fit`.
    """
    names = {"sample_weight": data.sample_weight, "steps_per_epoch": data.steps_per_epoch}
    size = data.fit_options.get("batch_size")
    given = FitArguments(data.x, data.y, validation_data, size, {**names, **data.fit_options})
    with passed_to_keras(data.model, given) as passed:
        options = {name: value for name, value in passed.options.items() if name not in names}
        passed_data = TrainingData(
            data.model,
            passed.x,
            passed.y,
            passed.options["sample_weight"],
            passed.options["steps_per_epoch"],
            options,
        )
        yield passed_data, passed.validation_data, passed.validation_batch_size


@contextmanager
def validation_passed_to_fit(
    model: Any, validation_data: Any, batch_size: int | None
) -> Iterator[tuple[Any, int | None]]:
    """The same for validation data alone, in a `fit` that has passed the training data already."""
    if validation_data is None or not overrides_fit(model):
        yield validation_data, batch_size
        return
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
    options = {"batch_size": batch_size}
    data = TrainingData(model, x, y, sample_weight, fit_options=options)
    with passed_to_fit(data, validation_data) as (_, passed, size):
        yield passed, size


def run_range_test(
    model: Any,
    optimizer: Any,
    training_data: Callable[[], Any],
    options: Options,
    validation_data: Any,
    batch_size: int | None,
    hold_out: Callable[[int, Any], tuple[Any, list[Any]]],
) -> RangeTest:
    """Run the test with any source of batches; `LRFinder` calls this too.

    Args:
        optimizer: The optimizer of the model that gets the rates.
        training_data: Makes the stream of batches.
        hold_out: From a number of samples and the stream that the ramp used, a stream for the
            confirmation and the batches that it leaves out.
    """
    rates = ramp_rates(options)
    every = options["validation_every"] or max(1, options["steps"] // 25)
    confirmation: Confirmation | None = None
    borrowed = borrow(
        model, training_data, options["seed"], optimizer=optimizer, monitor=options["monitor"]
    )
    with borrowed as bench, _progress(options) as report:
        sample = None
        if validation_data is not None:
            samples = options["validation_samples"]
            sample = sample_batches(model, validation_data, samples, batch_size)
        runs: list[Run] = []
        for _ in range(options["repeats"]):
            if runs and runs[-1].stop_reason == "data_ended":
                break
            runs.append(
                bench.run(
                    rates,
                    stop_factor=options["stop_factor"],
                    validation=sample,
                    validation_every=every,
                    report=report,
                )
            )
        test = _assemble(rates, runs)
        if options["confirm"]:
            if sample is None:
                bench.stream, sample = hold_out(options["validation_samples"], bench.stream)
            bench.held_out = sample
            confirmation = _confirm(bench, test)
        cost = bench.steps_trained
        provenance = _provenance(model, optimizer, options, bench)
        provenance["directions"] = directions_of(model, test.metrics)
    test.confirmation, test.training_steps, test.provenance = confirmation, cost, provenance
    return test


def sample_batches(
    model: Any,
    data: Any,
    samples: int,
    batch_size: int | None,
    class_weight: dict[int, float] | None = None,
) -> list[Any]:
    """A fixed sample of validation data as batches; of arrays, rows at equal distances."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if is_array_data(x, y, sample_weight):
        total = len(keras.tree.flatten(x)[0])
        count = evenly_shared(min(samples, total))
        rows = np.unique(np.linspace(0, total - 1, count).astype(int))
        x, y, sample_weight = take_rows((x, y, sample_weight), rows)
    options = {"batch_size": batch_size, "class_weight": class_weight, "shuffle": False}
    batches = stream(model, x, y, sample_weight=sample_weight, **options)
    if is_array_data(x, y, sample_weight):
        return list(batches.iterator())
    sample = batches.hold_out(samples, share=1)
    batches.close()
    return sample


def _confirm(bench: Workbench, test: RangeTest) -> Confirmation | None:
    try:
        return confirm(bench, test.learning_rates, test.losses, validation=test.validation)
    except NoSuggestion:
        return None  # `suggest` gives the reason, and the test still has its curve
    except DataEnded:
        warnings.warn(
            "The data ended before the candidates were confirmed, so the suggestion comes from "
            "the curve alone. Pass data that can be repeated, not a generator that ends.",
            stacklevel=4,
        )
        return None


def _assemble(rates: np.ndarray, runs: list[Run]) -> RangeTest:
    """One result of all repeats; those that stopped early are padded with NaN."""
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


def _provenance(model: Any, optimizer: Any, options: Options, bench: Workbench) -> dict[str, Any]:
    return {
        **environment(),
        "model": model.name,
        "optimizer": type(innermost_optimizers(optimizer)[0]).__name__,
        "group_ratios": bench.ratios,
        "snapshot_bytes": bench.snapshot_bytes,
        "options": dict(options),
    }


@contextmanager
def _progress(options: Options) -> Iterator[Callable[[int, float, float], None] | None]:
    """A progress bar on stderr with step, rate and loss, unless nobody would see it."""
    if not (is_interactive() if options["verbose"] == "auto" else options["verbose"]):
        yield None
        return
    if is_notebook():  # rich needs another package there
        with _notebook_progress(options) as report:
            yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("Range test"),
        BarColumn(max(4, min(40, console.width - 50))),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=options["steps"], now=_now(options["start_lr"], None))
        yield lambda step, rate, loss: progress.update(task, completed=step, now=_now(rate, loss))


def _now(rate: float, loss: float | None) -> str:
    """The rate, and the loss after the first step."""
    return f"lr {rate:.2e}" + ("" if loss is None else f"  loss {loss:.4g}")


@contextmanager
def _notebook_progress(options: Options) -> Iterator[Callable[[int, float, float], None]]:
    """A progress bar that overwrites its own line."""
    width, total = 30, options["steps"]

    def show(step: int, rate: float, loss: float | None) -> None:
        done = width * step // total
        bar = "━" * done + "─" * (width - done)
        line = f"Range test {bar} {step}/{total} {_now(rate, loss)}"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)

    show(0, options["start_lr"], None)
    try:
        yield show
    finally:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
