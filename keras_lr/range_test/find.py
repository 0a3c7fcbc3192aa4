"""`lr_find`: the range test as a function."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from keras_lr._keras.distribution import check_distribution, evenly_shared
from keras_lr._keras.metrics import directions_of
from keras_lr._util import checks
from keras_lr._util.classes import ranked
from keras_lr._util.terminal import is_notebook, is_seen
from keras_lr._util.versions import machinery
from keras_lr.loops.data import (
    DataEnded,
    Part,
    Rows,
    batch_rows,
    is_array_data,
    stream,
    take_rows,
)
from keras_lr.loops.sent import Sent, overrides_fit, sent_by_fit
from keras_lr.range_test.checks import check_kinds, first_not_finite, scale_hints
from keras_lr.range_test.confirm import confirm
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import Confirmation, NoSuggestion
from keras_lr.range_test.workbench import Run, Workbench, borrow
from keras_lr.steering import choose_optimizer, driven_optimizers

_MAX_COPIED_BYTES = 2**26


@dataclass(frozen=True)
class Options:
    """How a range test is made, checked; `lr_find` says what each one means."""

    start_lr: float = 1e-7
    end_lr: float = 10.0
    steps: int = 100
    ramp: str = "exponential"
    repeats: int = 1
    stop_factor: float | None = 4.0
    monitor: str = "loss"
    validation_every: int | None = None
    validation_samples: int = 512
    confirm: bool = False
    seed: int | None = None
    verbose: str | int | bool = "auto"

    def __post_init__(self) -> None:
        for name in ("start_lr", "end_lr"):
            checks.number(name, getattr(self, name), above=0.0)
        if self.start_lr >= self.end_lr:
            raise ValueError(
                "start_lr must be below end_lr; got "
                f"start_lr={self.start_lr!r} and end_lr={self.end_lr!r}."
            )
        counts = {"steps": 3, "repeats": 1, "validation_samples": 1}
        optional = {"validation_every": 1, "seed": 0}
        for name, least in {**counts, **optional}.items():
            value = getattr(self, name)
            if name in counts or value is not None:
                checks.count(name, value, least)
        checks.choice("ramp", self.ramp, ("exponential", "linear"))
        if self.stop_factor is not None:
            way_out = "Pass None to run the ramp to its end."
            checks.number("stop_factor", self.stop_factor, above=1.0, way_out=way_out)
        if not isinstance(self.monitor, str):
            raise TypeError(f"monitor must be the name of a log entry; got {self.monitor!r}.")
        checks.flag("confirm", self.confirm)
        if self.verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0 or 1; got {self.verbose!r}.")

    @property
    def learning_rates(self) -> np.ndarray:
        """The ramp: rate of each step, both ends included."""
        space = np.geomspace if self.ramp == "exponential" else np.linspace
        return space(self.start_lr, self.end_lr, self.steps)


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
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    steps: int = 100,
    ramp: str = "exponential",
    repeats: int = 1,
    stop_factor: float | None = 4.0,
    optimizer: Any = None,
    monitor: str = "loss",
    validation_data: Any = None,
    validation_every: int | None = None,
    validation_samples: int = 512,
    confirm: bool = False,
    seed: int | None = None,
    verbose: str | int = "auto",
) -> RangeTest:
    """Train for a moment at rising learning rates, and give the model back as it was.

    The learning-rate range test of Smith (2015, arXiv 1506.01186, section 3.3), with an
    exponential ramp as in fastai. The losses are the true losses of each batch. Afterwards the
    model, its optimizer, its metrics and the random generators are as before, bit for bit, also
    after an exception or Ctrl-C: `fit` after `lr_find` equals `fit` without it. What is not
    ours to put back is the position of your own data object: a generator has given batches
    away, and a shuffled `tf.data.Dataset` goes on to its next order.

    Args:
        model: A compiled Keras model.
        x, y, batch_size, sample_weight, class_weight, shuffle, steps_per_epoch: As in
            `model.fit`. A class that overrides `fit`, as KerasHub's tasks do to preprocess, has
            its `fit` called with them; it trains nothing, and the test uses what it passes on to
            Keras's `fit`. Data shorter than the ramp is repeated; where it cannot be (a generator
            that ends), the test ends there.
        start_lr: Rate of the first step, above 0.
        end_lr: Rate of the last step, above `start_lr`.
        steps: Steps of the ramp, at least 3. A step is one update of the weights; with gradient
            accumulation it takes several batches, at one rate, and records their mean.
        ramp: "exponential" or "linear" (Smith's).
        repeats: Ramps to run, each from the same weights on the next batches of the data. The
            suggestion then has an interval from their spread.
        stop_factor: The test stops when the smoothed loss exceeds the best one by
            `stop_factor - 1` times the scale of the losses (`range_test.stopping` has the
            rule, which holds for losses below zero too); above 1, or None to run to the end. It
            always stops at a loss that is not finite.
        optimizer: The optimizer that gets the rates, where the model holds several, as a GAN
            does: its name (`"d_optimizer"`, `"optimizers[0]"`) or the optimizer itself. All
            others train at their own rates. None takes the only one.
        monitor: Name of the log entry that is the loss, for a training step that logs others
            ("g_loss"). Nested logs are flattened, as `fit` does.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set. The loss on a fixed
            sample of it is measured along the ramp.
        validation_every: Steps between those measurements; a 25th of the ramp by default.
        validation_samples: Size of that sample; all of the data if it has fewer.
        confirm: After the ramp, train from the same weights for a moment at a few constant
            rates, and answer with the one that did best on held-out data: within 500 steps in
            all, where the ramp alone takes 100. The held-out data are those of
            `validation_data`, and else a part of the training data that these runs leave out: rows
            of arrays, batches of a `PyDataset`, the first batches of any other data set. A data
            set that shuffles anew each time (`tf.data.Dataset.shuffle`, a shuffling
            `DataLoader`) may bring those back in later epochs; give `validation_data` with it.
        seed: Seeds data order and noise for this test alone, the dropout of the model included:
            with one seed, equal models give equal curves. None goes on from the current state
            of the random generators (which is put back either way).
        verbose: 1 shows a progress bar on stderr, 0 does not, "auto" does in a
            terminal and in a notebook.

    Returns:
        A `RangeTest`.

    Raises:
        ValueError: If an argument is out of its range, the model is not compiled or has nothing
            to train, there is no data, arrays hold text or Python objects where numbers are
            needed, or the loss was not finite and arrays hold NaN or infinity (the message
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
    options = Options(
        start_lr=start_lr,
        end_lr=end_lr,
        steps=steps,
        ramp=ramp,
        repeats=repeats,
        stop_factor=stop_factor,
        monitor=monitor,
        validation_every=validation_every,
        validation_samples=validation_samples,
        confirm=confirm,
        seed=seed,
        verbose=verbose,
    )
    chosen = check_model(model, optimizer, "lr_find")
    if x is None:
        raise ValueError("lr_find needs data; got x=None. Pass x and y, or a data set as x.")
    fit_options = {"batch_size": batch_size, "shuffle": shuffle, "class_weight": class_weight}
    data = TrainingData(model, x, y, sample_weight, steps_per_epoch, fit_options)
    with as_fit_sends(data, validation_data) as (data, validation_data, batch_size):
        arrays = is_array_data(data.x, data.y, data.sample_weight)
        check_kinds(model, data.x if arrays else None, data.y, data.sample_weight)
        test = run_range_test(
            model, chosen, data.stream, options, validation_data, batch_size, data.hold_out
        )
        if not arrays:
            return test
        if test.stop_reason == "non_finite":
            # Only then: a loss may well mask NaN in its targets.
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
    """What a `fit` of `model` would train on; the arguments have the meanings they have there."""

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

    def hold_out(self, samples: int, bench: Workbench) -> tuple[Any, list[Any]]:
        """Data for the confirmation: a stream without the held-out batches, and those."""
        parts, size = (self.x, self.y, self.sample_weight), self.fit_options.get("batch_size")
        if not is_array_data(*parts):
            return self._hold_out_batches(samples, bench)
        # A rare class must not be missing from the held-out rows.
        total, seed = len(keras.tree.flatten(self.x)[0]), np.random.randint(2**31)
        rows = ranked(self.y, total, seed)
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

    def _hold_out_batches(self, samples: int, bench: Workbench) -> tuple[Any, list[Any]]:
        count = getattr(self.x, "num_batches", None)
        if not isinstance(self.x, keras.utils.PyDataset) or count is None or count < 2:
            return bench.stream, bench.stream.hold_out(samples)
        # Its batches have numbers, so that those held out stay out whatever the order.
        order = np.random.permutation(count)
        per_batch = max(1, batch_rows(self.x[int(order[0])]))
        held = min(-(-samples // per_batch), max(1, count // 5))
        judged = stream(self.model, Part(self.x, order[:held]), shuffle=False)
        sample = list(judged.iterator())
        judged.close()
        bench.stream.close()
        kept = Part(self.x, order[held:])
        return stream(
            self.model, kept, steps_per_epoch=self.steps_per_epoch, **self.fit_options
        ), sample


@contextmanager
def as_fit_sends(
    data: TrainingData, validation_data: Any
) -> Iterator[tuple[TrainingData, Any, int | None]]:
    """Data, validation data and its batch size as Keras's `fit` gets them from `model.fit`.

    They are what was given, unless the model's class overrides `fit`.
    """
    names = {"sample_weight": data.sample_weight, "steps_per_epoch": data.steps_per_epoch}
    size = data.fit_options.get("batch_size")
    given = Sent(data.x, data.y, validation_data, size, {**names, **data.fit_options})
    with sent_by_fit(data.model, given) as sent:
        options = {name: value for name, value in sent.options.items() if name not in names}
        sent_data = TrainingData(
            data.model,
            sent.x,
            sent.y,
            sent.options["sample_weight"],
            sent.options["steps_per_epoch"],
            options,
        )
        yield sent_data, sent.validation_data, sent.validation_batch_size


@contextmanager
def validation_as_fit_sends(
    model: Any, validation_data: Any, batch_size: int | None
) -> Iterator[tuple[Any, int | None]]:
    """The same for validation data alone, where `fit` has sent the training data already."""
    if validation_data is None or not overrides_fit(model):
        yield validation_data, batch_size
        return
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
    options = {"batch_size": batch_size}
    data = TrainingData(model, x, y, sample_weight, fit_options=options)
    with as_fit_sends(data, validation_data) as (_, sent, size):
        yield sent, size


def run_range_test(
    model: Any,
    optimizer: Any,
    training_data: Callable[[], Any],
    options: Options,
    validation_data: Any,
    batch_size: int | None,
    hold_out: Callable[[int, Workbench], tuple[Any, list[Any]]],
) -> RangeTest:
    """The test itself, for any source of batches.

    Args:
        optimizer: The one of the model's optimizers that gets the rates.
        hold_out: Given a number of samples and the bench, a stream and what was taken out of it.
    """
    rates = options.learning_rates
    every = options.validation_every or max(1, options.steps // 25)
    confirmation: Confirmation | None = None
    borrowed = borrow(
        model, training_data, options.seed, optimizer=optimizer, monitor=options.monitor
    )
    with borrowed as bench, _progress(options) as report:
        sample = None
        if validation_data is not None:
            sample = sample_batches(model, validation_data, options.validation_samples, batch_size)
        runs: list[Run] = []
        for _ in range(options.repeats):
            if runs and runs[-1].stop_reason == "data_ended":
                break
            runs.append(
                bench.run(
                    rates,
                    stop_factor=options.stop_factor,
                    validation=sample,
                    validation_every=every,
                    report=report,
                )
            )
        test = _assemble(rates, runs)
        if options.confirm:
            confirmation = _confirm(
                bench, test, sample, lambda: hold_out(options.validation_samples, bench)
            )
        cost = bench.steps_trained
        provenance = _provenance(model, optimizer, options, bench)
        provenance["directions"] = directions_of(model, test.metrics)
    test.confirmation, test.training_steps, test.provenance = confirmation, cost, provenance
    return test


def check_model(model: Any, optimizer: Any = None, whose: str = "lr_find") -> Any:
    """Refuse what cannot be trained; returns the optimizer that is to be driven.

    Args:
        optimizer: Which one, as in `lr_find`.
        whose: Who asks, for the messages.

    Raises:
        TypeError: If it is no Keras model, or `optimizer` is neither a name nor an optimizer.
        ValueError: If it is not compiled, has no such optimizer, or Keras cannot train it.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model must be a Keras model; got {type(model).__name__}. "
            "Load a saved one with keras.saving.load_model."
        )
    own = type(model).compile is not keras.Model.compile
    needed = keras.backend.backend() == "jax"  # where `fit` reads its variables
    if not model.compiled or needed and getattr(model, "optimizer", None) is None:
        way_out = "Call model.compile(optimizer=..., loss=...) first."
        if own:
            way_out = "Call its compile() first, which must call super().compile()."
        raise ValueError(
            f"The model {model.name!r} must be compiled with an optimizer and a loss. {way_out}"
        )
    if type(model).make_train_function is not keras.Model.make_train_function:
        raise ValueError(
            f"{whose} trains with train_step; {type(model).__name__} overrides "
            "make_train_function, which may train in another way. Override train_step in its place."
        )
    check_distribution(model)
    return choose_optimizer(model, optimizer, whose)


def sample_batches(
    model: Any,
    data: Any,
    samples: int,
    batch_size: int | None,
    class_weight: dict[int, float] | None = None,
) -> list[Any]:
    """A fixed sample of validation data, as batches: rows spread evenly over arrays."""
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


class _Lab:
    """What a confirmation may ask for: short runs from the model's starting point."""

    def __init__(self, bench: Workbench, held_out: list[Any]) -> None:
        self._bench = bench
        self._held_out = held_out

    def ramp(self, start_lr: float, end_lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        run = self._bench.run(
            np.geomspace(start_lr, end_lr, steps), stop_factor=Options.stop_factor
        )
        return run.learning_rates, run.losses

    def start(self) -> float:
        return self._bench.start_loss(self._held_out)

    def train(self, learning_rate: float, steps: int) -> float:
        return self._bench.train(learning_rate, steps, self._held_out)


def _confirm(
    bench: Workbench,
    test: RangeTest,
    sample: list[Any] | None,
    hold_out: Callable[[], tuple[Any, list[Any]]],
) -> Confirmation | None:
    if sample is None:
        bench.stream, sample = hold_out()
    try:
        return confirm(
            _Lab(bench, sample),
            test.learning_rates,
            test.losses,
            validation=test.validation,
        )
    except NoSuggestion:
        return None  # suggest() says why, and the curve is there to be looked at
    except DataEnded:
        warnings.warn(
            "The data ended before the candidates were confirmed, so the suggestion comes from "
            "the curve alone. Pass data that can be repeated, not a generator that ends.",
            stacklevel=4,
        )
        return None


def _assemble(rates: np.ndarray, runs: list[Run]) -> RangeTest:
    """One result of all repeats; those that stopped earlier are padded with NaN."""
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
    """The mean over repeats, as far as all of them got."""
    if not checks:
        return None
    shortest = min(len(check["learning_rates"]) for check in checks)
    return {
        name: np.mean([check[name][:shortest] for check in checks], axis=0) for name in checks[0]
    }


def _provenance(model: Any, optimizer: Any, options: Options, bench: Workbench) -> dict[str, Any]:
    return {
        **machinery(),
        "model": model.name,
        "optimizer": type(driven_optimizers(optimizer)[0]).__name__,
        "group_ratios": bench.ratios,
        "snapshot_bytes": bench.snapshot_bytes,
        "options": asdict(options),
    }


@contextmanager
def _progress(options: Options) -> Iterator[Callable[[int, float, float], None] | None]:
    """A bar on stderr with step, rate and loss; nothing when it would not be seen."""
    if not (is_seen() if options.verbose == "auto" else options.verbose):
        yield None
        return
    if is_notebook():  # where rich wants another package to draw in
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
        task = progress.add_task("", total=options.steps, now=_now(options.start_lr, None))
        yield lambda step, rate, loss: progress.update(task, completed=step, now=_now(rate, loss))


def _now(rate: float, loss: float | None) -> str:
    """The rate, and the loss once a step is done."""
    return f"lr {rate:.2e}" + ("" if loss is None else f"  loss {loss:.4g}")


@contextmanager
def _notebook_progress(options: Options) -> Iterator[Callable[[int, float, float], None]]:
    """A line that writes over itself."""
    width = 30

    def show(step: int, rate: float, loss: float | None) -> None:
        done = width * step // options.steps
        bar = "━" * done + "─" * (width - done)
        line = f"Range test {bar} {step}/{options.steps} {_now(rate, loss)}"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)

    show(0, options.start_lr, None)
    try:
        yield show
    finally:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
