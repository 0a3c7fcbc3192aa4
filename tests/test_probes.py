"""The choice of rates for short runs, and the answer from them, on runs made of formulas."""

import numpy as np
import pytest

from keras_lr.range_test.probes import Outcome, Prober, Probes, longest_run

pytestmark = pytest.mark.once


class Lab:
    """Held-out loss as a formula of log10 of the rate; records what it trains."""

    rows = 500

    def __init__(self, loss, above=np.inf, keeps=True, cost_of_a_cut=None):
        self.loss, self.above, self.keeps, self.cut = loss, above, keeps, cost_of_a_cut
        self.trained, self.costs = [], []

    def start(self):
        return 2.0

    def train(self, learning_rate, steps, ceiling, resume=None):
        assert ceiling == 6.0  # start + 2 |start|
        rate = np.log10(learning_rate)
        self.trained.append((round(float(rate), 6), steps, resume))
        if rate > self.above:
            self.costs.append(steps if self.cut is None else self.cut)
            return Outcome(np.inf, self.costs[-1])
        self.costs.append(steps)
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
    np.testing.assert_allclose(np.diff(tried(rising, -2.0, 500)), [0.75, 0.75, 1.0, 1.25])


def test_a_winner_at_the_other_edge_begins_with_one_gap():
    falling = Lab(lambda rate, steps: 1.5 + 0.1 * rate)
    assert tried(falling, -2.0, 150) == [-2.0, -1.25, -2.0 - 0.75]


def test_without_states_a_winner_inside_asks_for_the_middle_to_its_better_neighbour():
    # -2 beats -2.75; -1.25 loses, but less than -2.75.
    assert tried(Lab(bowl(-1.9), keeps=False), -2.75, 200) == [-2.75, -2.0, -1.25, -1.5]


def test_no_rate_is_left_where_all_neighbours_are_close():
    rates = np.sort(tried(Lab(bowl(-2.0), keeps=False), -2.0, 5000))
    best = int(np.argmin(np.abs(rates + 2.0)))
    assert len(rates) < 50
    assert np.all(np.diff(rates)[best - 1 : best + 1] < 0.5)


def test_everything_cut_off_asks_for_lower_rates():
    lab = Lab(bowl(-6), above=-5.0)
    assert tried(lab, -2.0, 150) == [-2.0, -2.75, -4.25]


def test_a_run_that_was_cut_off_costs_only_what_it_took():
    short = Lab(bowl(-6), above=-5.0, cost_of_a_cut=10)
    assert len(tried(short, -2.0, 150)) > 3
    whole = Lab(bowl(-6), above=-5.0)
    assert len(tried(whole, -2.0, 150)) == 3


@pytest.mark.parametrize("cost_of_a_cut", [None, 1])
@pytest.mark.parametrize("keeps", [True, False], ids=["states kept", "no states"])
@pytest.mark.parametrize("budget", [100, 199, 200, 299, 300, 399, 400, 499, 500, 900])
@pytest.mark.parametrize("best", [-6.0, -2.0, 2.0])
def test_the_budget_is_never_exceeded(budget, best, keeps, cost_of_a_cut):
    lab = Lab(bowl(best), above=best + 1, keeps=keeps, cost_of_a_cut=cost_of_a_cut)
    found = Prober(lab, -2.0, budget).run()
    assert found.cost == sum(lab.costs) <= budget
    longest = max(steps + (resume or 0) for _, steps, resume in lab.trained)
    assert longest <= longest_run(budget)


@pytest.mark.parametrize("planned", [20, 55, 100, 130, 200, 8000])
@pytest.mark.parametrize("best", [-6.0, -1.9, 2.0])
def test_no_run_is_longer_than_the_one_that_is_planned(planned, best):
    lab = Lab(bowl(best))
    found = Prober(lab, -2.0, 500, planned).run()
    longest = max(steps + (resume or 0) for _, steps, resume in lab.trained)
    assert longest <= max(50, planned)
    assert found.cost <= 500


def test_what_a_short_planned_run_leaves_of_the_budget_goes_to_rates_between():
    # Bracketed after three runs of 55; those that follow halve the gaps beside the best.
    lab = Lab(bowl(-1.9))
    found = Prober(lab, -2.0, 500, 55).run()
    assert rates_of(lab)[:3] == [-2.0, -1.25, -2.75]
    assert all(steps == 55 and resume is None for _, steps, resume in lab.trained)
    assert rates_of(lab)[3:] == [-1.5, -1.75, -2.5, -2.25]  # as without states
    assert found.cost == 7 * 55


def test_the_best_go_on_to_the_length_of_the_planned_run():
    lab = Lab(lambda rate, steps: 1.0 + (rate + 1.9) ** 2 - steps / 1000)
    found = Prober(lab, -2.0, 500, 130).run()
    assert [each[1:] for each in lab.trained] == [(100, None)] * 3 + [(30, 100)] * 2
    assert found.steps == [130, 130, 100]


def test_a_small_budget_trains_nothing():
    lab = Lab(bowl(-2))
    assert Prober(lab, -2.0, 99).run() is None
    assert not lab.trained and longest_run(99) == 0


def test_once_the_best_is_bracketed_the_best_two_go_on_from_their_states():
    lab = Lab(lambda rate, steps: 1.0 + (rate + 1.9) ** 2 - steps / 1000)
    found = Prober(lab, -2.0, 500).run()
    # -2 and -1.25 are tried, then -2.75 below the best; 200 updates are left.
    assert lab.trained == [
        *((-2.0, 100, None), (-1.25, 100, None), (-2.75, 100, None)),
        *((-2.0, 100, 100), (-1.25, 100, 100)),
    ]
    assert found.steps == [200, 200, 100] and found.cost == 500


def test_a_best_rate_at_the_edge_is_followed_before_anything_goes_on():
    lab = Lab(lambda rate, steps: 1.5 - 0.1 * rate)
    Prober(lab, -2.0, 500).run()
    assert all(resume is None for _, _, resume in lab.trained)


def test_without_states_the_budget_goes_to_further_rates():
    found = Prober(Lab(bowl(-2.0), keeps=False), -2.0, 500).run()
    assert len(set(found.steps)) == 1 and len(found.steps) > 3


def test_three_go_on_if_that_doubles_their_length():
    lab = Lab(lambda rate, steps: 1.0 + (rate + 1.9) ** 2 - steps / 1000)
    found = Prober(lab, -2.0, 300).run()
    assert [each[1:] for each in lab.trained] == [(50, None)] * 3 + [(50, 50)] * 3
    assert found.steps == [100] * 3


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
@pytest.mark.parametrize(("steps", "shift"), [(50, -0.125), (99, -0.125), (100, 0.0), (200, 0.0)])
def test_at_an_edge_the_answer_is_the_mean_of_the_rates_near_the_best(losses, steps, shift):
    rates = [1e-3, 1e-2, 3e-2]
    found = Probes(rates, losses, [steps] * 3, 2.0, 500, 300, centre=-2.0)
    expected = near_mean(np.log10(rates), losses, 2.0) + shift
    np.testing.assert_allclose(found.answer(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("lowest", "expected"),
    [
        (-2.1, -2.1),
        (-1.9, -1.9),
        (-2.0, -2.0),
        (-2.37, -2.37),
        (-2.4, -2.375),  # halfway to the rate below, at which the loss is as low
        (-1.72, -1.75),  # halfway to the rate above
    ],
)
@pytest.mark.parametrize(("steps", "shift"), [(50, -0.125), (100, 0.0)])
def test_between_two_others_the_answer_is_the_lowest_point_of_a_parabola(
    lowest, expected, steps, shift
):
    rates = np.array([-3.0, -2.75, -2.0, -1.5])
    curve = np.polynomial.Polynomial.fromroots([lowest, lowest]) * 0.3 + 0.5
    losses = curve(rates)
    losses[2] = min(losses[2], losses[[1, 3]].min() - 1e-9)
    order = [2, 3, 1, 0]  # as they were tried
    found = Probes(list(10 ** rates[order]), list(losses[order]), [steps] * 4, 9.0, 500, 400, -2.0)
    np.testing.assert_allclose(found.answer(), expected + shift, rtol=1e-5)


def test_where_all_losses_are_equal_all_rates_count_alike():
    found = Probes([1e-3, 1e-2, 1e-1], [0.5, 0.5, 0.5], [100] * 3, 2.0, 500, 300, centre=-2.0)
    np.testing.assert_allclose(found.answer(), -2.0, rtol=1e-12)


def test_only_the_longest_runs_are_compared():
    found = Probes([1e-3, 1e-2, 1e-1], [0.2, 0.5, 0.6], [100, 200, 200], 2.0, 500, 500, -2.0)
    expected = near_mean([-2.0, -1.0], [0.5, 0.6], 2.0)
    np.testing.assert_allclose(found.answer(), expected, rtol=1e-12)


def test_runs_that_were_cut_off_do_not_count():
    found = Probes([1e-3, 1e-2], [np.inf, 0.5], [100, 200], 2.0, 500, 200, -2.0)
    assert found.answer() == -2.0
    assert Probes([1e-3], [np.inf], [100], 2.0, 500, 20, -3.0).answer() is None


@pytest.mark.parametrize(
    ("losses", "centre", "expected"),
    [
        ([1.4, 1.9, 1.9], -2.0, -3.0),  # more than a quarter of the loss was lost
        ([1.6, 1.9, 1.9], -2.0, -1.5),  # half a decade above the usual rate
        ([1.9, 1.9, 1.6], -2.0, -1.0),  # the best rate is above that
        ([1.6, 1.9, np.inf], -2.0, -1.5),  # what was cut off is a whole decade above the centre
        ([1.6, 1.9, np.inf], -1.75, -1.75),  # it is three quarters of a decade above
        ([1.6, 1.9, 2.1], -1.75, -1.75),  # the same, where it only made the loss worse
        ([1.6, np.inf, 1.9], -2.0, -3.0),  # the centre itself was cut off
    ],
)
def test_on_the_first_plateau_the_answer_is_above_the_centre(losses, centre, expected):
    found = Probes([1e-3, 1e-2, 1e-1], losses, [100] * 3, 2.0, 500, 300, centre)
    np.testing.assert_allclose(found.answer(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("losses", "steps", "sentences"),
    [
        ([0.5, 0.3, 0.5], 100, []),
        ([0.5, 0.3, 0.9], 100, ["The answer is the lowest point of a parabola"]),
        ([0.3, 0.32, 0.9], 100, ["The answer is a mean with"]),
        ([0.5, 0.3, 0.5], 50, ["favour high rates, so the answer is 0.75 times as high"]),
        ([1.7, 1.9, 1.9], 100, ["No run left the first plateau", "at least 0.032"]),
    ],
)
def test_the_reason_says_each_thing_that_moved_the_answer(losses, steps, sentences):
    found = Probes([1e-3, 1e-2, 1e-1], losses, [steps] * 3, 2.0, 500, 3 * steps, centre=-2.0)
    best = [1e-3, 1e-2, 1e-1][int(np.argmin(losses))]
    first = f"Of 3 rates tried for {steps} updates, {best:.2g} had the lowest loss on 500 held-out"
    assert found.reason().startswith(first)
    assert found.reason().count(". ") == bool(sentences)
    assert all(each in found.reason() for each in sentences)


@pytest.mark.parametrize(
    ("losses", "start", "rows", "words"),
    [
        ([0.5, 0.4, 0.3], 2.0, 500, "The highest rate tried did best"),
        ([0.3, 0.4, 0.5], 2.0, 500, "The lowest rate tried did best"),
        ([2.5, 2.4, 2.5], 2.0, 500, "below its start"),
        ([0.4, 0.3, 0.5], 2.0, 66, "Only 66 held-out examples"),
    ],
)
def test_notes_tell_what_is_uncertain(losses, start, rows, words):
    found = Probes([1e-3, 1e-2, 1e-1], losses, [50] * 3, start, rows, 150, -3.0)
    assert any(words in note for note in found.notes())


def test_an_answer_between_the_rates_tried_has_no_notes():
    assert Probes([1e-3, 1e-2, 1e-1], [0.5, 0.4, 0.5], [50] * 3, 2.0, 500, 150, -2.0).notes() == []


@pytest.mark.parametrize(
    ("losses", "steps", "rows", "known", "expected"),
    [
        ([0.5, 0.4], 50, 500, True, (0.75, 0.75)),
        ([0.5, 0.4], 100, 500, True, (0.6, 0.6)),
        ([0.5, 0.4], 50, 500, False, (1.15, 1.15)),
        ([0.5, 0.4, 0.5], 50, 500, False, (0.85, 0.85)),
        ([0.5, 0.4, 0.5], 100, 500, False, (0.7, 0.7)),
        ([0.5, 0.4], 100, 149, True, (1.1, 0.85)),
        ([1.9, 1.8], 100, 500, True, (0.85, 0.85)),
    ],
)
def test_the_interval_is_as_wide_as_it_was_measured_to_be(losses, steps, rows, known, expected):
    rates = [1e-3, 1e-2, 1e-1][: len(losses)]
    found = Probes(rates, losses, [steps] * len(losses), 2.0, rows, 100, -2.0)
    np.testing.assert_allclose(found.half_widths(known), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 2.0], True),
        ([2.0 + 2e-7, 2.0 - 2e-7, 2.0], True),  # float32 rounds by as much
        ([2.0, 2.0 - 2e-5], False),
        ([2.0, 2.1], False),
        ([2.0, np.inf], False),
        ([2.0], False),
    ],
)
def test_runs_that_end_where_they_began_trained_nothing(losses, expected):
    count = len(losses)
    rates = [1e-3, 1e-2, 1e-1][:count]
    assert Probes(rates, losses, [50] * count, 2.0, 500, 150, -3.0).unmoved is expected
