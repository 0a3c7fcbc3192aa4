"""A schedule that does not fit the run."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import Case, flat_from, flat_noise, held_out_falls
from keras_lr.diagnosis.rules.thresholds import (
    FEWEST_ROWS,
    FLAT_FALL,
    FLAT_NOISE,
    SPENT_RATE,
    SPENT_SHARE,
    UNDECAYED,
)

__all__ = ["never_decayed", "schedule_ended_early"]


def schedule_ended_early(case: Case) -> Finding | None:
    """A rate that is almost 0 for a large part of the run."""
    log, rate = case.log, case.rate
    if rate is None or len(rate) < FEWEST_ROWS:
        return None
    spent = rate <= SPENT_RATE * rate.max()
    lively = np.flatnonzero(~spent)
    begin = int(lively[-1]) + 1
    share = (len(rate) - begin) / len(rate)
    if share < SPENT_SHARE:
        return None
    gained = (case.loss[begin] - case.end) / abs(case.loss[begin] or 1.0)
    if gained > FLAT_FALL:
        return None
    last = len(rate) - 1
    evidence = (
        f"The rate fell from {rate.max():.3g} to {rate[begin]:.3g} by {log.at(begin)}. In the last "
        f"{last - begin + 1} {log.unit}s, {share:.0%} of the run, the loss went from "
        f"{case.loss[begin]:.4g} to {case.loss[-1]:.4g}."
    )
    advice = "Make the schedule as long as the run: its steps are epochs times batches per epoch."
    severity = "hint" if case.converged else "warning"
    if _in_steps(rate[: begin + 1]):  # a plateau callback does not know the length of the run
        advice = "Stop the run there, or cut the rate less: use a larger factor or a min_lr."
        severity = "hint"
    return case.span("schedule-ended-early", severity, evidence, advice, begin, last)


def _in_steps(rate: np.ndarray) -> bool:
    """Whether the rate changes in a few epochs only, not a little in each."""
    return bool(np.count_nonzero(np.diff(rate)) < 0.5 * (len(rate) - 1))


def never_decayed(case: Case) -> Finding | None:
    """A schedule that hardly decayed, or a constant rate while the loss plateaus."""
    log, rate = case.log, case.rate
    if rate is None or len(rate) < FEWEST_ROWS:
        return None
    top = int(np.argmax(rate))
    last = len(rate) - 1
    if rate[top:].min() < UNDECAYED * rate[top] or rate[-1] > rate[-2]:
        return None
    fallen = rate[last] < 0.999 * rate[top]
    stopped = log.total_epochs is not None and log.total_epochs > log.positions[-1] + 2
    # Such a rate that has not fallen shows a run that was stopped, or goes on.
    if fallen and not stopped and not log.schedule_fits and not _in_steps(rate[top:]):
        evidence = (
            f"The rate fell only to {rate[-1] / rate[top]:.0%}: from {rate[top]:.3g} in "
            f"{log.at(top)} to {rate[-1]:.3g} in {log.at(last)}, the end of the log."
        )
        advice = "End the schedule with the run: its steps are epochs times batches per epoch."
        severity = "hint" if case.converged else "warning"
        return case.span("never-decayed", severity, evidence, advice, top, last)
    begin = flat_from(case)
    if begin is None or fallen or case.converged or held_out_falls(case, begin):
        return None
    if flat_noise(case, begin) < FLAT_NOISE:
        return None
    evidence = (
        f"The rate stays at {rate[-1]:.3g}, and the loss plateaus near "
        f"{np.median(case.loss[begin:]):.4g} from {log.at(begin)} to {log.at(last)}."
    )
    advice = "Decay the rate: keras_lr.OneCycle, or keras_lr.ReduceLROnPlateau(patience=5)."
    return case.span("never-decayed", "warning", evidence, advice, begin, last)
