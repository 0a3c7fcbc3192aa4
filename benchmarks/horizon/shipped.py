"""What `lr_find` answers on the stored short runs, and the constants for policy and length.

The procedure is the package's own (`Prober`). Its short runs are looked up, not trained: their
rates are on the grid of those that are stored, and a run that goes on is read further along. The
held-out loss is known after each 25 updates; a run of another length has that of the last look.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from data_sets import SAMPLE
from runs import cut_off
from trainer import EVERY, PROBED
from truth import PROBES, Key, Truth

from keras_lr.range_test.options import divided_budget
from keras_lr.range_test.planned_run import correction, planned_run, shape_bound
from keras_lr.range_test.prior import usual_rate
from keras_lr.range_test.probes import Outcome, Prober

FAMILIES = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "Adam"}
FAMILIES |= {"rmsprop": "RMSprop", "lion": "Lion", "muon": "Muon"}
NEUTRAL = 500  # updates of the run that an answer without policy and length is for
STEPS = np.arange(-0.3, 0.31, 0.05)  # decades, for each constant that is fitted
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


def found_by(truth: Truth, seed: int, budget: int) -> Found:
    """The answer of a budget. A ramp, if there is one, is counted and tells nothing here."""
    usual, _ = usual_rate(FAMILIES[truth.task.optimizer])
    ramp, short = divided_budget({"budget": budget, "steps": None, "repeats": 1}, None)
    prober = Prober(Stored(truth, seed), usual, short)
    answer = prober.run().answer()
    return Found(float("nan") if answer is None else answer, prober.cost + ramp)


def default_budget(updates: int) -> int:
    steps, short = divided_budget({"budget": None, "steps": None, "repeats": 1}, updates)
    return steps + short


def shipped(policy: str, updates: int) -> float:
    """Decades that the package adds for a run."""
    return correction(planned_run(policy, updates))


class Constants(NamedTuple):
    constant: float = 0.0  # decades for a constant rate
    one_cycle: float = 0.0  # for one-cycle
    length: float = 0.0  # for each 4 times as many updates, at a constant rate
    decaying: float = 0.0  # the same, for one-cycle

    def __call__(self, policy: str, updates: int) -> float:
        share = between(policy)
        slope = self.length + share * (self.decaying - self.length)
        length = np.log(updates / NEUTRAL) / np.log(4.0)
        return self.constant + share * (self.one_cycle - self.constant) + slope * length


def between(policy: str) -> float:
    """Where a policy lies by the bound: 0 at a constant rate, 1 at one-cycle."""
    logs = {
        name: float(np.log10(shape_bound(planned_run(name, None).shape)))
        for name in ("constant", "one-cycle", policy)
    }
    return (logs[policy] - logs["constant"]) / (logs["one-cycle"] - logs["constant"])


def fitted(
    truths: list[Truth], keys: list[Key], raw: dict[str, np.ndarray], one_length: bool = True
) -> Constants:
    """The constants with the lowest mean regret over tasks, of answers and planned runs.

    Args:
        raw: Answers for the neutral run by the name of the task.
        one_length: Whether the length counts the same for every policy.
    """
    table = {}  # regret of each task and run at each shift of its answers
    shifts = np.round(np.arange(-1.6, 1.61, 0.05), 2)
    for truth in truths:
        for key in keys:
            if truth.losses(key) and not truth.wanted(key, 0.0):
                at = np.array(
                    [[truth.regret(key, x + s) for x in raw[truth.task.name]] for s in shifts]
                )
                table[truth.task.name, key] = at.mean(axis=1)
    weight = {name: 1 / sum(n == name for n, _ in table) for name in {n for n, _ in table}}
    places = {key: between(key[0]) for key in keys}

    def cost(given: Constants) -> float:
        total = 0.0
        for (name, key), row in table.items():
            slope = given.length + places[key] * (given.decaying - given.length)
            moved = given.constant + places[key] * (given.one_cycle - given.constant)
            moved += slope * np.log(key[1] / NEUTRAL) / np.log(4.0)
            total += weight[name] * float(np.interp(moved, shifts, row))
        return total

    best, lowest = Constants(), np.inf
    for constant, one_cycle, length in itertools.product(STEPS, STEPS + 0.1, STEPS[:9]):
        for decaying in [length] if one_length else STEPS[:9]:
            tried = Constants(constant, one_cycle, length, decaying)
            if (value := cost(tried)) < lowest:
                best, lowest = tried, value
    return best
