"""What a search prints while it runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from searches import trained

from keras_lr.rate_search.plan import Design, Plan, Setting, Start
from keras_lr.rate_search.progress import Progress, seconds_left

pytestmark = pytest.mark.once

DESIGN = Design(1, 3, 1.0, 8, 2, False, 0, {}, Setting(1e-3), max_runs=8)
PLAN = Plan(DESIGN, Start(1e-5, 1.0, 1e-3, tested=True, cost=1.5))


def ended(count, worker="here:1"):
    """So many runs of the plan, each of 1.5 s."""
    found = {}
    while len(found) < count:
        job = PLAN.missing(found)[0]
        found[job.key] = replace(trained(job), number=len(found), worker=worker)
    return found


def said(*calls, known=None, processes=1):
    lines = []
    progress = Progress(lines.append, PLAN, "val_loss", "here:1", known or {})
    for found in calls:
        progress.show(found, lambda: processes)
    return lines


def test_each_run_is_said_once_and_what_is_left_at_most():
    first, second = said(ended(1), ended(1), ended(2))
    assert first.startswith("fine 1     lr 0.001     seed 0  val_loss ")
    # The range test counts as 1.5 runs of 8; a run takes 1.5 s.
    assert first.endswith(f"(1.5 s); at most {1.5 * 5.5:.1f} s left")
    assert second.endswith(f"(1.5 s); at most {1.5 * 4.5:.1f} s left")


def test_runs_of_other_processes_are_said_with_their_names():
    found = ended(1)
    joint = {**{k: replace(o, worker="there:2") for k, o in ended(2).items()}, **found}
    first, second = said(joint)
    assert "by" not in first and "left" not in first
    assert "  by there:2; at most " in second


def test_runs_of_before_are_not_said():
    assert said(ended(2), known=ended(2)) == []
    assert len(said(ended(3), known=ended(2))) == 1


def test_two_processes_take_half_the_time():
    found = ended(2)
    np.testing.assert_allclose(seconds_left(PLAN, found, 1), 1.5 * 4.5, rtol=1e-9)
    np.testing.assert_allclose(seconds_left(PLAN, found, 2), 1.5 * 4.5 / 2, rtol=1e-9)


def test_half_a_run_counts_as_half():
    found = {key: replace(each, history={"val_loss": [1.0] * 4}) for key, each in ended(1).items()}
    np.testing.assert_allclose(seconds_left(PLAN, found, 1), 3.0 * 5.5, rtol=1e-9)


def test_nothing_is_left_at_the_end_and_nothing_is_said_of_an_unbounded_search():
    found = {}
    while missing := PLAN.missing(found):
        found[missing[0].key] = trained(missing[0])
    assert PLAN.most_left(found) == seconds_left(PLAN, found, 1) == 0.0
    endless = Plan(replace(DESIGN, max_runs=math.inf), PLAN.start)
    assert seconds_left(endless, ended(2), 1) is None
    assert seconds_left(PLAN, {}, 1) is None
