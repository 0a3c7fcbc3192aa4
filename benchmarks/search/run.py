"""Compare `search` with `lr_find` and with other tuners, at equal numbers of epochs.

    python benchmarks/search/run.py --save search.json    # on JAX, unless KERAS_BACKEND is set

Small real tasks, five epochs a run. For each: Keras's default rate; `lr_find` with its defaults and
with `budget=500`; `search` for the rate alone, at most 40 epochs, and with policies, at most 100.
Beside them Optuna (TPE, Gaussian process, random; TPE with the median pruner and with Hyperband)
and keras-tuner (Bayesian) by their own code through plain `fit`: once over the rate alone with 40
epochs, once over the rate and the policy with 100, in the same range of rates.

Each answer is then trained again, with new seeds, on all training rows, and evaluated on test rows
that nothing above has seen. The seeds set the order of the data and the validation split. The
regret of an answer is 0 at the best of all evaluated ones and 1 for the untrained model; these
include a grid of four constant rates a decade. The best of the grid is chosen with the same seeds
and rows, which favors the grid.

Results are written to the file of `--save` after each task; a task that it has is not repeated.
Needs scikit-learn, mnist1d and Optuna; keras-tuner and Optuna's GP (scipy, torch) are left out if
they are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import keras_lr
from keras_lr.rate_search.jobs import POLICIES, Job, Setting
from keras_lr.rate_search.runner import Data, Runner
from keras_lr.rate_search.split import held_out

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

EPOCHS = 5
SEEDS = (100, 101, 102)
RANGE = (1e-5, 1.0)  # of the rates that other tuners draw
PEERS = (
    ("TPE", "none"),
    ("GP", "none"),
    ("random", "none"),
    ("TPE", "median"),
    ("TPE", "Hyperband"),
)
GRID = 10 ** np.arange(-5, 0.76, 0.25)


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def breast() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return (x * 20).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def mnist1d() -> tuple[np.ndarray, np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset

    found = make_dataset(get_dataset_args())
    return found["x"].astype("float32"), found["y"]


def dense(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(64, activation="relu"), layers.Dense(outputs)]
    )


def conv(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Reshape((inputs, 1)),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs),
        ]
    )


def attention(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    tokens = keras.Input((inputs,))
    x = layers.Dense(16)(layers.Reshape((8, inputs // 8))(tokens))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(tokens, layers.Dense(outputs)(layers.Flatten()(x)))


def sgd() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


TASKS: tuple[tuple[Callable, Callable, Callable], ...] = (
    (digits, dense, keras.optimizers.Adam),
    (digits, dense, sgd),
    (digits, attention, keras.optimizers.AdamW),
    (breast, dense, sgd),
    (diabetes, dense, keras.optimizers.Adam),
    (diabetes, dense, keras.optimizers.RMSprop),
    (mnist1d, conv, keras.optimizers.Adam),
    (mnist1d, dense, keras.optimizers.Lion),
)


class Task:
    def __init__(self, data: Callable, net: Callable, optimizer: Callable) -> None:
        self.name = f"{data.__name__}-{net.__name__}-{optimizer.__name__.lower()}"
        x, y = data()
        rows = np.random.default_rng(0).permutation(len(x))
        test = len(x) // 4
        self.x, self.y = x[rows[test:]], y[rows[test:]]
        self.judged = x[rows[:test]], y[rows[:test]]
        classes = y.dtype.kind == "i"
        self._make = functools.partial(net, x.shape[1], len(set(y.tolist())) if classes else 1)
        self._optimizer, self._classes = optimizer, classes
        self.model = self.new(0)
        self.default = float(self.model.optimizer.learning_rate)

    def new(self, seed: int) -> keras.Model:
        """A new compiled model."""
        keras.utils.set_random_seed(seed)
        model = self._make()
        losses = keras.losses
        loss = (
            losses.SparseCategoricalCrossentropy(from_logits=True)
            if self._classes
            else losses.MeanSquaredError()
        )
        model.compile(self._optimizer(), loss)
        return model

    def untrained(self) -> float:
        return float(self.model.evaluate(*self.judged, verbose=0))

    def losses(self, settings: Iterable[Setting]) -> dict[Setting, float]:
        """Mean test loss after training with each, at most the loss of the untrained model."""
        worst, found = self.untrained(), {}
        data = Data(self.x, self.y, None, self.judged, {})
        with Runner.borrow(self.model, data, "val_loss", 32, 0) as runner:
            for setting in dict.fromkeys(settings):
                jobs = [Job("judge", setting, seed, 1.0, EPOCHS) for seed in SEEDS]
                outcomes = [runner.run(job) for job in jobs]
                ends = [o.value if o.ended == "finished" else worst for o in outcomes]
                found[setting] = statistics.fmean(min(end, worst) for end in ends)
        return found


def constant(rate: float) -> Setting:
    return Setting(rate, batch_size=32)


class Answer(NamedTuple):
    setting: Setting
    epochs: float
    seconds: float
    interval: tuple[float, float] | None = None


def by_range_test(task: Task, seed: int, **options: Any) -> Answer:
    began = time.perf_counter()
    steps = EPOCHS * -(-len(task.x) // 32)
    test = keras_lr.lr_find(
        task.model, task.x, task.y, seed=seed, verbose=0, policy="constant", total_steps=steps,
        **options,
    )  # fmt: skip
    rate = test.suggest().learning_rate
    epochs = test.training_steps / -(-len(task.x) // 32)
    return Answer(constant(rate), epochs, time.perf_counter() - began)


def by_search(task: Task, seed: int, also: tuple[str, ...]) -> Answer:
    began = time.perf_counter()
    found = keras_lr.search(
        task.model, task.x, task.y, epochs=EPOCHS, seed=seed, also=also, verbose=0
    )
    trained = sum(o.epochs * o.job.fraction for o in found.outcomes)
    ramp = len((found.range_test or {"losses": ()})["losses"]) * 32 / (0.8 * len(task.x))
    seconds = time.perf_counter() - began
    return Answer(found.setting, trained + ramp, seconds, (found.low, found.high))


def split(task: Task, seed: int) -> tuple[Any, Any]:
    kept, held = held_out(task.y, len(task.x), 0.2, seed)
    return (task.x[kept], task.y[kept]), (task.x[held], task.y[held])


def fit(task: Task, data: Any, setting: Setting, seed: int, report: Any = None) -> float:
    """A plain `fit` of a new model, as a user of another tuner writes it; its loss."""
    (x, y), held = data
    model = task.new(seed)
    steps = EPOCHS * -(-len(x) // 32)
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if setting.policy == "one-cycle":
        callbacks.append(keras_lr.OneCycle(setting.learning_rate, cycle_momentum=False))
    elif setting.policy == "constant":
        model.optimizer.learning_rate = setting.learning_rate
    else:
        schedule = (
            keras.optimizers.schedules.CosineDecay(setting.learning_rate, steps)
            if setting.policy == "cosine"
            else keras_lr.schedules.WarmUpStableDecaySchedule(
                setting.learning_rate, steps, decay_steps=-(-steps // 5), decay="linear"
            )
        )
        callbacks.append(keras_lr.ScheduleLR(schedule))
    if report is not None:
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=report))
    fitted = model.fit(
        x, y, batch_size=32, epochs=EPOCHS, validation_data=held, verbose=0, callbacks=callbacks
    )
    last = float(fitted.history.get("val_loss", [np.nan])[-1])
    return last if np.isfinite(last) else 10 * task.untrained()


def by_optuna(task: Task, seed: int, sampler: str, pruner: str, epochs: int) -> Answer:
    """As many trials as the epochs allow; with policies if they are more than 40."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "TPE": optuna.samplers.TPESampler,
        "GP": optuna.samplers.GPSampler,
        "random": optuna.samplers.RandomSampler,
    }
    pruners = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "Hyperband": lambda: optuna.pruners.HyperbandPruner(max_resource=EPOCHS),
    }
    began, done, data = time.perf_counter(), 0, split(task, seed)
    study = optuna.create_study(sampler=samplers[sampler](seed=seed), pruner=pruners[pruner]())

    def objective(trial: Any) -> float:
        nonlocal done
        rate = trial.suggest_float("learning_rate", *RANGE, log=True)
        policy = trial.suggest_categorical("policy", POLICIES) if epochs > 40 else "constant"
        setting = Setting(rate, batch_size=32, policy=policy)

        def report(epoch: int, logs: dict[str, float]) -> None:
            nonlocal done
            done += 1
            trial.report(logs["val_loss"], epoch)
            if trial.should_prune() and epoch + 1 < EPOCHS:
                raise optuna.TrialPruned

        return fit(task, data, setting, seed, report)

    while done + EPOCHS <= epochs:
        study.optimize(objective, n_trials=1)
    best = study.best_params
    setting = Setting(best["learning_rate"], None, 32, policy=best.get("policy", "constant"))
    return Answer(setting, done, time.perf_counter() - began)


def by_keras_tuner(task: Task, seed: int, epochs: int) -> Answer:
    import keras_tuner

    began, data = time.perf_counter(), split(task, seed)

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial: Any, *_: Any, **__: Any) -> float:
            hp = trial.hyperparameters
            rate = hp.Float("learning_rate", *RANGE, sampling="log")
            policy = hp.Choice("policy", list(POLICIES)) if epochs > 40 else "constant"
            return fit(task, data, Setting(rate, batch_size=32, policy=policy), seed)

    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(max_trials=epochs // EPOCHS, seed=seed, directory=folder, overwrite=True)
        with contextlib.redirect_stdout(io.StringIO()):
            tuner.search()
        best = tuner.get_best_hyperparameters()[0].values
    setting = Setting(best["learning_rate"], None, 32, policy=best.get("policy", "constant"))
    return Answer(setting, epochs, time.perf_counter() - began)


def methods() -> dict[str, Callable[[Task, int], Answer]]:
    """What is compared, by its name in the table."""
    found: dict[str, Callable[[Task, int], Answer]] = {
        "Keras's default rate": lambda task, seed: Answer(constant(task.default), 0, 0.0),
        "`lr_find`": by_range_test,
        "`lr_find(budget=500)`": functools.partial(by_range_test, budget=500),
        "`search(also=())`": functools.partial(by_search, also=()),
        "`search`": functools.partial(by_search, also=("policy",)),
    }
    has = importlib.util.find_spec
    for epochs in (40, 100):
        for sampler, pruner in PEERS:
            if sampler == "GP" and not (has("scipy") and has("torch")):
                continue
            name = f"Optuna {sampler}" + f", {pruner}" * (pruner != "none")
            found[f"{name}, {epochs}"] = functools.partial(
                by_optuna, sampler=sampler, pruner=pruner, epochs=epochs
            )
        if has("keras_tuner"):
            found[f"keras-tuner, {epochs}"] = functools.partial(by_keras_tuner, epochs=epochs)
    return found


def judge(task: Task, seed: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    answers = {name: method(task, seed) for name, method in methods().items()}
    grid = task.losses(constant(float(rate)) for rate in GRID)
    here = task.losses(answer.setting for answer in answers.values())
    best, worst = min([*grid.values(), *here.values()]), task.untrained()
    constants = min([*grid.values(), *(v for s, v in here.items() if s.policy == "constant")])
    bottom = min(grid, key=grid.__getitem__).learning_rate
    low, high = answers["`search(also=())`"].interval or (0.0, 0.0)

    def regret(setting: Setting, least: float) -> float:
        return (here[setting] - least) / (worst - least)

    return {
        "task": task.name,
        "seed": seed,
        "answers": {name: dataclasses.asdict(each.setting) for name, each in answers.items()},
        "regret": {name: regret(each.setting, best) for name, each in answers.items()},
        "regret of constant rates": {
            name: regret(each.setting, constants)
            for name, each in answers.items()
            if each.setting.policy == "constant"
        },
        "epochs": {name: each.epochs for name, each in answers.items()},
        "seconds": {name: each.seconds for name, each in answers.items()},
        "best of the grid": bottom,
        "interval": [low, high],
        "holds": bool(low <= bottom <= high),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Regret against the best constant rate, and against the best rate of all policies."""
    lines = []
    for kind, what in (
        ("regret of constant rates", "the best constant rate"),
        ("regret", "the best of all policies"),
    ):
        lines += [
            f"| {keras.backend.backend()}, regret to {what} | median | mean | worst | epochs | s |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name in results[0]["regret"]:
            values = [result[kind][name] for result in results if name in result[kind]]
            if len(values) < len(results):
                continue  # it chose another policy
            spread = statistics.median(values), statistics.fmean(values), max(values)
            cost = [
                statistics.median(result[each][name] for result in results)
                for each in ("epochs", "seconds")
            ]
            figures = " | ".join(f"{value:.3f}".lstrip("0") for value in spread)
            lines.append(f"| {name} | {figures} | {' | '.join(f'{round(c, 1):g}' for c in cost)} |")
        lines.append("")
    tpe, ours = "Optuna TPE, 100", "`search`"
    below = sum(result["regret"][ours] <= result["regret"][tpe] for result in results)
    held = sum(result["holds"] for result in results)
    lines += [
        f"`search` was at or below Optuna's TPE in {below} of {len(results)}. The interval of the "
        f"rate alone held the best rate of the grid in {held} of {len(results)}.",
    ]
    return block("search", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the figures as JSON")
    parser.add_argument(
        "--read", type=Path, nargs="+", help="print the tables of files from --save; do not train"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, nargs="+", default=range(len(TASKS)))
    options = parser.parse_args()
    if options.read:
        print(table([result for path in options.read for result in json.loads(path.read_text())]))
        return
    results = []
    if options.save and options.save.exists():
        results = json.loads(options.save.read_text())
    known = {(result["task"], result["seed"]) for result in results}
    for seed, number in itertools.product(options.seeds, options.tasks):
        task = Task(*TASKS[number])
        if (task.name, seed) in known:
            continue
        began = time.perf_counter()
        results.append(result := judge(task, seed))
        shown = ", ".join(f"{name} {value:.3f}" for name, value in result["regret"].items())
        seconds = time.perf_counter() - began
        print(f"{task.name:<26} {shown}  ({seconds:.0f} s)", file=sys.stderr, flush=True)
        if options.save:
            options.save.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
