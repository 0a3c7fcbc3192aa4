"""Range tests of models with `ScheduleFree`, and with Keras's own optimizer of that name."""

import warnings

import keras
import numpy as np
import pytest
from models import same, values

import keras_lr
from keras_lr import lr_find
from keras_lr.optimizers import ScheduleFree

pytestmark = [
    pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning"),
    pytest.mark.long_elsewhere("whole runs, of parts that other tests check on each backend"),
]
BETA, WARM_UP = 0.75, 20
START = np.array([[0.1], [0.2], [0.3]], "float32")


def regression(seed, rows=60):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype("float32")
    return x, (x @ [[1.0], [-2.0], [0.5]] + 0.3 * rng.normal(size=(rows, 1))).astype("float32")


def linear(optimizer=None):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    inner = keras.optimizers.SGD(0.01, momentum=BETA)
    model.compile(optimizer or ScheduleFree(inner, warmup_steps=WARM_UP), "mse")
    model.layers[0].set_weights([START])
    return model


def held_out_loss(rate, steps):
    """The held-out loss at x after updates on the whole data, by the paper's equations."""
    (inputs, targets), (held_x, held_y) = regression(0), regression(1)
    x = y = z = START.astype("float64")
    total = 0.0
    for k in range(steps):
        gamma = rate * min(1.0, (k + 1) / WARM_UP)
        total += gamma**2  # the largest gamma so far is the last one
        z = z - gamma * 2 / len(inputs) * inputs.T @ (inputs @ y - targets)
        x = x + (z - x) * gamma**2 / total
        y = (1 - BETA) * z + BETA * x
    return float(np.mean((held_x @ x - held_y) ** 2))


def test_short_runs_are_compared_at_the_average():
    (x, y), held_out = regression(0), regression(1)
    model = linear()
    before = values(model.variables)
    test = lr_find(model, x, y, batch_size=60, budget=400, validation_data=held_out, verbose=0)
    probes = test.probes
    runs = list(zip(probes.learning_rates, probes.losses, probes.steps, strict=True))
    ran = [run for run in runs if np.isfinite(run[1])]
    assert len(ran) > 1
    assert len(set(probes.steps)) > 1  # some went on from their kept states
    for rate, loss, steps in ran:
        np.testing.assert_allclose(loss, held_out_loss(rate, steps), rtol=1e-3)
    assert same(values(model.variables), before)


def test_the_validation_loss_along_the_ramp_is_at_the_average():
    (x, y), held_out = regression(0), regression(1)
    options = {"batch_size": 60, "validation_data": held_out, "verbose": 0}
    rate = 0.05  # a ramp that is nearly flat
    ramp = {"start_lr": rate, "end_lr": rate * 1.0001, "steps": 30, "budget": 30}
    test = lr_find(linear(), x, y, validation_every=10, **ramp, **options)
    expected = [held_out_loss(rate, steps) for steps in (10, 20, 30)]
    np.testing.assert_allclose(test.validation["loss"], expected, rtol=1e-3)
    plain = lr_find(linear(), x, y, validation_every=30, **ramp, **options)
    np.testing.assert_allclose(test.losses, plain.losses, rtol=1e-4)  # it goes on at y


@pytest.mark.once
def test_the_suggestion_is_corrected_for_no_policy_and_no_length():
    x, y = regression(0, 300)
    model = linear()
    test = lr_find(model, x, y, budget=100, total_steps=50_000, seed=0, verbose=0)
    found = test.suggest()
    assert found.run == "schedule-free, 50,000 updates"
    assert "ScheduleFree keeps this rate for a run of any length." in found.reason
    np.testing.assert_allclose(np.log10(found.learning_rate), test.probes.answer(), rtol=1e-5)
    assert test.suggest(policy="constant").learning_rate == found.learning_rate
    for policy in ("one-cycle", keras.optimizers.schedules.CosineDecay(0.1, 9)):
        with pytest.raises(ValueError, match="policy must be None or 'constant' for ScheduleFree"):
            test.suggest(policy=policy)
        with pytest.raises(ValueError, match="policy must be None or 'constant' for ScheduleFree"):
            lr_find(model, x, y, policy=policy, verbose=0)
    with pytest.raises(ValueError, match="must be runs without ScheduleFree"):
        keras_lr.transfer_lr(0.1, test.planned, ("constant", 100))


@pytest.mark.once
def test_a_saved_result_knows_that_it_was_schedule_free(tmp_path):
    x, y = regression(0, 300)
    test = lr_find(linear(), x, y, budget=100, total_steps=1_000, seed=0, verbose=0)
    test.save(tmp_path / "test.json")
    loaded = keras_lr.RangeTest.load(tmp_path / "test.json")
    assert loaded.suggest() == test.suggest()


@pytest.mark.once
@pytest.mark.skipif(not hasattr(keras.optimizers, "ScheduleFreeAdamW"), reason="Keras has none")
def test_the_optimizer_of_keras_is_refused_with_the_one_to_use():
    x, y = regression(0)
    model = linear(keras.optimizers.ScheduleFreeAdamW(0.01))
    words = r"sets the weights to about 0.* Compile with keras_lr.optimizers.ScheduleFree\("
    with pytest.raises(ValueError, match=f"lr_find needs .*{words}"):
        lr_find(model, x, y, verbose=0)
    with pytest.raises(ValueError, match=f"LRFinder needs .*{words}"):
        model.fit(x, y, callbacks=[keras_lr.LRFinder(verbose=0)], verbose=0)


@pytest.mark.once
def test_the_callback_finds_a_rate_and_applies_none():
    x, y = regression(0)
    model, finder = linear(), keras_lr.LRFinder(budget=100, seed=0, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit(x, y, batch_size=20, epochs=60, callbacks=[finder], verbose=0)
        assert finder.result.suggest().run.startswith("schedule-free")
    assert same(values(model.layers[0].weights), [START])
