"""How good are the suggestions? Trains 36 small tasks and prints a table of regrets.

    python benchmarks/suggestion/run.py            # about half an hour on one core
    python benchmarks/suggestion/run.py --quick    # 8 tasks, one seed, about two minutes

Regret of a rate: 0 is the best constant rate of a grid, or the best peak of a one-cycle run,
and 1 is untrained; held-out loss after 500 updates, interpolated in ln lr, the mean of the
seeds. Each rule answers for each seed, and its rate is judged under both policies. A rule that
gives no answer is charged 1. Needs jax, scikit-learn and mnist1d.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tasks import TASKS, Runner

from keras_lr.range_test.confirm import confirm
from keras_lr.range_test.rules import METHODS, NoSuggestion, suggest
from keras_lr.range_test.stopping import first_divergence, moving_average

UPDATES = 500
GRID = 10.0 ** np.arange(-6, 1.34, 1 / 3)
RAMP_ORDER, CONFIRM_ORDER = 7, 3  # of the batches; the judged runs have order 0
QUICK = (0, 2, 6, 10, 13, 20, 27, 29)


def one_cycle(peak: float, updates: int) -> np.ndarray:
    """Cosine from peak / 25 up to the peak at 30%, then down to peak / 250000."""
    i, up = np.arange(updates), int(0.3 * updates)
    first, last = peak / 25, peak / 25e4
    rise = first + (peak - first) * (1 - np.cos(np.pi * i / up)) / 2
    fall = last + (peak - last) * (1 + np.cos(np.pi * (i - up) / (updates - 1 - up))) / 2
    return np.where(i < up, rise, fall)


def regrets(runner: Runner, seeds: range) -> np.ndarray:
    """(2 policies, rates of the grid)."""
    untrained = np.mean([runner.train(seed, 0, np.zeros(1))[2] for seed in seeds])
    table = []
    for policy in (np.full, one_cycle):
        rows = []
        for seed in seeds:
            rates = [
                np.full(UPDATES, rate) if policy is np.full else one_cycle(rate, UPDATES)
                for rate in GRID
            ]
            found = np.array([runner.train(seed, 0, sequence)[2] for sequence in rates])
            rows.append(np.fmin(np.where(np.isfinite(found), found, untrained), untrained))
        mean = np.mean(rows, axis=0)
        table.append((mean - mean.min()) / (untrained - mean.min()))
    return np.array(table)


def tabled(runner: Runner, seeds: range, folder: Path | None) -> np.ndarray:
    """`regrets`, kept in a folder: with them at hand a change of a rule shows in minutes."""
    if folder is None:
        return regrets(runner, seeds)
    path = folder / f"{runner.task.name}-{len(seeds)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, regrets(runner, seeds))
    return np.load(path)


def judged(table: np.ndarray, rate: float | None) -> list[float]:
    if rate is None:
        return [1.0, 1.0]
    at = np.log(np.clip(rate, GRID[0], GRID[-1]))
    return [float(np.interp(at, np.log(GRID), row)) for row in table]


class Lab:
    """What `confirm` may ask for, on one task and seed."""

    def __init__(self, runner: Runner, seed: int) -> None:
        self.runner, self.seed = runner, seed

    def ramp(self, start_lr: float, end_lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        return ramp(self.runner, self.seed, start_lr, end_lr, steps)

    def train(self, learning_rate: float, steps: int) -> float:
        losses, _, _, held = self.runner.train(
            self.seed, CONFIRM_ORDER, np.full(steps, learning_rate)
        )
        return held if np.isfinite(losses).all() and np.isfinite(held) else float("inf")


def ramp(
    runner: Runner, seed: int, start_lr: float = 1e-7, end_lr: float = 10.0, steps: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Rates and true batch losses, stopped where `lr_find` stops."""
    rates = np.geomspace(start_lr, end_lr, steps)
    losses = runner.train(seed, RAMP_ORDER, rates)[0]
    kept = losses[: int(np.argmin(np.isfinite(losses)))] if np.isnan(losses).any() else losses
    end = first_divergence(kept, 4.0)
    count = len(kept) if end is None else end + 1
    return rates[:count], losses[:count]


def answer(rule: Callable[[], float]) -> float | None:
    try:
        return rule()
    except NoSuggestion:
        return None


def answers(runner: Runner, seed: int) -> dict[str, float | None]:
    curves = {steps: ramp(runner, seed, steps=steps) for steps in (30, 50, 100, 300)}
    rules: dict[str, Callable[[], float]] = {}
    for steps, curve in curves.items():
        rules[f"auto, {steps} steps"] = lambda c=curve: suggest(*c).learning_rate
    curve = curves[100]
    for name in METHODS:
        if name not in ("auto", "curve"):
            rules[name] = lambda n=name: suggest(*curve, n).learning_rate
    rules["EMA(0.9) minimum / 10"] = lambda: (
        float(curve[0][np.argmin(moving_average(curve[1]))]) / 10.0
    )
    rules["always 1e-3"] = lambda: 1e-3
    rules["always 1e-2"] = lambda: 1e-2

    def confirmed() -> float:
        seen = confirm(Lab(runner, seed), *curve)
        return suggest(*curve, confirmation=seen).learning_rate

    rules["auto, 100 steps + confirm"] = confirmed
    return {name: answer(rule) for name, rule in rules.items()}


def line(name: str, values: np.ndarray) -> str:
    """values: (answers, 2 policies)."""
    both = values.ravel()
    constant, cycle = values.mean(axis=0)
    return (
        f"{name:<27}{np.median(both):8.3f}{both.mean():8.3f}{np.quantile(both, 0.9):8.3f}"
        f"{np.mean(both > 0.5):8.1%}{constant:10.3f}{cycle:10.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 tasks and one seed")
    parser.add_argument("--tables", type=Path, help="keep the trained tables in this folder")
    parser.add_argument("--seeds", type=int, default=None, help="seeds a task (3, quick: 1)")
    options = parser.parse_args()
    tasks = [TASKS[i] for i in QUICK] if options.quick else list(TASKS)
    seeds = range(options.seeds or (1 if options.quick else 3))
    found: dict[str, list[list[float]]] = {}
    begin = time.time()
    for task in tasks:
        runner = Runner(task)
        table = tabled(runner, seeds, options.tables)
        best = ", ".join(f"{GRID[row.argmin()]:.1e}" for row in table)
        for seed in seeds:
            for name, rate in answers(runner, seed).items():
                found.setdefault(name, []).append(judged(table, rate))
        worst = np.mean(found["auto, 100 steps"][-len(seeds) :])
        print(
            f"{time.time() - begin:6.0f} s  {task.name:<28} best constant and peak {best}; "
            f"auto {worst:.3f}",
            flush=True,
        )
    print(
        f"\n{len(tasks)} tasks, {len(seeds)} seeds, {UPDATES} updates\n"
        f"{'rule':<27}{'median':>8}{'mean':>8}{'p90':>8}{'> 0.5':>8}{'constant':>10}"
        f"{'one-cycle':>10}"
    )
    for name, values in sorted(found.items(), key=lambda item: np.mean(item[1])):
        print(line(name, np.array(values)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
