"""Short runs at constant rates that confirm, or correct, the suggestion of the ramp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from keras_lr.range_test.curve_rule import UNEVEN_NOTE, TooUneven
from keras_lr.range_test.rules import suggest
from keras_lr.range_test.suggestion import Confirmation, NoSuggestion

CANDIDATES = 4
STRIDE = 6.0  # factor between neighbouring candidates
HEADROOM = 2.0  # margin of the curve's suggestion for a whole run, which short runs do not need
NEAR = 0.05  # share of the best candidate's fall within which others count too
LEARNT = 0.25  # share of the ramp's fall below which a run counts as having learnt nothing
LEAST_BUDGET = 40
UNEVEN_START = UNEVEN_NOTE.partition(",")[0]
LONGER = 1e3  # factor by which a second ramp extends one that was flat to its end


class ShortRuns(Protocol):
    """Trains the short runs, each from the same starting weights; a `Workbench` does."""

    def ramp(self, start_lr: float, end_lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates and true batch losses of an exponential ramp, until it diverges."""

    def start(self) -> float:
        """Held-out loss of the weights that every run starts from."""

    def train(self, learning_rate: float, steps: int) -> float:
        """Held-out loss after `steps` updates at a constant rate; inf if it diverged."""


def confirm(
    runs: ShortRuns,
    learning_rates: Any,
    losses: Any,
    *,
    validation: Mapping[str, Any] | None = None,
    budget: int = 400,
) -> Confirmation:
    """Train briefly at a few constant rates and compare what each one learns.

    Four candidates, a factor of 6 apart, share the budget equally. The first lies a factor of 2
    above the curve's suggestion, the second above that. The others depend on the losses: beyond
    the best candidate if it is at the edge, between it and its better neighbour if it is not,
    and far lower if every candidate diverged or learnt less than a quarter of what the ramp did
    (a network that a high rate has destroyed may still end below its start). Candidates within
    a twentieth of the best one's fall count too, the more the nearer they come, and the answer
    is their weighted geometric mean: a held-out sample is small, and a rate amid the good ones
    is safer in a longer run.

    Args:
        runs: Trains the candidates.
        learning_rates: Rates of the ramp.
        losses: Its true batch losses, shape (steps,) or (repeats, steps).
        validation: Held-out losses along that ramp, as for `suggest`.
        budget: Largest number of updates of all runs together, at least 40.

    Raises:
        NoSuggestion: If neither the curve nor a longer one supports a first candidate.
        ValueError: If `budget` is below 40.
    """
    if budget < LEAST_BUDGET:
        raise ValueError(f"budget must be at least {LEAST_BUDGET} updates; got {budget!r}.")
    rates, rows = np.asarray(learning_rates, float), np.atleast_2d(np.asarray(losses, float))
    cost = 0
    try:
        guess = suggest(rates, rows, "curve", validation=validation)
    except TooUneven:
        raise  # a held-out sample would be as uneven, and so would a longer ramp
    except NoSuggestion:
        if rows.shape[1] < 3 or not np.isfinite(rows).all():
            raise
        cost = budget // 4
        more_rates, more = runs.ramp(float(rates[-1]), float(rates[-1]) * LONGER, cost)
        guess = suggest(
            np.concatenate([rates, np.asarray(more_rates, float)[1:]]),
            np.concatenate([rows[0], np.asarray(more, float)[1:]]),
            "curve",
        )
    first = guess.learning_rate
    count = CANDIDATES if cost == 0 else CANDIDATES - 1
    each = (budget - cost) // count
    early = float(np.nanmedian(rows[:, : max(3, rows.shape[1] // 8)]))
    start = float(runs.start()) if hasattr(runs, "start") else early
    learnt = start - LEARNT * max(early - _lowest(rows), 0.0)
    tried: list[float] = []
    found: list[float] = []
    while len(tried) < count:
        rate = _next(first * HEADROOM, tried, [y if y < learnt else float("inf") for y in found])
        loss = float(runs.train(rate, each))
        tried.append(rate)
        found.append(loss if np.isfinite(loss) else float("inf"))
    seen = _judge(tried, found, [each] * count, start, cost + each * count)
    notes = [note for note in guess.warnings if note.startswith(UNEVEN_START)]
    if not notes or not np.isfinite(seen.learning_rate):
        return seen
    # Short runs and a held-out sample contain as few of the rare rows as the ramp did.
    low, high = min(seen.low, guess.low), max(seen.high, guess.high)
    return replace(seen, low=low, high=high, warnings=[*seen.warnings, *notes])


def _lowest(rows: np.ndarray) -> float:
    """The lowest loss of the ramp, as a median of five: a single batch is not evidence."""
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
    half_way = np.sqrt(STRIDE)  # to the next candidate
    low, high = float(rates[good].min() / half_way), float(rates[good].max() * half_way)
    broken = rates[~usable & (rates > rate)]
    if len(broken):
        high = max(min(high, float(broken.min())), rate)
    notes = []
    if fall == 0:
        notes.append(
            "No candidate brought the held-out loss below where it started; longer runs or another "
            "model may be needed."
        )
    elif good.all() and len(rates) > 2:
        notes.append("All candidates did about equally well; the rate matters little here.")
    if rates[int(np.argmin(losses))] == rates.max() and len(rates) > 1:
        notes.append("The highest candidate did best, so a higher rate may do better still.")
    elif rates[int(np.argmin(losses))] == rates.min() and len(rates) > 1:
        notes.append("The lowest candidate did best, so a lower rate may do better still.")
    return Confirmation(tried, found, steps, rate, low, high, cost, notes)
