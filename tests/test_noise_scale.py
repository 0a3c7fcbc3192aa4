"""The noise scale against formulas in NumPy, on linear models whose gradients are known."""

import keras
import numpy as np
import pytest
from models import classifier, data, same, saturated, values

import keras_lr
from keras_lr.optimizers import ScheduleFree

FEATURES = 6


def linear(start, loss="mse", optimizer="sgd", **options):
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.asarray(start, "float32")[:, None]])
    model.compile(optimizer, loss, **options)
    return model


def regression(rows, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES))
    truth = np.arange(1.0, FEATURES + 1) / FEATURES
    y = x @ truth + noise * rng.normal(size=rows)
    return x.astype("float32"), y.astype("float32"), truth


def test_it_equals_the_variance_of_the_gradients_of_the_batches():
    size, batches = 8, 40
    x, y, truth = regression(size * batches)
    start = truth + 0.3
    result = keras_lr.noise_scale(
        linear(start), x, y, batches=batches, batch_size=size, shuffle=False
    )
    errors = x.astype("float64") @ start - y
    each = (2.0 * errors[:, None] * x).reshape(batches, size, FEATURES).mean(axis=1)
    mean = each.mean(axis=0)
    spread = ((each - mean) ** 2).sum() / (batches - 1)  # unbiased, of the mean of `size` rows
    np.testing.assert_allclose(result.variance, size * spread, rtol=1e-4)
    np.testing.assert_allclose(result.squared_gradient, mean @ mean - spread / batches, rtol=1e-4)
    ratio = size * spread / (mean @ mean - spread / batches)
    np.testing.assert_allclose(float(result), ratio, rtol=1e-4)
    assert (result.batch_size, result.batches) == (size, batches)


def test_few_rows_are_read_in_a_new_order_each_epoch():
    """Batches without replacement: E|g|^2 = |G|^2 + S^2 / b (1 - b / rows)."""
    rows, size, batches = 96, 8, 600
    x, y, truth = regression(rows)
    start = truth + 0.3
    result = keras_lr.noise_scale(linear(start), x, y, batches=batches, batch_size=size, seed=0)
    each = 2.0 * (x.astype("float64") @ start - y)[:, None] * x
    mean = each.mean(axis=0)
    within = ((each - mean) ** 2).sum() / (rows - 1) * (1 / size - 1 / rows)
    expected = within / (1 / size - 1 / (size * batches))
    np.testing.assert_allclose(result.variance, expected, rtol=0.15)
    np.testing.assert_allclose(result.squared_gradient, mean @ mean, rtol=0.05)
    assert result.low < float(result) < result.high


def test_the_interval_has_a_width_where_eighths_of_the_batches_are_whole_epochs():
    rows, size, epochs = 80, 8, 16
    x, y, truth = regression(rows)
    found = []
    for seed in range(6):
        options = {"batches": epochs * rows // size, "batch_size": size, "seed": seed}
        found.append(keras_lr.noise_scale(linear(truth + 0.3), x, y, **options))
    middle = np.median([float(each) for each in found])
    assert sum(each.low < middle < each.high for each in found) >= 5
    # Epochs have one mean gradient; halves of epochs do not.
    assert all(each.high / each.low > 1.01 for each in found)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_epoch_of_few_batches_is_refused(rows):
    x, y, truth = regression(32 * rows)
    with pytest.raises(ValueError, match=f"at least 4 batches.* got {rows}"):
        keras_lr.noise_scale(linear(truth), x, y, batch_size=32)


@pytest.mark.parametrize("size", [4, 32])
def test_it_finds_the_true_value_whatever_the_batch_size(size):
    rows, noise = 16384, 0.5
    x, y, truth = regression(rows, noise)
    away = np.full(FEATURES, 0.4)
    result = keras_lr.noise_scale(
        linear(truth + away), x, y, batches=rows // size, batch_size=size, seed=0
    )
    # x is normal: E[(x x')^2] = (n + 2) I, for g = 2 x (x'd - e).
    square = 4 * away @ away
    variance = 4 * ((FEATURES + 1) * away @ away + FEATURES * noise**2)
    np.testing.assert_allclose(result.squared_gradient, square, rtol=0.05)
    np.testing.assert_allclose(result.variance, variance, rtol=0.05)
    assert result.low < variance / square < result.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    x, y, truth = regression(64 * 8 * 40)
    away = np.full(FEATURES, 0.4)
    true = ((FEATURES + 1) * away @ away + FEATURES * 0.25) / (away @ away)
    model, inside = linear(truth + away), 0
    for part in range(40):
        rows = slice(part * 512, (part + 1) * 512)
        result = keras_lr.noise_scale(model, x[rows], y[rows], batches=64, batch_size=8)
        inside += result.low < true < result.high
    assert inside >= 36  # of 40, 95 % of which are 38


def test_a_gradient_within_its_noise_has_no_finite_scale():
    x, y, _ = regression(512)
    best = np.linalg.lstsq(x.astype("float64"), y, rcond=None)[0]
    result = keras_lr.noise_scale(linear(best), x, y, batches=64, batch_size=8)
    assert float(result) == result.high == np.inf and np.isfinite(result.low)
    assert "cannot be told from its noise in 64 batches of 8" in str(result)
    assert result.low > 8


@pytest.mark.parametrize("optimizer", ["adam", "schedule-free", "loss scale"])
def test_it_restores_the_model(optimizer):
    def made():
        adam = keras.optimizers.Adam(0.01)
        if optimizer == "schedule-free":
            adam = ScheduleFree(adam)
        if optimizer == "loss scale":
            adam = keras.optimizers.LossScaleOptimizer(adam, 64.0)
        return classifier(adam)  # with dropout and batch normalization

    x, y = data()
    models = [made() for _ in range(2)]
    results = []
    for index, model in enumerate(models):
        keras.utils.set_random_seed(1)
        model.fit(x, y, batch_size=16, verbose=0)
        if index:
            before = values(model.variables) + values(model.optimizer.variables)
            results.append(keras_lr.noise_scale(model, x, y, batches=16, batch_size=8))
            after = values(model.variables) + values(model.optimizer.variables)
            assert same(before, after)
        model.fit(x, y, batch_size=16, verbose=0)
    assert same(*[values(model.variables) for model in models])
    assert results[0].variance > 0


def test_half_precision_gives_the_same():
    x, y, truth = regression(1024)
    plain = keras_lr.noise_scale(linear(truth + 0.3), x, y, batches=32, batch_size=32, seed=0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = linear(truth + 0.3)
    finally:
        keras.config.set_dtype_policy("float32")
    scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), 1024.0)
    half.compile(scale, "mse")
    result = keras_lr.noise_scale(half, x, y, batches=32, batch_size=32, seed=0)
    np.testing.assert_allclose(result.variance, plain.variance, rtol=0.02)
    np.testing.assert_allclose(result.squared_gradient, plain.squared_gradient, rtol=0.02)


def test_a_loss_scale_that_overflows_is_lowered_as_in_training():
    x, y, truth = regression(512)
    options = {"batches": 16, "batch_size": 32, "shuffle": False}
    plain = keras_lr.noise_scale(linear(truth + 0.3), x, y, **options)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = linear(truth + 0.3)
    finally:
        keras.config.set_dtype_policy("float32")
    half.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), 2.0**40), "mse")
    result = keras_lr.noise_scale(half, x, y, **options)
    np.testing.assert_allclose(result.variance, plain.variance, rtol=0.02)
    np.testing.assert_allclose(result.squared_gradient, plain.squared_gradient, rtol=0.02)
    half.optimizer.build(half.trainable_variables)
    assert float(half.optimizer.dynamic_scale.numpy()) == 2.0**40
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="it was not in batch 0. Check the data and the model.$"):
        keras_lr.noise_scale(half, x, y, **options)
    constant = keras.optimizers.SGD(0.01, loss_scale_factor=1e9)
    half.compile(constant, "mse", auto_scale_loss=False)
    with pytest.raises(ValueError, match="and lower loss_scale_factor=1000000000.0 of the optim"):
        keras_lr.noise_scale(half, np.nan_to_num(x), y, **options)


def test_weights_that_keras_overwrites_with_their_gradients_do_not_count():
    """float8 gives its scales and histories as gradients, which are far larger."""
    x, y, truth = regression(1024)
    options = {"batches": 32, "batch_size": 32, "shuffle": False}
    plain = keras_lr.noise_scale(linear(truth + 0.3), x, y, **options)
    eighth = linear(truth + 0.3)
    eighth.layers[0].quantize("float8")
    eighth.compile("sgd", "mse")
    result = keras_lr.noise_scale(eighth, x, y, **options)
    np.testing.assert_allclose(result.variance, plain.variance, rtol=0.1)
    np.testing.assert_allclose(result.squared_gradient, plain.squared_gradient, rtol=0.1)


def test_a_batch_of_another_size_is_left_out():
    size = 8
    x, y, truth = regression(size * 16 + 3)
    model, options = linear(truth + 0.3), {"batches": 16, "batch_size": size, "shuffle": False}
    result = keras_lr.noise_scale(model, x, y, **options)
    expected = keras_lr.noise_scale(model, x[:-3], y[:-3], **options)
    again = keras_lr.noise_scale(model, x, y, **{**options, "batches": 32})
    assert result == expected and again.batches == 32
    np.testing.assert_allclose(again.squared_gradient, expected.squared_gradient, rtol=0.5)


class OwnStep(keras.Sequential):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


def test_what_it_cannot_measure_is_refused():
    x, y, truth = regression(64)
    model = linear(truth)
    with pytest.raises(ValueError, match="batches must be an integer of at least 16; got 15"):
        keras_lr.noise_scale(model, x, y, batches=15)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0; got -1"):
        keras_lr.noise_scale(model, x, y, seed=-1)
    with pytest.raises(ValueError, match="noise_scale needs data; got x=None"):
        keras_lr.noise_scale(model, None)
    generator = ((x[:8], y[:8]) for _ in range(10))
    with pytest.raises(ValueError, match="The data ended after 10 of 16 batches"):
        keras_lr.noise_scale(model, generator, batches=16)
    total = linear(truth, keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(ValueError, match="got MeanSquaredError with reduction='sum'"):
        keras_lr.noise_scale(total, x, y)
    own = OwnStep([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    own.compile("sgd", "mse")
    for _ in range(2):  # as a GAN, which has a further optimizer, the second time
        with pytest.raises(ValueError, match="OwnStep overrides train_step"):
            keras_lr.noise_scale(own, x, y)
        own.d_optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="must be finite; it was not in batch 0"):
        keras_lr.noise_scale(model, x * np.nan, y, batch_size=8)


@pytest.mark.once
def test_scale_lr_warns_past_the_noise_scale():
    options = {"base_batch_size": 100, "noise_scale": 300}
    assert keras_lr.scale_lr(0.1, 300, **options) == pytest.approx(0.3)
    with pytest.warns(UserWarning, match="got batch_size=301 and a noise scale of 300 examples"):
        assert keras_lr.scale_lr(0.1, 301, **options) == pytest.approx(0.301)
    result = keras_lr.NoiseScale(12.0, 10.0, 14.0, 1.0, 12.0, 8, 16)
    with pytest.warns(UserWarning, match="a noise scale of 12 examples"):
        keras_lr.scale_lr(0.1, 13, 1, noise_scale=result)
    keras_lr.scale_lr(0.1, 10**6, noise_scale=float("inf"))
    with pytest.raises(ValueError, match="noise_scale must be above 0; got 0"):
        keras_lr.scale_lr(0.1, 8, noise_scale=0)
    with pytest.raises(TypeError, match="noise_scale must be"):
        keras_lr.scale_lr(0.1, 8, noise_scale="12")


def test_a_gradient_that_is_0_is_refused():
    with pytest.raises(ValueError, match="The gradient must not be 0; it is, in all 16 batches"):
        keras_lr.noise_scale(*saturated(), batches=16, batch_size=8)
