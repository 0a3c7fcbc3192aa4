"""Final losses of planned runs over rates, kept on disk, and what follows from them.

The rates of a run are a grid of half decades, then of quarter decades around the best of them;
they start around the best rate of the next shorter run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from plan import PRIORS, UNKNOWN
from policies import POLICIES
from trainer import PROBED, SIDE_BY_SIDE, TASKS, Task, Trainer

HERE = Path(__file__).parent
SHORT = (500, 2000, 8000)
LONG = 32000  # only with --long, which trains the tasks of `FOUR`
FOUR = tuple(TASKS[i] for i in (0, 1, 2, 6))
LADDER = (0.0, -0.5, 0.5, -0.25, 0.25, -1.0)  # rates that every run has, in decades from its best
LOWEST, HIGHEST = -6.0, 1.5
RAMP = np.geomspace(1e-7, 10.0, 100)  # of lr_find
PROBES = np.arange(-5.5, 1.3, 0.25)  # log10 of the rates with short runs
RAMP_ORDER, PROBE_ORDER = 7, 3  # orders of the batches; planned runs have order 0
WEIGHT = {"attention": 13, "gru": 13, "lstm": 13, "conv": 7, "convnorm": 7}  # of an update; else 1
Key = tuple[str, int]  # policy, updates
SHORT_RUNS = ("short runs", 800)  # they cost about as much as the rates of a run of 800 updates


def cache() -> Path:
    """The folder for the results of these sources with this version of JAX."""
    names = ("data_sets.py", "policies.py", "trainer.py", "../suggestion/tasks.py")
    parts = [(HERE / name).read_text("utf-8") for name in names] + [jax.__version__]
    return HERE / ".runs" / hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


class Truth:
    """The final losses of one task: read from its file, and kept there."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.file = task, folder / f"{task.name}.json"
        self.kept: dict[str, Any] = {}
        if self.file.exists():
            self.kept = json.loads(self.file.read_text("utf-8"))

    def keep(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(self.kept), "utf-8")
        os.replace(beside, self.file)

    @property
    def untrained(self) -> float:
        return float(np.mean(self.kept["untrained"]))

    def losses(self, key: Key) -> dict[float, list[float]]:
        """Final losses of the seeds by log10 of the rate."""
        found = self.kept.get("runs", {}).get(f"{key[0]} {key[1]}", {})
        return {float(x): row for x, row in sorted(found.items(), key=lambda one: float(one[0]))}

    def add(self, key: Key, x: float, losses: list[float]) -> None:
        runs = self.kept.setdefault("runs", {})
        runs.setdefault(f"{key[0]} {key[1]}", {})[f"{x:g}"] = losses

    def curve(self, key: Key) -> tuple[np.ndarray, np.ndarray]:
        """log10 of the rates and regrets: 0 at the best of them, 1 for the untrained network."""
        found = self.losses(key)
        rows = np.array(list(found.values()), float)
        none = self.untrained
        mean = np.fmin(np.where(np.isfinite(rows), rows, none), none).mean(axis=1)
        mean = np.fmin(mean, none)
        return np.array(list(found)), (mean - mean.min()) / max(none - mean.min(), 1e-12)

    def regret(self, key: Key, x: float | None) -> float:
        """Regret at log10 of a rate, linear between neighbours; 1 for no answer.

        Beyond the rates that were trained the line through the last two goes on, up to 1.
        """
        if x is None or not np.isfinite(x):
            return 1.0
        at, found = self.curve(key)
        if len(at) > 1 and not at[0] <= x <= at[-1]:
            a, b = (0, 1) if x < at[0] else (-1, -2)
            slope = (found[a] - found[b]) / (at[a] - at[b])
            on = found[a] + slope * (x - at[a])
            return float(np.clip(on, found[a], 1.0))
        return float(np.interp(x, at, found))

    def best(self, key: Key) -> float:
        """log10 of the best rate: the vertex of the parabola through the best and its neighbours.

        It lies between the middles to the neighbours, since no neighbour is better.
        """
        at, found = self.curve(key)
        i = int(found.argmin())
        if not 0 < i < len(at) - 1:
            return float(at[i])
        x, y = at[i - 1 : i + 2] - at[i], found[i - 1 : i + 2]
        curved, slope, _ = np.polyfit(x, y, 2)
        if curved <= 0:
            return float(at[i])
        return float(at[i] - slope / (2 * curved))

    def wanted(self, key: Key, start: float) -> list[float]:
        """log10 of the next rates to train; none when the ladder around the best is complete."""
        tried = self.losses(key)
        best = start
        if tried:
            at, found = self.curve(key)
            best = float(at[found.argmin()])
        near = [round(best + step, 2) for step in LADDER]
        left = [x for x in near if LOWEST <= x <= HIGHEST and x not in tried]
        return left[:SIDE_BY_SIDE]


def short_runs(trainer: Trainer) -> dict[str, Any]:
    """Losses of the ramp and of all short runs at constant rates, for each seed."""
    ramp = trainer.train(np.ones(1), RAMP, RAMP_ORDER)[0][0, :, : len(RAMP)]
    batch, held, _, _ = trainer.train(10.0**PROBES, np.ones(PROBED), PROBE_ORDER)
    first = trainer.train(np.zeros(1), np.ones(25), PROBE_ORDER)
    return {
        "untrained": first[2][0].tolist(),
        "start": first[1][0, :, 0].tolist(),
        "ramp": ramp.tolist(),
        "probes": PROBES.tolist(),
        "batch": np.round(batch, 5).tolist(),
        "held": np.round(held, 6).tolist(),
    }


def train(
    folder: Path, keys: list[Key], tasks: tuple[Task, ...] = TASKS, until: float = np.inf
) -> Iterator[tuple[Task, Key]]:
    """Train what the folder does not have yet, the cheapest first.

    Args:
        until: Time at which no further run starts, in seconds as `time.time()`.
    """
    trainers: dict[str, Trainer] = {}

    def trainer(task: Task) -> Trainer:
        longest = LONG if any(key[1] == LONG for key in keys) else max(SHORT)
        return trainers.setdefault(task.name, Trainer(task, longest))

    keys = [SHORT_RUNS, *keys]
    work = [(key, task) for key in keys for task in tasks]
    for key, task in sorted(work, key=lambda one: one[0][1] * WEIGHT.get(one[1].net, 1)):
        if time.time() > until:
            return
        policy, updates = key
        truth = Truth(task, folder)
        if "untrained" not in truth.kept:  # every regret needs it
            truth.kept.update(short_runs(trainer(task)))
            truth.keep()
            yield task, SHORT_RUNS
        if key == SHORT_RUNS:
            continue
        start = first_rate(truth, key)
        while (rates := truth.wanted(key, start)) and time.time() < until:
            out = trainer(task).train(10.0 ** np.array(rates), POLICIES[policy](updates))
            for x, row in zip(rates, out[2], strict=True):
                truth.add(key, x, [float(f"{loss:.6g}") for loss in row])
            truth.keep()
        yield task, key


def first_rate(truth: Truth, key: Key) -> float:
    """log10 of the rate to begin with: the best of a shorter run, or the prior."""
    policy, updates = key
    shorter = [n for n in (*SHORT, LONG) if n < updates and truth.losses((policy, n))]
    if shorter:
        at, found = truth.curve((policy, shorter[-1]))
        return float(at[found.argmin()])
    return PRIORS.get(truth.task.optimizer, UNKNOWN) + (0.0 if policy == "constant" else 0.25)


def order(policies: list[str], lengths: list[int]) -> list[Key]:
    """All policies at the shortest length first."""
    return [(policy, updates) for updates in lengths for policy in policies]


def export(folder: Path, file: Path) -> None:
    """One file with everything that is kept, without the batch losses of short runs."""
    found = {}
    for task in TASKS:
        kept = Truth(task, folder).kept
        found[task.name] = {name: value for name, value in kept.items() if name != "batch"}
        found[task.name]["optimizer"] = task.optimizer
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(found, separators=(",", ":")), "utf-8")
    os.replace(beside, file)
