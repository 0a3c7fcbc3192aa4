"""`Case`: the run that the rules judge, and properties that several rules use."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from keras_lr.diagnosis.curves import level, noise, relative, scaled, slope
from keras_lr.diagnosis.log import Log, binned
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.thresholds import (
    CONSTANT,
    CONVERGED_LOSS,
    CONVERGED_METRIC,
    FEW_BATCHES,
    FEWEST_ROWS,
    FLAT_FALL,
    FLAT_ROWS,
    FLAT_SHARE,
    RATE_RESTART,
    REWARDED_EXPLODED,
)

__all__ = [
    "FIND",
    "Case",
    "constant_from",
    "counts_anew",
    "earlier_runs",
    "first_from",
    "flat_from",
    "flat_noise",
    "has_new_weights",
    "held_out_falls",
    "new_runs",
    "usual_noise",
    "rate_restarts",
    "restarted_between",
    "span",
]

FIND = "Run keras-lr find to get a rate for this model."


@dataclasses.dataclass(frozen=True)
class Case:
    """The run that the rules judge.

    Attributes:
        whole: The rows of `log`, with those of earlier runs.
        log: The run in the form that the rules on the shape of a curve judge: at most `MOST_ROWS`
            rows, and one per validation loss if there are enough of them.
        training: The run with all rows of its training loss.
        evaluated: The run with all rows of its validation loss; None if it has none.
        untrained_loss: Loss before training, if known.
    """

    whole: Log
    log: Log
    training: Log
    evaluated: Log | None
    untrained_loss: float | None = None

    @classmethod
    def of(cls, whole: Log, untrained_loss: float | None = None) -> Case:
        """The last run of the log."""
        begin = max(new_runs(whole), default=0)
        training = dataclasses.replace(whole.rows(begin), evaluated=None)
        evaluated = whole.evaluated
        if evaluated is not None:
            evaluated = evaluated.rows(first_from(evaluated, whole, begin))
        shape, all_rows = training, whole
        if evaluated is not None and whole.evaluated is not None and len(evaluated) >= FEWEST_ROWS:
            shape, all_rows = evaluated, whole.evaluated
        elif training.val_loss is not None:
            evaluated = training
        return cls(
            binned(all_rows),
            binned(shape),
            training,
            evaluated if evaluated is not None and len(evaluated) else None,
            untrained_loss,
        )

    @property
    def rows(self) -> Log:
        """The run with all its rows, of the training and of the validation loss."""
        apart = self.evaluated is not self.training
        return dataclasses.replace(self.training, evaluated=self.evaluated if apart else None)

    @property
    def loss(self) -> np.ndarray:
        return self.log.loss

    @functools.cached_property
    def of_batches(self) -> bool:
        """Whether a row has the loss of a few batches, whose noise says little of the updates."""
        log, evaluated = self.log, self.evaluated
        fine = log.unit == "step" or bool((log.positions % 1 != 0).any())
        if evaluated is None or evaluated is self.training or log.val_loss is None:
            return fine
        return fine and len(self.training) < FEW_BATCHES * len(evaluated)

    @functools.cached_property
    def start(self) -> float:
        """Loss at the start: of the first row, or of the untrained model if that is higher."""
        first = float(self.training.loss[0])
        return first if self.untrained_loss is None else max(first, self.untrained_loss)

    @functools.cached_property
    def delayed(self) -> bool:
        """Whether the loss is 0 at first, as before a replay buffer has filled."""
        loss = self.training.loss
        return len(loss) > 2 and not loss[:2].any() and bool(loss.any())

    @functools.cached_property
    def rewarded(self) -> bool:
        """Whether the loss is one of reinforcement learning, and has not exploded."""
        loss = np.abs(self.training.loss)
        usual = float(np.median(loss[: max(1, len(loss) // 2)]))
        return self.log.rewarded and not loss.max() > REWARDED_EXPLODED * max(usual, 1e-6)

    @functools.cached_property
    def metric_rises(self) -> bool:
        """Whether a metric, such as accuracy, has risen and ends near its best."""
        metric = self.log.metric
        if metric is None or len(metric) < 3 or not np.isfinite(metric).all():
            return False
        end = level(metric, 3)
        return bool(end >= 0.98 * metric.max() and end > 1.1 * metric[0])

    @functools.cached_property
    def best(self) -> int:
        """Row of the lowest loss."""
        return int(np.argmin(self.loss))

    @functools.cached_property
    def end(self) -> float:
        """Loss at the end: the median of the last few rows."""
        return level(self.loss, min(5, max(2, len(self.loss) // 10)))

    @functools.cached_property
    def converged(self) -> bool:
        """Whether the loss or the metric is already so good that little can be gained."""
        metric = self.log.metric
        if metric is not None and level(metric, 3) >= CONVERGED_METRIC:
            return True
        return bool(self.end > 0 and self.end < CONVERGED_LOSS * self.start)

    @functools.cached_property
    def held_out(self) -> np.ndarray | None:
        """Validation loss, if it is finite."""
        values = self.log.val_loss
        return values if values is not None and np.isfinite(values).all() else None

    @functools.cached_property
    def rate(self) -> np.ndarray | None:
        """Learning rate of each row, if the log has it for every row."""
        rate = self.log.learning_rate
        good = rate is not None and bool((np.isfinite(rate) & (rate >= 0)).all())
        return rate if good and rate is not None and rate.max() > 0 else None

    def span(self, rule: str, severity: str, evidence: str, advice: str, *rows: int) -> Finding:
        """A finding on the rows of `log` from the lowest to the highest of `rows`."""
        return span(self.log, rule, severity, evidence, advice, *rows)


def span(log: Log, rule: str, severity: str, evidence: str, advice: str, *rows: int) -> Finding:
    """A finding on the rows of the log from the lowest to the highest of `rows`."""
    first, last = log.epoch(min(rows)), log.epoch(max(rows))
    return Finding(rule, severity, evidence, advice, first, last)


def first_from(evaluated: Log, training: Log, row: int) -> int:
    """First row of the validation loss at or after the row of the training loss."""
    if not row:
        return 0
    keys = zip(_runs(evaluated), evaluated.positions, strict=True)
    start = (_runs(training)[row], training.positions[row])
    return next((place for place, key in enumerate(keys) if key >= start), len(evaluated))


def new_runs(log: Log) -> list[int]:
    """Rows at which training began again with new weights."""
    starts: list[int] = []
    for row in log.restarts:
        begin = starts[-1] if starts else 0
        if has_new_weights(log.rows(begin), row - begin):
            starts.append(row)
    return starts


def counts_anew(log: Log, row: int) -> bool:
    """Whether the epochs of a restart are numbered from the first epoch of the log again."""
    return bool(log.positions[row] <= log.positions[0])


def earlier_runs(log: Log) -> list[Log]:
    """The runs before the last one: those that ended where new weights began."""
    starts = new_runs(log)
    runs = []
    for begin, end in zip([0, *starts], starts, strict=False):
        evaluated = log.evaluated
        if evaluated is not None:
            evaluated = evaluated.rows(
                first_from(evaluated, log, begin), first_from(evaluated, log, end)
            )
        runs.append(dataclasses.replace(log.rows(begin, end), evaluated=evaluated, sets={}))
    return runs


def _runs(log: Log) -> np.ndarray:
    return np.zeros(len(log)) if log.runs is None else log.runs


def has_new_weights(log: Log, row: int) -> bool:
    """Whether a restart began with new weights: the loss is back near its initial value.

    `fit` numbers its epochs from 0, unless the caller says that it resumes. So where the epochs
    count anew, a smaller part of the way back is enough.
    """
    first, before, after = log.loss[0], log.loss[:row], log.loss[row]
    if not np.isfinite(before[-1]) or not np.isfinite(first):
        return bool(np.isfinite(after))  # the run before it failed
    best = float(np.nanmin(before))
    anew = counts_anew(log, row)
    if best == first:  # the run before it has one row, or only rises
        return anew and bool(after > best - 0.2 * abs(best))
    return bool(after > best + (0.4 if anew else 0.8) * (first - best))


def constant_from(loss: np.ndarray) -> int:
    """First row from which on the loss is constant; the last row if it changes until the end."""
    moving = np.flatnonzero(~(np.abs(np.diff(loss)) <= CONSTANT * np.abs(loss[1:])))
    return int(moving[-1]) + 1 if moving.size else 0


def flat_from(case: Case) -> int | None:
    """First row of the plateau that ends the run; None if the loss falls until the end."""
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
    """Noise of the plateau that comes from the updates: that of single batches does not."""
    return 0.0 if case.of_batches else noise(scaled(case.loss[begin:], case.loss))


def held_out_falls(case: Case, begin: int) -> bool:
    """Whether the validation loss still falls while the training loss plateaus."""
    if case.held_out is None:
        return False
    part = relative(case.held_out)[begin:]
    return -slope(part) * (len(part) - 1) > 2 * FLAT_FALL + 2 * noise(part)


def usual_noise(values: np.ndarray) -> float:
    return noise(values) if len(values) >= 5 else 0.0


def rate_restarts(case: Case) -> list[int]:
    """Rows where the rate jumps up after a fall: the start of a cycle, not a warm-up."""
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
