"""Faults that the validation loss shows by itself: overfitting, jumps, and a perfect start."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.curves import level, noise, relative, rolling_median, trend
from keras_lr.diagnosis.log import Log, binned
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import Case, span
from keras_lr.diagnosis.rules.thresholds import (
    FEWEST_ROWS,
    GAP,
    GAP_SHARE,
    JUMP_NOISE,
    JUMP_TIMES,
    METRIC_STAYS,
    OVERFIT_CLEAR,
    OVERFIT_FALL,
    OVERFIT_MONOTONE,
    OVERFIT_NOISES,
    OVERFIT_RISE,
    OVERFIT_SURE,
    OVERFIT_TREND,
    OVERFIT_TREND_GAP,
    PERFECT,
)

__all__ = ["overfitting", "perfect_from_start", "validation_jumps"]


def _evaluated(case: Case) -> tuple[Log, np.ndarray] | None:
    """The rows of the validation loss, if it is finite."""
    if case.evaluated is None:
        return None
    log = binned(case.evaluated)
    values = log.val_loss
    if values is None or not np.isfinite(values).all() or not np.isfinite(log.loss).all():
        return None
    return log, values


def overfitting(case: Case) -> Finding | None:
    """A validation loss that rises, or stays far above a training loss that still falls."""
    found = _evaluated(case)
    if found is None or len(found[1]) < 3:
        return None
    log, held_out = found
    count, loss = len(held_out), log.loss
    best = int(np.argmin(held_out))
    least, last = float(held_out[best]), count - 1
    fell = _fall(loss, best, last)
    if fell <= OVERFIT_FALL:
        return None
    rises = _rises_steadily(held_out, best) or (count >= FEWEST_ROWS and _rises(held_out, best))
    advice = (
        f"Stop at the lowest validation loss, after {log.at(best)}: "
        "EarlyStopping(patience=5, restore_best_weights=True)."
    )
    if rises:
        stays = _metric_stays(log)
        if stays and held_out[-1] < OVERFIT_CLEAR * least:
            return None
        severity = "hint" if stays and held_out[-1] < OVERFIT_SURE * least else "warning"
        evidence = (
            f"The validation loss rose from {least:.4g} in {log.at(best)} to {held_out[-1]:.4g} in "
            f"{log.at(last)}, while the training loss fell from {loss[best]:.4g} to {loss[-1]:.4g}."
        )
        return span(log, "overfitting", severity, evidence, advice, best, last)
    if count < 2 * FEWEST_ROWS or case.converged or _metric_stays(log):
        return None
    end = level(held_out, max(3, count // 5))
    apart = level(loss, max(3, count // 5)) < GAP * end
    if not apart or best > (1 - GAP_SHARE) * count or fell < 1 - GAP:
        return None
    evidence = (
        f"The validation loss has not improved on {least:.4g} since {log.at(best)}; it ends at "
        f"{held_out[-1]:.4g}, while the training loss fell from {loss[best]:.4g} to {loss[-1]:.4g}."
    )
    smooth = rolling_median(held_out)
    low = int(np.argmin(smooth))
    risen = end > (1 + OVERFIT_RISE) * smooth[low] and trend(held_out[low:]) >= OVERFIT_TREND_GAP
    severity = "warning" if risen and len(held_out) - low > FEWEST_ROWS else "hint"
    return span(log, "overfitting", severity, evidence, advice, best, last)


def _fall(loss: np.ndarray, best: int, last: int) -> float:
    """Fall of the training loss since the best row, as a share of its value there."""
    end = level(loss, min(5, max(2, len(loss) // 10)))
    return float((loss[best] - end) / (abs(loss[best]) or 1.0)) if best < last else 0.0


def _rises_steadily(held_out: np.ndarray, best: int) -> bool:
    """Whether the loss rises in each row after its minimum, which noise seldom does."""
    after = np.diff(held_out[best:])
    if len(after) < 2 or not (after > 0).all():
        return False
    rise = (held_out[-1] - held_out[best]) / (abs(held_out[best]) or 1.0)
    return bool(rise >= (OVERFIT_MONOTONE if len(after) >= 4 else OVERFIT_RISE))


def _rises(held_out: np.ndarray, best: int) -> bool:
    """Whether the loss ends above its minimum by more than its noise explains."""
    count = len(held_out)
    shaken = noise(held_out[count // 4 :])
    least = float(held_out[best])
    end = level(held_out, min(5, max(3, count // 10)))
    smooth = rolling_median(held_out)
    low = int(np.argmin(smooth))
    if min(count - 1 - best, count - 1 - low) < 3 or end - smooth[low] < OVERFIT_RISE * abs(
        smooth[low]
    ):
        return False
    if end - least >= OVERFIT_NOISES * shaken:
        return True
    # Under noise: a rise of the whole part after the lowest median.
    part = held_out[low:]
    return len(part) >= FEWEST_ROWS + 2 and trend(part) >= OVERFIT_TREND


def _metric_stays(log: Log) -> bool:
    """Whether a validation metric, such as accuracy, ends at its best."""
    metric = log.val_metric
    if metric is None or not np.isfinite(metric).all() or len(metric) < 3:
        return False
    return level(metric, 3) >= float(rolling_median(metric).max()) - METRIC_STAYS


def validation_jumps(case: Case) -> Finding | None:
    """A validation loss that jumps while the training loss does not."""
    found = _evaluated(case)
    if found is None or len(found[1]) < FEWEST_ROWS or not (found[1] > 0).all():
        return None
    log, held_out = found
    shaken = noise(relative(held_out))
    own = noise(relative(log.loss))
    steps = np.diff(np.log(held_out))
    peak = int(np.argmax(held_out))
    before = float(held_out[max(0, peak - 2) : peak].min()) if peak else float(held_out[0])
    high = JUMP_TIMES * max(float(held_out[0]), float(log.loss[0]), 0.0)
    jumps = np.flatnonzero(steps > np.log(1.5))
    if held_out[peak] > high and held_out[peak] > JUMP_TIMES * before:
        back = np.flatnonzero(held_out[peak:] <= max(2 * before, float(np.median(held_out))))
        ends = f"is back in {log.at(peak + int(back[0]))}" if back.size else "does not come back"
        evidence = (
            f"The validation loss jumps to {held_out[peak]:.4g} in {log.at(peak)} from "
            f"{before:.4g} shortly before, and {ends}; the training loss there is "
            f"{log.loss[peak]:.4g}."
        )
        rows = (max(0, peak - 2), peak + int(back[0]) if back.size else len(held_out) - 1)
    elif shaken > JUMP_NOISE and shaken > 3 * own and len(jumps) >= 3:
        row = int(np.argmax(steps))
        evidence = (
            f"The validation loss jumps by {shaken:.0%} from one evaluation to the next, most from "
            f"{held_out[row]:.4g} to {held_out[row + 1]:.4g} in {log.at(row + 1)}; the training "
            f"loss changes by {own:.0%}."
        )
        rows = (int(jumps[0]), int(jumps[-1]) + 1)
    else:
        return None
    advice = (
        "Check three causes: the moving statistics of BatchNormalization (lower its momentum, or "
        "use larger batches), a rate that is too high (try a third), and the validation data."
    )
    return span(log, "validation-jumps", "warning", evidence, advice, *rows)


def perfect_from_start(case: Case) -> Finding | None:
    """A validation metric that is perfect at the first evaluation."""
    found = _evaluated(case)
    if found is None or len(found[1]) < 3:
        return None
    log, _ = found
    metric = log.val_metric
    if metric is None or not (metric >= PERFECT).all():
        return None
    evidence = (
        f"The validation {log.metric_name} is {metric.min():.4g} or more from {log.at(0)} to "
        f"{log.at(len(metric) - 1)}."
    )
    advice = (
        "Check for leakage: examples of the validation data in the training data, or an input "
        "that contains the target. If there is none, the task is easy."
    )
    return span(log, "perfect-from-start", "hint", evidence, advice, 0, len(metric) - 1)
