"""Measure how much of our rule's score is fitted, by choosing its constants without each data set.

    python benchmarks/suggestion/refit.py     # minutes, after run.py has trained the tasks

The constants of the rule were chosen by people who looked at these tasks. Here a grid search
chooses three of them (the share, the bandwidth of the smoother and the lag) by the mean regret on
the tasks of all data sets but one, over the four lengths of the ramp, and the choice is scored on
the data set left out; this is repeated for each data set. Variants of a data set count as that data
set. Needs what run.py needs.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from run import figure, with_interval
from runs import LENGTHS, Trained, trained
from scores import judged, over_tasks
from tasks import TASKS, Task

from keras_lr.range_test import curve_rule, landmarks, rules, smoothing
from keras_lr.range_test.suggestion import NoSuggestion

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

CHOICES = {
    "SHARE": (0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.2),
    "BANDWIDTH": (0.4, 0.55, 0.7, 0.85, 1.0),
    "LAG": (0.0, 1.5, 3.0, 4.5, 6.0),
}
MODULES = {"SHARE": curve_rule, "BANDWIDTH": smoothing, "LAG": landmarks}  # that read them
SHIPPED = tuple(getattr(MODULES[name], name) for name in CHOICES)


class Remembered:
    """The smoother of the rule, its slow part, computed once for each curve and bandwidth."""

    def __init__(self, smoother: Callable) -> None:
        self._smoother, self._known = smoother, {}

    def __call__(self, rates: np.ndarray, losses: np.ndarray, bandwidth: float) -> Any:
        key = (losses.tobytes(), bandwidth)
        if key not in self._known:
            self._known[key] = self._smoother(rates, losses, bandwidth)
        return self._known[key]


@contextmanager
def constants(values: tuple[float, ...]) -> Iterator[None]:
    kept = {name: getattr(MODULES[name], name) for name in CHOICES}
    try:
        for name, value in zip(CHOICES, values, strict=True):
            setattr(MODULES[name], name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(MODULES[name], name, value)


def regret(found: Trained, steps: int, values: tuple[float, ...]) -> float:
    """The mean over seeds and policies."""
    seen = []
    with constants(values):
        for ramp in found.ramps[steps]:
            try:
                rate = rules.suggest(*ramp.recorded()).learning_rate
            except NoSuggestion:
                rate = None
            seen.append(judged(found.table, rate))
    return float(np.mean(seen))


def data_set(task: Task) -> str:
    return task.data.split("-")[0]


def held_out(scores: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Scores of each task with the constants chosen on the other data sets, and the choices.

    Args:
        scores: Shape (choices, tasks, lengths).
        sets: The data set of each task.
    """
    result = np.empty(scores.shape[1:])
    chosen = {}
    for name in sorted(set(sets)):
        out = sets == name
        chosen[name] = int(scores[:, ~out].mean(axis=(1, 2)).argmin())
        result[out] = scores[chosen[name], out]
    return result, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, help="the folder of run.py's training results")
    options = parser.parse_args()
    grid = list(itertools.product(*CHOICES.values()))
    assert SHIPPED in grid
    scores = np.empty((len(grid), len(TASKS), len(LENGTHS)))
    for t, found in enumerate(trained(list(TASKS), range(3), options.runs)):
        print(found.task.name, file=sys.stderr, flush=True)
        for (c, values), (s, steps) in itertools.product(enumerate(grid), enumerate(LENGTHS)):
            scores[c, t, s] = regret(found, steps, values)
    sets = np.array([data_set(task) for task in TASKS])
    out, chosen = held_out(scores, sets)
    shipped = scores[grid.index(SHIPPED)]
    best = int(scores.mean(axis=(1, 2)).argmin())
    lines = ["| constants | " + " | ".join(f"{steps} steps" for steps in LENGTHS) + " |"]
    lines += ["| --- " * (len(LENGTHS) + 1) + "|"]
    rows = {
        "as shipped": shipped,
        "chosen without the data set that is scored": out,
        "chosen on all tasks": scores[best],
    }
    for name, values in rows.items():
        cells = [with_interval(over_tasks(values[:, s])) for s in range(len(LENGTHS))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| left out | tasks | {', '.join(CHOICES)} chosen | regret | as shipped |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, choice in chosen.items():
        mine = sets == name
        values = ", ".join(f"{value:g}" for value in grid[choice])
        lines.append(
            f"| {name} | {mine.sum()} | {values} | {figure(out[mine].mean())} "
            f"| {figure(shipped[mine].mean())} |"
        )
    print(block("suggestion-refit", lines))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    curve_rule.read_curve = Remembered(curve_rule.read_curve)
    main()
