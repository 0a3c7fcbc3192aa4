"""Plateau and underfitting."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.curves import level
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import FIND, Case, flat_from, flat_noise, held_out_falls
from keras_lr.diagnosis.rules.thresholds import (
    FLAT_NOISE,
    LONG_ROWS,
    LONG_SHARE,
    NEVER_LEARNED,
    NO_GAP,
    UNDERFIT_LOSS,
    UNDERFIT_METRIC,
    UNDERFIT_NOISE,
)

__all__ = ["plateau", "underfitting"]


def plateau(case: Case) -> Finding | None:
    """A loss that does not fall for a large part of the run, at a rate that can be reduced."""
    log, loss, rate = case.log, case.loss, case.rate
    begin = flat_from(case)
    if begin is None or case.converged or case.delayed or held_out_falls(case, begin):
        return None
    if rate is not None and rate[begin:].min() < 0.3 * rate.max():
        return None
    if case.metric_rises and loss[-1] > loss[begin]:
        return None  # the loss rises by overconfidence while the accuracy stays
    rows = len(loss) - begin
    severity = "warning"
    never = begin <= 2 and level(loss, len(loss)) > NEVER_LEARNED * case.start
    if not never and flat_noise(case, begin) < FLAT_NOISE:
        long = rows >= max(LONG_ROWS, LONG_SHARE * len(loss))
        if not long or underfitting(case) is not None:
            return None
        severity = "hint"
    last = len(loss) - 1
    evidence = (
        f"The loss plateaus near {np.median(loss[begin:]):.4g} from {log.at(begin)} to "
        f"{log.at(last)}, {rows / len(loss):.0%} of the run"
    )
    evidence += f", at a rate of {rate[-1]:.3g}." if rate is not None else "."
    advice = "Cut the rate when the loss plateaus: keras_lr.ReduceLROnPlateau(patience=5)."
    if never:
        advice = f"The model never started to learn. Try other rates. {FIND}"
    return case.span("plateau", severity, evidence, advice, begin, last)


def underfitting(case: Case) -> Finding | None:
    """Training and validation loss plateau at a high value, with no gap between them."""
    log, loss, held_out = case.log, case.loss, case.held_out
    begin = flat_from(case)
    if begin is None or case.converged or held_out is None:
        return None
    rate = case.rate
    if rate is not None and np.median(rate[begin:]) < 0.3 * rate.max():
        return None  # it plateaus because the rate is low
    if flat_noise(case, begin) > UNDERFIT_NOISE:
        return None
    train, other = float(np.median(loss[begin:])), float(np.median(held_out[begin:]))
    if other - train > NO_GAP * abs(other):
        return None
    metric = log.metric
    if metric is not None:
        if level(metric, 3) > UNDERFIT_METRIC:
            return None
    elif train < UNDERFIT_LOSS * case.start:
        return None
    evidence = (
        f"From {log.at(begin)} on, the training loss plateaus near {train:.4g} and the validation "
        f"loss near {other:.4g}, with no gap between them"
    )
    if metric is not None:
        evidence += f"; the training {log.metric_name} ends at {level(metric, 3):.3g}"
    advice = (
        "Try a larger model or less regularization. If neither helps, the data may not allow a "
        "lower loss."
    )
    return case.span("underfitting", "hint", evidence + ".", advice, begin, len(loss) - 1)
