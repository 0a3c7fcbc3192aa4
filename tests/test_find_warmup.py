"""`find_warmup`: the shortest warm-up that survives; the expected answers are by NumPy."""

import keras
import numpy as np
import pytest
from models import classifier, data, same, saturated, values

import keras_lr
from keras_lr.range_test.warm_up_search import candidate_lengths, survives, trial_rates

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)


def quartic(rate=0.1):
    """One weight from 2 on, with the loss w^4 / 4: its curvature falls on the way to 0."""
    start = keras.initializers.Constant(2.0)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(
        keras.optimizers.SGD(rate), loss=lambda y_true, y_pred: keras.ops.power(y_pred, 4) / 4
    )
    return model


ONES = np.ones((64, 1), "float32")


def shortest(rate, lengths=(0, 10, 30, 100, 300, 1000)):
    """The first warm-up with which gradient descent on w^4 / 4 stays within 2."""
    for length in lengths:
        w = 2.0
        for t in range(3 * length + 100):
            w -= rate * min(t / length if length else 1.0, 1.0) * w**3
            if abs(w) > 2.0:
                break
        else:
            return length
    return None


@pytest.mark.parametrize("rate", [0.3, 0.6, 5.0, 40.0])
def test_the_shortest_warm_up_that_survives(rate):
    model = quartic()
    result = keras_lr.find_warmup(
        model, ONES, ONES, rate, batch_size=8, verbose=0, seed=1, total_steps=20000
    )
    assert result.warmup_steps == shortest(rate)
    tried = [trial.warmup_steps for trial in result.trials]
    assert tried == [each for each in candidate_lengths(20000) if each <= result.warmup_steps]
    assert [trial.survived for trial in result.trials] == [False] * (len(tried) - 1) + [True]
    assert result.start_loss == 4.0  # 2^4 / 4
    assert result.untried is None
    if result.warmup_steps:
        assert f"A warm-up of {result.warmup_steps} updates survives" in str(result)
    else:
        assert "No warm-up is needed" in str(result)


def test_the_model_is_as_before():
    x, y = data()
    ends = []
    for looks in (False, True):
        model = classifier(keras.optimizers.Adam(0.01))
        model.fit(x, y, batch_size=16, verbose=0)
        if looks:
            keras_lr.find_warmup(model, x, y, 5.0, batch_size=16, budget=250, verbose=0)
        model.fit(x, y, batch_size=16, verbose=0)
        ends.append(values([*model.variables, *model.optimizer.variables]))
    assert same(*ends)


@pytest.mark.once
def test_no_warm_up_helps_where_the_curvature_is_constant():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 2)), rng.normal(size=64)  # with noise, no step ends in the minimum
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(2.5), "mse")  # above 2 / curvature, about 1
    result = keras_lr.find_warmup(model, x, y, batch_size=8, total_steps=350, seed=0, verbose=0)
    assert result.max_lr == 2.5
    assert result.warmup_steps is None
    assert [trial.warmup_steps for trial in result.trials] == [0, 10, 30]
    assert "No warm-up of up to 30 updates survives the rate 2.5. Lower the rate." in str(result)


@pytest.mark.once
def test_the_budget_leaves_out_what_does_not_fit():
    result = keras_lr.find_warmup(
        quartic(), ONES, ONES, 40.0, batch_size=8, budget=100 + 110 + 130, verbose=0
    )
    assert [trial.warmup_steps for trial in result.trials] == [0, 10, 30]
    assert result.warmup_steps is None
    assert result.untried == 100
    assert "The budget left out 100 updates." in str(result)


@pytest.mark.once
def test_rates_of_a_trial_are_those_of_the_callback():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.3), "mse")
    logger = keras_lr.LRLogger()
    x = np.zeros((130, 1))
    model.fit(
        x, x, batch_size=1, verbose=0, callbacks=[keras_lr.WarmUp(steps=10), logger]
    )  # fmt: skip
    rates = logger.history["learning_rate"]
    np.testing.assert_allclose(trial_rates(0.3, 10), rates[:110], rtol=1e-6)
    assert len(trial_rates(0.3, 0)) == 100
    assert len(trial_rates(0.3, 100)) == 300


@pytest.mark.once
@pytest.mark.parametrize(
    ("losses", "reason", "expected"),
    [
        ([4.0, 3, 2, 1, 1, 1, 1, 1], "completed", True),
        ([4.0, 3, 2, 1, 1, 1, 1, 1], "diverged", False),
        ([4.0] * 9, "completed", False),  # it learned nothing
        ([4.0, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3], "completed", False),  # it lost two thirds again
        ([4.0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2], "completed", True),
    ],
)
def test_what_surviving_means(losses, reason, expected):
    assert survives(np.array(losses), reason, 4.0) is expected


@pytest.mark.once
def test_data_that_ends_is_told():
    def batches():
        for _ in range(30):
            yield ONES[:8], ONES[:8]

    with pytest.raises(ValueError, match=r"data ended after \d+ of 100 updates.*can be repeated"):
        keras_lr.find_warmup(quartic(), batches(), max_lr=0.1, verbose=0)


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"max_lr": 0.0}, "max_lr must be above 0; got 0.0"),
        (ValueError, {"budget": 0}, "budget must be an integer of at least 1; got 0"),
        (ValueError, {"stop_factor": 1.0}, "stop_factor must be above 1; got 1.0"),
        (TypeError, {"total_steps": "all"}, "total_steps must be an integer of at least 1"),
        (TypeError, {"monitor": 3}, "monitor must be the name of a log entry; got 3"),
        (ValueError, {"seed": -1}, "seed must be an integer of at least 0; got -1"),
        (ValueError, {"verbose": "yes"}, "verbose must be 'auto', 0 or 1; got 'yes'"),
        (ValueError, {"x": None}, "find_warmup needs data; got x=None"),
    ],
)
def test_bad_arguments_are_refused(error, options, message):
    with pytest.raises(error, match=message):
        keras_lr.find_warmup(quartic(), **{"x": ONES, "y": ONES, "max_lr": 0.1, **options})


@pytest.mark.once
def test_a_schedule_has_no_rate_to_try():
    decay = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(ValueError, match="optimizer with a schedule; got CosineDecay and max_lr"):
        keras_lr.find_warmup(quartic(decay), ONES, ONES)


def test_a_rate_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="The rate 0.1 must change the loss; it did not"):
        keras_lr.find_warmup(*saturated(), max_lr=0.1, verbose=0)


@pytest.mark.once
@pytest.mark.parametrize("own", [{"warmup_steps": 50}, {"rectify": True}])
def test_an_optimizer_that_warms_up_itself_is_refused(own):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras_lr.optimizers.ScheduleFree(keras.optimizers.Adam(0.01), **own), "mse")
    with pytest.raises(ValueError, match="without a warm-up of its own; got ScheduleFree"):
        keras_lr.find_warmup(model, np.ones((64, 4)), np.ones(64), verbose=0)
