"""The choice of rates for short runs, and the answer from them, on runs made of formulas."""

import numpy as np
import pytest

from keras_lr.range_test.probes import Outcome, Plan, Prober, Probes, longest_run, plan_for

pytestmark = pytest.mark.once


class Lab:
    """Held-out loss as a formula of log10 of the rate; records what it trains."""

    rows = 500

    def __init__(self, loss, above=np.inf, keeps=True, cost_of_a_cut=None):
        self.loss, self.above, self.keeps, self.cut = loss, above, keeps, cost_of_a_cut
        self.trained = []

    def start(self):
        return 2.0

    def train(self, learning_rate, steps, ceiling, resume=None):
        assert ceiling == 6.0  # start + 2 |start|
        rate = np.log10(learning_rate)
        self.trained.append((round(float(rate), 6), steps, resume))
        if rate > self.above:
            return Outcome(np.inf, steps if self.cut is None else self.cut)
        done = steps + (resume or 0)
        return Outcome(float(self.loss(rate, done)), steps, done if self.keeps else None)


def bowl(best):
    return lambda rate, steps: 0.5 + 0.3 * (rate - best) ** 2


def rates_of(lab):
    return [rate for rate, _, _ in lab.trained]


def tried(lab, centre, budget):
    Prober(lab, centre, budget).run()
    return rates_of(lab)


def test_the_first_rate_is_the_centre_on_the_grid_and_the_second_one_gap_above():
    assert tried(Lab(bowl(-2)), -2.2, 100) == [-2.25, -1.5]


def test_beyond_a_winner_at_an_edge_the_gap_widens():
    rising = Lab(lambda rate, steps: 1.5 - 0.1 * rate)
    prober = Prober(rising, -2.0, 10_000)
    prober.begin = 2.0
    plan = Plan(100, 0.75)
    for _ in range(5):
        prober._train(prober._next(plan.gap), plan.steps)
    np.testing.assert_allclose(np.diff(rates_of(rising)), [0.75, 0.75, 1.0, 1.25])


def test_a_winner_at_the_other_edge_begins_with_one_gap():
    falling = Lab(lambda rate, steps: 1.5 + 0.1 * rate)
    assert tried(falling, -2.0, 300) == [-2.0, -1.25, -2.75]


def test_a_winner_inside_asks_for_the_middle_to_its_better_neighbour():
    lab = Lab(bowl(-1.9))
    prober = Prober(lab, -2.75, 10_000)
    prober.begin = 2.0
    for _ in range(4):
        prober._train(prober._next(0.75), 100)
    # -2 beats -2.75; beyond it -1.25 loses; the better neighbour of -2 is -1.25 (.65 against .85).
    assert rates_of(lab)[:3] == [-2.75, -2.0, -1.25]
    assert rates_of(lab)[3] in (-1.5, -1.75)


def test_no_rate_is_left_where_all_neighbours_are_close():
    lab = Lab(bowl(-2.0))
    prober = Prober(lab, -2.0, 10_000)
    prober.begin = 2.0
    for _ in range(20):
        rate = prober._next(0.75)
        if rate is None:
            break
        prober._train(rate, 100)
    rates = np.sort(rates_of(lab))
    best = np.argmin(np.abs(rates + 2.0))
    assert rate is None
    assert np.all(np.diff(rates)[best - 1 : best + 1] < 0.5)


def test_everything_cut_off_asks_for_lower_rates():
    lab = Lab(bowl(-6), above=-5.0)
    assert tried(lab, -2.0, 300) == [-2.0, -2.75, -4.25]


def test_a_run_that_was_cut_off_costs_only_what_it_took():
    short = Lab(bowl(-6), above=-5.0, cost_of_a_cut=10)
    assert len(tried(short, -2.0, 300)) > 3
    whole = Lab(bowl(-6), above=-5.0)
    assert len(tried(whole, -2.0, 300)) == 3


@pytest.mark.parametrize("keeps", [True, False], ids=["states kept", "no states"])
@pytest.mark.parametrize("budget", [100, 199, 200, 299, 300, 399, 400, 499, 500, 900])
@pytest.mark.parametrize("best", [-6.0, -2.0, 2.0])
def test_the_budget_is_never_exceeded(budget, best, keeps):
    lab = Lab(bowl(best), above=best + 1, keeps=keeps)
    found = Prober(lab, -2.0, budget).run()
    spent = sum(steps for _, steps, _ in lab.trained)
    assert found.cost == spent <= budget
    assert max(steps + (resume or 0) for _, steps, resume in lab.trained) <= longest_run(budget)


def test_a_small_budget_trains_nothing():
    lab = Lab(bowl(-2))
    assert Prober(lab, -2.0, 99).run() is None
    assert not lab.trained and plan_for(99) is None and longest_run(99) == 0


def test_the_best_two_go_on_from_their_states():
    lab = Lab(lambda rate, steps: 1.0 + (rate + 2.0) ** 2 - steps / 1000)
    found = Prober(lab, -2.0, 500).run()
    plan = plan_for(500)
    resumed = [(rate, steps) for rate, steps, resume in lab.trained if resume]
    assert len(resumed) == plan.finalists == 2
    assert {steps for _, steps in resumed} == {plan.longer - plan.steps}
    assert sorted(found.steps) == [*[plan.steps] * (len(found.steps) - 2), *[plan.longer] * 2]
    assert -2.0 in [rate for rate, _ in resumed]


def test_without_states_runs_of_one_length_are_compared():
    found = Prober(Lab(bowl(-2.0), keeps=False), -2.0, 500).run()
    assert len(set(found.steps)) == 1


def test_going_on_shares_the_budget_and_starts_from_the_states():
    lab = Lab(bowl(-2.0))
    prober = Prober(lab, -2.0, 100)
    prober.run()
    prober.go_on(60)
    assert [each[1:] for each in lab.trained[2:]] == [(30, 50), (30, 50)]
    assert prober.probes().steps == [80, 80] and prober.probes().cost == 160


# The answer


def near_mean(rates, losses, start):
    """Of the issue: weight = max(0, 1 - (loss - best) / (.05 (start - best)))."""
    best = min(losses)
    weights = [max(0.0, 1 - (loss - best) / (0.05 * (start - best))) for loss in losses]
    return sum(w * x for w, x in zip(weights, rates, strict=True)) / sum(weights)


@pytest.mark.parametrize("losses", [[0.5, 0.9, 0.4], [0.41, 0.405, 0.4], [0.46, 0.47, 0.4]])
def test_the_answer_is_the_mean_of_the_rates_near_the_best(losses):
    rates = [1e-3, 1e-2, 3e-2]
    found = Probes(rates, losses, [100] * 3, 2.0, 500, 300)
    expected = near_mean(np.log10(rates), losses, 2.0)
    np.testing.assert_allclose(found.answer(), expected, rtol=1e-12)
    shifted = Probes(rates, losses, [100] * 3, 2.0, 500, 300, shift=-0.125)
    np.testing.assert_allclose(shifted.answer(), expected - 0.125, rtol=1e-12)


def test_only_the_longest_runs_are_compared():
    found = Probes([1e-3, 1e-2, 1e-1], [0.2, 0.5, 0.6], [100, 200, 200], 2.0, 500, 500)
    expected = near_mean([-2.0, -1.0], [0.5, 0.6], 2.0)
    np.testing.assert_allclose(found.answer(), expected, rtol=1e-12)


def test_runs_that_were_cut_off_do_not_count():
    found = Probes([1e-3, 1e-2], [np.inf, 0.5], [100, 200], 2.0, 500, 200)
    assert found.answer() == -2.0
    assert Probes([1e-3], [np.inf], [100], 2.0, 500, 20).answer() is None


@pytest.mark.parametrize(
    ("losses", "start", "rows", "words"),
    [
        ([0.5, 0.4], 2.0, 500, "The highest rate tried did best"),
        ([0.4, 0.5], 2.0, 500, "The lowest rate tried did best"),
        ([2.5, 2.4], 2.0, 500, "below its start"),
        ([0.4, 0.5], 2.0, 66, "Only 66 held-out examples"),
    ],
)
def test_notes_tell_what_is_uncertain(losses, start, rows, words):
    found = Probes([1e-3, 1e-2], losses, [50, 50], start, rows, 100)
    assert any(words in note for note in found.notes())


def test_an_answer_between_the_rates_tried_has_no_notes():
    assert Probes([1e-3, 1e-2, 1e-1], [0.5, 0.4, 0.5], [50] * 3, 2.0, 500, 150).notes() == []
