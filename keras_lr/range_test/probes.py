"""Short runs at constant rates, from the same start on the same batches: what each rate learns.

A curve of losses shows at which rates a model learns and breaks, but each of its steps starts from
what all the lower rates have learned. The held-out loss after a few dozen updates at one rate is
better evidence: see benchmarks/suggestion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

GAP = 0.75  # decades between the first two rates
WIDER = 0.25  # decades added to the gap each further time at the same edge
GRID = 0.25  # all rates are multiples of this, in decades
SPLIT = 0.5  # neighbours this far apart, in decades, leave room for a rate between them
NEAR = 0.05  # share of the best run's fall within which others count too
RISE = 2.0  # a run is cut off where its loss has risen by this many times the loss at the start
LEAST = 50  # updates of a short run
SHORT, SHIFT = 100, -0.125  # runs of fewer updates prefer rates too high by this many decades
FEWEST_MORE = 10  # updates by which a run goes on
PLATEAU = 0.25  # share of the start that a loss loses before low rates can be compared
ABOVE = 0.5  # decades above the centre: the lowest answer where no run has lost that much
ROOM = 0.3  # decades, at least, between that answer and a rate whose run made the loss worse
UNMOVED = 1e-6  # share of the start by which rounding may move a loss
FEWEST_ROWS = 150  # of the held-out sample, below which the evidence is thin


@dataclass(frozen=True)
class Probes:
    """Short runs at constant rates, and the loss on held-out data after each.

    Attributes:
        learning_rates: The rates, in the order in which they were tried.
        losses: Held-out loss after each run; inf if it was cut off because it diverged.
        steps: Updates of each run.
        start: Held-out loss before training.
        rows: Examples in the held-out sample.
        cost: Updates of all runs together.
        centre: log10 of the rate around which they were chosen.
    """

    learning_rates: list[float]
    losses: list[float]
    steps: list[int]
    start: float
    rows: int
    cost: int
    centre: float

    def __post_init__(self) -> None:
        """Convert back what JSON has for an infinity: its name."""
        object.__setattr__(self, "losses", [float(loss) for loss in self.losses])
        object.__setattr__(self, "start", float(self.start))

    @property
    def judged(self) -> tuple[np.ndarray, np.ndarray]:
        """log10 of the rates, and the losses, of the longest runs, by increasing rate."""
        rates, losses, steps = map(np.asarray, (self.learning_rates, self.losses, self.steps))
        ran = np.isfinite(losses)
        longest = ran & (steps == steps[ran].max(initial=0))
        order = np.argsort(rates[longest])
        return np.log10(rates[longest][order]), losses[longest][order]

    @property
    def _order(self) -> np.ndarray:
        return np.argsort(self.learning_rates)

    @property
    def tried(self) -> np.ndarray:
        """log10 of all rates, increasing."""
        return np.log10(np.asarray(self.learning_rates, float))[self._order]

    def answer(self) -> float | None:
        """log10 of the rate that the runs suggest, for a run of 500 updates.

        If the best run lies between two others, the lowest point of the parabola through their
        losses, at most halfway to one of them. Otherwise the weighted mean of the best rates: a
        run counts by how close its loss is to the best one, and not at all if it lags by more than
        a twentieth of the best run's fall. Runs of fewer than 100 updates favour rates that are too
        high, by an eighth of a decade. Where no run has lost a quarter of its loss, low rates look
        better than they are, and a model that learns so slowly needs more than its usual rate: the
        answer is then at least half a decade above the centre, or the centre if a run not far above
        that made the loss worse. None if all runs were cut off.
        """
        if not len(self.judged[0]):
            return None
        return max(self._of_best_rates(), self._lowest())

    def reason(self) -> str:
        """How the answer follows from the runs, in sentences; "" if all were cut off."""
        rates, losses = self.judged
        answer = self.answer()
        if answer is None:
            return ""
        low, high, best = min(self.steps), max(self.steps), rates[int(np.argmin(losses))]
        parts = [
            f"Of {len(self.steps)} rates tried for {low if low == high else f'{low} to {high}'} "
            f"updates, {10.0**best:.2g} had the lowest loss on {self.rows} held-out examples."
        ]
        if abs(self._lowest_loss() - best) > 0.01:
            parts.append(
                "The answer is a mean with the rates that were nearly as good."
                if self._vertex() is None
                else "The answer is the lowest point of a parabola through it and its neighbours."
            )
        if self.short:
            parts.append(
                "Runs of fewer than 100 updates favour high rates, so the answer is "
                f"{10.0**SHIFT:.2g} times as high."
            )
        if answer > self._of_best_rates():
            parts.append(
                "No run left the first plateau, where low rates look good, so the answer is at "
                f"least {10.0**answer:.2g}."
            )
        return " ".join(parts)

    def _of_best_rates(self) -> float:
        """The answer as it is if no plateau raises it."""
        return self._lowest_loss() + (SHIFT if self.short else 0.0)

    def _lowest_loss(self) -> float:
        """log10 of the rate at which the loss is lowest after runs of this length."""
        vertex = self._vertex()
        return self._mean() if vertex is None else vertex

    def _vertex(self) -> float | None:
        """log10 of the rate at the lowest point of a parabola; None if the best rate is an edge."""
        rates, losses = self.judged
        best = int(np.argmin(losses))
        if not 0 < best < len(rates) - 1:
            return None
        below, above = rates[best] - rates[best - 1], rates[best + 1] - rates[best]
        # The first of equal losses is the best, so the loss below it is higher.
        falls, rises = losses[best - 1] - losses[best], losses[best + 1] - losses[best]
        moved = 0.5 * (above**2 * falls - below**2 * rises) / (above * falls + below * rises)
        return float(rates[best] + np.clip(moved, -below / 2, above / 2))

    def _mean(self) -> float:
        """log10 of the mean of the best rates, weighted by how close they come to the best."""
        rates, losses = self.judged
        best = float(losses.min())
        fall = self.start - best
        near = NEAR * fall if fall > 0 else 1e-9 * max(abs(best), 1e-9)
        weight = np.maximum(0.0, 1.0 - (losses - best) / near)
        return float((weight * rates).sum() / weight.sum())

    def _lowest(self) -> float:
        """log10 of the lowest rate that can be the answer."""
        if not self.on_plateau:
            return -np.inf
        losses = np.asarray(self.losses)[self._order]
        worse, cut_off = self.tried[~(losses <= self.start)], self.tried[~np.isfinite(losses)]
        if worse.min(initial=np.inf) > self.centre + ABOVE + ROOM:
            return self.centre + ABOVE
        return self.centre if cut_off.min(initial=np.inf) > self.centre + 1e-9 else -np.inf

    @property
    def short(self) -> bool:
        """Whether no run was long enough to judge high rates fairly."""
        return max(self.steps) < SHORT

    @property
    def unmoved(self) -> bool:
        """Whether all runs ended at the loss they started from, so that they trained nothing."""
        return len(self.losses) > 1 and unmoved(self.start, self.losses)

    @property
    def on_plateau(self) -> bool:
        """Whether the best run is still on the first plateau: it lost less than a quarter."""
        losses = self.judged[1]
        return self.start - losses.min(initial=np.inf) < PLATEAU * abs(self.start)

    def half_widths(self, known: bool) -> tuple[float, float]:
        """Decades to each side of the answer that hold the best rate in 85% of cases.

        Args:
            known: Whether the centre is the usual rate of the optimizer's family.
        """
        half = 0.75 if self.short else 0.6
        if not known:
            half = 1.15 if len(self.learning_rates) == 2 else half + 0.1
        few = self.rows < FEWEST_ROWS
        half += 0.25 * self.on_plateau
        return half + 0.5 * few, half + 0.25 * few

    def notes(self) -> list[str]:
        """What makes the answer less certain, one sentence each."""
        rates, losses = self.judged
        if not len(rates):
            return []
        notes, best = [], rates[int(np.argmin(losses))]
        if losses.min() >= self.start:
            notes.append(
                "No short run brought the held-out loss below its start; longer runs or another "
                "model may be needed."
            )
        elif len(self.learning_rates) > 2 and best == self.tried[-1]:
            notes.append("The highest rate tried did best, so a higher rate may do better still.")
        elif len(self.learning_rates) > 2 and best == self.tried[0]:
            notes.append("The lowest rate tried did best, so a lower rate may do better still.")
        if self.rows < FEWEST_ROWS:
            notes.append(
                f"Only {self.rows} held-out examples judge the rates; pass validation_data with "
                "more of them, or a larger budget."
            )
        return notes


def unmoved(before: Any, after: Any) -> bool:
    """Whether training left losses as they were, but for rounding."""
    before = np.asarray(before, float)
    return bool((np.abs(np.asarray(after, float) - before) <= UNMOVED * np.abs(before)).all())


def updates_of_a_run(budget: int, planned: int | None = None) -> int:
    """Updates of each short run before the best go on; 0 if the budget is below two runs.

    Args:
        planned: Updates of the run that is planned, if known. Longer runs would favour lower rates.
    """
    steps = 0 if budget < 2 * LEAST else LEAST if budget < 400 else 2 * LEAST
    return steps if planned is None else min(steps, max(LEAST, planned))


def longest_run(budget: int) -> int:
    """Updates that no short run exceeds: the best go on only if there are two of them."""
    return budget // 2 if budget >= 2 * LEAST else 0


class Outcome(NamedTuple):
    """What a short run returned.

    Attributes:
        loss: Held-out loss at its end; inf if it was cut off.
        cost: Updates that were trained.
        state: What `ShortRuns.train` goes on from; None if it was not kept.
    """

    loss: float
    cost: int
    state: Any = None


class ShortRuns(Protocol):
    """Trains short runs that share their start and their batches; `HeldOutRuns` does."""

    rows: int  # examples of the held-out sample

    def start(self) -> float:
        """Held-out loss of the weights that every run starts from."""

    def train(
        self, learning_rate: float, steps: int, ceiling: float, resume: Any = None
    ) -> Outcome:
        """Train at a constant rate, from the start or from a kept state.

        Args:
            ceiling: The run is cut off where its batch losses stay above.

        Raises:
            DataEnded: If the data end before the run.
        """


@dataclass
class _Run:
    rate: float  # log10
    outcome: Outcome
    steps: int


@dataclass
class Prober:
    """Chooses the rates of short runs, one after the other, and records them.

    Args:
        runs: Trains them.
        centre: log10 of the first rate.
        budget: Most updates of all runs together.
        planned: Updates of the run that is planned, which no short run exceeds; None if unknown.
    """

    runs: ShortRuns
    centre: float
    budget: int
    planned: int | None = None
    tried: list[_Run] = field(default_factory=list)
    cost: int = 0
    begin: float = 0.0
    rows: int = 0
    _edges: list[bool] = field(default_factory=list)

    def run(self) -> Probes | None:
        """Spend the budget; None if it is too small for two runs.

        The second rate lies one gap above the first. If every run was cut off, the next rate is
        lower; if the best one is the lowest or the highest, the next lies beyond it, further
        each time. Once the best one lies between two others, the best go on from where they
        ended with equal shares of what is left: three if it doubles their length, else two. If
        their states were not kept, or the planned run is no longer than they are, rates between
        the best ones are tried instead.
        """
        steps = updates_of_a_run(self.budget, self.planned)
        if not steps:
            return None
        more = np.inf if self.planned is None else self.planned - steps
        self.begin, self.rows = float(self.runs.start()), self.runs.rows
        while self.cost + steps <= self.budget:
            if self._bracketed() and self.can_go_on() and more >= FEWEST_MORE:
                break
            rate = self._next()
            if rate is None:
                break
            self._train(rate, steps)
        left = self.budget - self.cost
        count = 3 if left >= 3 * steps else 2
        if self.can_go_on():
            self._go_on(self._best(count), int(min(left // count, more)))
        return self.probes()

    def go_on(self, budget: int) -> None:
        """Train the best two runs longer, from their kept states, with equal shares of a budget."""
        self._go_on(self._best(2), budget // 2)

    def can_go_on(self) -> bool:
        """Whether there are runs to compare, and their states were kept."""
        best = self._best(3)
        return len(best) > 1 and all(run.outcome.state is not None for run in best)

    def probes(self) -> Probes:
        return Probes(
            [float(10.0**run.rate) for run in self.tried],
            [run.outcome.loss for run in self.tried],
            [run.steps for run in self.tried],
            self.begin,
            self.rows,
            self.cost,
            self.centre,
        )

    def _train(self, rate: float, steps: int) -> None:
        found = self.runs.train(float(10.0**rate), steps, self._ceiling())
        self.cost += found.cost
        self.tried.append(_Run(rate, found, steps))

    def _go_on(self, chosen: list[_Run], steps: int) -> None:
        """Train runs for more updates, from their kept states."""
        for run in chosen if steps >= FEWEST_MORE else []:
            rate, state = float(10.0**run.rate), run.outcome.state
            run.outcome = self.runs.train(rate, steps, self._ceiling(), state)
            run.steps += steps
            self.cost += run.outcome.cost

    def _ceiling(self) -> float:
        return self.begin + RISE * abs(self.begin)

    def _best(self, count: int) -> list[_Run]:
        ran = [run for run in self.tried if np.isfinite(run.outcome.loss)]
        return sorted(ran, key=lambda run: run.outcome.loss)[:count]

    def _bracketed(self) -> bool:
        """Whether the best run lies between two others."""
        runs = sorted(self.tried, key=lambda run: run.rate)
        losses = [run.outcome.loss for run in runs]
        return bool(np.isfinite(losses).any()) and 0 < int(np.argmin(losses)) < len(runs) - 1

    def _next(self) -> float | None:
        if not self.tried:
            return _on_grid(self.centre)
        runs = sorted(self.tried, key=lambda run: run.rate)
        rates = [run.rate for run in runs]
        losses = [run.outcome.loss for run in runs]
        if not np.isfinite(losses).any():
            return rates[0] - GAP * (1 if len(runs) == 1 else 2)
        if len(runs) == 1:
            return rates[0] + GAP
        best = int(np.argmin(losses))
        if best in (0, len(runs) - 1):
            upper = best > 0
            further = GAP + WIDER * self._edges.count(upper)
            self._edges.append(upper)
            return rates[best] + (further if upper else -further)
        for side in sorted((best - 1, best + 1), key=lambda place: losses[place]):
            if abs(rates[side] - rates[best]) >= SPLIT - 1e-9:
                return _on_grid((rates[side] + rates[best]) / 2)
        return None


def _on_grid(rate: float) -> float:
    return round(rate / GRID) * GRID
