"""Restarts: a spike of the loss, and runs that were appended to the log of another run."""

from __future__ import annotations

import numpy as np

from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.case import (
    Case,
    counts_anew,
    has_new_weights,
    new_runs,
    rate_restarts,
    usual_noise,
)
from keras_lr.diagnosis.rules.thresholds import SPIKE_SHARE, SPIKE_TIMES

__all__ = ["appended_runs", "spikes_after_restart"]


def spikes_after_restart(case: Case) -> Finding | None:
    """A spike of the loss at a restart of the training or of the rate."""
    log = case.whole
    rows = sorted({*log.restarts} - {0, *_appended(log)})
    found = _jump(log, rows, by_rate=False)
    return found or _jump(case.log, rate_restarts(case), by_rate=True)


def appended_runs(case: Case) -> Finding | None:
    """Runs with new weights, whose epochs count from the start again, in one log."""
    log = case.whole
    rows = _appended(log)
    if not rows:
        return None
    row = rows[-1]
    evidence = (
        f"The log holds {len(rows) + 1} runs. The last one begins with {log.at(row)}, where the "
        f"epochs count from the start again and the loss is {log.loss[row]:.4g}, after "
        f"{log.loss[row - 1]:.4g}. Each run is judged alone."
    )
    advice = (
        "Write each run to its own log. If a run was to be resumed, load its weights before fit "
        "and pass initial_epoch."
    )
    first, last = log.epoch(row), log.epoch(len(log) - 1)
    return Finding("appended-runs", "hint", evidence, advice, first, last)


def _appended(log: Log) -> list[int]:
    return [row for row in new_runs(log) if counts_anew(log, row)]


def _jump(log: Log, rows: list[int], *, by_rate: bool) -> Finding | None:
    loss = log.loss
    worst: tuple[float, int, int] | None = None
    for row in rows:
        before = loss[:row][np.isfinite(loss[:row])]
        after = loss[row : row + 2]
        if len(before) < 2 or not np.isfinite(after).all():
            continue
        last = float(np.median(before[-2:]))
        peak = int(np.argmax(after))
        rise = float(after[peak]) - last
        learned = float(before.max()) - float(before.min())
        if rise < SPIKE_SHARE * learned or rise < 5 * usual_noise(before[len(before) // 3 :]):
            continue
        if last > 0 and after[peak] < SPIKE_TIMES * last:
            continue
        if worst is None or rise > worst[0]:
            worst = (rise, row, row + peak)
    if worst is None:
        return None
    _, row, peak = worst
    before = float(loss[row - 1])
    back = np.flatnonzero(loss[peak:] <= before)
    recovery = f"recovers in {log.at(peak + int(back[0]))}" if back.size else "does not recover"
    severity = "warning"
    if by_rate:
        rate = log.learning_rate
        low, high = (rate[row - 1], rate[row]) if rate is not None else (0.0, 0.0)
        evidence = f"The rate jumps from {low:.3g} to {high:.3g} in {log.at(row)}, and the loss"
        advice = "Restart at a lower rate: halve the maximum rate in each cycle."
        severity = "hint" if back.size and peak + back[0] - row <= 3 else "warning"
    else:
        evidence = f"Training restarted in {log.at(row)}, and the loss"
        advice = (
            "Restore the optimizer's state, the rate and the step when you resume: use "
            "keras.callbacks.BackupAndRestore, or keras.saving.load_model on a whole model."
        )
        if has_new_weights(log, row):
            advice = (
                "The loss is back at its initial value, so the weights were new. Load the weights "
                "before fit, or write each run to its own log."
            )
    evidence += f" rises from {before:.4g} to {loss[peak]:.4g}; it {recovery}."
    first, last = log.epoch(row - 1), log.epoch(min(len(log) - 1, peak + 1))
    return Finding("spikes-after-restart", severity, evidence, advice, first, last)
