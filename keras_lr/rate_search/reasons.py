"""Why a search has no answer, or one to trust less."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from keras_lr.range_test.probes import unmoved

if TYPE_CHECKING:
    from keras_lr.rate_search.data import Data
    from keras_lr.rate_search.jobs import Outcome
    from keras_lr.rate_search.options import Options
    from keras_lr.rate_search.rounds import Round


def trained_nothing(rounds: list[Round], untrained: float) -> bool:
    """Whether runs at several rates all ended at the objective that they started from."""
    outcomes = [outcome for each in rounds for outcome in each.outcomes]
    several = len({outcome.job.setting.learning_rate for outcome in outcomes}) > 1
    return several and unmoved(untrained, [outcome.value for outcome in outcomes])


def rates_without_effect(rounds: list[Round]) -> tuple[float, float] | None:
    """The lowest and the highest rate of runs that are equal although their rates are not.

    Returns:
        The rates; None if there are runs that differ, or none that can be compared.
    """
    groups: dict[Any, list[Outcome]] = {}
    for outcome in (outcome for each in rounds for outcome in each.outcomes):
        job = outcome.job
        if outcome.ended == "finished":
            like = (job.setting.variant, job.seed, job.fraction, job.epochs)
            groups.setdefault(like, []).append(outcome)
    rates: set[float] = set()
    for runs in groups.values():
        tried = {each.job.setting.learning_rate for each in runs}
        logs = [{**each.history, "learning_rate": []} for each in runs]
        if len(tried) > 1 and any(each != logs[0] for each in logs):
            return None
        rates |= tried if len(tried) > 1 else set()
    return (min(rates), max(rates)) if rates else None


def why_not(rounds: list[Round], options: Options, data: Data) -> str:
    """Why no run has finished."""
    outcomes = [outcome for each in rounds for outcome in each.outcomes]
    if not outcomes:
        return "The timeout expired before a run finished; raise timeout."
    rates = [outcome.job.setting.learning_rate for outcome in outcomes]
    if all(map(_is_metric_alone, outcomes)) and options.objective not in ("loss", "val_loss"):
        return (
            f"{options.objective} was not finite in any of the {len(outcomes)} runs, although the "
            "losses were. Check that metric, or search by val_loss."
        )
    bad = bad_rows(data)
    return (
        f"None of the {len(outcomes)} runs at rates from {min(rates):.2g} to {max(rates):.2g} "
        "finished; they diverged. "
        + (bad or "Check the data and the model" + ", or lower low" * (options.low is not None))
        + "." * (not bad)
    )


def _is_metric_alone(outcome: Outcome) -> bool:
    """Whether a run ended with finite losses, so that its objective alone was not finite."""
    last = [values[-1] for name, values in outcome.history.items() if name in ("loss", "val_loss")]
    return bool(last) and all(map(math.isfinite, last))


def bad_rows(data: Data) -> str:
    """A sentence on NaN or infinity in the arrays, and what to do; "" if there is none."""
    found = data.first_not_finite()
    return f"{found}: fill or drop such rows, unless the loss masks them." if found else ""
