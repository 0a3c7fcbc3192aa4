"""From the evidence of a range test to the answer: prior, curve, short runs, and the planned run.

All of it is in decades (log10 of the rate), for a run of 500 updates and a policy between constant
and decaying; the planned run adds its correction (`planned_run.correction`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keras_lr.range_test.planned_run import PlannedRun, correction
from keras_lr.range_test.probes import Probes
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

# A curve is weighed with the usual rate of the optimizer's family; the sum is raised by this many
# decades, because a ramp shows the damage of high rates before a whole run would.
CURVE_WEIGHT, RAISED = 0.5, 0.25
# Half the width of the interval, in decades: it holds the best rate in 85% of cases.
HALF_WIDTHS = {"curve": 1.1, "two runs": 0.67, "more runs": 0.5}
OPEN_END = 0.25  # added at a side where the rates tried end with the best one
OTHER_POLICIES = (
    "This rate lies between those of all policies: multiply it by {:.1f} for a constant rate and "
    "by {:.1f} for the peak of a policy that decays, or pass policy."
)


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
    if probes is not None:
        found = _from_probes(probes)
    else:
        found = curve()
        if usual is not None:
            found = _with_usual_rate(found, usual, family)
    return for_run(found, run)


def for_run(found: Suggestion, run: PlannedRun | None) -> Suggestion:
    """The suggestion for the planned run."""
    if run is None:
        return found
    factor = 10.0 ** correction(run)
    return replace(
        found,
        learning_rate=found.learning_rate * factor,
        low=found.low * factor,
        high=found.high * factor,
        reason=f"{found.reason} {run.sentence}".rstrip(),
        run=run.name,
    )


def _from_probes(probes: Probes) -> Suggestion:
    middle, count = probes.answer(), len(probes.learning_rates)
    if middle is None:
        raise NoSuggestion(
            f"All {count} short runs diverged, the lowest at {min(probes.learning_rates):.2g}. "
            "Check the scale of the data, or pass a larger budget."
        )
    kind = "two runs" if count <= 2 else "more runs"
    low = high = HALF_WIDTHS[kind]
    rates, losses = probes.judged
    best = float(rates[int(np.argmin(losses))])
    low += OPEN_END * (bool(count > 2 and best == probes.tried[0]))
    high += OPEN_END * (bool(count > 2 and best == probes.tried[-1]))
    reason = (
        f"Of {count} rates tried for {_lengths(probes.steps)} updates, those around "
        f"{10**middle:.2g} had the lowest loss on {probes.rows} held-out "
        "examples."
    )
    return Suggestion(
        10.0**middle,
        10.0 ** (middle - low),
        10.0 ** (middle + high),
        "auto",
        reason,
        tuple(probes.notes()),
    )


def _lengths(steps: list[int]) -> str:
    low, high = min(steps), max(steps)
    return f"{low}" if low == high else f"{low} to {high}"


def _with_usual_rate(found: Suggestion, usual: float, family: str) -> Suggestion:
    """The mean of the curve's answer and the usual rate, in decades."""
    curve = float(np.log10(found.learning_rate))
    middle = CURVE_WEIGHT * curve + (1.0 - CURVE_WEIGHT) * usual + RAISED
    half = HALF_WIDTHS["curve"]
    return replace(
        found,
        learning_rate=10.0**middle,
        low=min(10.0 ** (middle - half), found.low),
        high=max(10.0 ** (middle + half), found.high),
        reason=f"{found.reason} It is averaged with {10.0**usual:.2g}, the usual rate of {family}.",
    )
