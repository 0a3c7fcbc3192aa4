"""Jobs that a process can begin while other processes finish the present round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keras_lr.rate_search.jobs import Job, Outcome
from keras_lr.rate_search.plan import Plan


def jobs_ahead(plan: Plan, found: Mapping[str, Outcome]) -> list[Job]:
    """Jobs that the plan asks for next, whichever of the present ones turn out best.

    The plan is asked what follows if none of the missing runs is better than those that finished,
    if one of them is, and if all are; the jobs are those that follow each time. A job that is
    begun early changes no answer: a plan counts only the jobs that its rounds ask for.

    Args:
        plan: The plan.
        found: The outcomes so far, by the keys of their jobs.

    Returns:
        The jobs, in the order of the plan; none if no run of the present round has finished.
    """
    waiting = plan.missing(found)
    values = [each.value for each in plan.rounds(found)[-1].outcomes if each.ended == "finished"]
    if not waiting or not values:
        return []
    far = 1.0 + max(values) - min(values)
    if plan.design.maximize:
        best, worst = max(values) + far, min(values) - far
    else:
        best, worst = min(values) / 10 if min(values) > 0 else min(values) - far, max(values) + far

    def following(winners: Iterable[Job]) -> list[Job]:
        won = {job.key for job in winners}
        guess = {
            job.key: Outcome(job, "finished", best if job.key in won else worst) for job in waiting
        }
        return plan.missing({**found, **guess})

    sure = following([])
    for winners in (waiting, *([job] for job in waiting)):
        if not sure:
            break
        keys = {job.key for job in following(winners)}
        sure = [job for job in sure if job.key in keys]
    return sure
