"""`search`, and the loop in which each process takes the next job of the plan and trains it."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras

from keras_lr._util import checks
from keras_lr._util.interrupts import check_interrupt, recorded_interrupts
from keras_lr._util.terminal import shows_progress, visible
from keras_lr._util.versions import environment
from keras_lr.range_test import NoSuggestion, RangeTest
from keras_lr.rate_search import fingerprint
from keras_lr.rate_search.ahead import jobs_ahead
from keras_lr.rate_search.data import Data
from keras_lr.rate_search.jobs import Job
from keras_lr.rate_search.options import Options
from keras_lr.rate_search.plan import Design, Plan, Start
from keras_lr.rate_search.policies import has_momentum, settable_rate
from keras_lr.rate_search.progress import Progress
from keras_lr.rate_search.reasons import (
    bad_rows,
    rates_without_effect,
    trained_nothing,
    why_not,
)
from keras_lr.rate_search.result import Search
from keras_lr.rate_search.runner import Runner
from keras_lr.rate_search.storage import check_place, import_optuna
from keras_lr.rate_search.study import RANGE_TEST, Study
from keras_lr.rate_search.trial import Taken, Trial
from keras_lr.rate_search.words import describe_job
from keras_lr.steering import SteeredFit, innermost_optimizers

POLL = 1.0  # seconds between two looks at the jobs of other processes
MOST_OF_TEST = 2.0  # runs that a range test counts as; with few rows it takes more
ANYWHERE = (1e-5, 1.0, 1e-3)  # ends and centre if the range test has no answer


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
    final_seeds: int = 3,
    max_runs: int | None = None,
    also: Mapping[str, Sequence[Any] | None] | Iterable[str] = ("policy",),
    objective: str = "val_loss",
    mode: str = "auto",
    pruner: str = "none",
    seed: int = 0,
    storage: Any = None,
    study: str = "keras-lr",
    resume: bool = True,
    timeout: float | None = None,
    heartbeat: int = 10,
    callbacks: Callable[[], list[Any]] | None = None,
    verbose: str | int = "auto",
) -> Search:
    """Find the best policy and learning rate by training, from orders of magnitude to fine steps.

    A range test estimates a rate; a search confirms it by training. First each of `also`, by
    default the policy, has a round: three rates for each of its values, half a decade apart, on
    `fraction` of the data; the best two values run with a second seed. Then each fine round tries
    `points` rates around the best so far, at smaller spacing (half a decade, then a quarter; a
    quarter after a round of `also`), on more data. With given ends, or if the range test has no
    suggestion, a coarse round of one rate a decade comes before them. Runs that diverge end after a
    few batches. A round whose best rate is its lowest or highest extends itself beyond it. The last
    round uses all data and is a race: all its rates run with the first of `final_seeds` seeds, the
    best three with the second, and with each further seed those that a paired t-test over the seeds
    does not find worse than the best. Runs that would exceed `max_runs` are left out.

    The answer is the minimum of a parabola of the logarithm of the loss over that of the rate,
    fitted through all finished runs with weights that fall off over half a decade; it is at most
    0.35 decades from the best rate tried. The less certain the runs are of that minimum, the more
    the answer is drawn towards that of the range test.

    Each run starts from the same weights, with the data in the order of its seed. Afterwards the
    model is restored, as with `lr_find`.

    Args:
        model: A compiled Keras model; or a function without arguments that returns one. With a
            function each run trains a new model, and the seeds also vary its initial weights.
        x, y, sample_weight, class_weight, batch_size, shuffle, steps_per_epoch: As in
            `model.fit`.
        validation_data: The data that the runs are evaluated on, as in `model.fit`.
        validation_split: Share of the rows to hold out if `validation_data` is not given, in
            (0, 1). The held-out rows are stratified by class and chosen by `seed`.
        low, high: Ends of the coarse round, above 0. No rate outside them is tried. By default a
            range test chooses where to begin, and the rounds may extend beyond.
        fraction: Share of the training rows for the coarse round, in (0, 1], stratified by class.
            By default a fifth, or 2,000 rows if that is more. For a data set with batches of its
            own, this share of its batches makes an epoch.
        epochs: Epochs of each run, at least 1. Long trainings tend to need a lower rate than
            short ones, so use as many as you can afford.
        fine_rounds: Rounds after the coarse one, at least 0.
        points: Rates that a fine round begins with, odd and at least 3.
        final_seeds: Seeds of the last round, at least 1. The best rate runs with all of them, as
            far as `max_runs` allows.
        max_runs: The most that the search may train, at least 1, in runs of `epochs` epochs on all
            data: a run on a share of the data counts as that share, and the range test as its
            share of a run, at most 2. A coarse round is not counted. One run is done in any case.
            By default 8, and 12 more for each of `also`: at most 40 epochs for the rate alone and
            100 with policies if `epochs` is 5.
        also: Further dimensions to search, each in a round of its own before the fine ones, with
            three rates for each value; () asks for the rate alone. "momentum" (0.8, 0.9, 0.95,
            0.98); "beta_2" (0.9, 0.95, 0.99, 0.999); "batch_size" (half to four times yours; the
            initial rate is scaled by the rule of the optimizer, see `scale_lr`); "weight_decay"
            (0, and 0.1, 1 and 10 times yours, at the best rate so far; with other rates the
            product of rate and decay stays); "warmup" (shares 0, 0.1 and 0.3 of the run);
            "policy" ("constant", "one-cycle", "cosine", and "wsd", which is constant and then
            linear to 0 over the last fifth of the run; only "constant" for data of unknown
            length, and for optimizers whose rate must stay the same: `ScheduleFree`,
            `Hypergradient`, Keras's `Ftrl`). Give names, or a mapping from names to the values to
            try.
        objective: The log entry to optimize, after the last epoch.
        mode: "min" or "max"; "auto" derives it from the metric.
        pruner: Stops runs that fall behind the others on the same share of the data: "median"
            (worse than the median of the finished ones), "halving" (successive halving), or
            "none". It stops none before half of the epochs, and none in the last round. With a
            pruner the answer depends on the order in which runs end, and so on the number of
            processes; without one it does not.
        seed: Chooses the held-out rows, the parts of the data, and the first of the seeds.
        storage: Where to keep the record: the path of a SQLite file, a URL such as
            `postgresql://user@host/database`, `journal:PATH`, or an Optuna storage. Any number of
            processes, on any number of machines, that call `search` with the same arguments
            share the work. A record of another model, other data or other arguments is refused;
            for a data set its class, constructor arguments and element types are compared, but
            not the files that it reads. None keeps the record in memory; an interrupted search
            is then lost.
        study: Name of the record in the storage.
        resume: Whether to continue a study that exists; if False, an existing study is an error.
        timeout: Seconds after which no further run begins; the answer is then that of the rounds
            so far. None searches to the end.
        heartbeat: Seconds between signs of life, at least 1. A process that misses six of them
            is considered dead, and another one repeats its run.
        callbacks: A function that returns further callbacks for a run. If one of them changes the
            rate, pass `also=()`; it must change the rate of the run, as `ReduceLROnPlateau` does,
            and not assign its own.
        verbose: 1 prints a line for each run on stderr, 0 prints none, "auto" prints in a
            terminal or a notebook.

    Returns:
        A `Search`: the best rate with its interval, and everything that was tried.

    Raises:
        ImportError: If Optuna is not installed.
        ValueError, TypeError: If an argument is out of its range or of the wrong type; if the
            study belongs to another model, other data or other settings; or if there is a
            record and a part of the model has neither a configuration nor readable code.
        NoSuggestion: If no run finished, no run trained the model, or the rate had no effect.
        SearchError: If the storage cannot be reached.

    Source: the random and coarse-to-fine search of Bengio, "Practical recommendations for
    gradient-based training of deep architectures", 2012 (arXiv 1206.5533), section 3.3.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> found = keras_lr.search(model, x, x.sum(axis=1), low=1e-3, high=1.0, epochs=1,
    ...                         fine_rounds=1, points=3, final_seeds=1, verbose=0)
    >>> found.low <= found.learning_rate <= found.high
    True
    """
    options = Options.among(locals())
    import_optuna()
    check_place(storage, study)
    if x is None:
        raise ValueError("search needs data; got x=None. Pass x and y, or a data set as x.")
    if batch_size is not None:
        checks.count("batch_size", batch_size)
    if steps_per_epoch is not None:
        checks.count("steps_per_epoch", steps_per_epoch)
    checks.class_weights("class_weight", class_weight)
    if callbacks is not None and not callable(callbacks):
        raise TypeError(
            "callbacks must be a function that returns a list, so that each run has its own; got "
            f"a {type(callbacks).__name__}. Pass lambda: [...]."
        )
    fit_options: dict[str, Any] = {"shuffle": shuffle}
    for name, value in {"class_weight": class_weight, "steps_per_epoch": steps_per_epoch}.items():
        if value is not None:
            fit_options[name] = value
    data = Data.of(x, y, sample_weight, validation_data, validation_split, seed, fit_options)
    size = (batch_size or 32) if data.rows is not None else None
    with (
        recorded_interrupts(),
        _undisturbed(model),
        Runner.borrow(model, data, objective, size, seed, callbacks) as runner,
    ):
        design = options.design(runner, size)
        settings = options.recorded(design)
        identity: dict[str, Any] = {}
        if storage is not None:
            make = None if isinstance(model, keras.Model) else model
            identity = {
                "version": environment()["versions"]["keras_lr"],
                "model": fingerprint.of_model(runner.model, make, objective),
                "data": fingerprint.of_data((x, y, sample_weight), validation_data),
                "fit": fingerprint.of_fit(data.fit_options, callbacks),
                "settings": settings,
            }
        with Study(
            storage,
            study,
            identity,
            pruner=pruner,
            maximize=design.maximize,
            objective=objective,
            resume=resume,
            heartbeat=heartbeat,
        ) as record:
            return _JobLoop(runner, record, design, options).run()


def _undisturbed(model: Any) -> Any:
    """Without the steering of a `fit` around the search, or of an interrupted one before it."""
    return SteeredFit.set_aside(model) if isinstance(model, keras.Model) else nullcontext()


class _JobLoop:
    """The loop of one process: take the next free job, train it, record the outcome."""

    def __init__(self, runner: Runner, record: Study, design: Design, options: Options) -> None:
        self._runner = runner
        self._record = record
        self._design = design
        self._options = options
        self._deadline = time.monotonic() + (options.timeout or math.inf)
        self._shown = shows_progress(options.verbose)
        self._say: Callable[[str], None] = _print if self._shown else (lambda _: None)
        self._progress: Progress | None = None
        self._waiting = False

    def run(self) -> Search:
        if self._record.resumed and self._record.began_with:
            self._say(
                f"Continuing the study {self._record.name!r} in {self._record.where}; "
                f"{len(self._record.found())} runs are done."
            )
        start = self._start()
        plan = Plan(self._design, start) if start is not None else None
        if plan is not None:
            self._progress = self._progress_of(plan)
        while plan is not None and self._step(plan):
            pass
        if plan is None:
            raise NoSuggestion("The timeout expired before the range test finished; raise timeout.")
        return self._result(plan)

    def _progress_of(self, plan: Plan) -> Progress | None:
        """Prints all runs that end from now on, if anything is to be printed."""
        if not self._shown:
            return None
        found, joined = self._record.found().items(), self._record.began_with
        known = {key: each for key, each in found if each.number < joined}
        objective, worker = self._options.objective, self._record.worker
        return Progress(self._say, plan, objective, worker, known)

    def _start(self) -> Start | None:
        """Where to begin: the given ends, or those of a range test, which one process runs."""
        low, high = self._options.low, self._options.high
        if low is not None and high is not None:
            return Start(low, high, math.sqrt(low * high), firm=True)
        steps = self._runner.updates(self._design.base.batch_size, self._design.epochs)
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
                    trial.end_range_test(_summary(test, steps))
                except Taken:
                    continue
        tested = known["suggestion"] is not None
        cost = min(len(known["learning_rates"]) / steps, MOST_OF_TEST) if steps else 0.0
        centre = known["suggestion"] if tested else ANYWHERE[2]
        return Start(known["low"], known["high"], centre, tested=tested, cost=cost)

    def _range_test(self) -> dict[str, Any] | None:
        known = self._record.range_test()
        with self._record.problems():
            return None if known is None else _checked(known)

    def _step(self, plan: Plan) -> bool:
        """Do one job, or wait for other processes; False at the end."""
        check_interrupt()
        found = self._record.found()
        if self._progress is not None:
            self._progress.show(found, lambda: self._record.running() + (not self._waiting))
        if time.monotonic() > self._deadline:
            return False
        missing = plan.missing(found)
        if not missing:
            self._record.tidy()
            return False
        free = self._record.free(missing) or self._record.free(jobs_ahead(plan, found))
        for job in free:
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
                trial.end(self._runner.run(job, report))
            except Taken:
                self._say(f"{describe_job(job)}  dropped: another process has taken it over")

    def _wait(self) -> bool:
        """Wait for other processes; False when the timeout has expired."""
        if not self._waiting:
            self._waiting = True
            self._say(f"Waiting for {self._record.running()} runs of other processes ...")
        check_interrupt()
        time.sleep(min(POLL, max(0.0, self._deadline - time.monotonic())))
        check_interrupt()
        return time.monotonic() <= self._deadline

    def _result(self, plan: Plan) -> Search:
        found = self._record.found()
        rounds = plan.rounds(found)
        untrained = self._runner.untrained()
        answer = plan.answer(found, untrained)
        if answer is None:
            raise NoSuggestion(why_not(rounds, self._options, self._runner.data))
        if trained_nothing(rounds, untrained):
            raise NoSuggestion(
                f"No run changed {self._options.objective} from {untrained:.4g}, the value before "
                "training, so no rate can be preferred. Scale the inputs, and check that the loss "
                "depends on weights that train; a coarse metric may need more epochs."
            )
        if (rates := rates_without_effect(rounds)) is not None:
            raise NoSuggestion(
                f"The runs at rates from {rates[0]:.2g} to {rates[1]:.2g} do not differ, so their "
                "rate has no effect. A callback may assign another one, as LearningRateScheduler "
                "and OneCycle do: leave it out of callbacks."
            )
        if not rounds[-1].usable:
            bad = bad_rows(self._runner.data)
            answer = replace(answer, warnings=(*answer.warnings, *([bad] if bad else [])))
        known = self._range_test()
        model = self._runner.model
        if known is not None and not known["learning_rates"]:
            known = None  # there was none to run
        elif known is not None:
            losses = [math.nan if loss is None else loss for loss in known["losses"]]
            known = {**known, "losses": losses}
        return Search(
            answer,
            rounds,
            self._options.objective,
            self._design.maximize,
            known,
            self._options.recorded(self._design),
            self._record.where,
            self._record.name,
            {
                "model": model.name,
                "optimizer": type(innermost_optimizers(model.optimizer)[0]).__name__,
                "settable_rate": settable_rate(model.optimizer),
                "has_momentum": has_momentum(model.optimizer),
                "rows": self._runner.data.rows,
                **environment(),
            },
        )


def _summary(test: RangeTest | None, steps: int | None) -> dict[str, Any]:
    """The part of a range test that the record keeps, as JSON.

    The suggestion is for a constant rate in a run of so many updates.
    """
    low, high, suggestion = ANYWHERE[0], ANYWHERE[1], None
    if test is None:
        ends = {"low": low, "high": high, "suggestion": suggestion}
        return {**ends, "learning_rates": [], "losses": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = test.suggest(policy="constant", total_steps=steps)
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
    """A summary that another process wrote; anything else raises."""
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


def _print(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
