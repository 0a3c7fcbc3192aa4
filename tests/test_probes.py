"""The policy of the short confirmation, against laboratories made of formulas."""

import dataclasses
import json

import numpy as np
import pytest

from keras_lr.range_test.confirm import STRIDE, confirm
from keras_lr.range_test.rules import suggest
from keras_lr.range_test.suggestion import Confirmation, NoSuggestion

pytestmark = pytest.mark.once

RATES = np.geomspace(1e-7, 10, 100)


def curve(best=1e-2):
    """Falls around `best` and breaks two decades above."""
    x = np.log10(RATES / best)
    return 2.3 - 1.6 / (1 + np.exp(-3 * x)) + 0.02 * np.exp(6 * np.minimum(x - 2, 1.2))


class Lab:
    """Held-out loss as a formula of the rate; counts what it is asked for."""

    def __init__(self, loss, above=np.inf, ramp=None):
        self.loss, self.above, self.longer = loss, above, ramp
        self.trained, self.spent, self.ramps = [], 0, []

    def train(self, learning_rate, steps):
        self.trained.append(learning_rate)
        self.spent += steps
        return float("inf") if learning_rate > self.above else self.loss(learning_rate)

    def ramp(self, start_lr, end_lr, steps):
        self.ramps.append((start_lr, end_lr))
        self.spent += steps
        rates = np.geomspace(start_lr, end_lr, steps)
        return rates, self.longer(rates)


def bowl(best):
    return lambda rate: 0.5 + 0.3 * np.log10(rate / best) ** 2


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
def test_the_answer_moves_towards_the_best_rate_wherever_it_is(best):
    guess = suggest(RATES, curve()).learning_rate
    found = confirm(Lab(bowl(best)), RATES, curve())
    away = abs(np.log10(found.learning_rate / best))
    assert away < max(0.45, abs(np.log10(guess / best)) - 1.0)


def test_a_winner_at_the_edge_asks_for_one_more_beyond_it():
    lab = Lab(lambda rate: 1.0 - 0.1 * np.log10(rate))
    found = confirm(lab, RATES, curve())
    np.testing.assert_allclose(np.diff(np.log(lab.trained)), np.log(STRIDE), rtol=1e-9)
    assert any("higher rate" in note for note in found.warnings)


def test_a_winner_inside_is_refined_towards_its_better_neighbour():
    first = 2.0 * suggest(RATES, curve()).learning_rate
    lab = Lab(bowl(first * 1.5))
    confirm(lab, RATES, curve())
    expected = first * np.array([1.0, STRIDE, 1 / STRIDE, np.sqrt(STRIDE)])
    np.testing.assert_allclose(lab.trained, expected, rtol=1e-9)


def test_everything_diverging_goes_lower_until_something_trains():
    guess = suggest(RATES, curve()).learning_rate
    lab = Lab(bowl(guess / 1000), above=guess / 100)
    found = confirm(lab, RATES, curve())
    assert found.losses[0] == found.losses[1] == np.inf
    assert found.learning_rate <= guess / 100
    assert found.high <= min(
        r for r, y in zip(lab.trained, found.losses, strict=True) if y == np.inf
    )


def test_candidates_that_learnt_next_to_nothing_ask_for_lower_ones():
    # Above 2e-2 the network is dead: 2.2 is below the start, 2.3, and says nothing.
    lab = Lab(lambda rate: 2.2 - 1e-3 * rate if rate > 2e-2 else 1.0)
    found = confirm(lab, RATES, curve())
    assert lab.trained[0] > 2e-2 > lab.trained[1]
    assert found.learning_rate < 2e-2


def test_nothing_but_divergence_is_no_suggestion():
    found = confirm(Lab(bowl(1.0), above=0.0), RATES, curve())
    assert np.isnan(found.learning_rate) and found.warnings
    with pytest.raises(NoSuggestion, match="All 4 candidates diverged"):
        suggest(RATES, curve(), confirmation=found)


def test_nan_counts_as_divergence():
    found = confirm(Lab(lambda rate: float("nan")), RATES, curve())
    assert found.losses == [np.inf] * 4


def test_candidates_that_all_do_as_well_say_that_the_rate_matters_little():
    found = confirm(Lab(lambda rate: 0.5), RATES, curve())
    assert any("matters little" in note for note in found.warnings)
    assert found.high / found.low >= STRIDE
    middle = np.exp(np.mean(np.log(found.learning_rates)))
    np.testing.assert_allclose(found.learning_rate, middle, rtol=1e-9)


def test_candidates_above_the_starting_loss_say_that_none_helped():
    found = confirm(Lab(lambda rate: 5.0 + rate), RATES, curve())
    assert any("where it started" in note for note in found.warnings)
    assert found.low <= found.learning_rate <= found.high


@pytest.mark.parametrize("budget", [40, 41, 99, 100, 250, 400, 1000])
@pytest.mark.parametrize("flat", [False, True])
def test_the_budget_is_never_exceeded_and_the_cost_is_what_was_spent(budget, flat):
    lab = Lab(bowl(50.0), ramp=lambda rates: np.where(rates > 2000, 1e3, 2.3 - np.log10(rates)))
    losses = np.full(100, 2.3 - np.log10(10.0)) if flat else curve()
    try:
        found = confirm(lab, RATES, losses, budget=budget)
    except NoSuggestion:
        assert flat
    else:
        assert found.cost == lab.spent
    assert lab.spent <= budget


def test_a_curve_flat_to_its_end_is_followed_further_up():
    def longer(rates):
        x = np.log10(rates / 100.0)
        return 2.3 - 1.6 / (1 + np.exp(-4 * x)) + 0.02 * np.exp(6 * np.minimum(x - 1, 1.5))

    lab = Lab(bowl(100.0), ramp=longer)
    found = confirm(lab, RATES, np.full(100, 2.3))
    assert lab.ramps == [(pytest.approx(10.0), pytest.approx(1e4))]
    assert 20 < found.learning_rate < 500


def test_a_curve_that_is_nan_from_the_start_is_not_followed():
    lab = Lab(bowl(1.0))
    with pytest.raises(NoSuggestion):
        confirm(lab, RATES, np.full(100, np.nan))
    assert lab.spent == 0


def test_a_budget_below_40_is_refused():
    with pytest.raises(ValueError, match="at least 40 updates; got 39"):
        confirm(Lab(bowl(1.0)), RATES, curve(), budget=39)


def test_the_answer_is_the_middle_of_the_near_best_weighed_by_how_near():
    first = 2.0 * suggest(RATES, curve()).learning_rate
    start = np.median(curve()[:3])
    table = {0: 1.0, 1: 1.0 + 0.025 * (start - 1.0), 2: 3.0, 3: 3.0}
    order = iter(range(4))
    found = confirm(Lab(lambda rate: table[next(order)]), RATES, curve())
    # Weights 1 and 1/2 at the first candidate and one stride above it.
    np.testing.assert_allclose(found.learning_rate, first * STRIDE ** (1 / 3), rtol=1e-6)


def test_a_confirmation_survives_json():
    found = confirm(Lab(bowl(1e-3), above=1e-2), RATES, curve())
    text = json.dumps(dataclasses.asdict(found)).replace("Infinity", '"inf"')
    assert Confirmation(**json.loads(text)) == found
