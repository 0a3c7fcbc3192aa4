"""Ftrl, whose weights follow its rate, is refused by all that changes a rate, and searched without.

So are the policies of a search for other optimizers that train at a constant rate.
"""

import keras
import numpy as np
import pytest
from models import public_callbacks

import keras_lr
from keras_lr.optimizers import Hypergradient, LayerwiseLR, ScheduleFree

pytestmark = pytest.mark.once
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype("float32")
Y = (X[:, :3] * X[:, 3:]).sum(1)


def model(optimizer):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)]
    made = keras.Sequential(layers)
    made.compile(optimizer, "mse")
    return made


def ftrl(rate=0.1):
    return keras.optimizers.Ftrl(rate)


def test_half_the_rate_of_ftrl_halves_the_weights():
    """What the refusals are for: Keras's formula, with a gradient of 0 in the last update."""
    weight, optimizer = keras.Variable([0.0]), ftrl(0.1)
    for gradient in (1.0, -0.5, 2.0, 0.7):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
    before = keras.ops.convert_to_numpy(weight.value).copy()
    optimizer.learning_rate = 0.05
    optimizer.apply([keras.ops.zeros(1)], [weight])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weight.value), before / 2, rtol=1e-5)


CHANGING = {
    "OneCycle": lambda: keras_lr.OneCycle(0.1, cycle_momentum=False),
    "CyclicLR": lambda: keras_lr.CyclicLR(0.01, 0.1, 4, cycle_momentum=False),
    "WarmUp": lambda: keras_lr.WarmUp(5),
    "ScheduleLR": lambda: keras_lr.ScheduleLR(keras.optimizers.schedules.CosineDecay(0.1, 9)),
    "WarmUpStableDecay": lambda: keras_lr.WarmUpStableDecay(0.1),
    "ReduceLROnPlateau": lambda: keras_lr.ReduceLROnPlateau("loss"),
    "HalveOnDivergence": lambda: keras_lr.HalveOnDivergence(),
    "LRFinder": lambda: keras_lr.LRFinder(),
}


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_callback_that_changes_the_rate_refuses_ftrl(name, wrapped):
    made = model(LayerwiseLR(ftrl(), {"dense.*": 0.5}) if wrapped else ftrl())
    before = made.get_weights()
    with pytest.raises(ValueError, match=f"{name} changes the learning rate, which must not"):
        made.fit(X, Y, verbose=0, callbacks=[CHANGING[name]()])
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_public_callbacks_that_steer_a_rate_are_among_them():
    others = {"Diagnose", "GradualUnfreeze", "LRLogger", "ScheduleHyperparameter"}
    assert set(public_callbacks()) == set(CHANGING) | others


def test_range_tests_and_schedules_of_multipliers_refuse_ftrl():
    for function, options in ((keras_lr.lr_find, {}), (keras_lr.find_warmup, {"max_lr": 0.1})):
        name = function.__name__
        with pytest.raises(ValueError, match=f"{name} changes the learning rate, which must not"):
            function(model(ftrl()), X, Y, verbose=0, **options)
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 9)
    with pytest.raises(ValueError, match="A schedule as a multiplier changes the learning rate"):
        LayerwiseLR(ftrl(), {"dense.*": schedule})
    constant = LayerwiseLR(ftrl(), {"dense.*": 0.5})
    with pytest.raises(ValueError, match="A schedule as a multiplier changes the learning rate"):
        constant.multipliers = {"dense.*": schedule}


def test_what_leaves_the_rate_alone_takes_ftrl():
    made = model(ftrl())
    logger = keras_lr.LRLogger()
    history = made.fit(X, Y, epochs=2, verbose=0, callbacks=[logger, keras_lr.Diagnose(verbose=0)])
    np.testing.assert_allclose(history.history["learning_rate"], [0.1, 0.1], rtol=1e-5)
    assert keras_lr.noise_scale(made, X, Y, batch_size=8, batches=16).variance > 0


def test_a_search_with_ftrl_compares_whole_runs_at_constant_rates(tmp_path):
    with pytest.warns(UserWarning, match="Ftrl trains at a constant rate, so the search asks for"):
        found = keras_lr.search(model(ftrl()), X, Y, epochs=3, verbose=0)
    assert found.setting.policy == "constant" and found.range_test is None

    def trained(rate):
        made = model(ftrl(rate))
        made.fit(X[:320], Y[:320], epochs=3, verbose=0)
        return made.evaluate(X[320:], Y[320:], verbose=0)

    start, rates = (
        model(ftrl()).evaluate(X[320:], Y[320:], verbose=0),
        10.0 ** np.arange(-3, 1.1, 0.5),
    )
    best = np.nanmin([trained(rate) for rate in rates])
    assert (trained(found.setting.learning_rate) - best) / (start - best) < 0.25
    found.report(tmp_path / "search.html")
    assert "Ftrl" in (tmp_path / "search.html").read_text("utf-8")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ftrl(),
        lambda: ScheduleFree(keras.optimizers.AdamW(1e-3)),
        lambda: Hypergradient(keras.optimizers.SGD(0.01)),
    ],
)
def test_a_search_refuses_to_vary_what_changes_a_rate_that_must_stay(make):
    for also in ({"policy": ["cosine"]}, ["warmup"], ["momentum"]):
        with pytest.raises(ValueError, match="needs an optimizer whose rate may change during"):
            keras_lr.search(model(make()), X, Y, epochs=1, also=also, verbose=0)


def test_a_search_of_schedule_free_asks_for_the_rate_alone():
    made = model(ScheduleFree(keras.optimizers.AdamW(1e-3)))
    with pytest.warns(UserWarning, match="trains at a constant rate, so the search asks for"):
        found = keras_lr.search(made, X, Y, epochs=2, verbose=0)
    assert found.setting.policy == "constant"
