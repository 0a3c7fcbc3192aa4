"""A learning rate that is too high or too low, by the shape of the loss."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.curves import noise, relative, slope, slope_kept
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import FIND, Case
from keras_lr.diagnosis.rules.thresholds import (
    BARELY_FALLEN,
    BENT,
    BLOWN_UP,
    BLOWN_UP_FROM,
    CONVERGED_LOSS,
    FEWEST_ROWS,
    FROZEN,
    GAINING,
    RESCUED,
    SPENT_RATE,
    STEADY,
    STRAIGHT,
    WILD,
    WILD_ROWS,
)

__all__ = ["rate_too_high", "rate_too_low", "still_from"]


def rate_too_high(case: Case) -> Finding | None:
    """A loss that is thrown about, or dead."""
    log, loss = case.log, case.loss
    if len(loss) < FEWEST_ROWS:
        return None
    return _dead(case) or _wild(case, log, loss) or _blown_up(case)


def _dead(case: Case) -> Finding | None:
    """Outputs that saturate, or units that never fire again, pass no gradient."""
    loss, rate = case.loss, case.rate
    begin = still_from(loss)
    spent = rate is not None and rate[begin:].max() <= SPENT_RATE * rate.max()
    if len(loss) - begin < max(FEWEST_ROWS, len(loss) // 3) or case.converged or spent:
        return None
    if loss[begin] < 0.5 * case.start:  # it learned: a run that is done is still too
        return None
    evidence = (
        f"The loss stands still at {loss[-1]:.4g} from {case.log.at(begin)} on, to the fifth "
        "digit: no gradient arrives. Its first value is "
        f"{loss[0]:.4g}."
    )
    advice = f"Train anew at a much lower rate. {FIND}"
    return case.span("rate-too-high", "warning", evidence, advice, begin, len(loss) - 1)


def still_from(loss: np.ndarray) -> int:
    """The row from which on the loss does not move at all; the last row if it does."""
    moving = np.flatnonzero(~(np.abs(np.diff(loss)) <= FROZEN * np.abs(loss[1:])))
    return int(moving[-1]) + 1 if moving.size else 0


def _wild(case: Case, log: Log, loss: np.ndarray) -> Finding | None:
    begin = len(loss) // 4
    rows = np.arange(begin, len(loss))
    rate = case.rate
    if rate is not None:  # what counts is the part at a high rate
        high = np.flatnonzero(rate >= 0.3 * rate.max())
        rows = np.arange(max(begin, high[0]), high[-1] + 1)
    if len(rows) < FEWEST_ROWS:
        return None
    part = loss[rows]
    shaken = noise(relative(part))
    low = np.median(part) < CONVERGED_LOSS * case.start and case.start > 0
    if shaken < WILD * (1 + WILD_ROWS / len(part)) or low:
        return None
    if case.end < RESCUED * np.median(part):
        return None  # the schedule has taken the noise away, as it should
    half = relative(part)[len(part) // 2 :]
    if -slope(half) * (len(half) - 1) > GAINING * shaken:
        return None
    ups = np.flatnonzero(np.diff(part) > 0)
    if len(ups) < len(part) // 4:
        return None
    worst = int(np.argmax(np.diff(part)))
    evidence = (
        f"The loss jumps about: by {shaken:.0%} from one {log.unit} to the next, up in {len(ups)} "
        f"of {len(part) - 1}; from {part[worst]:.4g} to {part[worst + 1]:.4g} after "
        f"{log.at(int(rows[worst]))}."
    )
    third = "" if rate is None else f", {rate.max() / 3:.2g},"
    advice = f"Train at a third of the rate{third} or less. {FIND}"
    return case.span("rate-too-high", "warning", evidence, advice, int(rows[0]), int(rows[-1]))


def _blown_up(case: Case) -> Finding | None:
    """A first epoch far above the others: its first updates threw the weights away."""
    log, loss = case.log, case.loss
    known = case.untrained_loss
    if known is not None:
        above = known > 0 and loss[0] > BLOWN_UP_FROM * known
    else:
        above = loss[0] > BLOWN_UP * loss[1] > 0 or loss[0] > BLOWN_UP**3 * max(1.0, case.end)
    if not above:
        return None
    evidence = f"The loss of the first {log.unit} is {loss[0]:.4g}, of the second {loss[1]:.4g}"
    evidence += (
        f", and {known:.4g} before training: the first updates blew it up."
        if known is not None
        else ": the first updates blew it up, or the targets are not scaled."
    )
    advice = f"Begin at a lower rate, with keras_lr.WarmUp. {FIND}"
    return case.span("rate-too-high", "hint", evidence, advice, 0, 1)


def rate_too_low(case: Case) -> Finding | None:
    """A loss that falls in a nearly straight line, and not far."""
    log, loss = case.log, case.loss
    if len(loss) < FEWEST_ROWS or case.converged:
        return None
    rate = case.rate
    if rate is not None and rate.min() < 0.3 * rate.max():  # a slope follows from the schedule
        return None
    if loss[-1] >= loss[0] or _explained(loss) < STEADY:
        return None
    if 0 < loss[-1] < BARELY_FALLEN * loss[0]:
        return None
    kept, held_out = slope_kept(loss), case.held_out
    going_on = held_out is None or slope_kept(held_out) >= BENT
    if kept < BENT or (kept < STRAIGHT and not going_on):
        return None
    last = len(loss) - 1
    evidence = (
        f"The loss falls in a nearly straight line, from {loss[0]:.4g} in {log.at(0)} to "
        f"{loss[-1]:.4g} in {log.at(last)}: at the end by {-slope(loss[-3:]):.2g} an "
        f"{log.unit}, at the beginning by {-slope(loss[:3]):.2g}."
    ).replace("an step", "a step")
    ten = "" if rate is None else f", {rate.max() * 10:.2g}"
    advice = f"Train at ten times the rate{ten}. {FIND}"
    severity = "warning" if kept >= STRAIGHT else "hint"
    return case.span("rate-too-low", severity, evidence, advice, 0, last)


def _explained(values: np.ndarray) -> float:
    """Share of the variance that a parabola explains."""
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 2), places)
    return 1.0 - float(left.var() / (values.var() or 1.0))
