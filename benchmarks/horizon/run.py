"""Measure answers for planned runs: policies, lengths, and the interval, on fifteen tasks.

    python benchmarks/horizon/run.py                # hours on one core, in steps that are kept
    python benchmarks/horizon/run.py --hours 0.5    # as much of it as half an hour allows
    python benchmarks/horizon/run.py --no-training  # tables from what is kept
    python benchmarks/horizon/run.py --long         # four of the tasks, up to 32,000 updates

A planned run is a task, a policy and a number of updates. The regret of a rate is 0 at the best
rate of the grid for that run and 1 for the untrained network: the mean over three seeds of the
final held-out loss, interpolated in ln lr (`truth.py`). Each rule answers for each seed from short
runs with other batches, and is scored on every planned run. A rule without an answer scores 1.
Intervals are 90 % bootstrap intervals over tasks.

Results are kept in a folder beside this file, and computed again after a change of the data, the
tasks or the policies. Needs the packages in requirements/bench.txt.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import inspect
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from plan import PLANS, PRIORS, UNKNOWN, Plan, correction, near_mean, reference_plan
from policies import POLICIES
from shipped import BUDGETS, KERAS, Constants, default_budget, fitted, found_by, shipped
from trainer import EVERY, PROBED, SEEDS, TASKS
from truth import FOUR, LONG, PROBES, RAMP, SHORT, Key, Truth, cache, export, order, train

from keras_lr.range_test.planned_run import (
    CONSTANT,
    LENGTH_CONSTANT,
    LENGTH_DECAYED,
    ONE_CYCLE,
)
from keras_lr.range_test.rules import suggest
from keras_lr.range_test.suggestion import NoSuggestion

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "suggestion"))

from blocks import block
from runs import Ramp, cut_off
from scores import Interval, over_tasks

HALF_WIDTH = 0.5  # decades, of the interval around an answer
JUDGED = (100, 400, 500)  # budgets whose constants are fitted
HELD = 0.85  # share of best rates that an interval should hold
SHIFTS = np.arange(-1.5, 1.51, 0.05)
HEADLINE = {  # rows of the table in the project's README, and their names there
    "limit: the best one rate of each task": "the best single rate of each task, in hindsight",
    "`lr_find` by default": "`lr_find(policy=..., total_steps=...)`",
    "curve of `lr_find`, 100 steps": "the curve of a range test alone",
    "prior of the family": "the usual rate of the optimizer",
    "always 1e-2": "always 1e-2",
    "Keras's default rate": "Keras's default rate",
    "always 1e-3": "always 1e-3",
}
HEADLINE_COLUMNS = {
    "mean regret (90 %)": "mean regret (90 %)",
    "above .5": "above .5",
    "steps": "training steps",
    "of the run": "of the run",
    "its interval holds": "interval holds the best rate",
}
Fitted = dict[int, dict[str, Constants]]  # by budget, and by the data set that is left out


class Answer(NamedTuple):
    rate: Callable[[str, int], float]  # (policy, updates) -> log10 of the rate; NaN for none
    cost: Callable[[int], float]  # updates of the planned run -> updates of the test
    widths: Callable[[int], tuple[float, float]] | None = None  # of its interval, in decades


def always(value: float) -> Callable:
    return lambda *run: value


def moved(x: float, by: Callable[[str, int], float]) -> Callable[[str, int], float]:
    return lambda policy, updates: x + by(policy, updates)


def fixed(x: float, cost: int = 0) -> Answer:
    return Answer(always(x), always(cost))


def corrected(x: float, cost: int = 0) -> Answer:
    return Answer(moved(x, correction), always(cost))


def keras_default(optimizer: str) -> float:
    parameters = inspect.signature(getattr(keras.optimizers, KERAS[optimizer])).parameters
    return parameters["learning_rate"].default


class ShortRuns:
    """The stored short runs of one task and seed, as the lab of a plan."""

    def __init__(self, kept: dict, seed: int) -> None:
        self.start = kept["start"][seed]
        self.batch = np.array(kept["batch"], float)[:, seed]
        self.held = np.array(kept["held"], float)[:, seed]

    def __call__(self, x: float, updates: int) -> tuple[float, int]:
        """The held-out loss, and the updates that it took; inf for a run that was cut off."""
        row = int(np.abs(PROBES - np.clip(x, PROBES[0], PROBES[-1])).argmin())
        losses = self.batch[row, :updates]
        limit = losses[0] + 2 * abs(losses[0])
        end = cut_off(losses, limit)
        if end is not None:
            return float("inf"), end
        return float(self.held[row, updates // EVERY - 1]), updates


def answers(truth: Truth, seed: int) -> dict[str, Answer]:
    optimizer, kept = truth.task.optimizer, truth.kept
    prior = PRIORS.get(optimizer, UNKNOWN)
    lab = ShortRuns(kept, seed)
    ramp = Ramp(RAMP, np.array(kept["ramp"][seed], float))
    try:
        curve = float(np.log10(suggest(*ramp.recorded()).learning_rate))
    except NoSuggestion:
        curve = float("nan")
    taken = ramp.trained()
    given = {
        "always 1e-3": fixed(-3.0),
        "always 1e-2": fixed(-2.0),
        "Keras's default rate": fixed(float(np.log10(keras_default(optimizer)))),
        "prior of the family": fixed(prior),
        "prior, corrected": corrected(prior),
        "curve of `lr_find`, 100 steps": fixed(curve, taken),
        "curve of `lr_find`, corrected": corrected(curve, taken),
    }
    shown = {budget: reference_plan(lab, lab.start, prior, plan) for budget, plan in PLANS.items()}
    for budget, found in shown.items():
        given[f"plan of {budget} steps"] = corrected(found.rate, found.cost)
    given["plan of 500 steps, not corrected"] = fixed(shown[500].rate, shown[500].cost)

    def bought(updates: int) -> int:
        """The plan that 5 % of the run buys, within 100 and 500 steps."""
        return max(b for b in PLANS if b <= max(100, min(500, 0.05 * updates)))

    given["plan of 5 % of the run"] = Answer(
        lambda policy, updates: shown[bought(updates)].rate + correction(policy, updates),
        lambda updates: shown[bought(updates)].cost,
    )
    middle = prior if np.isnan(curve) else (curve + prior) / 2
    with_ramp = reference_plan(lab, lab.start, middle, Plan(500, 100, 0.5, longer=150), spent=taken)
    given["plan of 500 steps with a ramp"] = corrected(with_ramp.rate, with_ramp.cost)
    ours = {budget: found_by(truth, seed, budget) for budget in BUDGETS}
    for budget, it in ours.items():
        given[f"`lr_find`, {budget} steps"] = Answer(
            moved(it.rate, shipped), always(it.cost), always(it.widths)
        )
    given["`lr_find`, 500 steps, not corrected"] = fixed(ours[500].rate, ours[500].cost)
    given["`lr_find` by default"] = Answer(
        lambda policy, updates: ours[default_budget(updates)].rate + shipped(policy, updates),
        lambda updates: ours[default_budget(updates)].cost,
        lambda updates: ours[default_budget(updates)].widths,
    )
    everything = {float(x): lab(x, PROBED)[0] for x in PROBES}
    given["limit: all rates of the grid for 200 steps"] = corrected(
        near_mean(everything, lab.start), PROBED * len(PROBES)
    )
    return given


def limit(truth: Truth, keys: list[Key]) -> Answer:
    """The one rate of the grid with the lowest mean regret over the planned runs."""
    grid = np.arange(-5.5, 1.6, 0.25)
    mean = [np.mean([truth.regret(key, x) for key in keys]) for x in grid]
    return fixed(float(grid[np.argmin(mean)]))


def figure(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def decades(found: Interval) -> str:
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def score_table(truths: list[Truth], keys: list[Key], others: Fitted) -> list[str]:
    """One row a rule: its regrets, cost and interval over all planned runs that are kept."""
    shape = (len(truths), len(SEEDS), len(keys))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for i, truth in enumerate(truths):
        there = [key for key in keys if complete(truth, key)]
        best = {key: truth.best(key) for key in there}
        alone = limit(truth, there)
        for seed in SEEDS:
            given = answers(truth, seed) | {"limit: the best one rate of each task": alone}
            for budget in JUDGED:
                it = found_by(truth, seed, budget)
                by = others[budget][data_set(truth)]
                given[f"{budget} steps, constants from the other data sets"] = Answer(
                    moved(it.rate, by), always(it.cost)
                )
            for name, answer in given.items():
                of = rows.setdefault(
                    name,
                    {w: np.full(shape, np.nan) for w in ("regret", "cost", "share", "off", "held")},
                )
                for k, key in enumerate(keys):
                    if key not in there:
                        continue
                    x, cost = answer.rate(*key), answer.cost(key[1])
                    of["regret"][i, seed, k] = truth.regret(key, x)
                    of["cost"][i, seed, k], of["share"][i, seed, k] = cost, cost / key[1]
                    of["off"][i, seed, k] = np.nan_to_num(abs(x - best[key]), nan=9.0)
                    if answer.widths is not None:
                        below, above = answer.widths(key[1])
                        of["held"][i, seed, k] = x - below <= best[key] <= x + above
    lengths, policies = sorted({n for _, n in keys}), list(dict.fromkeys(p for p, _ in keys))
    head = ["rule", "mean regret (90 %)", "above .5", *map(str, lengths), *policies]
    head += ["steps", "of the run", f"best within {HALF_WIDTH:g}", f"{HELD:.0%} within"]
    head += ["its interval holds"]
    lines = []
    for name in sorted(rows, key=lambda name: np.nanmean(rows[name]["regret"])):
        regret = rows[name]["regret"]
        mean = over_tasks(regret, np.nanmean)
        known = regret[~np.isnan(regret)]
        cells = [name, f"{figure(mean.value)} ({figure(mean.low)}-{figure(mean.high)})"]
        cells += [f"{np.mean(known > 0.5):.1%}"]
        for names, at in ((lengths, 1), (policies, 0)):
            for one in names:
                columns = [k for k, key in enumerate(keys) if key[at] == one]
                cells.append(figure(float(np.nanmean(regret[:, :, columns]))))
        cells += [f"{np.nanmean(rows[name]['cost']):.0f}"]
        cells += [f"{np.nanmean(rows[name]['share']):.1%}"]
        off = rows[name]["off"][~np.isnan(regret)]
        cells += [f"{np.mean(off <= HALF_WIDTH):.0%}", f"{np.quantile(off, HELD):.2f}"]
        held = rows[name]["held"][~np.isnan(regret)]
        cells += ["-" if np.isnan(held).all() else f"{np.mean(held):.0%}"]
        lines.append(cells)
    return table(head, lines)


def headline(lines: list[str]) -> list[str]:
    """The rows and columns of the score table that the project's README shows."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in lines]
    places = [head.index(name) for name in HEADLINE_COLUMNS]
    shown = [[HEADLINE[row[0]], *(row[i] for i in places)] for row in rows if row[0] in HEADLINE]
    return table(["rate", *HEADLINE_COLUMNS.values()], shown)


def data_set(truth: Truth) -> str:
    """The data of a task; glyphs in all their uses are one data set."""
    name: str = truth.task.data
    return "glyphs" if name.startswith("glyphs") else name


def raw_answers(truth: Truth, budget: int = 500) -> list[float]:
    """log10 of the answers of `lr_find` for the neutral run, one for each seed."""
    return [found_by(truth, seed, budget).rate for seed in SEEDS]


def constants_without(truths: list[Truth], keys: list[Key]) -> Fitted:
    """The constants for policy and length that are best without each data set, by budget."""
    made: Fitted = {}
    for budget in JUDGED:
        raw = {truth.task.name: np.array(raw_answers(truth, budget)) for truth in truths}
        for name in sorted({data_set(truth) for truth in truths}):
            rest = [truth for truth in truths if data_set(truth) != name]
            made.setdefault(budget, {})[name] = fitted(rest or truths, keys, raw)
    return made


def constants_table(truths: list[Truth], keys: list[Key], others: Fitted) -> list[str]:
    """The constants in the package, and those that fit best, with and without each data set."""
    head = ["tasks", "budget", "constant", "one-cycle", "for 4 times as many updates, constant"]
    head += ["decayed"]
    ours = (CONSTANT, ONE_CYCLE, LENGTH_CONSTANT, LENGTH_DECAYED)
    rows = [["in the package", "-", *map(signed, ours)]]
    for budget, by_set in others.items():
        raw = {truth.task.name: np.array(raw_answers(truth, budget)) for truth in truths}
        whole = {"all": fitted(truths, keys, raw)}
        named = {f"without {name}": best for name, best in by_set.items()}
        for name, best in (whole | named).items():
            rows.append([name, str(budget), *map(signed, best)])
    return table(head, rows)


def signed(value: float) -> str:
    return f"{value + 0.0:+.2f}"


def complete(truth: Truth, key: Key) -> bool:
    return "batch" in truth.kept and bool(truth.losses(key)) and not truth.wanted(key, 0.0)


def cheapest_shift(truths: list[Truth], key: Key, of: Callable[[Truth], list[float]]) -> Interval:
    """Decades that, added to a log10 rate of each task, give the lowest mean regret."""
    regret = np.array(
        [
            [np.mean([truth.regret(key, x + step) for x in of(truth)]) for step in SHIFTS]
            for truth in truths
        ]
    )
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(truths), (2000, len(truths)))
    found = SHIFTS[regret[draws].mean(axis=1).argmin(axis=1)]
    low, high = np.quantile(found, [0.05, 0.95])
    return Interval(float(SHIFTS[regret.mean(axis=0).argmin()]), float(low), float(high))


def moves_table(truths: list[Truth], keys: list[Key]) -> list[str]:
    """How the best rate moves with policy and length, in decades."""
    first = ("constant", SHORT[0])
    raw = {truth.task.name: raw_answers(truth) for truth in truths}
    head = ["policy", "updates", "tasks", "best rate less best constant at the same length"]
    head += ["best rate for 4 times as many updates, less this"]
    head += ["best rate less best constant at 500", "cheapest shift from best constant at 500"]
    head += ["cheapest shift from the answer of 500 steps", "shift of `lr_find`"]
    rows = []
    for policy, updates in keys:
        key, same, longer = (policy, updates), ("constant", updates), (policy, 4 * updates)

        def apart(one: Key, other: Key) -> str:
            both = [t for t in truths if complete(t, one) and complete(t, other)]
            if len(both) < 2:
                return "-"
            return decades(over_tasks(np.array([[t.best(one) - t.best(other)] for t in both])))

        there = [t for t in truths if complete(t, key) and complete(t, first)]
        if len(there) < 2:
            continue
        rows.append(
            [policy, str(updates), str(len(there)), apart(key, same), apart(longer, key)]
            + [apart(key, first), decades(cheapest_shift(there, key, lambda t: [t.best(first)]))]
            + [decades(cheapest_shift(there, key, lambda t: raw[t.task.name]))]
            + [signed(shipped(policy, updates))]
        )
    return table(head, rows)


def tasks_table(truths: list[Truth], keys: list[Key]) -> list[str]:
    """log10 of the best rate of every planned run, and what `lr_find` said with 500 steps."""
    head = ["task", "prior", "500 steps", *(f"{policy} {updates}" for policy, updates in keys)]
    rows = []
    for truth in truths:
        cells = [truth.task.name, f"{PRIORS.get(truth.task.optimizer, UNKNOWN):.2f}"]
        cells += [" ".join(f"{x:.2f}" for x in raw_answers(truth))]
        for key in keys:
            cells += [f"{truth.best(key):.2f}" if complete(truth, key) else "-"]
        rows.append(cells)
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=np.inf, help="start no run after so long")
    parser.add_argument("--no-training", action="store_true", help="tables of what is kept")
    parser.add_argument("--long", action="store_true", help=f"four tasks, up to {LONG} updates")
    parser.add_argument("--export", type=Path, help="a copy of all results, after each step")
    options = parser.parse_args()
    begin = time.time()
    keys = order(list(POLICIES), [*SHORT, LONG] if options.long else list(SHORT))
    tasks = FOUR if options.long else TASKS
    folder = cache()
    if not options.no_training:
        for task, key in train(folder, keys, tasks, until=begin + 3600 * options.hours):
            print(
                f"{time.time() - begin:6.0f} s  {task.name:<30} {key}", file=sys.stderr, flush=True
            )
            if options.export:
                export(folder, options.export)
    truths = [Truth(task, folder) for task in tasks]
    truths = [truth for truth in truths if any(complete(truth, key) for key in keys)]
    there = [key for key in keys if any(complete(truth, key) for truth in truths)]
    done = sum(complete(truth, key) for truth in truths for key in there)
    if not done:
        sys.exit("Nothing is kept yet.")
    print(f"{done} of {len(tasks) * len(keys)} planned runs are complete.", file=sys.stderr)
    others = constants_without(truths, there)
    if options.long:
        longest = [key for key in there if key[1] == LONG]
        print(block("horizon-long", score_table(truths, longest, others)))
        print(block("horizon-long-moves", moves_table(truths, there)))
        return
    scores = score_table(truths, there, others)
    print(block("horizon-short", headline(scores)))
    print(block("horizon", scores))
    print(block("horizon-moves", moves_table(truths, there)))
    print(block("horizon-constants", constants_table(truths, there, others)))
    print(block("horizon-tasks", tasks_table(truths, there)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
