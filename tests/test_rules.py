"""The suggestion rules: ours, those of other libraries, and Smith's bounds."""

import importlib
import warnings

import numpy as np
import pytest

from keras_lr.range_test import rules
from keras_lr.range_test.bounds import bounds
from keras_lr.range_test.rules import METHODS, suggest
from keras_lr.range_test.smoothing import BANDWIDTH, read_curve, smooth
from keras_lr.range_test.suggestion import NoSuggestion

pytestmark = pytest.mark.once

PEERS = [name for name in METHODS if name not in ("auto", "curve")]


def golden():
    """A falling sigmoid in log10 lr, then a blow-up; steepest at 3.02e-3."""
    rates = 1e-7 * 1e8 ** (np.arange(100) / 100)
    x = np.log10(rates)
    losses = 2.3 - 1.6 / (1 + np.exp(-3 * (x + 2.5)))
    return rates, losses + 0.02 * np.exp(6 * np.minimum(x + 0.2, 1.2))


def noisy(seed, sd=0.05):
    rates, losses = golden()
    return rates, losses + np.random.default_rng(seed).normal(0, sd, len(rates))


def average(losses, beta=0.98):
    """Bias-corrected moving average as one matrix product."""
    n = len(losses)
    weights = np.tril(beta ** np.maximum(np.subtract.outer(np.arange(n), np.arange(n)), 0))
    return weights @ losses * (1 - beta) / (1 - beta ** np.arange(1, n + 1))


def torch_average(losses):
    smoothed = np.array(losses, dtype=float)
    for i in range(1, len(smoothed)):
        smoothed[i] = 0.05 * smoothed[i] + 0.95 * smoothed[i - 1]
    return smoothed


def real(module, name):
    """A function or class of another library, or a skipped test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(module.split(".")[0], exc_type=ImportError)
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            pytest.skip(str(error))


# The smoother


def slope(rates, losses):
    """The change of the smoothed loss per unit of ln lr."""
    return read_curve(rates, losses, BANDWIDTH).slope


@pytest.mark.parametrize("spacing", ["exponential", "linear"])
def test_the_smoother_keeps_a_straight_line_in_ln_lr_as_it_is(spacing):
    rates = np.geomspace(1e-5, 1, 60) if spacing == "exponential" else np.linspace(0.01, 1, 60)
    line = 3.0 - 0.2 * np.log(rates)
    np.testing.assert_allclose(smooth(rates, line), line, rtol=1e-9)
    np.testing.assert_allclose(slope(rates, line), -0.2, rtol=1e-6)


def test_the_smoother_passes_a_spike_by():
    rates, losses = golden()
    spiked = losses.copy()
    spiked[40] += 20.0
    np.testing.assert_allclose(smooth(rates, spiked)[:70], smooth(rates, losses)[:70], atol=0.02)


def test_the_smoother_gives_nan_from_the_first_loss_that_is_not_finite():
    rates, losses = golden()
    losses[80] = np.inf
    smoothed = smooth(rates, losses)
    assert np.isfinite(smoothed[:80]).all() and np.isnan(smoothed[80:]).all()
    assert np.isnan(smooth(rates, np.full(100, np.nan))).all()


def test_the_steepest_point_of_the_golden_curve_is_found_without_lag():
    rates, losses = golden()
    found = rates[np.argmin(slope(rates, losses))]
    assert 1 / 1.3 <= found / 3.02e-3 <= 1.3


def test_the_steepest_point_is_found_under_noise_in_the_median_of_200_seeds():
    found = []
    for seed in range(200):
        rates, losses = noisy(seed)
        found.append(rates[np.argmin(slope(rates, losses))])
    assert 1 / 1.3 <= np.median(found) / 3.02e-3 <= 1.3


# Our rule


def test_the_answer_lies_between_the_steepest_point_and_the_minimum_of_the_golden_curve():
    found = suggest(*golden())
    assert 3.02e-3 < found.learning_rate < 0.302
    assert found.low <= found.learning_rate <= found.high


def test_the_answer_hardly_moves_with_the_noise():
    answers = [suggest(*noisy(seed)).learning_rate for seed in range(50)]
    assert np.quantile(answers, 0.9) / np.quantile(answers, 0.1) < 3


@pytest.mark.parametrize("shift, scale", [(-2.3, 1.0), (-1000.0, 1.0), (0.0, 1e30), (0.0, 1e-30)])
def test_the_answer_does_not_depend_on_where_zero_is_or_on_the_unit(shift, scale):
    rates, losses = golden()
    moved = suggest(rates, (losses + shift) * scale).learning_rate
    np.testing.assert_allclose(moved, suggest(rates, losses).learning_rate, rtol=0.02)


def test_a_curve_moved_to_higher_rates_moves_the_answer_as_much():
    rates, losses = golden()
    moved = suggest(rates * 37, losses).learning_rate
    np.testing.assert_allclose(moved, 37 * suggest(rates, losses).learning_rate, rtol=1e-6)


def test_one_spike_hardly_moves_the_answer():
    rates, losses = noisy(0, 0.02)
    plain = suggest(rates, losses).learning_rate
    for place in range(5, 75, 7):
        spiked = losses.copy()
        spiked[place] += 30.0
        assert 1 / 1.5 < suggest(rates, spiked).learning_rate / plain < 1.5


def test_a_low_loss_after_a_blow_up_is_no_minimum():
    rates, losses = golden()
    plain = suggest(rates, losses).learning_rate
    dead = losses.copy()
    dead[losses.argmin() + 12 :] = 0.1  # as if every unit had died at a low constant
    dead[losses.argmin() + 4 : losses.argmin() + 12] = 50.0
    assert 1 / 3 < suggest(rates, dead).learning_rate / plain < 3


def test_a_few_uneven_batches_before_the_fall_are_no_blow_up():
    rates, losses = noisy(0, 0.005)
    plain = suggest(rates, losses).learning_rate
    uneven = losses.copy()
    uneven[20:24] += [0.1, 0.3, 0.1, 0.1]
    assert 1 / 1.2 < suggest(rates, uneven).learning_rate / plain < 1.2


def test_what_follows_a_loss_that_is_not_finite_is_left_out():
    rates, losses = golden()
    broken = losses.copy()
    broken[90] = np.nan
    kept = suggest(rates[:90], losses[:90]).learning_rate
    np.testing.assert_allclose(suggest(rates, broken).learning_rate, kept, rtol=0.05)


def test_a_curve_that_never_diverged_gets_an_answer_a_warning_and_the_end_as_upper_limit():
    rates, losses = golden()
    found = suggest(rates[:70], losses[:70])
    assert found.high >= rates[69]
    assert any("raise end_lr" in note for note in found.warnings)


def test_landmarks_more_than_a_decade_off_their_usual_places_give_a_warning_and_a_wide_interval():
    found = suggest(*golden())  # falls early, diverges late: three decades of good rates
    assert any("more than a decade" in note for note in found.warnings)
    assert found.high / found.low > 10


def test_repeats_give_the_middle_of_their_answers_and_an_interval_that_holds_them():
    rates, _ = golden()
    rows = np.array([noisy(seed)[1] for seed in range(5)])
    singles = [suggest(rates, row) for row in rows]
    together = suggest(rates, rows)
    middle = np.median([one.learning_rate for one in singles])
    np.testing.assert_allclose(together.learning_rate, middle, rtol=1e-9)
    assert together.low <= min(one.learning_rate for one in singles)
    assert together.high >= max(one.learning_rate for one in singles)


def test_a_repeat_without_an_answer_is_named_and_the_others_decide():
    rates, losses = golden()
    rows = np.array([losses, np.full(100, np.nan)])
    found = suggest(rates, rows)
    np.testing.assert_allclose(found.learning_rate, suggest(rates, losses).learning_rate)
    assert any("1 of 2 repeats" in note for note in found.warnings)


def test_the_held_out_curve_counts_like_that_of_the_batches():
    rates, losses = golden()
    held_out = {"learning_rates": rates * 4, "loss": losses}
    found = suggest(rates, losses, validation=held_out).learning_rate
    np.testing.assert_allclose(found, 2 * suggest(rates, losses).learning_rate, rtol=1e-9)


# No answer


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e30])
def test_a_constant_loss_supports_no_answer(value):
    with pytest.raises(NoSuggestion, match="flat"):
        suggest(golden()[0], np.full(100, value))


def test_pure_noise_supports_no_answer_in_nineteen_of_twenty_cases():
    rates = golden()[0]
    answers = 0
    for seed in range(100):
        try:
            suggest(rates, 1 + 0.1 * np.random.default_rng(seed).normal(size=100))
            answers += 1
        except NoSuggestion:
            pass
    assert answers <= 5


def test_a_loss_that_only_rises_supports_no_answer():
    with pytest.raises(NoSuggestion, match="start_lr"):
        suggest(golden()[0], np.linspace(1.0, 5.0, 100))


def test_a_curve_that_breaks_without_having_fallen_is_answered_well_below_the_break():
    rates = golden()[0]
    losses = np.ones(100)
    losses[80:] = np.geomspace(1.2, 50, 20)
    found = suggest(rates, losses)
    assert rates[80] / 100 < found.learning_rate < rates[80] / 5
    assert found.low <= found.learning_rate <= found.high and found.warnings


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_nan_from_the_start_is_refused_by_every_rule(method):
    with pytest.raises(NoSuggestion):
        suggest(golden()[0], np.full(100, np.nan), method)


def test_too_few_points_says_how_many_are_needed():
    with pytest.raises(NoSuggestion, match="At least 8 finite losses are needed; got 5"):
        suggest(*(part[:5] for part in golden()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 9, 12, 16, 17, 20, 25, 30])
def test_a_short_or_odd_curve_gives_an_answer_or_a_reason(method, count):
    rates = np.geomspace(1e-6, 1, count) if count > 1 else np.array([1e-3])
    rng = np.random.default_rng(count)
    fall = np.linspace(2, 1, count)
    tail = fall.copy()
    tail[count // 2 :] = np.nan
    for losses in (
        fall,
        fall[::-1],
        np.zeros(count),
        tail,
        fall - 5,
        -np.exp(fall * 50),
        np.exp(fall * 300),
        rng.normal(size=count),
        rng.normal(size=(3, count)),
    ):
        try:
            found = suggest(rates, losses, method)
        except NoSuggestion as error:
            assert ". " in str(error)  # the reason, then the way out
        else:
            assert 0 < found.low <= found.learning_rate <= found.high < np.inf


def test_an_unknown_method_is_refused_with_the_list():
    with pytest.raises(ValueError, match="no method 'vally'; the methods are: auto, curve, valley"):
        suggest(*golden(), "vally")


@pytest.mark.parametrize("shape", [(99,), (2, 99), (1, 1, 100), ()])
def test_losses_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match="one loss for each of the 100"):
        suggest(golden()[0], np.ones(shape))


def test_rates_must_increase():
    rates, losses = golden()
    with pytest.raises(ValueError, match="increasing"):
        suggest(rates[::-1], losses)


# The rules of other libraries, on the golden curve as recorded from their own code:
# fastai 2.8, pytorch-lr-finder 0.2.2, ignite 0.5.5, Lightning 2.6 (on an average that is
# corrected for its start), ktrain 0.41.4


@pytest.mark.parametrize(
    "method, recorded",
    [
        ("valley", 8.3e-4),
        ("slide", 9.1e-3),
        ("minimum", 2.3e-1),
        ("steep", 1.3e-2),
        ("torch_lr_finder", 1.1e-2),
        ("ignite", 1.1e-2),
        ("lightning", 8.3e-4),
        ("ktrain", 4.4e-5),
    ],
)
def test_a_peers_rule_gives_what_the_peer_gives_on_the_golden_curve(method, recorded):
    found = suggest(*golden(), method)
    np.testing.assert_allclose(found.learning_rate, recorded, rtol=0.02)
    assert found.method == method


@pytest.mark.parametrize(
    "method, recorded",
    [
        ("valley", 0.009120108393559097),
        ("slide", 0.007585775750291836),
        ("minimum", 0.2290867652767775),
        ("steep", 0.01096478196143185),
    ],
)
def test_a_fastai_rule_gives_what_fastai_2_8_12_gave_on_a_noisy_curve(method, recorded):
    np.testing.assert_allclose(suggest(*noisy(3), method).learning_rate, recorded, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_fastai_rules_equal_a_short_formula_under_noise(seed):
    rates, losses = noisy(seed)
    kept, smoothed = rates[10:-5], average(losses)[10:-5]
    minimum = kept[smoothed.argmin()] / 10
    steep = kept[np.argmin(np.diff(smoothed) / np.diff(np.log(kept)))]
    np.testing.assert_allclose(suggest(rates, losses, "minimum").learning_rate, minimum)
    np.testing.assert_allclose(suggest(rates, losses, "steep").learning_rate, steep)


@pytest.mark.parametrize("method", ["valley", "slide", "minimum", "steep"])
@pytest.mark.parametrize("seed", range(3))
def test_fastai_rules_equal_fastais_own_code(method, seed):
    rule = real("fastai.callback.schedule", method)
    torch = importlib.import_module("torch")
    rates, losses = noisy(seed)
    kept, smoothed = (torch.tensor(part[10:-5]) for part in (rates, average(losses)))
    np.testing.assert_allclose(
        suggest(rates, losses, method).learning_rate, float(rule(kept, smoothed, 100)[0])
    )


@pytest.mark.parametrize("seed", range(3))
def test_torch_lr_finder_equals_its_own_code(seed, capsys):
    finder = object.__new__(real("torch_lr_finder", "LRFinder"))
    pyplot = importlib.import_module("matplotlib.pyplot")
    rates, losses = noisy(seed)
    finder.history = {"lr": list(rates), "loss": list(torch_average(losses))}
    figure, ax = pyplot.subplots()
    expected = finder.plot(ax=ax)[1]
    pyplot.close(figure)
    np.testing.assert_allclose(suggest(rates, losses, "torch_lr_finder").learning_rate, expected)


@pytest.mark.parametrize("seed", range(3))
def test_ignite_equals_its_own_code(seed):
    finder = real("ignite.handlers.lr_finder", "FastaiLRFinder")()
    rates, losses = noisy(seed)
    finder._history = {"lr": list(rates), "loss": list(torch_average(losses))}
    np.testing.assert_allclose(
        suggest(rates, losses, "ignite").learning_rate, finder.lr_suggestion()
    )


@pytest.mark.parametrize("seed", range(3))
def test_lightning_equals_its_own_code(seed):
    finder = real("pytorch_lightning.tuner.lr_finder", "_LRFinder")("exponential", 1e-7, 10, 100)
    rates, losses = noisy(seed)
    finder.results = {"lr": list(rates), "loss": list(average(losses))}
    np.testing.assert_allclose(
        suggest(rates, losses, "lightning").learning_rate, finder.suggestion(), rtol=1e-6
    )


def test_lightning_lets_early_noise_win_as_shipped():
    answers = [suggest(*noisy(seed), "lightning").learning_rate for seed in range(100)]
    assert np.median(answers) < 2e-6


def test_ktrain_reads_its_point_32_steps_too_early_as_shipped():
    rates, losses = golden()
    smoothed = average(losses)
    found = np.gradient(smoothed[32 : smoothed.argmin()]).argmin()
    assert suggest(rates, losses, "ktrain").learning_rate == rates[found]


@pytest.mark.parametrize("method", PEERS)
def test_a_peers_rule_over_repeats_is_the_middle_of_its_answers(method):
    rates = golden()[0]
    rows = np.array([noisy(seed)[1] for seed in range(3)])
    singles = sorted(suggest(rates, row, method).learning_rate for row in rows)
    found = suggest(rates, rows, method)
    np.testing.assert_allclose([found.low, found.learning_rate, found.high], singles, rtol=1e-9)


# Smith's bounds


def test_bounds_enclose_the_fall_of_the_loss():
    base, top = bounds(*golden())
    # A tenth and nine tenths of the sigmoid are at log10 lr = -2.5 -/+ ln(9) / 3.
    assert 1e-4 < base < 1.5e-3
    assert 4e-3 < top < 2.5e-2


def test_bounds_read_the_accuracy_when_there_is_one():
    rates, _ = golden()
    x = np.log10(rates)
    accuracy = 0.1 + 0.8 / (1 + np.exp(-4 * (x + 4))) - 0.7 / (1 + np.exp(-8 * (x + 1)))
    base, top = bounds(rates, np.ones(100), accuracy)
    assert 1e-5 < base < 1e-4 and base < top
    assert 1e-4 < top < 1e-2


@pytest.mark.parametrize("seed", range(20))
def test_base_lr_is_below_max_lr(seed):
    base, top = bounds(*noisy(seed, 0.2))
    assert 0 < base < top


def test_bounds_of_a_flat_curve_are_refused():
    with pytest.raises(NoSuggestion):
        bounds(golden()[0], np.ones(100))
    with pytest.raises(NoSuggestion):
        bounds(golden()[0], golden()[1], np.full(100, 0.1))


def test_bounds_of_repeats_are_their_middle_in_ln_lr():
    rates, losses = golden()
    one, two = bounds(rates, losses), bounds(rates, noisy(1)[1])
    np.testing.assert_allclose(
        bounds(rates, np.array([losses, noisy(1)[1]])), np.sqrt(np.multiply(one, two))
    )


def test_every_rule_is_public_under_its_name():
    assert set(METHODS) == {
        *("auto", "curve", "valley", "slide", "steep", "minimum"),
        *("lightning", "torch_lr_finder", "ignite", "ktrain"),
    }
    assert rules.FEWEST_POINTS == 8


# Spikes and uneven losses


def rare_batches(seed, share, height, steps=100, fall_at=1e-2):
    """Losses that fall around `fall_at`, with the spikes of a rare class with a large weight."""
    rng = np.random.default_rng(seed)
    rates = np.geomspace(1e-7, 10, steps)
    left = 1 - 0.9 / (1 + np.exp(-3 * (np.log10(rates / fall_at))))
    spikes = height * rng.poisson(share, steps)
    return rates, left * (0.7 + rng.normal(0, 0.02, steps) + spikes)


@pytest.mark.parametrize("seed", range(10))
def test_spikes_of_a_rare_class_give_no_rate_far_below_the_fall(seed):
    rates, losses = rare_batches(seed, 0.064, 10.8)
    try:
        found = suggest(rates, losses)
    except NoSuggestion as error:
        assert "uneven" in str(error) and "times the batch size" in str(error)
    else:
        assert 1e-3 < found.learning_rate < 1.0 or (found.high / found.low > 99 and found.warnings)


@pytest.mark.parametrize("seed", [5, 7, 9, 10])
def test_spikes_whose_standard_error_is_most_of_the_fall_support_no_answer(seed):
    # A standard error of .9 as below, at a fall of .9 x .7 = .63 and what the spikes add to it; the
    # curve ends above its minimum, and its noise without the spikes is only .02.
    rates, losses = rare_batches(seed, 0.064, 10.8)
    with pytest.raises(NoSuggestion, match="too uneven"):
        suggest(rates, losses)


def test_uneven_losses_name_a_batch_size_that_would_do():
    # Mean of 1.4 and deviation of 2.7 (a Poisson count of .064 spikes of 10.8): the mean of the
    # roughly nine losses that one point of the curve averages has a standard error of .9. For a
    # sixth of the mean, .23, the batch must be some (.9 / .23) ** 2 = 15 times as large.
    factors = []
    for seed in range(20):
        rates, losses = rare_batches(seed, 0.064, 10.8)
        losses[50:] = losses[:50]  # nothing falls
        try:
            suggest(rates, losses, batch_size=32)
        except NoSuggestion as error:
            if "uneven" in str(error):
                factors.append(int(str(error).split("a batch size of about ")[1].split()[0]) / 32)
    assert len(factors) > 10
    assert 4 <= np.median(factors) <= 64


def test_one_huge_spike_early_is_no_break():
    rates, losses = noisy(0, 0.02)
    plain = suggest(rates, losses).learning_rate
    for place in (12, 25, 40):
        spiked = losses.copy()
        spiked[place] += 5000.0
        assert 1 / 3 < suggest(rates, spiked).learning_rate / plain < 3


def test_a_network_that_one_step_ends_is_read_up_to_that_step():
    rng = np.random.default_rng(0)
    rates = np.geomspace(1e-7, 10, 30)
    losses = 28.0 + rng.normal(0, 2.0, 30)
    losses[20:23] = [24.0, 18.0, 7.0]
    losses[23] = 1280.0
    found = suggest(rates, losses)
    assert 1e-4 < found.learning_rate < rates[23]


# Why there is no answer


@pytest.mark.parametrize(
    ("losses", "reason", "words"),
    [
        (np.full((1, 0), 0.0), "non_finite", "not finite from the first step"),
        (np.full((1, 0), 0.0), "data_ended", "recorded no step"),
        (np.linspace(1.0, 0.99, 10), "data_ended", "data ended after 10 steps"),
        (np.full(10, 1.0), "data_ended", "is 1 at every step"),
        (np.linspace(1.0, 0.5, 5), "non_finite", "no longer finite after 5 steps"),
        (np.linspace(1.0, 0.5, 5), "completed", "At least 8 finite losses"),
        (np.full(40, 0.5), "completed", "is 0.5 at every step"),
    ],
)
def test_each_early_end_has_its_own_sentence(losses, reason, words):
    rates = np.geomspace(1e-7, 10, 100)[: losses.shape[-1]]
    with pytest.raises(NoSuggestion, match=words):
        suggest(rates, losses, stop_reason=reason)


def test_data_that_ended_late_give_an_answer_that_says_so():
    rates, losses = golden()
    found = suggest(rates[:85], losses[:85], stop_reason="data_ended")
    assert any("data ended after 85 steps" in note for note in found.warnings)
    assert not any("raise end_lr" in note for note in found.warnings)


@pytest.mark.parametrize("steps", [50, 60, 70])
def test_data_that_ended_while_the_loss_was_falling_give_no_answer(steps):
    rates, losses = golden()
    assert losses.argmin() > steps
    with pytest.raises(NoSuggestion, match=f"data ended after {steps} steps"):
        suggest(rates[:steps], losses[:steps], stop_reason="data_ended")
