"""Compute regrets of rates, and the figures of the tables from regrets (NumPy only)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GRID = 10.0 ** np.arange(-6, 1.34, 1 / 3)  # of rates that are trained, three a decade
RESAMPLES = 2000


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def regrets(losses: np.ndarray, untrained: float) -> np.ndarray:
    """0 at the lowest loss, 1 at the loss of the untrained network or above.

    Args:
        losses: The loss at each rate of the grid, mean over seeds.
    """
    losses = np.fmin(np.where(np.isfinite(losses), losses, untrained), untrained)
    return (losses - losses.min()) / (untrained - losses.min())


def judged(table: np.ndarray, rate: float | None) -> np.ndarray:
    """Regrets of a rate under each policy, interpolated in ln lr; 1 for no answer.

    Args:
        table: Regrets of the grid, shape (policies, rates of the grid).
    """
    if rate is None:
        return np.ones(len(table))
    at = np.log(np.clip(rate, GRID[0], GRID[-1]))
    return np.array([np.interp(at, np.log(GRID), row) for row in table])


def over_tasks(regret: np.ndarray, statistic=np.mean) -> Interval:
    """A statistic of all regrets, with a 90% bootstrap interval from resampled tasks.

    Args:
        regret: Shape (tasks, ...): seeds and policies of a task stay together.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(regret), (RESAMPLES, len(regret)))
    flat = regret.reshape(len(regret), -1)
    found = np.array([statistic(flat[draw]) for draw in draws])
    return Interval(float(statistic(flat)), *map(float, np.quantile(found, [0.05, 0.95])))
