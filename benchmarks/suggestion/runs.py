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
from tasks import Runner, Task, data

from keras_lr.loops import CHUNK
from keras_lr.range_test.probes import Outcome
from keras_lr.range_test.stopping import first_divergence

HERE = Path(__file__).parent
UPDATES = 500
LENGTHS = (30, 50, 100, 300)  # steps of the ramps
START_LR, END_LR, STOP_FACTOR = 1e-7, 10.0, 4.0  # the defaults of lr_find
RAMP_ORDER, PROBE_ORDER = 7, 3  # orders of the batches; scored runs have order 0


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
    """The short runs of a range test, on one task and seed.

    A run that goes on is trained again from the start, and charged for the further updates only.
    """

    def __init__(self, runner: Runner, seed: int) -> None:
        self.runner, self.seed = runner, seed
        self.rows = len(data(runner.task.data).sample[0])

    def start(self) -> float:
        return self.runner.train(self.seed, PROBE_ORDER, np.zeros(1))[3]

    def train(
        self, learning_rate: float, steps: int, ceiling: float, resume: int | None = None
    ) -> Outcome:
        before = resume or 0
        losses, _, _, held = self.runner.train(
            self.seed, PROBE_ORDER, constant(learning_rate, before + steps)
        )
        end = cut_off(losses, ceiling)
        if end is not None or not np.isfinite(held):
            return Outcome(float("inf"), max(0, (end or len(losses)) - before))
        return Outcome(held, steps, before + steps)


def cut_off(losses: np.ndarray, ceiling: float) -> int | None:
    """Updates after which a short run ends early; None if it does not."""
    finite = np.isfinite(losses)
    ends = [] if finite.all() else [int(np.argmin(finite)) + 1]
    if len(losses) >= 5:
        fives = np.lib.stride_tricks.sliding_window_view(np.where(finite, losses, np.inf), 5)
        high = np.nonzero(np.median(fives, axis=1) > ceiling)[0]
        ends += [int(high[0]) + 5] if len(high) else []
    return min(ends) if ends else None


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
