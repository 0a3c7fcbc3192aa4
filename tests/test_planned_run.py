"""The planned run: the shapes of policies, their bound, and the conversion of rates."""

import json
import warnings

import keras
import numpy as np
import pytest

import keras_lr
from keras_lr.range_test.planned_run import (
    PlannedRun,
    correction,
    planned_run,
    shape_bound,
    transfer_lr,
)

pytestmark = pytest.mark.long_elsewhere("computed with NumPy, from a record or a plan")

schedules = keras.optimizers.schedules


def reference_bound(shape):
    """Theorem 10 of arXiv 2310.07831 as it is printed, one term at a time."""
    total = sum(shape)
    terms = 0.0
    for k in range(len(shape) - 1):
        after, here = shape[k + 1 :], shape[k:]
        if sum(after) > 0.0:
            terms += shape[k] / sum(after) * sum(rate**2 for rate in here) / sum(here)
    first = 1 / (2 * total)
    second = sum(rate**2 for rate in shape) / (2 * total) + terms / 2
    return (first / second) ** 0.5


# The bound


@pytest.mark.once
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_bound_of_a_constant_rate_is_its_closed_form(steps):
    harmonic = sum(1 / k for k in range(1, steps))
    expected = 1 / np.sqrt(steps * (1 + harmonic))
    np.testing.assert_allclose(shape_bound(np.ones(steps)), expected, rtol=1e-10)


@pytest.mark.once
def test_bound_of_linear_decay_tends_to_one_over_the_root_of_the_steps():
    off = [
        shape_bound(1.0 - np.arange(steps) / steps) * np.sqrt(steps) - 1.0
        for steps in (100, 1000, 10_000)
    ]
    assert abs(off[2]) < 1e-3
    assert abs(off[0]) > abs(off[1]) > abs(off[2])


@pytest.mark.once
@pytest.mark.parametrize("tail", [0, 5])
def test_bound_equals_the_printed_formula(tail):
    rng = np.random.default_rng(0)
    shape = np.concatenate([[0.0], rng.uniform(size=40), [0.0], rng.uniform(size=9), [1.0]])
    expected = reference_bound(shape.tolist())
    shape = np.concatenate([shape, np.zeros(tail)])  # updates at rate 0 do not count
    np.testing.assert_allclose(shape_bound(shape), expected, rtol=1e-10)


def linear(steps):
    return 1.0 - np.arange(steps) / steps


def cosine(steps):
    return (1.0 + np.cos(np.pi * np.arange(steps) / steps)) / 2.0


def one_cycle(steps):
    """torch's OneCycleLR with a climb over 30%, from 1/25, to 1/25/10,000."""
    step, peak = np.arange(steps), 0.3 * steps - 1
    up = 1 / 25 + (1 - 1 / 25) * (1 - np.cos(np.pi * step / peak)) / 2
    end = 1 / 250_000
    down = end + (1 - end) * (1 + np.cos(np.pi * (step - peak) / (steps - 1 - peak))) / 2
    return np.where(step < peak, up, down)


@pytest.mark.once
@pytest.mark.parametrize(
    ("shape", "expected"), [(np.ones, 0.34), (cosine, 0.97), (one_cycle, 0.91)]
)
def test_bound_orders_the_policies(shape, expected):
    # Beside linear decay over 1,000 updates: the values that the authors' formula gives.
    ratio = shape_bound(shape(1000)) / shape_bound(linear(1000))
    assert abs(ratio - expected) < 0.006


# The corrections


@pytest.mark.parametrize(
    ("policy", "steps", "expected"),
    [
        ("constant", 500, -0.15),
        ("one-cycle", 500, 0.15),
        ("constant", 2000, -0.35),
        ("one-cycle", 8000, -0.05),
        ("constant", 125, -0.05),
        (None, 125, 0.10),
        ("constant", None, -0.15),
        (None, 32_000, -0.45),
    ],
)
def test_correction_is_that_of_the_policy_and_of_the_length(policy, steps, expected):
    # -0.15 and +0.15 decades for the policies; for each 4 times as many updates than 500, -0.20 at
    # a constant rate, -0.10 for one that ends at 0, and half of each for an unknown policy. Below
    # 500, -0.10 for each.
    run = planned_run(policy, steps)
    np.testing.assert_allclose(correction(run), expected, atol=1e-5)


def test_cosine_is_like_one_cycle_and_wsd_lies_between_it_and_constant():
    cosine, cycle, wsd, constant = (
        correction(planned_run(name, None)) for name in ("cosine", "one-cycle", "wsd", "constant")
    )
    assert abs(cosine - cycle) < 0.04
    assert constant + 0.05 < wsd < cycle - 0.05


def test_unknown_run_is_none():
    assert planned_run(None, None) is None


# The shapes


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999, 1001, 20_000])
def test_shape_has_1000_points_and_reaches_1(steps):
    run = planned_run(keras_lr.OneCycle(0.7), steps)
    assert run.shape.shape == (1000,)
    assert 0.0 <= run.shape.min() and 0.9999 < run.shape.max() <= 1.0


def test_shape_of_a_short_run_keeps_its_mean():
    run = planned_run(schedules.PolynomialDecay(0.3, 7, 0.0), 7)
    np.testing.assert_allclose(run.shape.mean(), np.mean([7, 6, 5, 4, 3, 2, 1]) / 7, rtol=1e-5)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (lambda: keras_lr.OneCycle(3.0), "one-cycle"),
        (lambda: keras_lr.schedules.OneCycleSchedule(0.02, 5000), "one-cycle"),
        (lambda: schedules.ExponentialDecay(0.2, 5000, 1.0), "constant"),
        (lambda: schedules.CosineDecay(0.2, 5_000_000), "constant"),  # hardly begins
        (lambda: keras_lr.ScheduleLR(keras_lr.schedules.ConstantSchedule(9.0)), "constant"),
        (lambda: keras_lr.ReduceLROnPlateau(), "constant"),
        (lambda: keras.callbacks.ReduceLROnPlateau(), "constant"),
        (
            lambda: [schedules.CosineDecay(0.3, 4750), keras_lr.WarmUp(steps=1)],
            "cosine",
        ),
    ],
)
def test_policy_as_an_object_corrects_like_its_name(policy, name):
    got = correction(planned_run(policy(), 5000))
    np.testing.assert_allclose(got, correction(planned_run(name, 5000)), atol=0.02)


def test_only_the_shape_counts():
    low, high = (
        planned_run(schedules.CosineDecay(peak, 400, alpha=0.1), 500).shape for peak in (0.01, 5.0)
    )
    np.testing.assert_allclose(low, high, rtol=1e-5)


def test_sample_of_a_long_run_shows_short_cycles():
    # 100 updates a cycle, in a run that is sampled every 100 updates.
    run = planned_run(keras_lr.CyclicLR(0.1, 1.0, step_size=50), 100_000)
    np.testing.assert_allclose(run.shape.mean(), 0.55, atol=0.01)
    np.testing.assert_allclose((run.shape**2).mean(), (1 - 0.1**3) / 3 / 0.9, atol=0.01)


def test_sample_of_a_long_run_has_the_bound_of_all_updates():
    for policy in (schedules.PolynomialDecay(0.5, 20_000, 0.0), keras_lr.OneCycle(0.1)):
        full = keras_lr.preview(policy, 20_000).learning_rates
        full = full / full.max()
        beside_constant = shape_bound(full[::20]) / shape_bound(np.ones(1000))
        got = shape_bound(planned_run(policy, 20_000).shape) / shape_bound(np.ones(1000))
        np.testing.assert_allclose(got, beside_constant, rtol=0.03)


def test_long_run_is_evaluated_at_no_more_than_1000_updates():
    calls = []

    class Mine(schedules.LearningRateSchedule):
        def __call__(self, step):
            calls.append(1)
            return 0.1 if int(step) < 50_000 else 0.01  # refuses arrays

    run = planned_run(Mine(), 100_000)
    np.testing.assert_allclose(run.shape.mean(), 0.55, atol=0.002)
    assert len(calls) < 1100


def test_tiny_rates_after_a_sudden_fall_hardly_count():
    def after(rate):
        decay = schedules.PiecewiseConstantDecay([449], [1.0, rate])
        return correction(planned_run(decay, 500))

    np.testing.assert_allclose(after(1e-7), after(1e-9), atol=1e-6)
    assert abs(after(1e-7) - correction(planned_run("constant", 500))) < 0.05


def test_callbacks_that_count_epochs_need_their_length():
    by_epochs = planned_run(keras_lr.WarmUp(epochs=2), 1000, steps_per_epoch=100)
    by_steps = planned_run(keras_lr.WarmUp(steps=200), 1000)
    np.testing.assert_allclose(by_epochs.shape, by_steps.shape, rtol=1e-5, atol=1e-6)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.3 * 0.5**epoch)
    run = planned_run(scheduler, 300, steps_per_epoch=100)
    np.testing.assert_allclose(run.shape[[0, 200, 500, 900]], [1.0, 1.0, 0.5, 0.25], rtol=1e-5)
    # A `fit` has whole epochs.
    assert planned_run(scheduler, 290, steps_per_epoch=100).shape.tolist() == run.shape.tolist()
    for callback in (scheduler, keras_lr.WarmUp(epochs=2)):
        with pytest.raises(ValueError, match="^steps_per_epoch must be given for .*; got None"):
            planned_run(callback, 1000)


def test_warm_up_longer_than_the_run_warns_and_counts_to_where_it_comes():
    with pytest.warns(UserWarning, match="warm-up should end within the run"):
        run = planned_run(keras_lr.WarmUp(steps=2000), 1000)
    np.testing.assert_allclose(run.shape, np.arange(1000) / 999, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [np.int64(2000), 2000])
def test_length_may_be_an_integer_of_numpy(steps):
    run = planned_run("constant", steps)
    assert type(run.total_steps) is int
    assert run.name == "constant, 2,000 updates"


def test_words():
    run = planned_run("one-cycle", 8000)
    assert repr(run) == "PlannedRun(one-cycle, 8,000 updates)"
    # 10 ** 0.15 and 10 ** -0.2
    assert run.sentence == (
        "The rate is multiplied by 1.4 for the policy (one-cycle) and by 0.63 for the length "
        "(8,000 updates)."
    )
    assert planned_run("constant", None).sentence == (
        "The rate is multiplied by 0.71 for the policy (constant)."
    )
    assert planned_run([keras_lr.CyclicLR(0.1, 1.0, 4), keras_lr.WarmUp(5)], 9).name == (
        "CyclicLR + WarmUp, 9 updates"
    )


@pytest.mark.parametrize(
    ("policy", "steps"),
    [("one-cycle", 700), ("wsd", None), (None, 50), (schedules.CosineDecay(0.1, 60), 70)],
)
def test_run_as_json_is_the_same_run(policy, steps):
    run = planned_run(policy, steps)
    content = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    again = PlannedRun.of(content)
    assert (again.policy, again.total_steps) == (run.policy, run.total_steps)
    np.testing.assert_array_equal(again.shape, run.shape)
    assert correction(again) == correction(run)


@pytest.mark.once
@pytest.mark.parametrize("shape", [[1.0], [float("nan")] * 1000, [0.0] * 1000, [2.0] * 1000])
def test_json_with_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape must have 1000 rates"):
        PlannedRun.of({"policy": "Mine", "total_steps": 5, "shape": shape})


def test_run_of_another_length_keeps_its_shape():
    run = planned_run(schedules.CosineDecay(0.1, 60), 60)
    longer = planned_run(run, 240)
    assert longer.shape is run.shape
    np.testing.assert_allclose(correction(longer) - correction(run), -0.10, atol=1e-3)


@pytest.mark.parametrize(
    ("policy", "steps", "error", "message"),
    [
        ("onecycle", 10, ValueError, "^policy must be 'constant', .* or 'wsd'; got 'onecycle'"),
        ("constant", 0, ValueError, "^total_steps must be an integer of at least 1; got 0"),
        ("constant", 2.5, ValueError, "^total_steps must be an integer"),
        ("constant", "9", TypeError, "^total_steps must be an integer"),
        (500, "constant", TypeError, "^total_steps must be"),
        (0.1, 500, TypeError, "^policy must be .*; got 0.1"),
        ([0.1], 500, TypeError, "^policy must be .*; got 0.1"),
        (lambda step: 0.1, 500, TypeError, "^policy must be"),
        (schedules.CosineDecay(0.1, 60), None, ValueError, "^total_steps must be given for Cosine"),
        (schedules.CosineDecay(0.1, 60), 2**24 + 1, ValueError, "^total_steps must be at most"),
        (schedules.CosineDecay(0.0, 60), 70, ValueError, "^policy must have a rate above 0"),
        (schedules.CosineDecay(np.nan, 60), 70, ValueError, "^policy must have finite rates"),
        ([keras_lr.OneCycle(1.0), keras_lr.WarmUp(5)], 70, ValueError, "OneCycle includes a warm"),
    ],
)
def test_nonsense_is_refused(policy, steps, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=message):
            planned_run(policy, steps)


# The conversion


@pytest.mark.parametrize(
    ("source", "target", "decades"),
    [
        (("constant", 500), ("constant", 2000), -0.20),
        (("constant", 2000), ("one-cycle", 2000), 0.40),
        (("constant", 2000), ("one-cycle", 32_000), 0.20),
        (("one-cycle", None), ("constant", None), -0.30),
        ((None, 64_000), (None, 1000), 0.45),
    ],
)
def test_transfer_multiplies_by_the_difference_of_the_corrections(source, target, decades):
    np.testing.assert_allclose(
        transfer_lr(3e-3, source, target), 3e-3 * 10**decades, rtol=1e-5, atol=0
    )
    back = transfer_lr(transfer_lr(3e-3, source, target), target, source)
    np.testing.assert_allclose(back, 3e-3, rtol=1e-9, atol=0)


def test_transfer_to_the_same_run_changes_nothing():
    run = planned_run(schedules.CosineDecay(0.1, 60), 60)
    assert transfer_lr(0.02, run, run) == 0.02


@pytest.mark.once
@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        (("constant", None), ("constant", 9), ValueError, "both have a total_steps, or neither"),
        (("constant", 9), (None, 9), ValueError, "both have a policy, or neither; got one for s"),
        ("constant", ("constant", 9), TypeError, "^source must be a pair"),
        (("constant", 9), ("constant", 9, 9), TypeError, "^target must be a pair"),
        (("constant", -1), ("constant", 9), ValueError, "^total_steps must be"),
    ],
)
def test_transfer_refuses_nonsense(source, target, error, message):
    with pytest.raises(error, match=message):
        transfer_lr(1e-3, source, target)


@pytest.mark.once
@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_transfer_refuses_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="^learning_rate must be"):
        transfer_lr(rate, ("constant", 9), ("constant", 9))
