"""A run as rules see it, and what several of them ask of it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from keras_lr.diagnosis.curves import level, noise, relative, slope
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.thresholds import (
    CONVERGED_LOSS,
    CONVERGED_METRIC,
    FLAT_FALL,
    FLAT_ROWS,
    FLAT_SHARE,
    RATE_RESTART,
)

__all__ = [
    "FIND",
    "Case",
    "afresh",
    "flat_from",
    "flat_noise",
    "held_out_falls",
    "usual_noise",
    "rate_restarts",
    "restarted_between",
]

FIND = "Run keras-lr find for the rate of this model."


@dataclasses.dataclass(frozen=True)
class Case:
    """A run as rules see it.

    Attributes:
        whole: The whole log.
        log: Its last run: all of it, unless a restart began with new weights.
        untrained_loss: Loss before training, if it is known.
    """

    whole: Log
    log: Log
    untrained_loss: float | None = None

    @classmethod
    def of(cls, whole: Log, untrained_loss: float | None = None) -> Case:
        begin = max((row for row in whole.restarts if afresh(whole, row)), default=0)
        return cls(whole, whole.rows(begin), untrained_loss)

    @property
    def loss(self) -> np.ndarray:
        return self.log.loss

    @functools.cached_property
    def start(self) -> float:
        """The loss that learning began with, as far as is known."""
        first = float(self.loss[0])
        return first if self.untrained_loss is None else max(first, self.untrained_loss)

    @functools.cached_property
    def best(self) -> int:
        """The row of the lowest loss."""
        return int(np.argmin(self.loss))

    @functools.cached_property
    def end(self) -> float:
        """The loss at the end, by the median of its last few rows."""
        return level(self.loss, min(5, max(2, len(self.loss) // 10)))

    @functools.cached_property
    def converged(self) -> bool:
        """Whether little is left to gain."""
        metric = self.log.metric
        if metric is not None and level(metric, 3) >= CONVERGED_METRIC:
            return True
        return bool(self.end > 0 and self.end < CONVERGED_LOSS * self.start)

    @functools.cached_property
    def held_out(self) -> np.ndarray | None:
        """The held-out loss, if it is finite."""
        values = self.log.val_loss
        return values if values is not None and np.isfinite(values).all() else None

    @functools.cached_property
    def rate(self) -> np.ndarray | None:
        """The learning rate of each row, if the log has it for all."""
        rate = self.log.learning_rate
        good = rate is not None and bool((np.isfinite(rate) & (rate >= 0)).all())
        return rate if good and rate is not None and rate.max() > 0 else None

    def span(self, rule: str, severity: str, evidence: str, advice: str, *rows: int) -> Finding:
        """A finding about the rows of `log` from the first to the last of these."""
        first, last = min(rows), max(rows)
        return Finding(
            rule, severity, evidence, advice, self.log.epoch(first), self.log.epoch(last)
        )


def afresh(log: Log, row: int) -> bool:
    """Whether the weights were new after a restart: the loss is back where the log began."""
    first, before, after = log.loss[0], log.loss[:row], log.loss[row]
    if not np.isfinite(before[-1]) or not np.isfinite(first):
        return bool(np.isfinite(after))  # the run before was lost
    best = float(np.nanmin(before))
    return bool(best < first and after > best + 0.8 * (first - best))


def flat_from(case: Case) -> int | None:
    """The row from which on the loss gains nothing; None if it learned till the end."""
    loss = case.loss
    count = len(loss)
    least = max(FLAT_ROWS, int(np.ceil(FLAT_SHARE * count)))
    if count < least + 2:
        return None
    scale = relative(loss) if (loss > 0).all() else loss / (np.ptp(loss) or 1.0)

    def gains(begin: int) -> bool:
        part = scale[begin:]
        return -slope(part) * (len(part) - 1) > FLAT_FALL

    if gains(count - least):
        return None
    begin = count - least
    while begin > 0 and not gains(begin - 1):
        begin -= 1
    return begin


def flat_noise(case: Case, begin: int) -> float:
    return noise(relative(case.loss[begin:]))


def held_out_falls(case: Case, begin: int) -> bool:
    """Whether the held-out loss still gains where the training loss, with its noise, does not."""
    if case.held_out is None:
        return False
    part = relative(case.held_out)[begin:]
    return -slope(part) * (len(part) - 1) > 2 * FLAT_FALL + 2 * noise(part)


def usual_noise(values: np.ndarray) -> float:
    return noise(values) if len(values) >= 5 else 0.0


def rate_restarts(case: Case) -> list[int]:
    """Rows where the rate jumps up after it has fallen: cycles, not a warm-up."""
    rate = case.rate
    if rate is None:
        return []
    return [
        row
        for row in range(2, len(rate))
        if rate[row] > RATE_RESTART * rate[row - 1]
        and rate[row - 1] < rate[:row].max() / RATE_RESTART
    ] + [
        row
        for row in range(2, len(rate))
        if rate[row] > RATE_RESTART * rate[:row].max() and np.ptp(rate[:row]) == 0
    ]


def restarted_between(case: Case, begin: int, end: int) -> bool:
    rows = set(case.log.restarts) | set(rate_restarts(case))
    return any(begin < row < end for row in rows)
