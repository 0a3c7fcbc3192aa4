"""From the evidence of a range test to the answer: prior, curve, short runs, and the planned run.

All of it is in decades (log10 of the rate), for a run of 500 updates and a policy between constant
and decaying; the planned run adds its correction (`planned_run.correction`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keras_lr.range_test.curve_rule import UNEVEN_START
from keras_lr.range_test.planned_run import CONSTANT, ONE_CYCLE, PlannedRun, correction
from keras_lr.range_test.probes import Probes
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

# A curve is weighed with the usual rate of the optimizer's family; the sum is raised by this many
# decades, because a ramp shows the damage of high rates before a whole run would.
CURVE_WEIGHT, RAISED = 0.3, 0.375
# Half the width of a curve's interval, in decades: it holds the best rate in 85% of cases.
KNOWN, UNKNOWN = 1.0, 1.3


def weigh(
    curve: Callable[[], Suggestion],
    probes: Probes | None,
    usual: float | None,
    family: str,
    run: PlannedRun | None,
) -> Suggestion:
    """The answer from everything that is known.

    Args:
        curve: The answer of the curve alone; called if no short runs decide.
        usual: log10 of the usual rate of the optimizer's family; None if it is unknown.
        family: Its name, for the reason.
        run: The planned run; None if nothing is known about it.

    Raises:
        NoSuggestion: If all short runs were cut off, or the curve supports no suggestion.
    """
    if probes is None:
        return for_run(_from_curve(curve(), usual, family), run)
    found = _from_probes(probes, usual is not None)
    try:
        read = curve()
    except NoSuggestion:
        return for_run(found, run)
    notes = tuple(note for note in read.warnings if note.startswith(UNEVEN_START))
    if notes:
        # Short runs and a held-out sample contain as few of the rare rows as the ramp did.
        low, high = min(found.low, read.low), max(found.high, read.high)
        found = replace(found, low=low, high=high, warnings=(*found.warnings, *notes))
    return for_run(found, run)


def for_run(found: Suggestion, run: PlannedRun | None) -> Suggestion:
    """The suggestion for the planned run."""
    run = run or PlannedRun()
    factor = 10.0 ** correction(run)
    reason = f"{found.reason} {run.sentence}".rstrip()
    if not run.policy:
        reason += (
            f" A constant rate should be {10.0**CONSTANT:.1f} times as high, the peak of a policy "
            f"that decays {10.0**ONE_CYCLE:.1f} times."
        )
    return replace(
        found,
        learning_rate=found.learning_rate * factor,
        low=found.low * factor,
        high=found.high * factor,
        reason=reason,
        run=run.name,
    )


def _from_probes(probes: Probes, known: bool) -> Suggestion:
    middle, count = probes.answer(), len(probes.learning_rates)
    if middle is None:
        raise NoSuggestion(
            f"All {count} short runs diverged, the lowest at {min(probes.learning_rates):.2g}. "
            "Check the scale of the data, or pass a larger budget."
        )
    if probes.unmoved:
        lowest, highest = min(probes.learning_rates), max(probes.learning_rates)
        raise NoSuggestion(
            f"No short run moved the held-out loss from {probes.start:.4g}, at rates from "
            f"{lowest:.2g} to {highest:.2g}: the gradients are 0. Scale the inputs, which may "
            "saturate the outputs, and check that the loss depends on weights that train."
        )
    low, high = probes.half_widths(known)
    return Suggestion(
        float(10.0**middle),
        float(10.0 ** (middle - low)),
        float(10.0 ** (middle + high)),
        "auto",
        probes.reason(),
        tuple(probes.notes()),
    )


def _from_curve(found: Suggestion, usual: float | None, family: str) -> Suggestion:
    """The curve's answer, or its mean with the usual rate of the family, in decades."""
    middle, half, reason = float(np.log10(found.learning_rate)), UNKNOWN, found.reason
    if usual is not None:
        middle, half = CURVE_WEIGHT * middle + (1.0 - CURVE_WEIGHT) * usual + RAISED, KNOWN
        reason += (
            f" The answer is the mean, in decades, of this rate ({CURVE_WEIGHT:.0%}) and "
            f"{10.0**usual:.2g}, the usual rate of {family} ({1.0 - CURVE_WEIGHT:.0%}), times "
            f"{10.0**RAISED:.1f}, because a ramp shows damage early."
        )
    return replace(
        found,
        learning_rate=10.0**middle,
        low=min(10.0 ** (middle - half), found.low),
        high=max(10.0 ** (middle + half), found.high),
        reason=reason,
    )
