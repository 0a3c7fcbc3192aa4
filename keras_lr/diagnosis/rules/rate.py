"""A learning rate that is too high or too low, from the shape of the loss."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.curves import level, noise, relative, scaled, slope, slope_kept
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import FIND, Case, constant_from
from keras_lr.diagnosis.rules.thresholds import (
    BENT_SLOPE,
    CONVERGED_LOSS,
    FALL_TO_NOISE,
    FEWEST_ROWS,
    FIRST_LOSS,
    FIRST_LOSS_KNOWN,
    LINEAR_FIT,
    LINEAR_SLOPE,
    OSCILLATION,
    OSCILLATION_ROWS,
    RECOVERED,
    SLOW_FALL,
    SMALL_FALL,
    SPENT_RATE,
)

__all__ = ["rate_too_high", "rate_too_low"]


def rate_too_high(case: Case) -> Finding | None:
    """A loss that oscillates, that is constant, or that starts far too high."""
    log, loss = case.log, case.loss
    if len(loss) < FEWEST_ROWS or case.delayed:
        return None
    return _constant(case) or _oscillating(case, log, loss) or _first_updates_diverged(case)


def _constant(case: Case) -> Finding | None:
    """A constant loss: saturated outputs or dead units pass no gradient."""
    loss, rate = case.loss, case.rate
    begin = constant_from(loss)
    spent = rate is not None and rate[begin:].max() <= SPENT_RATE * rate.max()
    if len(loss) - begin < max(FEWEST_ROWS, len(loss) // 3) or case.converged or spent:
        return None
    if loss[begin] < 0.5 * case.start:  # the run has learned: a finished one is constant too
        return None
    evidence = (
        f"The loss is constant at {loss[-1]:.4g} (to five digits) from {case.log.at(begin)} on, so "
        f"the weights get no gradient. Its first value is {loss[0]:.4g}."
    )
    advice = f"Train from new weights at a much lower rate. {FIND}"
    return case.span("rate-too-high", "warning", evidence, advice, begin, len(loss) - 1)


def _oscillating(case: Case, log: Log, loss: np.ndarray) -> Finding | None:
    if case.of_batches:
        return None
    begin = len(loss) // 4
    rows = np.arange(begin, len(loss))
    rate = case.rate
    if rate is not None:  # judge the rows at a high rate only
        high = np.flatnonzero(rate >= 0.3 * rate.max())
        rows = np.arange(max(begin, high[0]), high[-1] + 1)
    if len(rows) < FEWEST_ROWS:
        return None
    part = loss[rows]
    shaken = noise(scaled(part, loss))
    low = np.median(part) < CONVERGED_LOSS * case.start and case.start > 0
    if shaken < OSCILLATION * (1 + OSCILLATION_ROWS / len(part)) or low:
        return None
    if case.end < RECOVERED * np.median(part):
        return None  # the schedule has removed the noise, as it should
    half = scaled(part, loss)[len(part) // 2 :]
    if -slope(half) * (len(half) - 1) > FALL_TO_NOISE * shaken:
        return None
    held_out = case.held_out
    if held_out is not None and (held_out > 0).all():
        calm = noise(relative(held_out)[begin:]) < shaken / 3
        if calm and level(held_out, 3) < 1.1 * held_out.min():
            return None  # noise of the batches: the weights are good
    ups = np.flatnonzero(np.diff(part) > 0)
    if len(ups) < len(part) // 4:
        return None
    worst = int(np.argmax(np.diff(part)))
    evidence = (
        f"The loss oscillates by {shaken:.0%} from one {log.unit} to the next and rises in "
        f"{len(ups)} of {len(part) - 1}; the largest rise is from {part[worst]:.4g} to "
        f"{part[worst + 1]:.4g} after {log.at(int(rows[worst]))}."
    )
    third = "" if rate is None else f", {rate.max() / 3:.2g},"
    advice = f"Train at a third of the rate{third} or less. {FIND}"
    return case.span("rate-too-high", "warning", evidence, advice, int(rows[0]), int(rows[-1]))


def _first_updates_diverged(case: Case) -> Finding | None:
    """A first epoch with a far higher loss than the others: its first updates diverged."""
    log, loss = case.log, case.loss
    known = case.untrained_loss
    if known is not None:
        above = known > 0 and loss[0] > FIRST_LOSS_KNOWN * known
    else:
        above = loss[0] > FIRST_LOSS * loss[1] > 0 or loss[0] > FIRST_LOSS**3 * max(1.0, case.end)
    if not above:
        return None
    evidence = f"The loss is {loss[0]:.4g} in the first {log.unit} and {loss[1]:.4g} in the second"
    evidence += (
        f"; it was {known:.4g} before training. The first updates diverged."
        if known is not None
        else ": the first updates diverged, or the targets are not scaled."
    )
    advice = f"Start at a lower rate, with keras_lr.WarmUp. {FIND}"
    return case.span("rate-too-high", "hint", evidence, advice, 0, 1)


def rate_too_low(case: Case) -> Finding | None:
    """A loss that falls almost linearly, and not far."""
    log, loss = case.log, case.loss
    if len(loss) < FEWEST_ROWS or case.converged:
        return None
    rate = case.rate
    if rate is not None and rate.min() < 0.3 * rate.max():  # a slope follows from the schedule
        return None
    if case.held_out is not None and int(np.argmin(case.held_out)) < len(loss) - 3:
        return None  # the validation loss is past its minimum: a higher rate makes it worse
    if loss[-1] >= loss[0] or _explained(loss) < LINEAR_FIT:
        return None
    if 0 < loss[-1] < SMALL_FALL * loss[0]:
        return None
    kept, held_out = slope_kept(loss), case.held_out
    going_on = held_out is None or slope_kept(held_out) >= BENT_SLOPE
    if kept < BENT_SLOPE or (kept < LINEAR_SLOPE and not going_on):
        return None
    if 0 < loss[-1] < loss[0] * (1 - SLOW_FALL) ** (len(loss) - 1):
        return None  # it needs more epochs, not a higher rate
    last = len(loss) - 1
    evidence = (
        f"The loss falls almost linearly, from {loss[0]:.4g} in {log.at(0)} to {loss[-1]:.4g} in "
        f"{log.at(last)}: by {-slope(loss[:3]):.2g} per {log.unit} at the start and "
        f"{-slope(loss[-3:]):.2g} at the end."
    )
    ten = "" if rate is None else f", {rate.max() * 10:.2g}"
    advice = f"Train at ten times the rate{ten}. {FIND}"
    severity = "warning" if kept >= LINEAR_SLOPE else "hint"
    return case.span("rate-too-low", severity, evidence, advice, 0, last)


def _explained(values: np.ndarray) -> float:
    """Share of the variance that a parabola explains."""
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 2), places)
    return 1.0 - float(left.var() / (values.var() or 1.0))
