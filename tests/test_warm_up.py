"""`WarmUp("auto")`: the length from the optimizer."""

import keras
import numpy as np
import pytest
from test_callbacks import finite, recorded
from test_steering import STEPS, fit, groups, network

import keras_lr
from keras_lr.optimizers import LayerwiseLR
from keras_lr.schedules.base import evaluate
from keras_lr.schedules.warm_up import UntunedWarmUpFactor

inner = keras.optimizers
UPDATES = np.arange(1, 3 * STEPS + 1)


@pytest.mark.parametrize(
    ("make", "period"),
    [
        (lambda: inner.Adam(0.1, beta_2=0.8), 10),
        (lambda: inner.AdamW(0.1, beta_2=0.7), 20 / 3),
        (lambda: inner.Nadam(0.1), 2000),
        (lambda: inner.RMSprop(0.1, rho=0.75), 8),
        (lambda: inner.Lion(0.1, beta_2=0.8), 1),  # a twentieth of 12 updates
        (lambda: inner.LossScaleOptimizer(inner.Adam(0.1, beta_2=0.8), 2.0), 10),
    ],
    ids=["Adam", "AdamW", "Nadam", "RMSprop", "Lion", "loss scale"],
)
@pytest.mark.filterwarnings("ignore:The warm-up should end within the run")
def test_auto_takes_the_period_from_the_optimizer(make, period):
    history = recorded(network(make()), keras_lr.WarmUp("auto"))
    expected = 0.1 * np.minimum(1, UPDATES / period)
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5, atol=0)


@pytest.mark.once
@pytest.mark.parametrize("beta_2", [0.75, 1 - 2**-5, 1 - 2**-10, 0.98, 0.999])
def test_auto_has_the_factors_of_pytorch_warmup(beta_2):
    # The package cuts the period to an integer: 1999 updates for 0.999, where the paper has 2000.
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("pytorch_warmup")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 1.0, betas=(0.9, beta_2))
    warm_up, factors = peer.UntunedLinearWarmup(optimizer), []
    period = warm_up.warmup_params[0]["warmup_period"]
    assert period == int(2 / (1 - beta_2)) and abs(period - 2 / (1 - beta_2)) < 1
    for _ in range(2100):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warm_up.dampening():
            pass
    ours = evaluate(UntunedWarmUpFactor(period), np.arange(2100))
    np.testing.assert_allclose(ours, factors, rtol=1e-5, atol=0)


def test_auto_of_an_optimizer_without_a_mean_of_squares_is_a_twentieth_of_the_run():
    history = recorded(network(inner.SGD(0.1)), keras_lr.WarmUp("auto"), epochs=25)
    expected = 0.1 * np.minimum(1, np.arange(1, 25 * STEPS + 1) / 5)  # 100 updates
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5, atol=0)


def test_auto_of_several_groups_is_the_longest_period():
    optimizer = groups(inner.SGD(0.1), inner.Adam(0.1, beta_2=0.8))
    history = recorded(network(optimizer), keras_lr.WarmUp("auto"))
    np.testing.assert_allclose(
        history["learning_rate"], 0.1 * np.minimum(1, UPDATES / 10), rtol=1e-5, atol=0
    )


def test_auto_reads_the_optimizer_of_each_fit():
    callback = keras_lr.WarmUp("auto")
    for beta_2, period in ((0.8, 10), (0.5, 4)):
        history = recorded(network(inner.Adam(0.1, beta_2=beta_2)), callback)
        expected = 0.1 * np.minimum(1, UPDATES / period)
        np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5, atol=0)


def test_auto_that_is_longer_than_the_run_is_warned_of():
    with pytest.warns(UserWarning, match="a warm-up of 2000 updates, and this fit makes 12"):
        fit(network(inner.Adam(0.1)), keras_lr.WarmUp("auto"))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_auto_needs_the_length_of_the_run_only_without_a_mean_of_squares():
    options = {"shuffle": False, "verbose": 0, "callbacks": [keras_lr.WarmUp("auto")]}
    with pytest.raises(ValueError, match="got steps='auto'. Pass a number of steps to WarmUp"):
        network(inner.SGD(0.1)).fit(finite(), **options)
    network(inner.Adam(0.1)).fit(finite(), **options)


@pytest.mark.once
def test_auto_refuses_what_it_sets_itself_and_what_has_no_period():
    with pytest.raises(ValueError, match="steps must be 'auto'; got 'long'"):
        keras_lr.WarmUp("long")
    for options in ({"start_factor": 0.1}, {"start_factor": 0.1, "mode": "constant"}):
        with pytest.raises(ValueError, match="omitted with steps='auto'.*got start_factor=0.1"):
            keras_lr.WarmUp("auto", **options)
    with pytest.raises(ValueError, match="got steps and epochs"):
        keras_lr.WarmUp("auto", epochs=1)
    with pytest.raises(ValueError, match=r"\(beta_2 or rho\) must be in \[0, 1\); got 1.0. Pass a"):
        fit(network(inner.Adam(0.1, beta_2=1.0)), keras_lr.WarmUp("auto"))
    with pytest.raises(ValueError, match="depends on the optimizer, which is unknown here"):
        keras_lr.preview([0.1, keras_lr.WarmUp("auto")], 10)


def test_a_longer_run_that_is_resumed_can_keep_the_old_warm_up():
    callback = keras_lr.WarmUp("auto")
    fit(network(inner.SGD(0.1)), callback, epochs=25)
    arguments = callback.follows(keras_lr.steering.Length(100, 25))
    history = recorded(network(inner.SGD(0.1)), keras_lr.WarmUp(**arguments), epochs=50)
    expected = 0.1 * np.minimum(1, np.arange(1, 50 * STEPS + 1) / 5)
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5, atol=0)


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule as the guide of Keras writes it, which computes with the integers that it gets."""

    def __call__(self, step):
        return 0.1 / (1 + 0.5 * step)


class Harmonic(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (step + 1)


class Weights(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights()[0].item())


@pytest.mark.parametrize(("kind", "growth"), [(Decay, 0.5), (Harmonic, 1.0)])
def test_schedules_of_a_program_get_counts_that_they_can_compute_with(kind, growth):
    steps, one = np.arange(4), np.ones((4, 1), "float32")

    def rates(optimizer, *callbacks):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(optimizer, lambda y_true, y_pred: y_pred[:, 0])
        moved = [model.get_weights()[0].item()]
        record = Weights()
        model.fit(one, one, epochs=4, verbose=0, callbacks=[*callbacks, record])
        return -np.diff([*moved, *record.weights])

    curve = 0.1 / (1 + growth * steps)
    scheduled = rates(keras.optimizers.SGD(1.0), keras_lr.ScheduleLR(kind()))
    np.testing.assert_allclose(scheduled, curve, rtol=1e-4, atol=1e-7)
    warm = rates(keras.optimizers.SGD(kind()), keras_lr.WarmUp(steps=2))
    np.testing.assert_allclose(warm, curve * [0, 0.5, 1, 1], rtol=1e-4, atol=1e-7)
    part = rates(LayerwiseLR(keras.optimizers.SGD(1.0), {"dense.*": kind()}))
    np.testing.assert_allclose(part, curve, rtol=1e-4, atol=1e-7)
    decay = keras_lr.ScheduleHyperparameter("weight_decay", lambda step: 0.1 / (step + growth))
    assert rates(keras.optimizers.SGD(0.1, weight_decay=0.1), decay).shape == (4,)
