"""Measure the suggestions: train 36 small tasks and print tables of regrets.

    python benchmarks/suggestion/run.py            # half an hour on one core, then minutes
    python benchmarks/suggestion/run.py --quick    # 8 tasks, one seed, about three minutes

The regret of a rate is 0 at the best constant rate of a grid, or at the best peak of a one-cycle
run, and 1 for the untrained network. It comes from the held-out loss after 500 updates,
interpolated in ln lr, as the mean over seeds. Each rule answers for each seed, and its rate is
scored under both policies; a rule without an answer scores 1. All rules read ramps from 1e-7 to 10
of 30, 50, 100 and 300 steps with the same true batch losses; each finder smooths them and stops in
its own way. "The curve of `lr_find`" is `suggest("curve")` on what `lr_find` records; peers run
their own code (`peers.py`). "`lr_find` without short runs" is its answer where there is only a
ramp: the curve, weighed with the usual rate of the optimizer's family. "`lr_find`" is its answer by
short runs, without the ramp of 50 steps that a budget of 200 and more has beside them. They start
from the usual rate of the optimizer's family, or from 1e-2 as if it were unknown; they are judged
on the held-out sample, and each policy is scored at the rate for it. Intervals are 90% bootstrap
intervals over tasks. Steps are the steps that the finder would have trained.

Training results are kept in a folder beside this file, and computed again after a change of
`tasks.py` or `runs.py`. Needs the packages in requirements/bench.txt, and the network once: fastai
and ktrain are downloaded without their dependencies.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import functools
import inspect
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from peers import OURS, PEERS, Answer, fetch
from runs import LENGTHS, UPDATES, Trained, Trainer, trained
from scores import GRID, judged, over_tasks
from tasks import TASKS

from keras_lr.range_test.evidence import weigh
from keras_lr.range_test.planned_run import PlannedRun, correction, planned_run
from keras_lr.range_test.prior import UNKNOWN, UNKNOWN_RATE, usual_rate
from keras_lr.range_test.probes import Prober
from keras_lr.range_test.rules import suggest
from keras_lr.range_test.smoothing import moving_average
from keras_lr.range_test.stopping import MEMORY
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

QUICK = (0, 2, 6, 10, 13, 20, 27, 29)
KERAS = {"sgd": "SGD", "momentum": "SGD", "nesterov": "SGD", "adam": "Adam", "adamw": "AdamW"}
KERAS |= {"rmsprop": "RMSprop", "adagrad": "Adagrad", "lion": "Lion"}
CURVE = "the curve of `lr_find`"  # `suggest("curve")`
NO_RUNS = "`lr_find` without short runs"  # the curve and the usual rate of the family
BUDGETS = (100, 150, 200, 300, 500)  # updates of the short runs; by default 150, beside a ramp
PLANNED = "`lr_find`"  # by short runs
WITHOUT_FAMILY = "`lr_find`, optimizer unknown"
PRIOR = "the usual rate of the optimizer's family"
LIMIT = "limit: the best single rate for both policies"
POLICIES = tuple(planned_run(name, UPDATES) for name in ("constant", "one-cycle"))
FAMILIES = {"momentum": "momentum", "nesterov": "momentum", "sgd": "SGD", "adagrad": UNKNOWN}
AVERAGE = "minimum of an EMA(0.9) / 10"
DEFAULT = "Keras's default rate"
Key = tuple[str, int]  # a rule, and the steps of its ramp or of its short runs; 0 without any


class Planned(NamedTuple):
    """An answer with a rate and an interval for each policy of `POLICIES`."""

    rates: tuple[float, ...]
    steps: int
    intervals: tuple[tuple[float, float], ...] = ()

    @property
    def rate(self) -> float:
        return float(np.sqrt(self.rates[0] * self.rates[1]))


def keras_default(optimizer: str) -> float:
    parameters = inspect.signature(getattr(keras.optimizers, KERAS[optimizer])).parameters
    return parameters["learning_rate"].default


def no_curve() -> Suggestion:
    raise NoSuggestion("There is no ramp.")


def planned(
    found: Trained, seed: int, budget: int, usual: float | None, family: str
) -> Planned | Answer:
    """The answer of the short runs that a budget pays for, for each policy."""
    centre = UNKNOWN_RATE if usual is None else usual
    prober = Prober(Trainer(found.runner, seed), centre, budget)
    prober.run()
    try:
        each = [weigh(no_curve, prober.probes(), usual, family, run) for run in POLICIES]
    except NoSuggestion:
        return Answer(None, prober.cost)
    return of_policies(each, prober.cost)


def of_policies(each: list[Suggestion], cost: int) -> Planned:
    rates = tuple(one.learning_rate for one in each)
    return Planned(rates, cost, tuple((one.low, one.high) for one in each))


def policy_factors() -> list[float]:
    return [10.0 ** correction(run or PlannedRun()) for run in POLICIES]


def regret_of(table: np.ndarray, answer: Answer | Planned) -> np.ndarray:
    """Regrets under each policy, of the rate for that policy if the answer has one for each."""
    if isinstance(answer, Planned):
        return np.array([judged(table, rate)[i] for i, rate in enumerate(answer.rates)])
    return judged(table, answer.rate)


def holds_best(table: np.ndarray, answer: Planned) -> list[bool]:
    """Whether the interval for each policy holds the best rate of the grid."""
    best = GRID[table.argmin(axis=1)]
    return [
        bool(low <= rate <= high) for rate, (low, high) in zip(best, answer.intervals, strict=True)
    ]


def answers(found: Trained, seed: int) -> dict[Key, Answer | Planned]:
    """The answer of each rule after each ramp, and the steps that it took."""
    given: dict[Key, Answer | Planned] = {}
    usual, family = usual_rate(FAMILIES.get(found.task.optimizer, found.task.optimizer))
    for steps, ramps in found.ramps.items():
        curve, cost = ramps[seed].recorded(), ramps[seed].trained()
        read = functools.partial(suggest, *curve)
        try:
            given[CURVE, steps] = Answer(read().learning_rate, cost)
            each = [weigh(read, None, usual, family, run) for run in POLICIES]
            given[NO_RUNS, steps] = of_policies(each, cost)
        except NoSuggestion:
            given[CURVE, steps] = given[NO_RUNS, steps] = Answer(None, cost)
        lowest = curve[0][np.argmin(moving_average(curve[1], MEMORY))] if len(curve[0]) else None
        given[AVERAGE, steps] = Answer(None if lowest is None else lowest / 10, cost)
        for name, peer in PEERS.items():
            given[name, steps] = peer(*ramps[seed])
    for budget in BUDGETS:
        given[PLANNED, budget] = planned(found, seed, budget, usual, family)
        given[WITHOUT_FAMILY, budget] = planned(found, seed, budget, None, UNKNOWN)
    first = 10.0 ** (UNKNOWN_RATE if usual is None else usual)
    given[PRIOR, 0] = Planned(tuple(first * factor for factor in policy_factors()), 0)
    given[LIMIT, 0] = Answer(float(GRID[found.table.mean(axis=0).argmin()]), 0)
    given[DEFAULT, 0] = Answer(keras_default(found.task.optimizer), 0)
    given["always 1e-2", 0], given["always 1e-3", 0] = Answer(1e-2, 0), Answer(1e-3, 0)
    return given


def differs(found: Trained, seed: int, given: dict[Key, Answer | Planned]) -> list[Key]:
    """Where our version of a peer's rule and the peer's own code disagree."""
    other = []
    for (name, steps), theirs in given.items():
        if name in OURS:
            try:
                ours = suggest(*found.ramps[steps][seed], OURS[name]).learning_rate
            except NoSuggestion:
                ours = None
            same = ours is None and theirs.rate is None
            if not same and (not ours or not theirs.rate or abs(theirs.rate / ours - 1) > 1e-3):
                other.append((name, steps))
    return other


class Scores:
    """The scores of one rule: arrays of shape (tasks, seeds, policies) or (tasks, seeds)."""

    def __init__(self, regret: np.ndarray, steps: np.ndarray, silent: np.ndarray) -> None:
        self.regret, self.steps, self.silent = regret, steps, silent

    @functools.cached_property
    def mean(self):
        return over_tasks(self.regret)

    @functools.cached_property
    def median(self):
        return over_tasks(self.regret, np.median)


def figure(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if value < 1 else f"{value:.3f}"


def with_interval(found) -> str:
    return f"{figure(found.value)} ({figure(found.low)}-{figure(found.high)})"


def row(name: str, scores: Scores, *, all_of_it: bool) -> str:
    regret = scores.regret
    cells = [name, with_interval(scores.median) if all_of_it else figure(scores.median.value)]
    cells += [with_interval(scores.mean), figure(float(np.quantile(regret, 0.9)))]
    cells += [f"{np.mean(regret > 0.5):.0%}"]
    if all_of_it:
        cells += [figure(value) for value in regret.mean(axis=(0, 1))]
        cells += [f"{scores.silent.mean():.0%}"]
    return "| " + " | ".join([*cells, f"{scores.steps.mean():.0f}"]) + " |"


def labelled(key: Key) -> str:
    name, steps = key
    return f"{name}, {steps} steps" if steps else name


def short_table(found: dict[Key, Scores]) -> list[str]:
    """The rules at 100 steps; at the other lengths, ours and the best peer."""

    def best(names: list[str], steps: int) -> Key:
        return min(((name, steps) for name in names), key=lambda key: found[key].mean.value)

    ktrain = [name for name in PEERS if name.startswith("ktrain")]
    keys = {(name, 100): name for name in (*PEERS, AVERAGE) if name not in ktrain}
    keys[best(ktrain, 100)] = f"{best(ktrain, 100)[0]} (its best of three)"
    keys |= {(name, 0): name for name in (DEFAULT, "always 1e-2", "always 1e-3", PRIOR, LIMIT)}
    keys |= {(name, n): f"{name}, {n} steps" for name in (PLANNED, WITHOUT_FAMILY) for n in BUDGETS}
    keys[PLANNED, 150] += " beside a ramp of 50, the default"
    for steps in LENGTHS:
        keys[CURVE, steps] = f"{CURVE}, {steps} steps"
        keys[NO_RUNS, steps] = f"{NO_RUNS}, {steps} steps"
        if steps != 100:
            peer = best(list(PEERS), steps)
            keys[peer] = f"the best peer at {steps} steps: {peer[0]}"
    lines = ["| rule | median | mean (90%) | 90th percentile | above .5 | steps |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    order = sorted(keys, key=lambda key: found[key].mean.value)
    return lines + [row(keys[key], found[key], all_of_it=False) for key in order]


def whole_table(found: dict[Key, Scores]) -> list[str]:
    head = ["rule", "median (90%)", "mean (90%)", "90th percentile", "above .5"]
    head += ["mean, constant", "mean, one-cycle", "no answer", "steps"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    order = sorted(found, key=lambda key: (key[1], found[key].mean.value))
    return lines + [row(labelled(key), found[key], all_of_it=True) for key in order]


def intervals_table(
    tables: list[np.ndarray], given: dict[Key, list[list[Answer | Planned]]]
) -> list[str]:
    """How often the interval holds the best rate of the grid, and how wide it is."""
    lines = [
        "| | the best rate is inside | median width, decades |",
        "| --- | --- | --- |",
    ]
    shown = [(name, n) for name in (PLANNED, WITHOUT_FAMILY) for n in BUDGETS]
    for name, steps in (*shown, (NO_RUNS, 100)):
        pairs = zip(tables, given[name, steps], strict=True)
        found = [(table, one) for table, row in pairs for one in row if isinstance(one, Planned)]
        held = np.mean([holds_best(table, one) for table, one in found])
        width = np.median([np.log10(high / low) for _, one in found for low, high in one.intervals])
        lines.append(f"| {labelled((name, steps))} | {held:.0%} | {width:.2f} |")
    return lines


def pairs_table(found: dict[Key, Scores]) -> list[str]:
    """Our rule against each other rule on the same curve, task by task."""
    head = [f"{CURVE} against", "steps of the ramp", "better on", "worse on"]
    head += ["mean difference (90%)"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    rivals = [(steps, name) for steps in LENGTHS for name in (*PEERS, AVERAGE)]
    rivals += [(100, name) for name in (DEFAULT, "always 1e-2", "always 1e-3")]
    for steps, name in rivals:
        ours = found[CURVE, steps].regret
        theirs = found[(name, steps) if (name, steps) in found else (name, 0)].regret
        apart = (ours - theirs).mean(axis=(1, 2))
        between = over_tasks(ours - theirs)
        mean, low, high = (f"{value:+.3f}".replace("0.", ".", 1) for value in between)
        lines.append(
            f"| {name} | {steps} | {np.mean(apart < -1e-9):.0%} | {np.mean(apart > 1e-9):.0%} "
            f"| {mean} ({low} to {high}) |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 tasks and one seed")
    parser.add_argument("--runs", type=Path, help="another folder for the training results")
    parser.add_argument(
        "--seeds", type=int, default=None, help="seeds for each task (3; 1 with --quick)"
    )
    options = parser.parse_args()
    tasks = [TASKS[i] for i in QUICK] if options.quick else list(TASKS)
    seeds = range(options.seeds or (1 if options.quick else 3))
    fetch()
    regret: dict[Key, list] = {}
    given: dict[Key, list[list[Answer | Planned]]] = {}
    odd: Counter[Key] = Counter()
    tables: list[np.ndarray] = []
    begin = time.time()
    for found in trained(tasks, seeds, options.runs):
        of_seeds = [answers(found, seed) for seed in seeds]
        tables.append(found.table)
        for seed in seeds:
            odd.update(differs(found, seed, of_seeds[seed]))
        for key in of_seeds[0]:
            row_of = [of[key] for of in of_seeds]
            given.setdefault(key, []).append(row_of)
            regret.setdefault(key, []).append([regret_of(found.table, one) for one in row_of])
        best = ", ".join(f"{GRID[line.argmin()]:.1e}" for line in found.table)
        ours = ", ".join(f"{np.mean(regret[CURVE, steps][-1]):.3f}" for steps in LENGTHS)
        print(
            f"{time.time() - begin:6.0f} s  {found.task.name:<28} best constant and peak {best}; "
            f"lr_find at {LENGTHS} steps {ours}",
            file=sys.stderr,
            flush=True,
        )
    curves = len(tasks) * len(seeds)
    for (name, steps), count in sorted(odd.items()):
        print(
            f"keras_lr's {OURS[name]!r} is not what {name} says on {count} of {curves} ramps of "
            f"{steps} steps",
            file=sys.stderr,
        )
    found_all = {
        key: Scores(
            np.array(regret[key]),
            np.array([[one.steps for one in line] for line in given[key]]),
            np.array([[one.rate is None for one in line] for line in given[key]]),
        )
        for key in regret
    }
    print(block("suggestion", short_table(found_all)))
    print(block("suggestion-all", whole_table(found_all)))
    print(block("suggestion-pairs", pairs_table(found_all)))
    print(block("suggestion-intervals", intervals_table(tables, given)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
