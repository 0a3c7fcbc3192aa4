"""Compare `search` with `lr_find` and with other tuners, at equal numbers of epochs.

    python benchmarks/search/run.py --save search.json    # on JAX, unless KERAS_BACKEND is set

Small real tasks, five epochs a run. For each: Keras's default rate; `lr_find` with its defaults and
with `budget=500`; `search` for the rate alone, at most 40 epochs, and with policies, at most 100.
Beside them Optuna (TPE, Gaussian process, random; TPE with the median pruner and with Hyperband)
and keras-tuner (Bayesian) by their own code through plain `fit`: once over the rate alone with 40
epochs, once over the rate and the policy with 100, in the same range of rates.

Each answer is then trained again, with twelve new seeds, on all training rows, and evaluated on
test rows that nothing above has seen. The seeds set the order of the data and the validation split.
The regret of an answer is 0 at the best of all evaluated ones and 1 for the untrained model; these
include a grid of four constant rates a decade. The best of the grid is chosen with the same seeds
and rows, which favors the grid.

Each answer and each evaluated setting is written to the file of `--save` at once, and is not
computed again. Needs scikit-learn, mnist1d and Optuna; keras-tuner and Optuna's GP (scipy, torch)
are left out if they are missing.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from peers import by_keras_tuner, by_optuna, usable
from tasks import EPOCHS, GRID, TASKS, Task, constant, name_of

import keras_lr
from keras_lr._util.files import atomic_write
from keras_lr.rate_search.jobs import Setting

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

RATE, POLICY = "`search(also=())`", "`search`"
Method = Callable[[Task, int], dict[str, Any]]


def by_range_test(task: Task, seed: int, **options: Any) -> dict[str, Any]:
    steps = EPOCHS * -(-len(task.x) // 32)
    test = keras_lr.lr_find(
        task.model, task.x, task.y, seed=seed, verbose=0, policy="constant", total_steps=steps,
        **options,
    )  # fmt: skip
    rate = test.suggest().learning_rate
    return answer(constant(rate), test.training_steps / -(-len(task.x) // 32))


def by_search(task: Task, seed: int, also: tuple[str, ...]) -> dict[str, Any]:
    found = keras_lr.search(
        task.model, task.x, task.y, epochs=EPOCHS, seed=seed, also=also, verbose=0
    )
    trained = sum(o.epochs * o.job.fraction for o in found.outcomes)
    batches = -(-(len(task.x) - round(0.2 * len(task.x))) // 32)  # of a run's epoch
    ramp = len((found.range_test or {"losses": ()})["losses"]) / batches
    return {**answer(found.setting, trained + ramp), "interval": [found.low, found.high]}


def answer(setting: Setting, epochs: float) -> dict[str, Any]:
    return {"setting": asdict(setting), "epochs": epochs}


def methods() -> dict[str, Method]:
    """What is compared, by its name in the table."""
    found: dict[str, Method] = {
        "Keras's default rate": lambda task, seed: answer(constant(task.default), 0),
        "`lr_find`": by_range_test,
        "`lr_find(budget=500)`": functools.partial(by_range_test, budget=500),
        RATE: functools.partial(by_search, also=()),
        POLICY: functools.partial(by_search, also=("policy",)),
    }

    def peer(method: Callable[..., Any], **options: Any) -> Method:
        return lambda task, seed: answer(*method(task, seed, **options))

    for epochs in (40, 100):
        for sampler, pruner in usable():
            name = f"Optuna {sampler}" + f", {pruner}" * (pruner != "none")
            found[f"{name}, {epochs}"] = peer(
                by_optuna, sampler=sampler, pruner=pruner, epochs=epochs
            )
        if importlib.util.find_spec("keras_tuner"):
            found[f"keras-tuner, {epochs}"] = peer(by_keras_tuner, epochs=epochs)
    return found


class Record:
    """The answers and the evaluated settings, in a file if there is one.

    Attributes:
        answers: By task, seed and method.
        losses: Pairs of a setting and its loss, by task.
        untrained: The loss of the untrained model, by task.
    """

    def __init__(self, *paths: Path) -> None:
        self.answers: dict[tuple[str, int, str], dict[str, Any]] = {}
        self.losses: dict[str, list[tuple[Setting, float]]] = {}
        self.untrained: dict[str, float] = {}
        self._path = paths[0] if paths else None
        for path in paths:
            if path.exists():
                content = json.loads(path.read_text())
                for each in content["answers"]:
                    self.answers[each["task"], each["seed"], each["method"]] = each
                for task, pairs in content["losses"].items():
                    known = self.losses.setdefault(task, [])
                    known += [(Setting(**setting), loss) for setting, loss in pairs]
                self.untrained.update(content["untrained"])

    def save(self) -> None:
        if self._path is not None:
            losses = {
                task: [[asdict(setting), loss] for setting, loss in pairs]
                for task, pairs in self.losses.items()
            }
            content = {
                "answers": list(self.answers.values()),
                "losses": losses,
                "untrained": self.untrained,
            }
            atomic_write(self._path, json.dumps(content, indent=1) + "\n")

    def find(self, task: Task, seed: int, chosen: dict[str, Method]) -> None:
        """Run the methods that have no answer yet."""
        for name, method in chosen.items():
            if (task.name, seed, name) in self.answers:
                continue
            began = time.perf_counter()
            found = method(task, seed)
            seconds = time.perf_counter() - began
            self.answers[task.name, seed, name] = {
                "task": task.name, "seed": seed, "method": name, **found, "seconds": seconds,
            }  # fmt: skip
            self.save()
            print(f"{task.name:<24} {seed} {name:<26} {seconds:.0f} s", file=sys.stderr, flush=True)

    def judge(self, task: Task) -> None:
        """Evaluate the grid and the answers that have not been."""
        asked = [constant(float(rate)) for rate in GRID]
        asked += [Setting(**e["setting"]) for e in self.answers.values() if e["task"] == task.name]
        known = dict(self.losses.get(task.name, ()))
        more = [setting for setting in asked if setting not in known]
        if more:
            self.untrained[task.name] = task.untrained()
            self.losses[task.name] = [*known.items(), *task.losses(more).items()]
            self.save()

    def results(self, names: list[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """The scores of each task and seed with an answer of each method."""
        pairs = dict.fromkeys((task, seed) for task, seed, _ in self.answers if seed in seeds)
        complete = [(t, s) for t, s in pairs if all((t, s, n) in self.answers for n in names)]
        return [self._scored(task, seed, names) for task, seed in complete if task in self.losses]

    def _scored(self, task: str, seed: int, names: list[str]) -> dict[str, Any]:
        losses, worst = dict(self.losses[task]), self.untrained[task]
        answers = {name: self.answers[task, seed, name] for name in names}
        settings = {name: Setting(**each["setting"]) for name, each in answers.items()}
        grid = {setting: losses[setting] for setting in map(constant, map(float, GRID))}
        here = {**grid, **{setting: losses[setting] for setting in settings.values()}}
        best = min(here.values())
        constants = min(loss for setting, loss in here.items() if setting.policy == "constant")
        bottom = min(grid, key=grid.__getitem__).learning_rate
        low, high = answers[RATE].get("interval", (0.0, 0.0)) if RATE in answers else (0.0, 0.0)

        def regret(setting: Setting, least: float) -> float:
            return (losses[setting] - least) / (worst - least)

        return {
            "task": task,
            "seed": seed,
            "regret": {name: regret(each, best) for name, each in settings.items()},
            "regret of constant rates": {
                name: regret(each, constants)
                for name, each in settings.items()
                if each.policy == "constant"
            },
            "epochs": {name: each["epochs"] for name, each in answers.items()},
            "seconds": {name: each["seconds"] for name, each in answers.items()},
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
    tpe = "Optuna TPE, 100"
    if {POLICY, tpe, RATE} <= set(results[0]["regret"]):
        below = sum(result["regret"][POLICY] <= result["regret"][tpe] for result in results)
        held = sum(result["holds"] for result in results)
        tasks = len({result["task"] for result in results})
        lines += [
            f"{tasks} tasks, {len(results)} searches of each kind. {POLICY} was at or below "
            f"Optuna's TPE in {below} of {len(results)}. The interval of the rate alone held the "
            f"best rate of the grid in {held} of {len(results)}.",
        ]
    return block("search", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the answers as JSON, and resume from it")
    parser.add_argument(
        "--read", type=Path, nargs="+", help="print the tables of files from --save; do not train"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, nargs="+", default=range(len(TASKS)))
    parser.add_argument("--only", nargs="+", help="methods whose names contain one of these")
    options = parser.parse_args()
    chosen = {
        name: method
        for name, method in methods().items()
        if not options.only or any(each in name for each in options.only)
    }
    if options.read:
        found = Record(*options.read).results(list(chosen), options.seeds)
        names = [name_of(*TASKS[number]) for number in options.tasks]
        print(table([each for each in found if each["task"] in names]))
        return
    record = Record(*([options.save] if options.save else []))
    warnings.simplefilter("ignore")
    tasks = {number: Task(*TASKS[number]) for number in options.tasks}
    for seed in options.seeds:
        for task in tasks.values():
            record.find(task, seed, chosen)
    for task in tasks.values():
        record.judge(task)
    print(table(record.results(list(chosen), options.seeds)))


if __name__ == "__main__":
    main()
