"""Failed runs: a loss of NaN or infinity, and divergence."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_lr.diagnosis.curves import noise, relative
from keras_lr.diagnosis.log import binned
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import FIND, Case, restarted_between, span, usual_noise
from keras_lr.diagnosis.rules.thresholds import (
    BOUNCING,
    DIVERGED_AT_ONCE,
    DIVERGED_SHARE,
    DIVERGED_TIMES,
    EXPLODED,
    FEWEST_ROWS,
)

__all__ = ["diverged", "not_a_number"]


def not_a_number(case: Case) -> Finding | None:
    """A loss of NaN or infinity."""
    for name, log in (("loss", case.training), ("validation loss", case.evaluated)):
        values = None if log is None else log.loss if name == "loss" else log.val_loss
        if log is None or values is None or np.isfinite(values).all():
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        first, last = int(bad[0]), int(bad[-1])
        what = "NaN" if np.isnan(values[first]) else "infinite"
        rows = f"in {log.at(first)}"
        if first < last:
            rows = f"from {log.at(first)} to {log.at(last)}"
        evidence = f"The {name} is {what} {rows}"
        falling = 1 < first and log.loss[first - 1] <= 1.5 * np.nanmin(log.loss[:first])
        if first:
            evidence += f"; it was {values[first - 1]:.4g} in {log.at(first - 1)}"
        if name != "loss":
            advice = "Look for NaN or infinity in the validation data."
        elif falling:
            advice = (
                "The loss was falling until then. Look for NaN in the data and for log(0) or 0/0 "
                "in the loss; then clip the gradients (clipnorm=1.0)."
            )
        else:
            advice = f"Lower the learning rate. {FIND}"
        return span(log, "not-a-number", "error", evidence + ".", advice, first, last)
    return None


def diverged(case: Case) -> Finding | None:
    """A training loss that rises far above its minimum and stays there."""
    case = dataclasses.replace(case, log=binned(case.training))
    log, loss = case.log, case.loss
    if len(loss) < 3 or case.delayed or case.metric_rises:
        return None
    if (exploded := _exploded(case)) is not None:
        return exploded
    best, end = float(loss[case.best]), case.end
    fall = case.loss[0] - best
    above = end - best
    after = loss[case.best :]
    lasting = min(len(after) - 1, 2)
    high = min(best + 0.3 * above, case.start + 0.2 * abs(case.start))
    stays = lasting > 0 and bool((loss[-lasting:] > high).all())
    at_once = loss[-1] > DIVERGED_AT_ONCE * np.abs(loss[:-1]).max()
    if not (stays or at_once) or above <= max(6 * usual_noise(loss[: case.best + 1]), 0.0):
        return None
    few = case.best + 1 < FEWEST_ROWS <= len(after)  # too few rows before the minimum for a noise
    if few and above <= 6 * noise(after) and end <= np.quantile(loss[:-lasting], 0.9):
        return None
    over = end > loss[0] + 0.2 * abs(loss[0])
    times = best <= 0 or end > DIVERGED_TIMES * best
    if not (over or (times and above > DIVERGED_SHARE * fall)):
        return None
    if not over and restarted_between(case, case.best, len(loss)):
        return None
    last = len(loss) - 1
    evidence = (
        f"The loss rose from {best:.4g} in {log.at(case.best)} to {loss[-1]:.4g} in {log.at(last)}"
    )
    evidence += f"; it was {loss[0]:.4g} in {log.at(0)}." if case.best else "."
    rate = case.rate
    if rate is not None and rate[-1] > 1.5 * rate[case.best]:
        evidence += f" The rate rose from {rate[case.best]:.3g} to {rate[-1]:.3g}."
        safe = f"{rate[case.best]:.2g}"
        advice = f"Limit the rate to about {safe}. {FIND}"
    elif rate is not None:
        advice = f"Train at a tenth of the rate, {rate.max() / 10:.2g}, or run keras-lr find."
    else:
        advice = f"Train at a tenth of the rate. {FIND}"
    return case.span("diverged", "error", evidence, advice, case.best, len(loss) - 1)


def _exploded(case: Case) -> Finding | None:
    """A loss that explodes and then bounces without a fall."""
    log, loss = case.log, case.loss
    if len(loss) < FEWEST_ROWS or not (loss > 0).all():
        return None
    peak = int(np.argmax(loss))
    usual = float(np.median(loss))
    rest = loss[peak + 1 :]
    if loss[peak] < EXPLODED * usual or len(rest) < FEWEST_ROWS - 1:
        return None
    half = len(rest) // 2
    if noise(relative(rest)) < BOUNCING or np.median(rest[half:]) < 0.5 * np.median(rest[:half]):
        return None
    last = len(loss) - 1
    evidence = (
        f"The loss is {loss[peak]:.4g} in {log.at(peak)}, and then moves between {rest.min():.4g} "
        f"and {rest.max():.4g} until {log.at(last)} without a fall."
    )
    advice = f"Train from new weights at a tenth of the rate. {FIND} Check that targets are scaled."
    return case.span("diverged", "error", evidence, advice, peak, last)
