"""What `lr_find` answers on the stored short runs, and the constants for policy and length.

The procedure is the package's own (`Prober`). Its short runs are looked up, not trained: their
rates are on the grid of those that are stored, and a run that goes on is read further along. The
held-out loss is known after each 25 updates; a run of another length has that of the last look.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
from data_sets import SAMPLE
from runs import cut_off
from trainer import EVERY, PROBED
from truth import PROBES, Key, Truth

from keras_lr.range_test.options import divided_budget
from keras_lr.range_test.planned_run import NEUTRAL_STEPS, correction, planned_run, shape_bound
from keras_lr.range_test.prior import usual_rate
from keras_lr.range_test.probes import Outcome, Prober

KERAS = {"sgd": "SGD", "momentum": "SGD", "adam": "Adam", "adamw": "AdamW"}  # their classes
KERAS |= {"rmsprop": "RMSprop", "lion": "Lion", "muon": "Muon"}
GRID = 0.05  # decades, of the constants that are fitted
POLICY, LENGTH = np.arange(-0.4, 0.41, GRID), np.arange(-0.3, 0.01, GRID)
SHIFTS = np.arange(-1.6, 1.61, GRID)
BUDGETS = (100, 200, 400, 500)  # what lr_find takes by default, by the length of the run


class Stored:
    """The short runs of one task and seed, for a `Prober`."""

    rows = SAMPLE

    def __init__(self, truth: Truth, seed: int) -> None:
        self._start = truth.kept["start"][seed]
        self._batch = np.array(truth.kept["batch"], float)[:, seed]
        self._held = np.array(truth.kept["held"], float)[:, seed]

    def start(self) -> float:
        return self._start

    def train(
        self, learning_rate: float, steps: int, ceiling: float, resume: int | None = None
    ) -> Outcome:
        before, row = resume or 0, int(np.abs(PROBES - np.log10(learning_rate)).argmin())
        until = min(before + steps, PROBED)
        end = cut_off(self._batch[row, :until], ceiling)
        held = self._held[row, until // EVERY - 1]
        if end is not None or not np.isfinite(held):
            return Outcome(float("inf"), max(0, (end or until) - before))
        return Outcome(float(held), until - before, until)


class Found(NamedTuple):
    rate: float  # log10, for the neutral run
    cost: int
    widths: tuple[float, float]  # decades of the interval below and above it


def found_by(truth: Truth, seed: int, budget: int) -> Found:
    """The answer of a budget. A ramp, if there is one, is counted and tells nothing here."""
    usual, _ = usual_rate((KERAS | {"momentum": "momentum"})[truth.task.optimizer])
    ramp, short = divided_budget({"budget": budget, "steps": None, "repeats": 1}, None)
    prober = Prober(Stored(truth, seed), usual, short)
    probes = prober.run()
    answer = probes.answer()
    rate = float("nan") if answer is None else answer
    return Found(rate, prober.cost + ramp, probes.half_widths(known=True))


def default_budget(updates: int) -> int:
    steps, short = divided_budget({"budget": None, "steps": None, "repeats": 1}, updates)
    return steps + short


def shipped(policy: str, updates: int) -> float:
    """Decades that the package adds for a run."""
    return correction(planned_run(policy, updates))


class Constants(NamedTuple):
    constant: float  # decades for a constant rate
    one_cycle: float  # for one-cycle
    length: float  # for each 4 times as many updates, at a constant rate
    decayed: float  # the same, for a policy that decays to 0

    def __call__(self, policy: str, updates: int) -> float:
        between, left = place(policy)
        moved = self.constant + between * (self.one_cycle - self.constant)
        return moved + (self.decayed + left * (self.length - self.decayed)) * fourfold(updates)


def fourfold(updates: int) -> float:
    return float(np.log(updates / NEUTRAL_STEPS) / np.log(4.0))


@functools.cache
def place(policy: str) -> tuple[float, float]:
    """Where the bound puts a policy between constant (0) and one-cycle (1); its rate at the end."""
    shapes = [planned_run(name, None).shape for name in ("constant", "one-cycle", policy)]
    low, high, here = (np.log10(shape_bound(shape)) for shape in shapes)
    return float((here - low) / (high - low)), float(shapes[2][-1])


def fitted(truths: list[Truth], keys: list[Key], raw: dict[str, np.ndarray]) -> Constants:
    """The constants with the lowest mean regret of answers over tasks and planned runs.

    Args:
        raw: Answers for the neutral run, as log10, by the name of the task.
    """
    tables = []  # of each task: mean regret of its answers for each run and shift
    for truth in truths:
        there = [key for key in keys if truth.losses(key) and not truth.wanted(key, 0.0)]
        at = np.array(
            [
                [
                    np.mean([truth.regret(key, x + by) for x in raw[truth.task.name]])
                    for by in SHIFTS
                ]
                for key in there
            ]
        )
        where = np.array([(*place(policy), fourfold(updates)) for policy, updates in there])
        tables.append((at, where.T))
    best, lowest = Constants(0.0, 0.0, 0.0, 0.0), np.inf
    for tried in itertools.starmap(Constants, itertools.product(POLICY, POLICY, LENGTH, LENGTH)):
        total = 0.0
        for at, (between, left, times) in tables:
            moved = tried.constant + between * (tried.one_cycle - tried.constant)
            moved += (tried.decayed + left * (tried.length - tried.decayed)) * times
            nearest = np.rint((moved - SHIFTS[0]) / GRID).astype(int)
            total += float(at[np.arange(len(at)), nearest.clip(0, len(SHIFTS) - 1)].mean())
        if total < lowest:
            best, lowest = tried, total
    return best
