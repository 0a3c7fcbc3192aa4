"""The planned procedure as a reference on short runs at constant rates (NumPy only).

All rates are log10, on a grid of quarter decades.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

PRIORS = {"sgd": -1.0, "momentum": -1.75, "adam": -2.25, "adamw": -2.25, "rmsprop": -2.25}
PRIORS |= {"lion": -3.25}  # log10; others -2
UNKNOWN = -2.0
NEAR = 0.05  # of the fall of the best run: rates that lose less share the answer


@dataclass(frozen=True)
class Plan:
    """What a budget buys: runs of `probe` updates, then the best two on to `longer`."""

    budget: int
    probe: int
    gap: float
    longer: int = 0
    shift: float = 0.0

    @property
    def reserve(self) -> int:
        return 2 * (self.longer - self.probe) if self.longer else 0


PLANS = {
    100: Plan(100, 50, 0.75, shift=-0.125),
    300: Plan(300, 100, 0.75),
    500: Plan(500, 100, 0.5, longer=200),
}


@dataclass
class Shown:
    """The answer before any correction for policy and length, and the evidence."""

    rate: float  # log10; NaN where every run was cut off
    cost: int
    losses: dict[float, float] = field(default_factory=dict)  # of the last rung; inf: cut off


def quarter(x: float) -> float:
    return float(np.floor(4 * x + 0.5) / 4)


def correction(policy: str, updates: int) -> float:
    """Decades from the short runs' answer to that for the planned run."""
    return -0.10 * np.log(updates / 500) / np.log(4) + (-0.15 if policy == "constant" else 0.15)


def next_rate(seen: dict[float, float], centre: float, gap: float) -> float | None:
    """The rate of the next short run; None when no rate is left to try."""
    if not seen:
        return quarter(centre)
    tried = sorted(seen)
    if not np.isfinite(list(seen.values())).any():
        return quarter(tried[0] - (gap if len(tried) == 1 else 2 * gap))
    if len(tried) == 1:
        return quarter(tried[0] + gap)
    best = min(tried, key=lambda x: seen[x])
    at = tried.index(best)
    if at in (0, len(tried) - 1):
        down = at == 0
        inner = np.diff(tried)
        wider = 0.0  # the gap grows each further time at the same edge
        if len(tried) > 2:
            wider = max(0.0, float(inner[0] if down else inner[-1]) - gap) + 0.25
        return quarter(best + (gap + wider) * (-1 if down else 1))
    sides = sorted((tried[at - 1], tried[at + 1]), key=lambda x: seen[x])
    for other in sides:
        if abs(other - best) >= 0.5:
            half = max(0.25, np.floor(2 * abs(other - best)) / 4)
            return round(best + half * np.sign(other - best), 2)
    return None


def near_mean(losses: dict[float, float], start: float) -> float:
    """Mean of the rates, weighted by how little they lose against the best; NaN without any."""
    finite = {x: loss for x, loss in losses.items() if np.isfinite(loss)}
    if not finite:
        return float("nan")
    best = min(finite.values())
    unit = NEAR * max(start - best, 1e-12)
    weights = {x: max(0.0, 1 - (loss - best) / unit) for x, loss in finite.items()}
    return sum(x * w for x, w in weights.items()) / sum(weights.values())


def reference_plan(
    run: Callable[[float, int], tuple[float, int]],
    start: float,
    centre: float,
    plan: Plan,
    spent: int = 0,
) -> Shown:
    """The procedure of the plan.

    Args:
        run: (log10 of the rate, updates) -> held-out loss after so many updates, or inf where the
            run was cut off, and the updates that it took.
        start: The held-out loss of the untrained network.
        centre: log10 of the first rate.
        spent: Updates that a ramp before took.
    """
    seen: dict[float, float] = {}
    cost = spent
    while cost + plan.probe + plan.reserve <= plan.budget:
        x = next_rate(seen, centre, plan.gap)
        if x is None or x in seen:
            break
        seen[x], took = run(x, plan.probe)
        cost += took
    last = seen
    if plan.longer:
        best = [x for x in sorted(seen, key=lambda x: seen[x])[:2] if np.isfinite(seen[x])]
        last = {}
        for x in best:
            last[x], took = run(x, plan.longer)
            cost += took - plan.probe
    return Shown(near_mean(last, start) + plan.shift, cost, last)
