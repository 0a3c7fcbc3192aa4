"""Train for the benchmark and keep the results: tables of regrets, and the curves of ramps."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scores import GRID, regrets
from tasks import Runner, Task

from keras_lr.loops import CHUNK
from keras_lr.range_test.stopping import first_divergence

HERE = Path(__file__).parent
UPDATES = 500
LENGTHS = (30, 50, 100, 300)  # steps of the ramps
START_LR, END_LR, STOP_FACTOR = 1e-7, 10.0, 4.0  # the defaults of lr_find
RAMP_ORDER, CONFIRM_ORDER = 7, 3  # orders of the batches; scored runs have order 0


def one_cycle(peak: float, updates: int) -> np.ndarray:
    """Cosine from peak / 25 up to the peak at 30%, then down to peak / 250000."""
    i, up = np.arange(updates), int(0.3 * updates)
    first, last = peak / 25, peak / 25e4
    rise = first + (peak - first) * (1 - np.cos(np.pi * i / up)) / 2
    fall = last + (peak - last) * (1 + np.cos(np.pi * (i - up) / (updates - 1 - up))) / 2
    return np.where(i < up, rise, fall)


def constant(rate: float, updates: int) -> np.ndarray:
    return np.full(updates, rate)


def regret_table(runner: Runner, seeds: range) -> np.ndarray:
    """Regrets of the rates of the grid under (a constant rate, one cycle with that peak)."""
    untrained = float(np.mean([runner.train(seed, 0, np.zeros(1))[2] for seed in seeds]))
    table = []
    for policy in (constant, one_cycle):
        found = [
            [runner.train(seed, 0, policy(rate, UPDATES))[2] for rate in GRID] for seed in seeds
        ]
        rows = np.where(np.isfinite(found), found, untrained)
        table.append(regrets(np.fmin(rows, untrained).mean(axis=0), untrained))
    return np.array(table)


class Ramp(NamedTuple):
    """One ramp, to its end or to its first loss that is not finite."""

    rates: np.ndarray
    losses: np.ndarray  # true batch losses; NaN after the first that is not finite

    def recorded(self) -> tuple[np.ndarray, np.ndarray]:
        """The part that `lr_find` records."""
        finite = np.isfinite(self.losses)
        count = len(finite) if finite.all() else int(np.argmin(finite))
        end = first_divergence(self.losses[:count], STOP_FACTOR)
        count = count if end is None else end + 1
        return self.rates[:count], self.losses[:count]

    def trained(self) -> int:
        """Steps that `lr_find` trains: it looks for the end after each chunk of steps."""
        done, total = 0, len(self.rates)
        while done < total:
            until = min(done + CHUNK, total)
            finite = np.isfinite(self.losses[:until])
            if not finite.all():
                return int(np.argmin(finite)) + 1
            more = until < total
            if first_divergence(self.losses[:until], STOP_FACTOR, more_follow=more) is not None:
                return until
            done = until
        return done


def ramp(
    runner: Runner,
    seed: int,
    steps: int,
    start_lr: float = START_LR,
    end_lr: float = END_LR,
) -> Ramp:
    rates = np.geomspace(start_lr, end_lr, steps)
    return Ramp(rates, runner.train(seed, RAMP_ORDER, rates)[0])


class Trainer:
    """The ramps and short runs that a confirmation needs, on one task and seed."""

    def __init__(self, runner: Runner, seed: int) -> None:
        self.runner, self.seed = runner, seed

    def ramp(self, start_lr: float, end_lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        return ramp(self.runner, self.seed, steps, start_lr, end_lr).recorded()

    def train(self, learning_rate: float, steps: int) -> float:
        losses, _, _, held = self.runner.train(
            self.seed, CONFIRM_ORDER, constant(learning_rate, steps)
        )
        return held if np.isfinite(losses).all() and np.isfinite(held) else float("inf")


class Trained(NamedTuple):
    task: Task
    runner: Runner
    table: np.ndarray  # (policies, rates of the grid)
    ramps: dict[int, list[Ramp]]  # by their length; one for each seed


def cache() -> Path:
    """The folder for the results of these sources with this version of JAX."""
    parts = [(HERE / name).read_text("utf-8") for name in ("tasks.py", "runs.py")]
    parts += [inspect.getsource(regrets), str(GRID), jax.__version__]
    return HERE / ".runs" / hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def trained(tasks: list[Task], seeds: range, folder: Path | None = None) -> Iterator[Trained]:
    """Train what the folder does not have yet; minutes a task."""
    folder = folder or cache()
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        runner = Runner(task)
        name = f"{task.name}-{len(seeds)}"
        table, curves = folder / f"{name}.npy", folder / f"{name}-ramps.npz"
        if not table.exists():
            np.save(table, regret_table(runner, seeds))
        if not curves.exists():
            made = {
                str(steps): np.array([ramp(runner, seed, steps).losses for seed in seeds])
                for steps in LENGTHS
            }
            np.savez(curves, **made)
        with np.load(curves) as kept:
            ramps = {
                steps: [
                    Ramp(np.geomspace(START_LR, END_LR, steps), row) for row in kept[str(steps)]
                ]
                for steps in LENGTHS
            }
        yield Trained(task, runner, np.load(table), ramps)
