"""Whether a `fit` diverges: the losses behind its running mean, and their best level.

The rule differs from that of the range test (`range_test/stopping.py`): it judges a whole stretch
of batches at one rate, by its lower quartile, whereas the range test judges single losses of a
rising rate, by a moving average. `HalveOnDivergence` and the runs of a search use it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["Level", "Stretch"]


class Level:
    """The level of the loss, and how far above it a loss has diverged.

    Args:
        threshold: See `HalveOnDivergence`.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._first: Any = None
        self._best: Any = None

    def anchor(self, value: float) -> None:
        """Note the loss of the weights that a stretch began with: at the start, and after a return.

        The largest of these counts, so that an easy first batch has no lasting effect.
        """
        self._first = value if self._first is None else max(self._first, value)
        self._best = value if self._best is None else max(self._best, value)

    def judge(self, losses: np.ndarray, last: bool = False) -> str:
        """Judge a stretch: "good", "doubtful" or "diverged".

        Args:
            losses: The losses of the stretch.
            last: Whether no later stretch can distinguish a divergence from a spike.
        """
        if not np.isfinite(losses).all():
            return "diverged"
        mean = float(losses.mean())
        if self._best is None:
            self.anchor(mean)
        most = self._threshold - 1.0
        scale = self._scale() or math.ulp(0.0)
        rise = (mean - self._best) / scale
        surely = rise if last else (_lower_quartile(losses) - self._best) / scale
        if surely > most:
            return "diverged"
        self._best = min(self._best, mean)
        return "good" if rise <= most / 2.0 else "doubtful"

    def reason(self, losses: np.ndarray) -> str:
        """Why these losses have diverged, in words."""
        if not np.isfinite(losses).all():
            return "the loss is not finite"
        return (
            f"the loss rose to {losses.mean():.4g} (lower quartile {_lower_quartile(losses):.4g}); "
            f"the first was {self._first:.4g} and the best {self._best:.4g}"
        )

    def _scale(self) -> float:
        return max(abs(self._best), self._first - self._best)

    def state(self) -> list[Any]:
        return [self._first, self._best]

    def load(self, state: list[Any]) -> None:
        self._first, self._best = state


class Stretch:
    """The losses of an epoch since the last check, one entry per execution.

    The logs have the mean over the batches of the epoch that were not undone. Two of these means
    give the sum between them.
    """

    def __init__(self) -> None:
        self.done, self._total = 0, 0.0  # batches in the metrics, and the sum of their losses
        self.mark = (0, 0.0)  # both, at the last check
        self._undone = 0
        self._losses: list[float] = []
        self._before: list[float] = []  # losses of the previous stretch

    @property
    def length(self) -> int:
        """Batches since the last check."""
        return self.done - self.mark[0]

    def advance(self, seen: int, mean: float) -> None:
        """Note an execution: how many batches the epoch has seen, and the mean in its logs."""
        done = seen - self._undone
        if done <= self.done:
            return
        total = mean * done
        self._losses.append((total - self._total) / (done - self.done))
        self.done, self._total = done, total

    def widen(self, least: int) -> None:
        """Add the previous stretch to a shorter one, for less noise."""
        if self.length < least:
            self._losses = self._before + self._losses

    def close(self) -> np.ndarray:
        """End the stretch, begin the next, and return the losses of the ended one."""
        self._before, self._losses = self._losses, []
        self.mark = (self.done, self._total)
        return np.array(self._before)

    def go_back(self, mark: tuple[int, float]) -> None:
        """Continue from an earlier check, after the metrics were restored to it."""
        self._undone += self.done - mark[0]
        self.done, self._total = self.mark = mark
        self._losses, self._before = [], []


def _lower_quartile(losses: np.ndarray) -> float:
    return float(np.quantile(losses, 0.25))
