"""Whether the loss of a run has diverged: the stop rules."""

from __future__ import annotations

import numpy as np

from keras_lr.range_test.smoothing import moving_average

MEMORY = 0.9  # of the moving average that the rule watches
SETTLING = 10  # steps that show how noisy the losses are, before the rule applies
WINDOW, HIGH = 5, 4  # a rise is confirmed by this many high losses of the next five


def has_diverged(
    losses: np.ndarray, stop_factor: float | None, ceiling: float | None, *, more_follow: bool
) -> bool:
    """Whether a run ends here, by `first_divergence` or because its loss stays above a ceiling.

    Args:
        losses: Of the updates so far, finite; there may be none.
        stop_factor: As in `first_divergence`; None leaves this rule out.
        ceiling: What the median of the last five losses may not exceed; None leaves it out. The
            noise of the first losses is added: it matters where the loss starts near zero.
        more_follow: Whether the run continues.
    """
    if not len(losses):
        return False
    if stop_factor is not None:
        if first_divergence(losses, stop_factor, more_follow=more_follow) is not None:
            return True
    return ceiling is not None and bool(np.median(losses[-5:]) > ceiling + np.ptp(losses[:3]))


def first_divergence(
    losses: np.ndarray, stop_factor: float, *, more_follow: bool = False
) -> int | None:
    """Index of the first step at which the loss has diverged, or None.

    The rule follows an exponential moving average (0.9, bias-corrected) and stops where it
    exceeds

        best + (stop_factor - 1) * scale,   scale = max(|best|, first - best, range of the noise)

    with the best and the first value of that average. For a loss that is far from zero and has
    not fallen, this is the field's `stop_factor * best` (fastai, Lightning and ktrain use 4).
    The other two scales cover the cases where that rule fails: losses near zero, where four
    times the best is still near zero, and losses below zero, where `4 * best` is less than the
    best. The range of the noise is that of the losses up to the best one, and at
    least of the first ten; the rule applies after those.

    One batch with a rare row can raise the average for many steps, so a rise counts only if
    four of the next five losses are above `best + scale` themselves. If the record ends before
    those five, a rise that begins there counts.

    Args:
        losses: True batch losses, finite, shape (steps,).
        stop_factor: Above 1.
        more_follow: Whether the run continues: later losses then decide about a rise at the
            end of the record.
    """
    losses = np.asarray(losses, dtype=np.float64)
    average = moving_average(losses, MEMORY)
    best = np.minimum.accumulate(average)
    best_step = np.maximum.accumulate(np.where(average == best, np.arange(len(losses)), 0))
    noise = np.maximum.accumulate(losses) - np.minimum.accumulate(losses)
    noise = noise[np.minimum(np.maximum(best_step, SETTLING - 1), len(losses) - 1)]
    scale = np.maximum.reduce([np.abs(best), average[:1] - best, noise])
    above = average > best + (stop_factor - 1.0) * scale
    above[:SETTLING] = False
    for step in np.flatnonzero(above):
        following = losses[step : step + WINDOW]
        if len(following) == WINDOW:
            found = bool(np.sum(following > best[step] + scale[step]) >= HIGH)
        else:
            found = not (more_follow or bool(above[step - 1]))
        if found:
            return int(step)
    return None
