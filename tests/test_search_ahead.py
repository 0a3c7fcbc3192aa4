"""Jobs that are begun early: they fill waits, and change no answer."""

import math
import random

import numpy as np
import pytest

from keras_lr.rate_search.ahead import jobs_ahead
from keras_lr.rate_search.plan import Design, Job, Outcome, Plan, Setting, Start

pytestmark = pytest.mark.once

BASE = Setting(1.0, batch_size=32)
POLICIES = ("constant", "one-cycle", "cosine", "wsd")
START = Start(1e-4, 1e-1, 1e-2, tested=True, cost=0.5)


def loss(job: Job) -> float:
    setting = job.setting
    draw = np.random.default_rng([job.seed, int(setting.learning_rate * 1e9)]).normal()
    policy = 0.1 * POLICIES.index(setting.policy)
    return math.exp(math.log10(setting.learning_rate / 5e-3) ** 2 + 0.1 * draw - policy)


def work(plan, workers, order):
    """Each worker takes a free job, of the plan or else ahead of it; any of them ends next."""
    found, held, early = {}, [], 0
    while missing := plan.missing(found):
        taken = {job.key for job in held}
        free = [job for job in missing if job.key not in taken]
        if len(held) + len(free) < workers:
            ahead = [job for job in jobs_ahead(plan, found) if job.key not in taken]
            early += bool(ahead)
            free += ahead
        held += free[: workers - len(held)]
        job = held.pop(order.randrange(len(held)))
        found[job.key] = Outcome(job, "finished", loss(job))
    return found, early


@pytest.mark.parametrize("also", [{}, {"policy": POLICIES}], ids=["rate", "policies"])
def test_one_worker_two_and_eight_find_the_same(also):
    early = wasted = done = 0
    for seed in range(1 if also else 4):
        design = Design(2, 5, 1.0, 5, 3, False, seed, also, BASE, max_runs=20)
        plan = Plan(design, START)
        alone, none = work(plan, 1, random.Random(0))
        assert none == 0
        for workers in (2, 8):
            found, begun = work(plan, workers, random.Random(seed))
            assert plan.answer(found) == plan.answer(alone)
            assert plan.rounds(found) == plan.rounds(alone)
            early += begun
            wasted += len(found.keys() - alone.keys())
            done += len(found)
    assert early > 0 or also
    assert wasted <= 0.05 * done


def test_what_follows_in_any_case_is_begun_early():
    """While one of five rates is missing, the best two of the others run with the second seed."""
    plan = Plan(Design(1, 5, 1.0, 5, 2, False, 0, {}, BASE), START)
    found = {}
    jobs = plan.missing(found)
    assert jobs_ahead(plan, found) == []  # no run tells anything yet
    for job, value in zip(jobs[:4], (1.0, 2.0, 3.0, 4.0), strict=True):
        found[job.key] = Outcome(job, "finished", value)
    # The fifth rate is an end. If it is the best, the round goes on beyond it: nothing is sure.
    assert jobs_ahead(plan, found) == []
    found = {}
    for job, value in zip([jobs[0], *jobs[2:]], (1.0, 2.0, 3.0, 4.0), strict=True):
        found[job.key] = Outcome(job, "finished", value)
    # Whatever the second says, the best two of the others are among the best three.
    ahead = jobs_ahead(plan, found)
    assert {(job.setting, job.seed) for job in ahead} == {
        (jobs[0].setting, 1),
        (jobs[2].setting, 1),
    }
