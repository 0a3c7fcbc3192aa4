"""Short runs at constant rates that confirm, or correct, what the ramp suggests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from keras_lr.range_test.rules import UNEVEN_NOTE, NoSuggestion, TooUneven, suggest

CANDIDATES = 4
STRIDE = 6.0  # factor between neighbouring candidates
HEADROOM = 2.0  # the curve's suggestion keeps this margin for a whole run; short runs need none
NEAR = 0.05  # share of the best candidate's fall within which another one counts as well
LEARNT = 0.25  # share of the ramp's fall below which a run has learnt nothing
LEAST_BUDGET = 40
UNEVEN_START = UNEVEN_NOTE.partition(",")[0]
LONGER = 1e3  # factor by which a curve that is flat to its end is followed further up


class Lab(Protocol):
    """Where the runs are made, each from the same starting weights."""

    def ramp(self, start_lr: float, end_lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates and true batch losses of an exponential ramp, until it diverges."""

    def start(self) -> float:
        """Held-out loss of the weights that every run starts from."""

    def train(self, learning_rate: float, steps: int) -> float:
        """Held-out loss after `steps` updates at a constant rate; inf if it diverged."""


@dataclass(frozen=True)
class Confirmation:
    """What the short runs showed.

    Attributes:
        learning_rates: The candidates, in the order they were tried.
        losses: Held-out loss of each after its run; inf where it diverged.
        steps: Updates that each run was given.
        learning_rate: The middle of the best candidates in ln lr; NaN if all diverged.
        low: Lower end of what the candidates leave open.
        high: Its upper end.
        cost: Updates of all runs together, a longer ramp included.
        warnings: What makes the answer less sure.
    """

    learning_rates: list[float]
    losses: list[float]
    steps: list[int]
    learning_rate: float
    low: float
    high: float
    cost: int
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take back what JSON holds for infinity and NaN: a name and null."""
        middle = float("nan") if self.learning_rate is None else float(self.learning_rate)
        object.__setattr__(self, "learning_rate", middle)
        object.__setattr__(self, "losses", [float(loss) for loss in self.losses])


def confirm(
    lab: Lab,
    learning_rates: Any,
    losses: Any,
    *,
    validation: Mapping[str, Any] | None = None,
    budget: int = 400,
) -> Confirmation:
    """Train for a moment at a few constant rates and see which one learns most.

    Four candidates, a factor of 6 apart, share the budget equally. The first lies a factor of 2
    above the curve's suggestion, the second above that, and each further one goes where the
    losses point: beyond a winner at the edge, between a winner inside and its better neighbour,
    and far lower when everything diverged or learnt less than a quarter of what the ramp did: a
    network that a high rate has killed may end below its start all the same. Candidates within
    a twentieth of the best one's fall count as well as the best one, by how near they come, and
    the answer is their middle in ln lr: a held-out sample is small, and a rate in the middle of
    the good ones bears a longer run.

    Args:
        lab: Makes the runs.
        learning_rates: Rates of the ramp that has been run.
        losses: Its true batch losses, shape (steps,) or (repeats, steps).
        validation: Held-out losses along that ramp, as for `suggest`.
        budget: Most updates that all runs together may take, at least 40.

    Raises:
        NoSuggestion: If the curve, and a longer one, say nothing to begin with.
        ValueError: If `budget` is below 40.
    """
    if budget < LEAST_BUDGET:
        raise ValueError(f"budget must be at least {LEAST_BUDGET} updates; got {budget!r}.")
    rates, rows = np.asarray(learning_rates, float), np.atleast_2d(np.asarray(losses, float))
    cost = 0
    try:
        guess = suggest(rates, rows, "curve", validation=validation)
    except TooUneven:
        raise  # a held-out sample would be as uneven, and a longer ramp as well
    except NoSuggestion:
        if rows.shape[1] < 3 or not np.isfinite(rows).all():
            raise
        cost = budget // 4
        more_rates, more = lab.ramp(float(rates[-1]), float(rates[-1]) * LONGER, cost)
        guess = suggest(
            np.concatenate([rates, np.asarray(more_rates, float)[1:]]),
            np.concatenate([rows[0], np.asarray(more, float)[1:]]),
            "curve",
        )
    first = guess.learning_rate
    count = CANDIDATES if cost == 0 else CANDIDATES - 1
    each = (budget - cost) // count
    early = float(np.nanmedian(rows[:, : max(3, rows.shape[1] // 8)]))
    start = float(lab.start()) if hasattr(lab, "start") else early
    learnt = start - LEARNT * max(early - _lowest(rows), 0.0)
    tried: list[float] = []
    found: list[float] = []
    while len(tried) < count:
        rate = _next(first * HEADROOM, tried, [y if y < learnt else float("inf") for y in found])
        loss = float(lab.train(rate, each))
        tried.append(rate)
        found.append(loss if np.isfinite(loss) else float("inf"))
    seen = _judge(tried, found, [each] * count, start, cost + each * count)
    notes = [note for note in guess.warnings if note.startswith(UNEVEN_START)]
    if not notes or not np.isfinite(seen.learning_rate):
        return seen
    # Short runs and a held-out sample meet as few of the rare rows as the ramp did.
    low, high = min(seen.low, guess.low), max(seen.high, guess.high)
    return replace(seen, low=low, high=high, warnings=[*seen.warnings, *notes])


def _lowest(rows: np.ndarray) -> float:
    """The lowest loss of the ramp, as a median of five: one batch is no evidence."""
    fives = np.lib.stride_tricks.sliding_window_view(rows, min(5, rows.shape[1]), axis=1)
    return float(np.nanmin(np.median(fives, axis=2)))


def _next(first: float, tried: list[float], found: list[float]) -> float:
    if not tried:
        return first
    best = int(np.argmin(found))
    if not np.isfinite(found[best]):
        return min(tried) / (STRIDE if len(tried) == 1 else STRIDE**2)
    if tried[best] == max(tried):
        return tried[best] * STRIDE
    if tried[best] == min(tried):
        return tried[best] / STRIDE
    order = list(np.argsort(tried))
    place = order.index(best)
    below, above = order[place - 1], order[place + 1]
    better = below if found[below] < found[above] else above
    return float(np.sqrt(tried[best] * tried[better]))


def _judge(
    tried: list[float], found: list[float], steps: list[int], start: float, cost: int
) -> Confirmation:
    rates, losses = np.array(tried), np.array(found)
    usable = np.isfinite(losses)
    if not usable.any():
        lowest = float(rates.min())
        notes = ["Every candidate diverged."]
        return Confirmation(tried, found, steps, float("nan"), 0.0, lowest, cost, notes)
    best = float(losses[usable].min())
    fall = max(start - best, 0.0)
    # Even without a fall the best candidate counts.
    near = NEAR * fall if fall > 0 else 1e-9 * max(abs(best), 1e-9)
    weight = np.where(usable, np.maximum(0.0, 1.0 - (losses - best) / near), 0.0)
    good = weight > 0
    rate = float(np.exp((weight * np.log(rates)).sum() / weight.sum()))
    reach = np.sqrt(STRIDE)
    low, high = float(rates[good].min() / reach), float(rates[good].max() * reach)
    broken = rates[~usable & (rates > rate)]
    if len(broken):
        high = max(min(high, float(broken.min())), rate)
    notes = []
    if fall == 0:
        notes.append(
            "No candidate brought the held-out loss below where it started; more updates each "
            "or another model may be needed."
        )
    elif good.all() and len(rates) > 2:
        notes.append("All candidates did about as well; the rate matters little here.")
    if rates[int(np.argmin(losses))] == rates.max() and len(rates) > 1:
        notes.append("The highest candidate did best, so a higher rate may do better still.")
    elif rates[int(np.argmin(losses))] == rates.min() and len(rates) > 1:
        notes.append("The lowest candidate did best, so a lower rate may do better still.")
    return Confirmation(tried, found, steps, rate, low, high, cost, notes)
