"""Searches without training: a plan that is driven by a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras_lr.rate_search.plan import Design, Job, Outcome, Plan, Setting, Start
from keras_lr.rate_search.result import Search

UNTRAINED = 2.3  # loss
BEST = 3e-3  # where the formulas have their valley
RANGE_TEST = {
    "low": 1e-5,
    "high": 0.1,
    "suggestion": 2e-3,
    "learning_rates": [1e-5, 1e-3, 1e-1],
    "losses": [2.3, 1.0, 9.0],
}


def final_loss(job: Job) -> float:
    """A parabola over the decades; less data costs, and seeds differ by 0.004."""
    decades = math.log10(job.setting.learning_rate / BEST)
    handicap = {"constant": 0.0, "cosine": -0.02, "one-cycle": -0.05}[job.setting.policy]
    noise = 0.004 * ((job.seed * 7 + round(1e6 * job.setting.learning_rate)) % 3 - 1)
    return 0.35 + 0.2 * decades**2 + 0.1 * (1 - job.fraction) + handicap + noise


def trained(job: Job, diverges_from: float = 0.2, behind_above: float = 1.2) -> Outcome:
    """Losses that fall to `final_loss`; high rates diverge, poor ones are stopped."""
    final = final_loss(job)
    losses = [
        final + (UNTRAINED - final) * math.exp(-1.2 * epoch) for epoch in range(1, job.epochs + 1)
    ]
    if job.setting.learning_rate >= diverges_from:
        history = logs([2.6, 41.0, math.nan][: 3 if job.setting.learning_rate < 5 else 1])
        return Outcome(job, "diverged", math.nan, history, 0.4)
    if final > behind_above and job.epochs > 3:
        return Outcome(job, "behind", losses[2], logs(losses[:3]), 0.6)
    return Outcome(job, "finished", losses[-1], logs(losses), 1.5)


def logs(losses: list[float]) -> dict[str, list[float]]:
    """Training a bit better than validation, an accuracy that goes with it, and the rate."""
    accuracy = [math.exp(-loss / 2) if math.isfinite(loss) else 0.1 for loss in losses]
    return {
        "accuracy": [min(1.0, value + 0.02) for value in accuracy],
        "loss": [0.9 * loss for loss in losses],
        "val_accuracy": accuracy,
        "val_loss": losses,
        "learning_rate": [0.1] * len(losses),
        "momentum": [0.9] * len(losses),
    }


def searched(
    run: Callable[[Job], Outcome] = trained,
    *,
    runs: int | None = None,
    objective: str = "val_loss",
    also: dict[str, list[Any]] | None = None,
    base: Setting | None = None,
    start: Start | None = None,
    range_test: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    storage: str = "",
    study: str = "",
    provenance: dict[str, Any] | None = None,
    **design: Any,
) -> Search:
    """What a search finds whose runs end as `run` says; the first `runs` of them, if given."""
    maximize = "acc" in objective
    base = base or Setting(1e-3)
    options = {
        "fine_rounds": 2,
        "points": 5,
        "fraction": 0.25,
        "epochs": 8,
        "final_seeds": 3,
        **design,
    }
    plan = Plan(
        Design(maximize=maximize, seed=0, also=also or {}, base=base, **options),
        start or Start(1e-5, 1.0, 1e-3),
    )
    found: dict[str, Outcome] = {}
    while (missing := plan.missing(found)) and (runs is None or len(found) < runs):
        outcome = run(missing[0])
        value = outcome.history[objective][-1] if outcome.ended != "diverged" else math.nan
        found[missing[0].key] = Outcome(
            outcome.job, outcome.ended, value, outcome.history, outcome.seconds, len(found)
        )
    answer = plan.answer(found, math.exp(-UNTRAINED / 2) if maximize else UNTRAINED)
    assert answer is not None
    return Search(
        answer,
        plan.rounds(found),
        objective,
        maximize,
        range_test,
        settings or {},
        storage,
        study,
        provenance or {},
    )
