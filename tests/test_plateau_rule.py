"""The plateau rule, beside Keras's callback, torch's scheduler, optax's and GreedyLR."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

from keras_lr.callbacks.plateau_rule import Decision, PlateauRule

pytestmark = pytest.mark.once

SEEDS = range(12)


def metric(seed, n=120, low=1.0, bad=(math.nan,)):
    """A noisy fall or rise on a grid of 1/64, so that sums are exact in any precision.

    It has many ties, and a tenth of it, but not the first value, is drawn from `bad`.
    """
    rng = np.random.default_rng(seed)
    drift = rng.choice([-1, 1]) * np.linspace(0, rng.uniform(0.2, 3), n)
    values = np.round(64 * (low + 3 + drift + rng.normal(0, 0.4, n))) / 64
    broken = rng.random(n) < (0.1 if bad else 0.0)
    broken[0] = False
    values[broken] = rng.choice(bad or [0.0], broken.sum())
    return values


def options(seed):
    """Patience, cooldown, mode and margin, at random; the margin is a multiple of the grid."""
    rng = np.random.default_rng(1000 + seed)
    return {
        "patience": int(rng.integers(1, 6)),
        "cooldown": int(rng.integers(0, 5)),
        "mode": str(rng.choice(["min", "max"])),
        "min_delta": float(rng.choice([0, 1, 4, 16])) / 64,
    }


def decide(rule, values):
    return [rule.observe(value) for value in values]


def actions(rule, values):
    return [decision.action for decision in decide(rule, values)]


def rates(rule, values, *, min_lr=0.0, max_lr=math.inf):
    """The learning rate after each value, from 1.0, as a caller steers it."""
    rate, history = 1.0, []
    for value in values:
        decision = rule.observe(value, can_reduce=rate > min_lr, can_grow=rate < max_lr)
        rate = min(max(rate * decision.factor, min_lr), max_lr)
        history.append(rate)
    return history


# Keras


def keras_rates(values, **kwargs):
    """The learning rate and the counters of Keras's callback after each value."""
    callback = keras.callbacks.ReduceLROnPlateau(factor=0.5, **kwargs)
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1.0))
    callback.set_model(model)
    callback.on_train_begin()
    history = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": float(value)})
        counters = (callback.best, callback.wait, callback.cooldown_counter)
        history.append((model.optimizer.learning_rate, *counters))
    return history


@pytest.mark.parametrize("min_lr", [0.0, 0.125])
@pytest.mark.parametrize("seed", SEEDS)
def test_rates_and_counters_equal_those_of_keras_after_every_value(seed, min_lr):
    chosen = options(seed)
    worst = math.inf if chosen["mode"] == "min" else -math.inf
    values = metric(seed, bad=[math.nan, worst])
    rule, rate, history = PlateauRule(factor=0.5, **chosen), 1.0, []
    for value in values:
        rate = max(rate * rule.observe(value, can_reduce=rate > min_lr).factor, min_lr)
        history.append((rate, rule.progress.best, rule.progress.wait, rule.progress.cooldown))
    assert history == keras_rates(values, min_lr=min_lr, **chosen)
    assert rate < 1.0


def test_defaults_equal_those_of_keras():
    rule, callback = PlateauRule(), keras.callbacks.ReduceLROnPlateau()
    for name in ("factor", "patience", "cooldown", "min_delta", "monitor"):
        assert getattr(rule, name) == getattr(callback, name), name


def test_patience_0_is_patience_1_as_in_keras():
    values = metric(3)
    zero = rates(PlateauRule(factor=0.5, patience=0), values)
    assert zero == rates(PlateauRule(factor=0.5, patience=1), values)
    assert zero == [row[0] for row in keras_rates(values, patience=0, mode="min")]


def test_cooldowns_of_0_and_1_are_the_same_as_in_keras():
    values = metric(5)
    none, one = (rates(PlateauRule(factor=0.5, patience=2, cooldown=c), values) for c in (0, 1))
    assert none == one
    for cooldown in (0, 1):
        kwargs = {"patience": 2, "cooldown": cooldown, "mode": "min"}
        assert none == [row[0] for row in keras_rates(values, **kwargs)]


def test_a_first_value_of_nan_blinds_keras_and_not_the_rule():
    values = [math.nan, 3.0, 2.0, 1.0, 0.5]
    kwargs = {"patience": 2, "mode": "min"}
    assert [row[0] for row in keras_rates(values, **kwargs)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert rates(PlateauRule(factor=0.5, **kwargs), values) == [1.0] * 5


# torch


def torch_rates(values, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, eps=0, **kwargs)
    history = []
    for value in values:
        scheduler.step(value)
        history.append(optimizer.param_groups[0]["lr"])
    return history


@pytest.mark.parametrize("threshold_mode", ["abs", "rel"])
@pytest.mark.parametrize("seed", SEEDS)
def test_rates_equal_those_of_torch_with_one_more_patience_and_cooldown(seed, threshold_mode):
    chosen = options(seed)
    worst = math.inf if chosen["mode"] == "min" else -math.inf
    values = metric(seed, bad=[math.nan, worst])
    if seed % 2:
        values[0] = math.nan
    theirs = torch_rates(
        values,
        mode=chosen["mode"],
        patience=chosen["patience"],
        cooldown=chosen["cooldown"],
        threshold=chosen["min_delta"],
        threshold_mode=threshold_mode,
    )
    chosen["patience"] += 1
    chosen["cooldown"] += 1
    ours = PlateauRule(factor=0.5, threshold_mode=threshold_mode, **chosen)
    assert rates(ours, values) == theirs
    assert theirs[-1] < 1.0


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_relative_margin_below_zero_is_one_of_size_where_torch_takes_worse_for_better(mode):
    sign = 1.0 if mode == "min" else -1.0
    worse = [-100.0, *(-100.0 + sign * np.arange(1, 8))]
    kwargs = {"mode": mode, "threshold_mode": "rel"}
    assert torch_rates(worse, patience=1, threshold=0.1, **kwargs)[-1] == 1.0
    rule = PlateauRule(factor=0.5, patience=2, min_delta=0.1, **kwargs)
    assert [decision.improved for decision in decide(rule, worse)] == [True] + [False] * 7
    rule.reset()
    better = [-100.0, -100.0 - sign * 10, -100.0 - sign * 10.5, -100.0 - sign * 11]
    improved = [decision.improved for decision in decide(rule, better)]
    assert improved == [True, False, True, False]


# optax


@pytest.fixture(scope="module", params=["abs", "rel"])
def optax_rates(request):
    optax = pytest.importorskip("optax")
    import jax

    margins = {"rtol": 0.0, "atol": 0.125} if request.param == "abs" else {"rtol": 0.125}

    @jax.jit
    def run(values, patience, cooldown):
        transform = optax.contrib.reduce_on_plateau(
            factor=0.5, patience=patience, cooldown=cooldown, **margins
        )

        def step(state, value):
            state = transform.update(np.float32(1.0), state, value=value)[1]
            return state, state.scale

        return jax.lax.scan(step, transform.init(np.float32(0.0)), values)[1]

    run.threshold_mode = request.param
    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_rates_equal_those_of_optax_with_one_more_cooldown(optax_rates, seed):
    patience, cooldown = options(seed)["patience"], options(seed)["cooldown"]
    values = metric(seed, bad=[math.nan, math.inf])
    theirs = optax_rates(values.astype(np.float32), patience, cooldown)
    ours = PlateauRule(
        factor=0.5,
        patience=patience,
        cooldown=cooldown + 1,
        min_delta=0.125,
        threshold_mode=optax_rates.threshold_mode,
    )
    assert rates(ours, values) == np.asarray(theirs).tolist()


# GreedyLR


def greedy_rates(
    values, *, mode, factor, patience, threshold, min_lr, max_lr, cooldown=0, note_best=False
):
    """GreedyLR by its counters; `note_best` lets it note a best value in the cooldown."""
    sign = 1.0 if mode == "min" else -1.0
    rate, best, good, bad, rest, history = 1.0, math.inf, 0, 0, 0, []
    for loss in sign * values:
        better = loss < best - threshold
        if rest > 0:
            rest, good, bad = rest - 1, 0, 0
            best = loss if note_best and better else best
        else:
            best = loss if better else best
            good, bad = (good + 1, 0) if better else (0, bad + 1)
            if good > patience:
                rate, good = min(rate / factor, max_lr), 0
            elif bad > patience:
                rate, bad, rest = max(rate * factor, min_lr), 0, cooldown
        history.append(rate)
    return history


def greedy_values(seed, mode):
    """A metric that falls, stalls and falls again, so that both directions have their turn."""
    rng = np.random.default_rng(2000 + seed)
    steps = np.repeat(rng.choice([-1.0, 0.2], 20), 8) + rng.normal(0, 0.6, 160)
    return np.round(64 * np.cumsum(steps)) / 64 * (1.0 if mode == "min" else -1.0)


@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", SEEDS)
def test_rates_equal_those_of_greedy_lr_with_one_more_patience(seed, mode, cooldown):
    patience = seed % 4
    values = greedy_values(seed, mode)
    # At its lower bound GreedyLR begins a cooldown, and a rule that follows Keras does not.
    bounds = {"min_lr": 0.0 if cooldown else 2**-6, "max_lr": 8.0}
    kwargs = {"mode": mode, "factor": 0.5, "patience": patience, "threshold": 1 / 64} | bounds
    theirs = greedy_rates(values, cooldown=cooldown, note_best=True, **kwargs)
    ours = PlateauRule(
        factor=0.5,
        growth_factor=2.0,
        patience=patience + 1,
        mode=mode,
        min_delta=1 / 64,
        cooldown=cooldown + 1,
    )
    assert rates(ours, values, **bounds) == theirs
    steps = np.diff(np.log2(theirs))
    assert steps.max() > 0 > steps.min()
    if not cooldown:
        assert theirs == greedy_rates(values, **kwargs)


def test_growth_has_a_patience_of_its_own():
    rule = PlateauRule(patience=9, growth_factor=1.5, growth_patience=2)
    decisions = decide(rule, [5.0, 4.0, 3.0, 3.0, 2.0, 1.0])
    assert [d.action for d in decisions] == ["none", "grow", "none", "none", "none", "grow"]
    assert [d.factor for d in decisions] == [1.0, 1.5, 1.0, 1.0, 1.0, 1.5]
    assert [d.improved for d in decisions] == [True, True, True, False, True, True]
    assert [PlateauRule(growth_factor=2.0, patience=p).growth_patience for p in (0, 4)] == [0, 4]


def test_growth_patience_0_is_growth_patience_1():
    values = greedy_values(0, "min")
    zero, one = (PlateauRule(growth_factor=2.0, growth_patience=p) for p in (0, 1))
    assert decide(zero, values) == decide(one, values)


def test_a_growth_that_cannot_be_made_stays_due_until_a_value_without_improvement():
    rule = PlateauRule(growth_factor=2.0, growth_patience=2)
    rule.observe(5.0)
    for value in (4.0, 3.0):
        refused = rule.observe(value, can_grow=False)
        assert (refused.action, refused.factor, refused.improved) == ("none", 1.0, True)
    assert rule.observe(2.0).action == "grow"
    assert rule.observe(1.0, can_grow=False).action == "none"
    rule.observe(1.0)
    assert rule.observe(0.5).action == "none"


def test_improvements_during_a_cooldown_do_not_count_towards_growth():
    rule = PlateauRule(patience=1, cooldown=3, growth_factor=2.0, growth_patience=2)
    decisions = decide(rule, [9.0, 9.0, 8.0, 7.0, 6.0, 5.0])
    assert [d.action for d in decisions] == ["none", "reduce", "none", "none", "none", "grow"]
    assert [d.improved for d in decisions] == [True, False, True, True, True, True]


# Bounds and stopping


def test_a_reduction_that_cannot_be_made_counts_and_resets_nothing():
    rule = PlateauRule(patience=2, cooldown=5)
    decide(rule, [1.0, 1.0])
    for wait in (2, 3):
        refused = rule.observe(1.0, can_reduce=False)
        assert (refused.action, refused.factor) == ("none", 1.0)
        progress = rule.progress
        assert (progress.wait, progress.cooldown, progress.reductions) == (wait, 0, 0)
    assert rule.observe(1.0).action == "reduce"
    assert (rule.progress.wait, rule.progress.cooldown, rule.progress.reductions) == (0, 5, 1)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_after_max_reductions_the_next_one_due_is_a_stop(allowed):
    rule = PlateauRule(patience=2, max_reductions=allowed, factor=0.5)
    expected = ["none"] + ["none", "reduce"] * allowed + ["none", "stop", "stop"]
    decisions = decide(rule, [1.0] * len(expected))
    assert [d.action for d in decisions] == expected
    assert decisions[-1].factor == 1.0 and not decisions[-1].improved
    assert rule.observe(0.5).action == "none"  # an improvement takes the stop back
    assert actions(rule, [0.5, 0.5]) == ["none", "stop"]


def test_the_stop_comes_at_the_lower_bound_too():
    rule = PlateauRule(patience=1, max_reductions=1)
    decide(rule, [1.0, 1.0])
    assert rule.observe(1.0, can_reduce=False).action == "stop"


def test_a_refused_reduction_is_not_one_of_max_reductions():
    rule = PlateauRule(patience=1, max_reductions=1)
    rule.observe(1.0)
    assert [rule.observe(1.0, can_reduce=False).action for _ in range(3)] == ["none"] * 3
    assert actions(rule, [1.0, 1.0]) == ["reduce", "stop"]


# Warm-up, smoothing, values that are not finite


def test_the_warmup_notes_the_best_and_counts_nothing():
    rule = PlateauRule(patience=2, warmup=4, growth_factor=2.0, growth_patience=2)
    decisions = decide(rule, [3.0, 2.0, 1.0, 4.0])
    assert [d.action for d in decisions] == ["none"] * 4
    assert [d.improved for d in decisions] == [True, True, True, False]
    assert (rule.progress.best, rule.progress.wait, rule.progress.streak) == (1.0, 0, 0)
    assert actions(rule, [2.0, 2.0]) == ["none", "reduce"]


def test_smoothing_judges_the_bias_corrected_average():
    values = metric(7, bad=None)
    n = len(values)
    weights = np.tril(0.8 ** np.maximum(np.subtract.outer(np.arange(n), np.arange(n)), 0))
    averages = weights @ values / weights.sum(axis=1)
    plain = PlateauRule(factor=0.5, patience=2, mode="max")
    smooth = PlateauRule(factor=0.5, patience=2, mode="max", smoothing=0.8)
    assert rates(smooth, values) == rates(plain, averages)
    assert rates(smooth, values) != rates(plain, values)
    np.testing.assert_allclose(smooth.progress.average, averages[-1], rtol=1e-12)
    np.testing.assert_allclose(smooth.progress.best, averages.max(), rtol=1e-12)


def test_without_smoothing_a_value_is_taken_as_it_is():
    rule = PlateauRule()
    decide(rule, [1e17, 1.0])
    assert rule.progress.best == 1.0


def test_smoothing_leaves_a_constant_metric_without_improvement():
    rule = PlateauRule(patience=3, min_delta=0.0, smoothing=0.7)
    assert not any(decision.improved for decision in decide(rule, [0.1] * 50)[1:])


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_bad_and_leaves_best_and_average_alone(broken, smoothing):
    rule = PlateauRule(patience=3, smoothing=smoothing)
    rule.observe(4.0)
    assert not rule.observe(broken).improved
    assert (rule.progress.best, rule.progress.average, rule.progress.wait) == (4.0, 4.0, 1)
    clean = PlateauRule(smoothing=smoothing)
    decide(clean, [4.0, 2.0])
    assert rule.observe(2.0).improved
    assert rule.progress.average == clean.progress.average
    assert actions(rule, [broken] * 3) == ["none", "none", "reduce"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_first_value_that_is_not_finite_does_not_become_the_best(broken, mode):
    rule = PlateauRule(patience=3, mode=mode)
    assert not rule.observe(broken).improved
    assert (rule.progress.best, rule.progress.wait) == (None, 1)
    assert rule.observe(1.0).improved
    rule.reset()
    assert actions(rule, [broken] * 4) == ["none", "none", "reduce", "none"]


def test_an_average_that_overflows_is_bad_and_forgotten():
    rule = PlateauRule(smoothing=0.5)
    assert [rule.observe(value).improved for value in (1e308, -1e308, 1e307)] == [
        True,
        False,
        True,
    ]


# What it says


def reasons(values, **kwargs):
    return [decision.reason for decision in decide(PlateauRule(**kwargs), values)]


def test_reasons_name_the_metric_the_best_value_the_margin_and_the_count():
    assert reasons([0.5, 0.3125, 0.3125, math.nan, 0.4], patience=3) == [
        "val_loss has improved to 0.5",
        "val_loss has improved from 0.5 to 0.3125",
        "val_loss has not improved on 0.3125 by 0.0001 for 1 epoch",
        "val_loss is not finite and has not improved on 0.3125 by 0.0001 for 2 epochs",
        "val_loss has not improved on 0.3125 by 0.0001 for 3 epochs",
    ]
    assert reasons([math.inf, math.nan]) == [
        "val_loss has not been finite for 1 epoch",
        "val_loss has not been finite for 2 epochs",
    ]


def test_reasons_speak_in_the_unit_and_the_margin_that_they_were_given():
    kwargs = {"monitor": "accuracy", "mode": "max", "unit": "window of 50 batches"}
    said = reasons([0.5] * 3, threshold_mode="rel", min_delta=0.01, smoothing=0.5, **kwargs)
    assert said == [
        "smoothed accuracy has improved to 0.5",
        "smoothed accuracy has not improved on 0.5 by 1% for 1 window of 50 batches",
        "smoothed accuracy has not improved on 0.5 by 1% for 2 windows of 50 batches",
    ]
    assert reasons([1.0, 1.0], min_delta=0)[1] == "val_loss has not improved on 1 for 1 epoch"


def test_reasons_tell_what_kept_the_rate_as_it_is_and_what_moved_it():
    bad = "val_loss has not improved on 1 by 0.0001"
    said = reasons([1.0] * 5, patience=1, cooldown=2, warmup=2, max_reductions=1)
    assert said == [
        "val_loss has improved to 1, which does not count during the warm-up",
        f"{bad}, which does not count during the warm-up",
        f"{bad} for 1 epoch",
        f"{bad}, which does not count during the cooldown",
        f"{bad} for 1 epoch, after 1 of 1 reductions",
    ]
    rule = PlateauRule(patience=1, growth_factor=2.0, growth_patience=2)
    rule.observe(2.0)
    refused = rule.observe(1.0, can_grow=False).reason
    assert (
        refused == "val_loss has improved from 2 to 1, but the learning rate is at its upper bound"
    )
    refused = rule.observe(1.0, can_reduce=False).reason
    assert refused == f"{bad} for 1 epoch, but the learning rate is at its lower bound"
    rule.observe(0.5)
    grown = rule.observe(0.25).reason
    assert grown == "val_loss has improved from 0.5 to 0.25, now for 2 epochs in a row"


def test_a_decision_cannot_be_changed():
    decision = PlateauRule().observe(1.0)
    assert decision == Decision("none", 1.0, True, "val_loss has improved to 1")
    with pytest.raises(AttributeError):
        decision.factor = 2.0


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor, int])
def test_a_value_may_be_any_number(kind):
    rule = PlateauRule()
    rule.observe(kind(2))
    assert rule.progress.best == 2.0 and type(rule.progress.best) is float


@pytest.mark.parametrize("value", [None, "0.5", 1j, [0.5]])
def test_a_value_that_is_no_number_is_refused_and_leaves_the_rule_as_it_was(value):
    rule = PlateauRule()
    with pytest.raises(TypeError, match="val_loss must be a number; got "):
        rule.observe(value)
    assert rule.state() == PlateauRule().state()


# State


def everything(seed):
    rng = np.random.default_rng(3000 + seed)
    chosen = options(seed) | {
        "warmup": int(rng.integers(0, 5)),
        "smoothing": float(rng.choice([0.0, 0.3, 0.9])),
        "threshold_mode": str(rng.choice(["abs", "rel"])),
        "max_reductions": [None, 3, 30][rng.integers(3)],
    }
    if rng.random() < 0.5:
        chosen |= {"growth_factor": 1.5, "growth_patience": int(rng.integers(1, 4))}
    return chosen


@pytest.mark.parametrize("seed", range(40))
def test_a_rule_loaded_anywhere_goes_on_as_if_it_had_never_stopped(seed):
    values = metric(seed, n=60, bad=[math.nan, math.inf, -math.inf])
    if seed % 3 == 0:
        values[:2] = math.nan
    chosen = everything(seed)
    whole = decide(PlateauRule(**chosen), values)
    for cut in (0, 1, 2, *np.random.default_rng(seed).integers(3, 60, 8)):
        first, second = PlateauRule(**chosen), PlateauRule(**chosen)
        decisions = decide(first, values[:cut])
        decide(second, values[:7])  # what a rule has seen before is forgotten
        second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
        assert second.state() == first.state()
        assert decisions + decide(second, values[cut:]) == whole


def test_state_is_a_copy():
    rule = PlateauRule(patience=1)
    rule.observe(1.0)
    state = rule.state()
    rule.observe(1.0)
    assert state["seen"] == 1 and rule.progress.seen == 2
    rule.load(state)
    rule.observe(1.0)
    assert state["seen"] == 1


def test_reset_forgets_everything():
    rule = PlateauRule(patience=1, cooldown=3, smoothing=0.5, growth_factor=2.0)
    decide(rule, metric(1))
    assert rule.state() != PlateauRule().state()
    rule.reset()
    assert rule.state() == PlateauRule().state()


def test_a_state_with_numpy_numbers_is_taken_and_becomes_plain():
    rule = PlateauRule()
    decide(rule, [3.0, 2.0])
    state = rule.state()
    rule.load(state | {"seen": np.int64(2), "best": np.float32(2.0), "average": 2})
    assert rule.state() == state
    assert [type(value) for value in rule.state().values()] == list(map(type, state.values()))
    json.dumps(rule.state())


@pytest.mark.parametrize(
    "change",
    [
        {"wait": -1},
        {"wait": 1.5},
        {"wait": "1"},
        {"wait": True},
        {"wait": None},
        {"best": math.nan},
        {"best": math.inf},
        {"best": "low"},
        {"average": None},
        {"average": math.nan},
        {"surprise": 1},
    ],
)
def test_a_damaged_state_is_refused_and_the_rule_stays_as_it_was(change):
    rule = PlateauRule()
    decide(rule, [3.0, 2.0])
    before = rule.state()
    with pytest.raises(ValueError, match=f"state of a PlateauRule .*{next(iter(change))}"):
        rule.load(PlateauRule().state() | change)
    assert rule.state() == before


@pytest.mark.parametrize("state", [None, [], {}, {"best": 1.0}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(ValueError, match="The state of a PlateauRule must "):
        PlateauRule().load(state)


# Arguments


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("factor", 0.0, r"in \(0, 1\)"),
        ("factor", 1.0, r"in \(0, 1\)"),
        ("factor", -0.5, r"in \(0, 1\)"),
        ("factor", math.nan, r"a finite number in \(0, 1\)"),
        ("patience", -1, "an integer of at least 0"),
        ("patience", 2.0, "an integer of at least 0"),
        ("cooldown", -1, "an integer of at least 0"),
        ("cooldown", 0.5, "an integer of at least 0"),
        ("warmup", -1, "an integer of at least 0"),
        ("max_reductions", -1, "an integer of at least 0"),
        ("max_reductions", math.inf, "an integer of at least 0"),
        ("mode", "lower", "'auto', 'min' or 'max'"),
        ("threshold_mode", "relative", "'abs' or 'rel'"),
        ("min_delta", -1e-4, "at least 0"),
        ("min_delta", math.inf, "a finite number of at least 0"),
        ("min_delta", math.nan, "a finite number of at least 0"),
        ("smoothing", -0.1, r"in \[0, 1\)"),
        ("smoothing", 1.0, r"in \[0, 1\)"),
        ("growth_factor", 1.0, "above 1"),
        ("growth_factor", math.inf, "a finite number above 1"),
        ("growth_factor", math.nan, "a finite number above 1"),
        ("growth_patience", 3, "None without a growth_factor"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(name, value, rule):
    with pytest.raises(ValueError, match=f"^{name} must be {rule}; got {value!r}"):
        PlateauRule(**{name: value})


def test_a_negative_growth_patience_is_refused():
    with pytest.raises(ValueError, match="growth_patience must be an integer of at least 0"):
        PlateauRule(growth_factor=2.0, growth_patience=-1)


def test_a_relative_margin_of_the_whole_value_is_refused():
    with pytest.raises(ValueError, match="min_delta must be below 1 .* got 1.0. It is a fraction"):
        PlateauRule(min_delta=1.0, threshold_mode="rel")
    assert PlateauRule(min_delta=1.0).min_delta == 1.0


@pytest.mark.parametrize(
    "name",
    ["factor", "patience", "cooldown", "warmup", "max_reductions", "min_delta", "smoothing"]
    + ["growth_factor"],
)
@pytest.mark.parametrize("value", ["1", True, 1j])
def test_an_argument_that_is_no_number_is_refused(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an? .*; got {value!r}"):
        PlateauRule(**{name: value})


def test_arguments_may_be_numpy_numbers():
    rule = PlateauRule(
        factor=np.float32(0.5),
        growth_factor=np.float32(2.0),
        min_delta=np.float32(0.25),
        patience=np.int64(1),
        cooldown=np.int32(2),
    )
    decisions = decide(rule, [1.0, 1.0, 1.0, 1.0])
    assert [d.action for d in decisions] == ["grow", "reduce", "none", "reduce"]
    assert {type(d.factor) for d in decisions} == {float}
    assert {type(d.improved) for d in decisions} == {bool}
    json.dumps(rule.state())
    assert rule.observe(1.0 - 0.25 - 1e-12).improved  # float32 would round this to a tie
    rule = PlateauRule(smoothing=np.float32(0.5))
    decide(rule, [3.0, 2.0])
    json.dumps(rule.state())
