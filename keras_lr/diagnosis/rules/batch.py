"""A large batch without warm-up, and a batch size that changed without the rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import Case, constant_from
from keras_lr.diagnosis.rules.thresholds import (
    BATCH_RATIO,
    FEWEST_ROWS,
    FOLLOWED,
    FULL_START,
    LARGE_BATCH,
)

__all__ = ["batch_size_changed", "no_warm_up"]


def no_warm_up(case: Case) -> Finding | None:
    """A large batch that starts near the maximum rate, and a loss that rises early."""
    log, loss, rate = case.log, case.loss, case.rate
    size = log.batch_size
    if size is None or not size[0] >= LARGE_BATCH or len(loss) < 3:
        return None
    if rate is not None and rate[0] < FULL_START * rate.max():
        return None
    early = max(3, len(loss) // 4)
    finite = loss[:early][np.isfinite(loss[:early])]
    problem = ""
    if len(finite) < min(early, len(loss)):
        problem = f"is NaN or infinite within {early} {log.unit}s"
    elif (begin := constant_from(loss)) < early and len(loss) >= FEWEST_ROWS:
        problem = f"is constant at {loss[-1]:.4g} from {log.at(begin)} on"
    elif case.untrained_loss is not None and finite[0] > 1.3 * abs(case.untrained_loss):
        problem = (
            f"is {finite[0]:.4g} in {log.at(0)}, above {case.untrained_loss:.4g} before training"
        )
    else:
        rises = np.diff(finite)
        row = int(np.argmax(rises))
        if rises[row] > 0.1 * abs(finite[row]) and rises[row] > 0.02 * np.ptp(loss):
            problem = f"rises from {finite[row]:.4g} to {finite[row + 1]:.4g} after {log.at(row)}"
    if not problem:
        return None
    start = "the log has no rate"
    if rate is not None:
        start = f"the rate starts at {rate[0]:.3g} of at most {rate.max():.3g}"
    evidence = f"The batch size is {size[0]:.0f}, {start}, and the loss {problem}."
    advice = "Warm up over the first epochs: keras_lr.WarmUp(epochs=5)."
    return case.span("no-warm-up", "warning", evidence, advice, 0, early - 1)


def batch_size_changed(case: Case) -> Finding | None:
    """A batch size that changed while the rate did not follow."""
    log, rate = case.log, case.rate
    for row, before, after in _changes_of_batch(log):
        ratio = after / before
        if rate is not None:
            followed = np.log(rate[row] / rate[row - 1]) if rate[row - 1] and rate[row] else 0.0
            if followed / np.log(ratio) > FOLLOWED:
                continue
        words = f"The batch size changed from {before:.0f} to {after:.0f} in {log.at(row)}"
        if log.batch_size is None:
            words = (
                f"From {log.at(row)} on, an epoch has {1 / ratio:.3g} times as many updates, so "
                "the batch size changed"
            )
        if rate is None:
            evidence = f"{words}; the log does not show the rate."
            advice = "Scale the rate with the batch size if you have not: keras_lr.scale_lr."
            return case.span("batch-size-changed", "hint", evidence, advice, row - 1, row)
        evidence = f"{words}, and the rate went from {rate[row - 1]:.3g} to {rate[row]:.3g}."
        linear, root = rate[row - 1] * ratio, rate[row - 1] * ratio**0.5
        advice = (
            f"Scale the rate with the batch size (keras_lr.scale_lr): to {linear:.2g} with SGD, to "
            f"{root:.2g} with Adam."
        )
        return case.span("batch-size-changed", "warning", evidence, advice, row - 1, row)
    return None


def _changes_of_batch(log: Log) -> Iterator[tuple[int, float, float]]:
    """Rows where the batch size changes, with both sizes; else the relative size, from updates."""
    if log.batch_size is not None:
        sizes, lasting = log.batch_size, 1
    elif log.updates is not None and len(log) > 2:
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = np.concatenate([[np.nan], np.diff(log.positions) / np.diff(log.updates)])
        lasting = 2  # a single epoch, cut short or trained twice, is not a change
    else:
        return
    for row in range(lasting, len(sizes) + 1 - lasting):
        before, after = sizes[row - lasting : row], sizes[row : row + lasting]
        if not (before > 0).all() or not (after > 0).all():
            continue
        least = np.log(BATCH_RATIO)
        change = np.log(np.concatenate([after, after]) / np.concatenate([before, before[::-1]]))
        if (change >= least).all() or (change <= -least).all():
            yield row, float(before[-1]), float(after[0])
