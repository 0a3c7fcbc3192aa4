"""The clocks of a run: how much of a time budget has passed, in ticks that a curve counts.

The host reads a clock before each call of the train function and passes the ticks to the compiled
step. So the steps of one execution (`steps_per_execution`) share a reading.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

TICKS = 2**16  # of each budget: a curve has as many steps


@dataclass(frozen=True, order=True)
class Budget:
    """A time budget.

    Args:
        minutes: How long it is.
        ends_fit: Whether the `fit` ends with it. Then it begins with the `fit`, and what the first
            step takes, which compiles it, is part of it; if not, it begins after the first step.
    """

    minutes: float
    ends_fit: bool


# Returns the ticks of a budget.
Ticks = Callable[[Budget], Any]


@dataclass(frozen=True)
class Timed:
    """A curve that counts the ticks of a time budget, from 0 to `TICKS`, instead of updates."""

    curve: Any
    budget: Budget


class Clock:
    """The clock of one budget.

    The curve begins when the first step has ended, and ends with the budget: no part of the curve
    passes while the step is compiled.

    Args:
        budget: The budget.
        now: The time at which the run begins, in seconds.
    """

    def __init__(self, budget: Budget, now: float) -> None:
        self._seconds, self._ends_fit = 60.0 * budget.minutes, budget.ends_fit
        self._begun = now
        self._before = 0.0  # seconds of earlier processes
        self._first = 0.0  # share of the curve at the first step of this process
        self._ended: int | None = None  # the first batch after the budget, in an earlier process
        self._started: float | None = None  # when the first step of this process had ended
        # The first batch with each tick, and the tick.
        self._batches: list[int] = []
        self._ticks: list[int] = []

    def state(self, now: float) -> dict[str, Any]:
        """What another process needs to continue the budget, as JSON values."""
        return {"passed": self.passed(now), "share": self.share(now), "end": self.end}

    def load(self, state: dict[str, Any]) -> None:
        """Continue the budget of an interrupted process."""
        self._before, self._first = state["passed"], state["share"]
        self._ended = state["end"]

    def passed(self, now: float) -> float:
        """Seconds of the budget that have passed."""
        begun = self._begun if self._ends_fit else self._started
        return self._before + (0.0 if begun is None else now - begun)

    def share(self, now: float) -> float:
        """The share of the curve that has passed, in [0, 1]."""
        if self._started is None:
            return self._first
        if self.is_over(now):
            return 1.0
        left = self._seconds - self.passed(self._started)
        return self._first + (1.0 - self._first) * (now - self._started) / left

    def is_over(self, now: float) -> bool:
        """Whether the budget has passed."""
        return self.passed(now) >= self._seconds

    @property
    def skipped(self) -> bool:
        """Whether the budget was over when the first step had ended."""
        if self._started is None or self._first == 1.0:
            return False
        return self.passed(self._started) >= self._seconds

    @property
    def end(self) -> int | None:
        """The first batch of the run that was trained after the budget; None if there is none."""
        if self._ended is not None:
            return self._ended
        return self._batches[-1] if self._ticks and self._ticks[-1] == TICKS else None

    def start(self, now: float) -> None:
        """Note that a step has ended; the first one starts the curve."""
        if self._started is None:
            self._started = now

    def read(self, now: float, batch: int) -> int:
        """The ticks for a batch of the run, and those that follow until the next reading."""
        tick = int(self.share(now) * TICKS)
        while self._batches and self._batches[-1] >= batch:  # a callback has gone back
            self._batches.pop()
            self._ticks.pop()
        if not self._ticks or self._ticks[-1] != tick:
            self._batches.append(batch)
            self._ticks.append(tick)
        return tick

    def ticks(self, batches: np.ndarray) -> np.ndarray:
        """The ticks that were read for some batches; for later ones those of the last reading."""
        if not self._ticks:
            return np.full(np.shape(batches), int(self._first * TICKS))
        if len(batches) == 1:
            places: Any = [bisect.bisect_right(self._batches, batches[0])]
        else:
            places = np.searchsorted(self._batches, batches, side="right")
        places = np.maximum(np.asarray(places) - 1, 0)
        return np.array([self._ticks[place] for place in places])


class Clocks:
    """The clocks of a run, one for each budget.

    Args:
        budgets: The budgets.
    """

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        begun = now()
        self.budgets = sorted(set(budgets))
        self._clocks = {each: Clock(each, begun) for each in self.budgets}
        self._started = not self._clocks

    def __bool__(self) -> bool:
        return bool(self._clocks)

    def __getitem__(self, budget: Budget) -> Clock:
        return self._clocks[budget]

    def read(self, batch: int) -> np.ndarray:
        """The ticks of every clock for a batch that begins now."""
        time = now()
        return np.array([each.read(time, batch) for each in self._clocks.values()], np.int32)

    def start(self) -> None:
        """Note that a step has ended."""
        if not self._started:
            self._started = True
            for each in self._clocks.values():
                each.start(now())

    def ticks(self, batches: np.ndarray) -> Ticks:
        """The ticks that were read for some batches."""
        return lambda budget: self._clocks[budget].ticks(batches)


def now() -> float:
    """Seconds on a clock that nobody sets."""
    return time.monotonic()
