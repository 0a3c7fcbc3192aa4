"""`search`: from orders of magnitude to the best rate, in rounds of short trainings."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras

import keras_lr
from keras_lr._keras.metrics import direction_of
from keras_lr._util import checks
from keras_lr._util.interrupts import check_interrupt, recorded_interrupts
from keras_lr._util.terminal import is_interactive, visible
from keras_lr._util.versions import environment
from keras_lr.range_test import NoSuggestion, RangeTest
from keras_lr.rate_search import fingerprint
from keras_lr.rate_search.plan import (
    DIMENSIONS,
    POLICIES,
    Design,
    Job,
    Outcome,
    Plan,
    Round,
    Setting,
    Start,
)
from keras_lr.rate_search.result import Search
from keras_lr.rate_search.runner import Data, Runner, current_momentum, has_momentum, settable_rate
from keras_lr.rate_search.split import usual_fraction
from keras_lr.rate_search.storage import import_optuna
from keras_lr.rate_search.study import RANGE_TEST, Study, Taken, Trial
from keras_lr.steering import SteeredFit, driven_optimizers

PATIENCE = 1.0  # seconds between two looks at what other processes do
ANYWHERE = (1e-5, 1.0, 1e-3)  # ends and centre where the range test has no answer
MOMENTA = (0.8, 0.9, 0.95, 0.98)
WARMUPS = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Options:
    """How a search is made, checked; `search` says what each one means."""

    low: float | None = None
    high: float | None = None
    fraction: float | None = None
    epochs: int = 3
    fine_rounds: int = 2
    points: int = 5
    repeats: int = 3
    also: Mapping[str, Sequence[Any] | None] | Iterable[str] = ()
    objective: str = "val_loss"
    mode: str = "auto"
    pruner: str = "median"
    validation_split: float = 0.2
    seed: int = 0
    timeout: float | None = None
    heartbeat: int = 10
    verbose: str | int = "auto"

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), above=0.0)
        if (self.low is None) != (self.high is None):
            raise ValueError(
                "low and high must be given together; got "
                f"low={self.low!r} and high={self.high!r}. Leave both out for a range test."
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(
                f"low must be below high; got low={self.low!r} and high={self.high!r}."
            )
        if self.fraction is not None:
            checks.number("fraction", self.fraction, above=0.0, most=1.0)
        for name, least in (("epochs", 1), ("fine_rounds", 0), ("repeats", 1), ("heartbeat", 1)):
            checks.count(name, getattr(self, name), least)
        if checks.count("points", self.points, 3) % 2 == 0:
            raise ValueError(
                f"points must be odd, to lie evenly around the best so far; got {self.points!r}."
            )
        checks.choice("mode", self.mode, ("auto", "min", "max"))
        checks.choice("pruner", self.pruner, ("median", "halving", "none"))
        checks.number("validation_split", self.validation_split, above=0.0, below=1.0)
        checks.count("seed", self.seed, 0)
        if self.timeout is not None:
            checks.number("timeout", self.timeout, above=0.0)
        if not isinstance(self.objective, str) or not self.objective:
            raise TypeError(f"objective must be a name in the logs; got {self.objective!r}.")
        object.__setattr__(self, "also", _dimensions(self.also))


def search(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    batch_size: int | None = None,
    shuffle: bool | str = True,
    steps_per_epoch: int | None = None,
    validation_data: Any = None,
    validation_split: float = 0.2,
    low: float | None = None,
    high: float | None = None,
    fraction: float | None = None,
    epochs: int = 3,
    fine_rounds: int = 2,
    points: int = 5,
    repeats: int = 3,
    also: Mapping[str, Sequence[Any] | None] | Iterable[str] = (),
    objective: str = "val_loss",
    mode: str = "auto",
    pruner: str = "median",
    seed: int = 0,
    storage: Any = None,
    study: str = "keras-lr",
    resume: bool = True,
    timeout: float | None = None,
    heartbeat: int = 10,
    callbacks: Callable[[], list[Any]] | None = None,
    verbose: str | int = "auto",
) -> Search:
    """Sweep the orders of magnitude on a part of the data, then refine around the best.

    A range test estimates a rate; a search confirms it, by training. The coarse round trains
    for a few epochs at a rate a decade, on `fraction` of the data. Runs that diverge are ended
    after a few batches, runs that fall behind after an epoch. Each fine round tries `points`
    rates around the best so far, at the square root of the spacing before (a factor of 3.2, then
    1.8), on more data; the last one on all of it, from `repeats` seeds. A round whose best rate
    is its lowest or its highest goes on beyond it.

    Every run starts from the same weights, with the data in the order of its seed. Afterwards
    the model is as it was, as with `lr_find`.

    Args:
        model: A compiled Keras model; or a function without arguments that returns one. Then
            each run trains a new model, and the seeds vary its initial weights too.
        x, y, sample_weight, class_weight, batch_size, shuffle, steps_per_epoch: As in
            `model.fit`.
        validation_data: What the runs are judged by, as in `model.fit`.
        validation_split: Share of the rows that is held out where `validation_data` is not
            given, between 0 and 1: of each class its share, chosen by `seed`.
        low, high: Ends of the coarse round, which nothing goes beyond; by default a range test
            says where it begins. Above 0.
        fraction: Share of the training rows that the coarse round uses, above 0 and at most 1,
            of each class its share; by default a fifth, or 2,000 rows if that is more. Of a data
            set that brings its own batches, that share of them makes an epoch.
        epochs: Epochs of each run, at least 1. The more epochs you will train for, the lower the
            best rate tends to be, so take as many as you can afford.
        fine_rounds: Rounds after the coarse one, at least 0.
        points: Rates that a fine round begins with, odd and at least 3.
        repeats: Seeds of the last round, at least 1.
        also: What else to search for, each in a round of its own after the coarse one, at three
            rates for each value: "momentum" (0.8, 0.9, 0.95, 0.98), "batch_size" (a half to four
            times yours; the rate is scaled in proportion to begin with), "warmup" (shares 0, 0.1
            and 0.3 of the run), "policy" ("constant", "one-cycle", "cosine"). Names; or a
            mapping from names to the values to try.
        objective: The entry of the logs that counts, after the last epoch.
        mode: Whether it should fall ("min") or rise ("max"); "auto" asks the metric.
        pruner: Ends runs that fall behind the others of their round: "median" (worse than half of
            those that finished), "halving" (successive halving), or "none". The last round
            ends none, so that all its rates have all seeds.
        seed: Chooses the held-out rows, the parts of the data, and the first of the seeds.
        storage: Where the record is kept: the path of a SQLite file, a URL such as
            `postgresql://user@host/database`, `journal:PATH`, or a storage of Optuna. Any number
            of processes, on any number of machines, that call `search` with the same arguments
            work on it together. A record made with another model, other data or other arguments
            is refused; of a data set its class, constructor and element types are compared, not
            the files that it reads. None keeps it in memory, so that an interrupted search is
            lost.
        study: Name of the record in the storage.
        resume: Whether a study that exists already goes on; otherwise it is an error.
        timeout: Seconds after which no further run is begun; the answer is then that of the
            rounds so far. None searches to the end.
        heartbeat: Seconds between signs of life; a process that gives none for six times as long
            is taken for dead, and its run is done by another one. At least 1.
        callbacks: A function that returns further callbacks for a run.
        verbose: 1 prints a line for each run on stderr, 0 does not, "auto" does in a terminal
            or a notebook.

    Returns:
        A `Search`: the best rate with its interval, and everything that was tried.

    Raises:
        ImportError: If Optuna is not installed.
        ValueError, TypeError: If an argument is out of its range or of the wrong kind; if the
            study is that of another model, other data or other settings, or a part of the model
            has neither a configuration nor code by which a record could tell it.
        NoSuggestion: If no run came to its end.
        SearchError: If the storage cannot be reached.

    Source: the random and coarse-to-fine search of Bengio, "Practical recommendations for
    gradient-based training of deep architectures", 2012 (arXiv 1206.5533), section 3.3.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> found = keras_lr.search(model, x, x.sum(axis=1), low=1e-3, high=1.0, epochs=1,
    ...                         fine_rounds=1, points=3, repeats=1, verbose=0)
    >>> found.low <= found.learning_rate <= found.high
    True
    """
    options = Options(
        low=low,
        high=high,
        fraction=fraction,
        epochs=epochs,
        fine_rounds=fine_rounds,
        points=points,
        repeats=repeats,
        also=also,
        objective=objective,
        mode=mode,
        pruner=pruner,
        validation_split=validation_split,
        seed=seed,
        timeout=timeout,
        heartbeat=heartbeat,
        verbose=verbose,
    )
    import_optuna()
    if x is None:
        raise ValueError("search needs data; got x=None. Pass x and y, or a data set as x.")
    if batch_size is not None:
        checks.count("batch_size", batch_size)
    fit_options: dict[str, Any] = {"shuffle": shuffle}
    for name, value in {"class_weight": class_weight, "steps_per_epoch": steps_per_epoch}.items():
        if value is not None:
            fit_options[name] = value
    data = Data.of(x, y, sample_weight, validation_data, validation_split, seed, fit_options)
    size = (batch_size or 32) if data.rows is not None else None
    lent = Runner.lend(model, data, objective, size, seed, callbacks)
    with recorded_interrupts(), _undisturbed(model), lent as runner:
        design = _design(runner, options, size)
        record = Study(
            storage,
            study,
            _identity(model, runner, (x, y, sample_weight), validation_data, options, design)
            if storage is not None
            else {},
            pruner=pruner,
            maximize=design.maximize,
            objective=objective,
            resume=resume,
            heartbeat=heartbeat,
        )
        with record:
            return _Campaign(runner, record, design, options).run()


def _undisturbed(model: Any) -> Any:
    """Without the steering of a fit that the search runs in, or of a loop that was broken off."""
    return SteeredFit.set_aside(model) if isinstance(model, keras.Model) else nullcontext()


class _Campaign:
    """One process's part in a search."""

    def __init__(self, runner: Runner, record: Study, design: Design, options: Options) -> None:
        self._runner = runner
        self._record = record
        self._design = design
        self._options = options
        self._deadline = time.monotonic() + (options.timeout or math.inf)
        shown = is_interactive() if options.verbose == "auto" else bool(options.verbose)
        self._say: Callable[[str], None] = _print if shown else (lambda _: None)
        self._waiting = False

    def run(self) -> Search:
        if self._record.resumed and self._record.began_with:
            self._say(
                f"Going on with the study {self._record.name!r} in {self._record.where}: "
                f"{len(self._record.found())} runs are done."
            )
        start = self._start()
        plan = Plan(self._design, start) if start is not None else None
        while plan is not None and self._step(plan):
            pass
        if plan is None:
            raise NoSuggestion("The time was over before the range test was.")
        return self._result(plan)

    def _start(self) -> Start | None:
        """Where to begin: as told, or as the range test of whoever came first says."""
        low, high = self._options.low, self._options.high
        if low is not None and high is not None:
            return Start(low, high, math.sqrt(low * high), firm=True)
        while (known := self._range_test()) is None:
            trial = self._record.begin(RANGE_TEST)
            if trial is None:
                if not self._wait():
                    return None
                continue
            with trial:
                self._say("Range test ...")
                size = self._design.base.batch_size
                test = self._runner.range_test(size, self._options.seed)
                try:
                    trial.end_range_test(_summary(test))
                except Taken:
                    continue
        return Start(known["low"], known["high"], known["suggestion"] or ANYWHERE[2])

    def _range_test(self) -> dict[str, Any] | None:
        known = self._record.range_test()
        with self._record.problems():
            return None if known is None else _checked(known)

    def _step(self, plan: Plan) -> bool:
        """Do one run, or wait for others; False at the end."""
        check_interrupt()
        if time.monotonic() > self._deadline:
            return False
        missing = plan.missing(self._record.found())
        if not missing:
            self._record.tidy()
            return False
        for job in self._record.free(missing):
            trial = self._record.begin(job)
            if trial is not None:
                self._waiting = False
                self._do(job, trial, plan)
                return True
        return self._wait()

    def _do(self, job: Job, trial: Trial, plan: Plan) -> None:
        last = job.round == plan.names[-1]

        def report(epoch: int, value: float) -> bool:
            return trial.report(epoch, value) and not last

        with trial:
            try:
                outcome = self._runner.run(job, report)
                trial.end(outcome)
            except Taken:
                self._say(f"{_told(job)}  was given to another process; dropped")
                return
        self._say(f"{_told(job)}  {self._ending(outcome)}")

    def _ending(self, outcome: Outcome) -> str:
        value = f"{self._options.objective} {outcome.value:.4g}"
        ends = {
            "finished": value,
            "behind": f"{value} in epoch {outcome.epochs}, behind the others",
            "diverged": "diverged",
        }
        return f"{ends[outcome.ended]}  ({outcome.seconds:.1f} s)"

    def _wait(self) -> bool:
        """Give the others time; False when there is none left."""
        if not self._waiting:
            self._waiting = True
            self._say(f"Waiting for {self._record.running()} runs of other processes.")
        check_interrupt()
        time.sleep(min(PATIENCE, max(0.0, self._deadline - time.monotonic())))
        check_interrupt()
        return time.monotonic() <= self._deadline

    def _result(self, plan: Plan) -> Search:
        found = self._record.found()
        answer, rounds = plan.answer(found), plan.rounds(found)
        if answer is None:
            raise NoSuggestion(_why_not(rounds, self._options))
        known = self._range_test()
        model = self._runner.model
        if known is not None:
            losses = [math.nan if loss is None else loss for loss in known["losses"]]
            known = {**known, "losses": losses}
        return Search(
            answer,
            rounds,
            self._options.objective,
            self._design.maximize,
            known,
            _settings(self._options, self._design),
            self._record.where,
            self._record.name,
            {
                "model": model.name,
                "optimizer": type(driven_optimizers(model.optimizer)[0]).__name__,
                "settable_rate": settable_rate(model.optimizer),
                "has_momentum": has_momentum(model.optimizer),
                "rows": self._runner.data.rows,
                **environment(),
            },
        )


def _dimensions(also: Any) -> dict[str, tuple[Any, ...] | None]:
    """What else is searched for, with the values that were given; None stands for the usual."""
    if isinstance(also, str):
        also = (also,)
    if not isinstance(also, Mapping):
        also = dict.fromkeys(also)
    wanted: dict[str, tuple[Any, ...] | None] = {}
    for name, values in also.items():
        name = {"warm_up": "warmup"}.get(str(name).replace("-", "_"), str(name).replace("-", "_"))
        checks.choice("also", name, DIMENSIONS)
        if values is None:
            wanted[name] = None
            continue
        if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            raise TypeError(f"The values of {name} must be a list of some; got {values!r}.")
        wanted[name] = tuple(dict.fromkeys(_value_of(name, value) for value in values))
    return wanted


def _value_of(name: str, value: Any) -> Any:
    if name == "batch_size":
        return checks.count(name, value)
    if name == "policy":
        return checks.choice(name, value, POLICIES)
    if name == "momentum":
        return checks.number(name, value, above=0.0, below=1.0)
    return checks.number(name, value, least=0.0, below=1.0)


def _design(runner: Runner, options: Options, batch_size: int | None) -> Design:
    """The plan's design, with the usual values filled in for this model and these data."""
    model, data = runner.model, runner.data
    fraction = options.fraction
    if fraction is None:
        fraction = 1.0 if data.rows is None else usual_fraction(data.rows)
    if data.rows is None and fraction < 1.0 and data.batches is None:
        raise ValueError(
            f"fraction must be 1 for data of unknown length; got {fraction!r}. Pass "
            "steps_per_epoch, or arrays."
        )
    also: dict[str, tuple[Any, ...]] = {}
    momentum: float | None = None
    assert isinstance(options.also, Mapping)  # noqa: S101  Options made it one
    for name, values in options.also.items():
        if name == "momentum":
            if not has_momentum(model.optimizer):
                raise ValueError(
                    f"The optimizer must have a momentum above 0 to search for one; got "
                    f"{type(model.optimizer).__name__} without. Compile it with momentum=0.9, or "
                    "leave momentum out of also."
                )
            momentum = current_momentum(model.optimizer)
            also[name] = tuple(values or sorted({momentum, *MOMENTA}))
        elif name == "batch_size":
            if data.rows is None or batch_size is None:
                raise ValueError(
                    "x must be arrays to search for a batch size; got "
                    f"{type(data.x).__name__}, which brings its own batches."
                )
            for size in values or ():
                runner.check_batches(size)
            also[name] = tuple(values or _usual_sizes(runner, batch_size, fraction * data.rows))
        else:
            also[name] = tuple(values or (POLICIES if name == "policy" else WARMUPS))
    mode = direction_of(model, options.objective) if options.mode == "auto" else options.mode
    leaf = driven_optimizers(model.optimizer)[0]
    return Design(
        options.fine_rounds,
        options.points,
        fraction,
        options.epochs,
        options.repeats,
        mode == "max",
        options.seed,
        also,
        Setting(1.0, momentum, batch_size),
        velocity=hasattr(leaf, "momentum"),
    )


def _usual_sizes(runner: Runner, batch_size: int, rows: float) -> list[int]:
    """A half to four times the batch size: those that leave four batches, and can be shared."""
    most = max(batch_size, int(rows) // 4)

    def fits(size: int) -> bool:
        try:
            runner.check_batches(size)
        except ValueError:
            return False
        return size <= most

    usual = [max(1, batch_size // 2), batch_size, 2 * batch_size, 4 * batch_size]
    return [size for size in dict.fromkeys(usual) if fits(size)]


def _settings(options: Options, design: Design) -> dict[str, Any]:
    """What has to be the same for all who take part, and what the report shows."""
    return {
        "low": options.low,
        "high": options.high,
        "fraction": design.fraction,
        "epochs": options.epochs,
        "fine_rounds": options.fine_rounds,
        "points": options.points,
        "repeats": options.repeats,
        "also": {name: list(values) for name, values in design.also.items()},
        "objective": options.objective,
        "mode": "max" if design.maximize else "min",
        "pruner": options.pruner,
        "batch_size": design.base.batch_size,
        "validation_split": options.validation_split,
        "seed": options.seed,
    }


def _identity(
    model: Any,
    runner: Runner,
    training: tuple[Any, ...],
    validation: Any,
    options: Options,
    design: Design,
) -> dict[str, Any]:
    """What has to be the same for all who take part: the model, the data, all that `fit` gets."""
    make = None if isinstance(model, keras.Model) else model
    return {
        "version": keras_lr.__version__,
        "model": fingerprint.of_model(runner.model, make, options.objective),
        "data": fingerprint.of_data(training, validation),
        "fit": fingerprint.of_fit(runner.data.fit_options, runner.callbacks),
        "settings": _settings(options, design),
    }


def _summary(test: RangeTest) -> dict[str, Any]:
    """What the search needs of a range test, as JSON can hold it."""
    low, high, suggestion = ANYWHERE[0], ANYWHERE[1], None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = test.suggest()
            suggestion, low, high = found.learning_rate, found.low, found.high
            base, most = test.bounds()
            low, high = min(low, base), max(high, most)
        except NoSuggestion:
            pass
    return {
        "low": low,
        "high": high,
        "suggestion": suggestion,
        "learning_rates": [float(rate) for rate in test.learning_rates],
        "losses": [float(loss) if math.isfinite(loss) else None for loss in test.losses],
    }


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as another process wrote it; whatever else is there throws."""
    low, high, suggestion = found["low"], found["high"], found["suggestion"]
    if not 0 < low < high < math.inf or not (suggestion is None or 0 < suggestion < math.inf):
        raise ValueError(f"a range test from {low} to {high} that suggests {suggestion}")
    return {
        "low": float(low),
        "high": float(high),
        "suggestion": suggestion,
        "learning_rates": [float(rate) for rate in found["learning_rates"]],
        "losses": [None if loss is None else float(loss) for loss in found["losses"]],
    }


def _why_not(rounds: list[Round], options: Options) -> str:
    outcomes = [outcome for each in rounds for outcome in each.outcomes]
    if not outcomes:
        return "The time was over before a run was. Give it more."
    rates = [outcome.job.setting.learning_rate for outcome in outcomes]
    return (
        f"None of the {len(outcomes)} runs at rates from {min(rates):.2g} to {max(rates):.2g} came "
        "to its end: they diverged. Look at the data and the model"
        + (", or lower low." if options.low is not None else ".")
    )


def _told(job: Job) -> str:
    setting = job.setting
    more = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in (
            ("momentum", setting.momentum),
            ("warm-up", setting.warmup or None),
            ("policy", setting.policy if setting.policy != "constant" else None),
        )
        if value is not None
    ]
    beside = f"  {', '.join(more)}" if more else ""
    return f"{job.round:<10} lr {setting.learning_rate:<8.2g}{beside}  seed {job.seed}"


def _print(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
