"""What a range test says of data and models that cannot train, and which values it reads."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_lr import NoSuggestion, RangeTest, lr_find
from keras_lr.range_test.checks import first_not_finite
from keras_lr.range_test.stopping import first_divergence

pytestmark = pytest.mark.long_elsewhere("computed with NumPy, from a record or a plan")


def data(rows=256):
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def dense(loss="mse", **options):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)])
    model.compile("adam", loss, **options)
    return model


# Data and models that cannot train


def test_nan_in_an_array_is_named_by_row_and_column():
    x, y = data()
    x[17, 3] = np.nan
    with pytest.raises(ValueError, match="x has NaN in row 17, column 3"):
        lr_find(dense(), x, y, verbose=0)


def test_infinity_in_targets_is_named():
    x, y = data()
    y[5] = np.inf
    with pytest.raises(ValueError, match="y has infinity in row 5"):
        lr_find(dense(), x, y, verbose=0)


def test_nan_that_the_loss_masks_is_no_fault():
    def masked(true, predicted):
        known = ops.logical_not(ops.isnan(true))
        return ops.where(known, ops.square(ops.where(known, true, 0.0) - predicted), 0.0)

    x, y = data()
    y[::3] = np.nan
    assert np.isfinite(lr_find(dense(masked), x, y, steps=10, verbose=0).losses).all()


@pytest.mark.parametrize("budget", [100, 200])
@pytest.mark.parametrize("case", ["saturated", "detached"])
def test_short_runs_that_trained_nothing_give_no_rate(case, budget):
    x, y = data()
    if case == "saturated":  # by inputs that are not scaled
        model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "hard_tanh")])
        model.compile("adam", "mse")
        x = 1e4 * np.sign(x)[:, :1] * np.ones((1, 4), "float32")
        model.layers[0].set_weights([np.ones((4, 1), "float32"), np.zeros(1, "float32")])
    else:
        inputs = keras.Input((4,))
        outputs = layers.Dense(1)(layers.Dense(8)(inputs) * 0.0)
        model = keras.Model(inputs, outputs)
        model.layers[-1].trainable = False
        model.compile("adam", "mse")
    test = lr_find(model, x, y, verbose=0, budget=budget)
    with pytest.raises(NoSuggestion, match=r"moved the held-out loss .* the gradients are 0"):
        test.suggest()


@pytest.mark.once
def test_a_large_array_on_disk_is_read_in_pieces(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (300_000, 8))
    array[299_999, 7] = np.nan
    assert first_not_finite({"a": array}, None) == "x['a'] has NaN in row 299999, column 7"
    assert first_not_finite(array[:1000], np.arange(1000)) is None


@pytest.mark.parametrize("labels", [np.array(["cat", "dog"] * 128), np.ones(256, object)])
def test_labels_that_are_no_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="y must hold numbers; it holds (text|Python objects)"):
        lr_find(dense(), data()[0], labels, verbose=0)


def test_a_model_with_nothing_to_train_is_refused_before_the_run():
    model = dense()
    model.trainable = False
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="must have trainable weights; got 4 weights, all frozen"):
        lr_find(model, *data(), verbose=0)
    assert not model.optimizer.built


def test_a_generator_that_ends_at_step_10_is_said_to_have_ended():
    x, y = data()
    batches = ((x[i : i + 16], y[i : i + 16]) for i in range(0, 160, 16))
    test = lr_find(dense(), batches, verbose=0)
    with pytest.raises(NoSuggestion, match="data ended after 10 steps"):
        test.suggest()


def test_a_loss_that_is_nan_from_the_start_is_said_to_be():
    test = lr_find(dense(lambda true, got: ops.log(-1.0 - got**2)), *data(), verbose=0)
    with pytest.raises(NoSuggestion, match="not finite from the first step"):
        test.suggest()


def test_unscaled_inputs_and_huge_targets_get_a_hint_and_ordinary_ones_do_not():
    x, y = data()
    raw = np.clip(np.abs(x) * 100, 0, 255).astype("uint8")
    test = lr_find(dense(), raw, 1e6 * y.astype("float32"), steps=10, verbose=0)
    hints = test.provenance["hints"]
    assert len(hints) == 2
    assert hints[0].startswith("x has values of up to 255, not scaled to about 1. Divide it by 255")
    assert hints[1].startswith("y has values of up to")
    assert lr_find(dense(), x, y, steps=10, verbose=0).provenance["hints"] == []


# Spikes


@pytest.mark.once
def test_one_spike_does_not_stop_a_ramp_and_a_rise_does():
    losses = 0.7 + np.random.default_rng(0).normal(0, 0.01, 60)
    losses[20] = 400.0
    assert first_divergence(losses, 4.0) is None
    assert first_divergence(losses[:21], 4.0, more_follow=True) is None
    losses[40:] = 0.7 * 2.0 ** np.arange(20)
    assert 40 <= first_divergence(losses, 4.0) <= 45


def test_a_rare_class_with_a_large_weight_gives_no_narrow_answer_far_off():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(4000, 8)).astype("float32")
        y = np.zeros((4000, 1), "float32")
        y[:8], x[:8] = 1.0, x[:8] + 1.0
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")]
        )
        model.compile("adam", "binary_crossentropy")
        test = lr_find(model, x, y, class_weight={0: 1, 1: 500}, seed=seed, verbose=0)
        assert len(test.losses) == 50
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = test.suggest()
            except NoSuggestion as error:
                assert "a batch size of about" in str(error)
            else:  # a constant rate of 1e-2 is the best of a grid
                near = 1e-3 <= found.learning_rate <= 1e-1
                assert near or (found.low <= 2e-2 <= found.high and found.warnings)


# What is read


def curve():
    rates = np.geomspace(1e-7, 10, 100)
    return rates, 1 / (1 + np.exp(3 * np.log10(rates / 1e-2))) + (rates / 3) ** 3


def test_suggest_reads_the_loss_of_one_output():
    rates, fall = curve()
    test = RangeTest(rates, 5 + fall[::-1], {"head_loss": fall})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = test.suggest(monitor="head_loss").learning_rate
        expected = RangeTest(rates, fall).suggest().learning_rate
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_metric_that_should_rise_is_read_upside_down():
    rates, fall = curve()
    directions = {"directions": {"score": "max"}}
    test = RangeTest(rates, fall, {"accuracy": -fall, "score": -fall}, provenance=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = test.suggest().learning_rate
        for name in ("accuracy", "score"):
            found = test.suggest(monitor=name).learning_rate
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_unknown_monitor_is_refused_with_the_names():
    rates, fall = curve()
    with pytest.raises(ValueError, match="monitor must be one of loss, mae; got 'head_loss'"):
        RangeTest(rates, fall, {"mae": fall}).suggest(monitor="head_loss")


def test_a_monitor_of_unknown_direction_is_refused():
    rates, fall = curve()
    with pytest.raises(ValueError, match="Whether 'score' should fall or rise"):
        RangeTest(rates, fall, {"score": fall}).suggest(monitor="score")


# Seeds


def noisy_model():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(32, "relu"),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.3),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def test_a_seed_gives_equal_models_with_dropout_equal_curves():
    one, two = noisy_model(), noisy_model()
    two.set_weights(one.get_weights())
    before = [ops.convert_to_numpy(v.value) for v in two.variables]
    options = {"steps": 20, "repeats": 2, "verbose": 0}
    expected = lr_find(one, *data(), seed=3, **options).losses
    np.testing.assert_array_equal(lr_find(two, *data(), seed=3, **options).losses, expected)
    assert not np.array_equal(lr_find(two, *data(), seed=4, **options).losses, expected)
    for variable, value in zip(two.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), value)
