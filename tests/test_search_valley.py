"""The parabola through the runs of a search: its minimum, its interval, what a rate costs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from keras_lr.rate_search.plan import Design, Job, Outcome, Plan, Setting, Start
from keras_lr.rate_search.valley import Valley

pytestmark = pytest.mark.once

BASE = Setting(1.0, batch_size=32)


def fitted_rate(runs, best, maximize):
    found = Valley.through(runs, best, maximize)
    return best if found is None else found.rate


def trained(rates, costs, levels=None, ended="finished"):
    """Runs at these rates; `levels` are shares of the data and seeds, by default one for all."""
    levels = levels or [(1.0, 0)] * len(rates)
    return [
        Outcome(Job("fine", replace(BASE, learning_rate=rate), seed, fraction, 3), ended, cost)
        for rate, cost, (fraction, seed) in zip(rates, costs, levels, strict=True)
    ]


@pytest.mark.parametrize("maximize", [False, True])
def test_the_fit_is_a_weighted_parabola_over_decades(maximize):
    draw = np.random.default_rng(0)
    u = np.linspace(-1.0, 1.0, 9)
    cost = 2.0 * (u - 0.1) ** 2 + 0.1 * draw.normal(size=9)
    # `polyfit` squares its weights.
    bend, slope, _ = np.polyfit(u, cost, 2, w=np.sqrt(np.exp(-0.5 * (u / 0.5) ** 2)))
    values = -cost if maximize else np.exp(cost)
    found = fitted_rate(trained(1e-3 * 10**u, values), 1e-3, maximize)
    np.testing.assert_allclose(found, 1e-3 * 10 ** (-slope / (2 * bend)), rtol=1e-5, atol=0)
    plain, straight, _ = np.polyfit(u, cost, 2)
    assert abs(straight / (2 * plain) - slope / (2 * bend)) > 1e-3  # the weights count


def noisy(seed, deviation):
    """Decades, costs, and their weighted parabola by `polyfit` with its covariance."""
    draw = np.random.default_rng(seed)
    u = np.linspace(-1.0, 1.0, 9)
    cost = 2.0 * (u - 0.1) ** 2 + deviation * draw.normal(size=9)
    weights = np.sqrt(np.exp(-0.5 * (u / 0.5) ** 2))
    return u, cost, *np.polyfit(u, cost, 2, w=weights, cov=True)


def test_each_share_of_the_data_and_seed_has_a_level_of_its_own():
    u = np.array([-1.0, 0.0, 1.0, -0.5, 0.0, 0.5, 0.0, 0.5, 0.25])
    levels = [(0.25, 0)] * 3 + [(1.0, 0)] * 3 + [(1.0, 1)] * 2 + [(0.5, 0)]
    height = {(0.25, 0): 3.0, (1.0, 0): 0.0, (1.0, 1): -1.0, (0.5, 0): 9.0}
    cost = [height[level] + 0.7 * (each - 0.2) ** 2 for each, level in zip(u, levels, strict=True)]
    found = fitted_rate(trained(1e-2 * 10**u, np.exp(cost), levels), 1e-2, False)
    np.testing.assert_allclose(found, 1e-2 * 10**0.2, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "decades, minimum, expected",
    [
        ([-1.0, -0.5, 0.0, 0.5, 1.0], 0.6, 0.35),
        ([-1.0, -0.5, 0.0, 0.5, 1.0], -0.6, -0.35),
        ([-0.2, -0.1, 0.0, 0.1], 0.3, 0.1),  # the highest rate tried
        ([0.0, 0.5], 0.2, 0.0),  # two rates are no parabola
    ],
)
def test_the_fit_goes_no_further_than_the_runs_tell(decades, minimum, expected):
    u = np.array(decades)
    runs = trained(1e-2 * 10**u, np.exp((u - minimum) ** 2))
    found = fitted_rate(runs, 1e-2, False)
    np.testing.assert_allclose(found, 1e-2 * 10**expected, rtol=1e-5, atol=0)


def test_without_a_valley_the_fit_is_the_best_rate_tried():
    u = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert fitted_rate(trained(1e-2 * 10**u, np.exp(-(u**2) + u)), 1e-2, False) == 1e-2
    assert fitted_rate(trained([1e-2, 1e-1], [math.nan] * 2, None, "diverged"), 1e-2, False) == 1e-2


def test_the_fit_stays_below_a_rate_that_diverged_with_any_seed():
    u = np.array([-0.5, -0.25, 0.0, 0.1, 0.2, 0.5])
    runs = trained(1e-2 * 10**u, np.exp((u - 0.3) ** 2))
    shaky = trained([runs[4].job.setting.learning_rate], [math.nan], [(1.0, 1)], "diverged")
    found = fitted_rate([*runs, *shaky], 1e-2, False)
    np.testing.assert_allclose(found, 1e-2 * 10**0.1, rtol=1e-5, atol=0)


def test_a_loss_of_0_is_not_refined():
    runs = trained([1e-3, 3e-3, 1e-2, 3e-2], [0.2, 0.0, 0.1, 0.5])
    assert Valley.through(runs, 3e-3, False) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_range_test_counts_as_one_more_measurement(seed):
    """Weights are inverses of variances: of the minimum by the delta method, and 0.35^2."""
    u, cost, (bend, slope, _), covariance = noisy(seed, 0.2)
    gradient = [slope / (2 * bend**2), -1 / (2 * bend), 0.0]  # of -slope / (2 bend)
    precisions = [1 / (gradient @ covariance @ gradient), 1 / 0.35**2]
    expected = np.average([-slope / (2 * bend), 0.3], weights=precisions)
    found = Valley.through(trained(1e-2 * 10**u, np.exp(cost)), 1e-2, False, 1e-2 * 10**0.3)
    np.testing.assert_allclose(found.rate, 1e-2 * 10**expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("suggestion, expected", [(5.3e-2, 3e-1 * 10**-0.35), (2.5e-1, 2.5e-1)])
def test_at_the_edge_of_divergence_the_range_test_leads_away(suggestion, expected):
    """Losses of a small network on `load_breast_cancer`: the lower, the nearer to divergence."""
    rates = [5.3e-3, 1.7e-2, 5.3e-2, 1.7e-1, 3e-1]
    losses = [0.0640, 0.0244, 0.0178, 0.0097, 0.0043]
    runs = [*trained(rates, losses), *trained([5.3e-1], [math.nan], None, "diverged")]
    assert Valley.through(runs, 3e-1, False).rate == 3e-1
    found = Valley.through(runs, 3e-1, False, suggestion)
    np.testing.assert_allclose(found.rate, expected, rtol=1e-5, atol=0)


def test_a_wrong_range_test_hardly_moves_what_the_runs_tell():
    u = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
    noise = 0.01 * np.array([1, -1, 1, -1, 1, -1])
    runs = trained(1e-2 * 10**u, np.exp((u - 0.1) ** 2 + noise))
    for expected in (1e-3, 1e-1):
        found = Valley.through(runs, 1e-2, False, expected)
        assert abs(math.log10(found.rate / 1e-2) - 0.1) < 0.02


# The interval


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_is_fiellers_for_the_minimum(seed):
    u, cost, (bend, slope, _), covariance = noisy(seed, 0.1)
    t2 = stats.t.ppf(0.975, 9 - 3) ** 2
    # (b + 2 a u)^2 = t^2 (V_b + 4 u V_ab + 4 u^2 V_a), a quadratic equation in u.
    ends = np.roots(
        [
            4 * (bend**2 - t2 * covariance[0, 0]),
            4 * (bend * slope - t2 * covariance[0, 1]),
            slope**2 - t2 * covariance[1, 1],
        ]
    )
    low, high = Valley.through(trained(1e-2 * 10**u, np.exp(cost)), 1e-2, False).interval()
    # Ends lie on a grid of a thousandth of a decade, and the quantile is an expansion.
    np.testing.assert_allclose(np.log10([low / 1e-2, high / 1e-2]), sorted(ends), atol=3e-3)


@pytest.mark.parametrize("seed", [2, 3])  # the noise bends it upwards, and downwards
def test_a_flat_curve_has_all_rates_in_its_interval(seed):
    u = np.linspace(-1.0, 1.0, 9)
    cost = 1e-3 * u**2 + 0.1 * np.random.default_rng(seed).normal(size=9)
    found = Valley.through(trained(1e-2 * 10**u, np.exp(cost)), 1e-2, False)
    np.testing.assert_allclose(found.interval(), [1e-3, 1e-1], rtol=1e-5, atol=0)


def test_as_many_runs_as_coefficients_have_no_interval():
    runs = trained([1e-3, 1e-2, 1e-1], [2.0, 1.0, 3.0])
    assert Valley.through(runs, 1e-2, False).interval() is None


# What a rate costs


@pytest.mark.parametrize("maximize", [False, True])
def test_a_rate_costs_what_the_curve_says(maximize):
    u = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    cost = 0.7 * (u - 0.2) ** 2
    found = Valley.through(
        trained(1e-2 * 10**u, 0.9 - cost if maximize else 0.5 * np.exp(cost)), 1e-2, maximize
    )
    three = 0.7 * math.log10(3) ** 2
    expected = three if maximize else 0.5 * (math.exp(three) - 1)
    for rate in (found.rate * 3, found.rate / 3):
        np.testing.assert_allclose(found.excess(rate, 0.5), expected, rtol=1e-5, atol=0)
    assert found.excess(found.rate, 0.5) == pytest.approx(0.0, abs=1e-12)


def test_a_rate_from_the_first_that_diverged_on_costs_everything():
    u = np.array([-1.0, -0.5, 0.0, 0.25])
    runs = trained(1e-2 * 10**u, np.exp(u**2))
    shaky = trained([2.5e-2], [math.nan], None, "diverged")
    found = Valley.through([*runs, *shaky], 1e-2, False)
    assert found.excess(2.5e-2, 0.5) == found.excess(3e-2, 0.5) == math.inf
    assert found.excess(2e-2, 0.5) < 0.1


@pytest.mark.parametrize("maximize", [False, True])
def test_sensitivity_is_the_mean_over_three_decades_of_losses_that_start_bounds(maximize):
    """Wortsman et al. 2023: the mean of min(loss, loss at the start) minus the best loss."""
    u = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    centre, bend, value, start = 0.1, 0.4, 0.5, 1.3
    costs = bend * (u - centre) ** 2
    values = 0.9 - costs if maximize else value * np.exp(costs)
    runs = [
        *trained(1e-2 * 10**u, values),
        *trained([1e-2 * 10**1.2], [math.nan], None, "diverged"),
    ]
    found = Valley.through(runs, 1e-2, maximize)
    rates = np.linspace(centre - 1.5, centre + 1.5, 20001)
    valley = bend * (rates - centre) ** 2
    if maximize:
        value, start = 0.9, 0.2
        losses = np.where(rates >= 1.2, math.inf, valley)
    else:
        losses = np.where(rates >= 1.2, math.inf, value * np.expm1(valley))
    wanted = np.minimum(losses, abs(start - value)).mean()
    # Both means are over a grid: that of the package has 2,001 rates.
    np.testing.assert_allclose(found.mean_excess(value, start), wanted, rtol=2e-3, atol=0)
    assert math.isnan(found.mean_excess(value, math.nan))


def ended(plan):
    """The outcomes of all jobs; the best rate is 1e-2, with a loss of 1 or a metric of 0.9."""
    found = {}
    while missing := plan.missing(found):
        for job in missing:
            valley = math.log10(job.setting.learning_rate / 1e-2) ** 2
            value = 0.9 - valley if plan.design.maximize else math.exp(valley)
            found[job.key] = Outcome(job, "finished", value)
    return found


def test_an_answer_has_the_cost_of_its_ends_and_of_a_factor_of_3():
    design = Design(2, 5, 1.0, 3, 1, False, 0, {}, BASE)
    plan = Plan(design, Start(1e-5, 1.0, 1e-2, tested=True))
    answer = plan.answer(ended(plan), 3.0)
    assert answer.setting.learning_rate == 1e-2 and answer.mean == 1.0
    three = math.expm1(math.log10(3) ** 2)
    np.testing.assert_allclose(answer.sensitivity, [three, three], rtol=1e-5, atol=0)
    u = np.linspace(-1.5, 1.5, 20001)
    mean = np.minimum(np.expm1(u**2), 2.0).mean()
    np.testing.assert_allclose(answer.lr_sensitivity, mean, rtol=2e-3, atol=0)
    ends = [math.expm1(math.log10(end / 1e-2) ** 2) for end in (answer.low, answer.high)]
    np.testing.assert_allclose(answer.regret, ends, rtol=1e-5, atol=0)


@pytest.mark.parametrize("maximize", [False, True])
def test_a_lower_rate_costs_at_most_what_no_training_costs(maximize):
    """The parabola says more for a third of the rate than training gains."""
    design = Design(2, 5, 1.0, 3, 1, maximize, 0, {}, BASE)
    plan = Plan(design, Start(1e-4, 1.0, 1e-2, firm=True))
    found = ended(plan)
    untrained = 0.8 if maximize else 1.1
    answer = plan.answer(found, untrained)
    most = abs(untrained - answer.mean)
    three = math.log10(3) ** 2 if maximize else math.expm1(math.log10(3) ** 2)
    np.testing.assert_allclose(answer.sensitivity, [most, three], rtol=1e-5, atol=0)
    assert most < three
    assert answer.regret[0] <= most


@pytest.mark.parametrize(("maximize", "untrained"), [(False, 0.5), (True, 0.95)])
def test_an_answer_that_is_worse_than_no_training_says_it(maximize, untrained):
    design = Design(1, 3, 1.0, 3, 1, maximize, 0, {}, BASE)
    plan = Plan(design, Start(1e-4, 1.0, 1e-2, firm=True))
    found = ended(plan)
    said = f"The objective was {untrained} before training, which is better than"
    assert said in " ".join(plan.answer(found, untrained).warnings)
    for other in (math.nan, 0.2 if maximize else 2.0):
        assert "before training" not in " ".join(plan.answer(found, other).warnings)
