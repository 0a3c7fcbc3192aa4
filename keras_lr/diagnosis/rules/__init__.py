"""The rules of a diagnosis, by the name of the problem.

A rule is a function that takes a `Case` and returns a `Finding` or None. With weak evidence it
returns None or a "hint".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from keras_lr.diagnosis.result import Finding
from keras_lr.diagnosis.rules.batch import batch_size_changed, no_warm_up
from keras_lr.diagnosis.rules.case import Case, earlier_runs
from keras_lr.diagnosis.rules.held_out import (
    overfitting,
    perfect_from_start,
    validation_jumps,
)
from keras_lr.diagnosis.rules.learning import plateau, underfitting
from keras_lr.diagnosis.rules.lost import diverged, not_a_number
from keras_lr.diagnosis.rules.rate import rate_too_high, rate_too_low
from keras_lr.diagnosis.rules.restarts import appended_runs, spikes_after_restart
from keras_lr.diagnosis.rules.schedule import never_decayed, schedule_ended_early
from keras_lr.diagnosis.rules.thresholds import FEWEST_ROWS

__all__ = ["FALLING", "HELD_OUT", "RULES", "SILENCED_BY", "Case", "earlier_runs", "not_judged"]

RULES: dict[str, Callable[[Case], Finding | None]] = {
    "not-a-number": not_a_number,
    "diverged": diverged,
    "spikes-after-restart": spikes_after_restart,
    "no-warm-up": no_warm_up,
    "validation-jumps": validation_jumps,
    "perfect-from-start": perfect_from_start,
    "overfitting": overfitting,
    "rate-too-high": rate_too_high,
    "rate-too-low": rate_too_low,
    "schedule-ended-early": schedule_ended_early,
    "never-decayed": never_decayed,
    "batch-size-changed": batch_size_changed,
    "plateau": plateau,
    "underfitting": underfitting,
    "appended-runs": appended_runs,
}

# The rules on the validation loss, which judge every evaluation set.
HELD_OUT = ("not-a-number", "validation-jumps", "perfect-from-start", "overfitting")

# The rules that expect the training loss to fall, which a loss of reinforcement learning need not.
FALLING = (
    "diverged", "no-warm-up", "rate-too-high", "rate-too-low", "never-decayed", "plateau",
    "underfitting",
)  # fmt: skip

# For each rule the findings that already explain its own, so that it does not run after them.
# Rules that need a finite loss do not run after NaN.
_SHAPES = frozenset({"not-a-number", "diverged"})
SILENCED_BY: dict[str, frozenset[str]] = {
    "diverged": frozenset({"not-a-number"}),
    "validation-jumps": _SHAPES,
    "perfect-from-start": _SHAPES,
    "overfitting": _SHAPES | {"validation-jumps", "perfect-from-start"},
    "rate-too-high": _SHAPES | {"perfect-from-start"},
    "rate-too-low": _SHAPES | {"overfitting", "validation-jumps"},
    "schedule-ended-early": _SHAPES,
    "never-decayed": _SHAPES | {"rate-too-high"},
    "plateau": _SHAPES
    | {"spikes-after-restart", "rate-too-high", "rate-too-low", "never-decayed", "overfitting"}
    | {"validation-jumps", "perfect-from-start"},
    "underfitting": _SHAPES
    | {"spikes-after-restart", "rate-too-high", "rate-too-low", "never-decayed", "plateau"},
}


def not_judged(case: Case) -> Iterator[str]:
    """Sentences on what the log does not contain."""
    log = case.training
    if len(log) < FEWEST_ROWS:
        yield (
            f"Rate and shape of the curve: the log has {len(log)} "
            f"{log.unit}{'s' if len(log) > 1 else ''}; at least {FEWEST_ROWS} are needed."
        )
    if case.delayed:
        yield "Divergence: the loss is 0 at first, as before a replay buffer has filled."
    if case.rewarded:
        yield (
            "Rate and divergence: the log has rewards, and a loss of reinforcement learning need "
            "not fall."
        )
    if case.of_batches and not case.rewarded:
        yield (
            f"Oscillation: the rows are of {log.unit}s with few batches, whose noise hides that of "
            "the updates."
        )
    if case.evaluated is None:
        yield "Over- and underfitting: the log has no validation loss (val_loss)."
    if case.rate is None:
        yield "Schedule: the log has no learning rate; LRLogger and TensorBoard record it."
    if log.batch_size is None:
        changes = " The updates show its changes." if log.updates is not None else ""
        yield f"Warm-up: the log has no batch size; pass batch_size or --batch-size.{changes}"
