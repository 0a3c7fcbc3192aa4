"""The callback around `PlateauRule`: what it watches, what it scales, what it keeps."""

import keras
import numpy as np
import pytest
from keras import ops
from models import same, values
from test_steering import STEPS, assert_close, fit, groups, leaves, network, rows

import keras_lr

elsewhere = pytest.mark.long_elsewhere("what the callback decides is Python, from the logs")

BACKEND = keras.backend.backend()


class Play(keras.callbacks.Callback):
    """Puts given values into the logs, so that a test says when there is a plateau."""

    def __init__(self, played, name="played"):
        super().__init__()
        self.played, self.name = played, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.played[epoch]


def own_rate(model):
    return float(ops.convert_to_numpy(model.optimizer.learning_rate))


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0.5, "patience": 1},
        {"factor": 0.3, "patience": 2, "cooldown": 2, "min_lr": 0.004},
        {"factor": 0.5, "patience": 1, "mode": "max", "min_delta": 0.2},
    ],
)
@elsewhere
def test_is_a_drop_in_for_the_callback_of_keras(options):
    played = np.random.default_rng(3).normal(size=12).round(2).tolist()
    trained = []
    for make in (keras.callbacks.ReduceLROnPlateau, keras_lr.ReduceLROnPlateau):
        model = network(keras.optimizers.SGD(0.1, momentum=0.5))
        options = {"mode": "min", **options}
        history = fit(model, Play(played), make("played", **options), epochs=12).history
        trained.append((history["learning_rate"], values(model.weights), own_rate(model)))
    (theirs, their_weights, their_rate), (ours, weights, rate) = trained
    assert len(set(theirs)) > 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)
    assert_close(weights, their_weights)
    np.testing.assert_allclose(rate, their_rate, rtol=1e-6, atol=0)


def test_scales_the_schedule_that_the_optimizer_has():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
    model = network(keras.optimizers.SGD(decay))
    plateau = keras_lr.ReduceLROnPlateau("played", factor=0.5, patience=1, mode="min")
    logger = keras_lr.LRLogger()
    fit(model, Play([1.0, 2.0, 0.5, 3.0, 4.0]), plateau, logger, epochs=5)
    scale = np.repeat([1.0, 1.0, 0.5, 0.5, 0.25], STEPS)
    rates = scale * 0.1 * 0.5 ** (np.arange(5 * STEPS) / 5)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    reference = network(keras.optimizers.SGD(0.1), run_eagerly=True, jit_compile=False)
    x, y = rows()
    for index, rate in enumerate(rates):
        reference.optimizer.learning_rate = float(rate)
        at = slice(index * 16 % 64, index * 16 % 64 + 16)
        reference.train_on_batch(x[at], y[at])
    assert_close(values(model.trainable_variables), values(reference.trainable_variables))
    assert [(event.epoch, event.step, event.action) for event in plateau.events] == [
        (1, 2 * STEPS, "reduce"),
        (3, 4 * STEPS, "reduce"),
        (4, 5 * STEPS, "reduce"),
    ]


@pytest.mark.parametrize("position", [0, 1])
def test_warm_up_and_plateau_over_a_cosine_multiply(position):
    cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=40)
    model = network(keras.optimizers.SGD(cosine))
    callbacks = [keras_lr.WarmUp(epochs=2)]
    callbacks.insert(position, keras_lr.ReduceLROnPlateau("played", 0.5, 1, mode="min"))
    logger = keras_lr.LRLogger()
    fit(model, Play([1.0, 1.0, 1.0, 1.0]), *callbacks, logger, epochs=4)
    steps = np.arange(4 * STEPS)
    rates = 0.05 * (1 + np.cos(np.pi * steps / 40)) * np.minimum(steps / (2 * STEPS), 1)
    rates *= np.repeat([1.0, 1.0, 0.5, 0.25], STEPS)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)


def test_reduces_the_rate_of_one_cycle_and_leaves_the_optimizers_own_alone():
    model = network(keras.optimizers.SGD(0.3, momentum=0.9))
    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 1, mode="min")
    plain, scaled = keras_lr.LRLogger(), keras_lr.LRLogger()
    fit(model, keras_lr.OneCycle(0.1), plain, epochs=3)
    fit(model, Play([1.0, 1.0, 1.0]), keras_lr.OneCycle(0.1), plateau, scaled, epochs=3)
    ratio = np.array(scaled.history["learning_rate"]) / plain.history["learning_rate"]
    np.testing.assert_allclose(ratio, np.repeat([1.0, 1.0, 0.5], STEPS), rtol=1e-6)
    assert own_rate(model) == np.float32(0.3)


def test_groups_are_scaled_alike_within_bounds_of_their_own():
    model = network(groups())  # rates of 0.1 and 0.01, in the optimizer's order
    rates = [float(ops.convert_to_numpy(part.learning_rate)) for part in leaves(model.optimizer)]
    low = [0.04 if rate > 0.05 else 0.001 for rate in rates]
    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 1, mode="min", min_lr=low)
    history = fit(model, Play([1.0] * 4), plateau, epochs=4).history
    for part, rate in zip(leaves(model.optimizer), rates, strict=True):
        expected = [0.1, 0.1, 0.05, 0.04] if rate > 0.05 else [0.01, 0.01, 0.005, 0.0025]
        np.testing.assert_allclose(history[f"learning_rate_{part.name}"], expected, rtol=1e-6)


@elsewhere
def test_bounds_must_be_one_for_each_group():
    plateau = keras_lr.ReduceLROnPlateau("loss", min_lr=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="one for each optimizer; got 3 numbers for 2 optimizers"):
        fit(network(groups()), plateau)


@elsewhere
def test_rate_grows_after_improvements_up_to_its_bound():
    model = network(keras.optimizers.SGD(0.01))
    plateau = keras_lr.ReduceLROnPlateau(
        "played", 0.5, 2, mode="min", growth_factor=2.0, growth_patience=2, max_lr=0.03
    )
    played = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0, 4.0]
    history = fit(model, Play(played), plateau, epochs=8).history
    expected = [0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.03, 0.03]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    np.testing.assert_allclose(own_rate(model), 0.015, rtol=1e-6)
    assert [event.action for event in plateau.events] == ["grow", "grow", "reduce"]
    assert plateau.events[1].old == pytest.approx(0.02) and plateau.events[1].new == 0.03


@elsewhere
def test_stops_where_another_reduction_would_be_one_too_many():
    model = network(keras.optimizers.SGD(0.1))
    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 2, mode="min", max_reductions=1)
    history = fit(model, Play([1.0] * 20), plateau, epochs=20)
    assert len(history.epoch) == 5  # the first value, two for the reduction, two for the end
    assert [event.action for event in plateau.events] == ["reduce", "stop"]
    assert "1 of 1 reductions" in plateau.events[-1].reason


@pytest.mark.parametrize("scaled", [False, True])
def test_goes_back_to_the_best_weights_at_a_reduction(scaled):
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 100, 0.9) if scaled else 0.05
    model = network(keras.optimizers.SGD(rate))
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([np.array(weight) for weight in self.model.get_weights()])

    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 2, mode="min", restore_best_weights=True)
    fit(model, Play([3.0, 1.0, 2.0, 2.0]), Look(), plateau, epochs=4)
    assert not same(seen[1], seen[3])
    assert same(model.get_weights(), seen[1])


def test_second_fit_begins_with_a_new_best_and_the_rate_that_was_reached():
    model = network(keras.optimizers.SGD(0.1))
    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 1, mode="min")
    fit(model, Play([1.0, 2.0]), plateau, epochs=2)
    history = fit(model, Play([5.0, 4.0, 4.0]), plateau, epochs=3).history
    np.testing.assert_allclose(history["learning_rate"], [0.05, 0.05, 0.05], rtol=1e-6)
    np.testing.assert_allclose(own_rate(model), 0.025, rtol=1e-6)
    assert len(plateau.events) == 1


def batch_losses(epochs):
    """The true loss of each batch of an SGD run that never changes its rate."""
    model, (x, y), losses = network(keras.optimizers.SGD(0.01)), rows(), []
    for index in range(epochs * STEPS):
        at = slice(index * 16 % 64, index * 16 % 64 + 16)
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x[at], y[at])))
    return np.array(losses)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_windows_are_means_of_the_true_losses_also_across_epochs(size):
    seen = []

    class Spy(keras_lr.ReduceLROnPlateau):
        def _observe(self, value):
            seen.append(value)

    fit(network(keras.optimizers.SGD(0.01)), Spy("loss", window=size), epochs=5)
    losses = batch_losses(5)
    full = len(losses) // size
    expected = losses[: full * size].reshape(full, size).mean(axis=1)
    np.testing.assert_allclose(seen, expected, rtol=2e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_window_changes_the_rate_in_the_middle_of_an_epoch(scaled):
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([1000], [0.01, 0.01])
    model = network(keras.optimizers.SGD(rate if scaled else 0.01))
    plateau = keras_lr.ReduceLROnPlateau("loss", 0.5, 2, window=1, min_delta=100.0)
    logger = keras_lr.LRLogger()
    fit(model, plateau, logger, epochs=2)
    # The first loss is the best; every second one after it makes a reduction.
    reductions = np.maximum((np.arange(2 * STEPS) - 1) // 2, 0)
    np.testing.assert_allclose(
        logger.history["learning_rate"], 0.01 * 0.5**reductions, rtol=1e-5, atol=0
    )
    assert [event.step for event in plateau.events] == [3, 5, 7]


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("loss", "min"), ("mean_absolute_error", "min"), ("r2_score", "max")],
)
@elsewhere
def test_auto_mode_asks_the_metric(metric, direction):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    metrics = [] if metric == "loss" else [metric]
    model.compile("sgd", "mse", metrics=metrics)
    plateau = keras_lr.ReduceLROnPlateau(f"val_{metric}")
    x, y = rows()
    model.fit(x, y[:, None], validation_data=(x, y[:, None]), callbacks=[plateau], verbose=0)
    assert plateau._rule._direction == direction


@elsewhere
def test_auto_mode_is_refused_for_a_metric_that_does_not_say():
    plateau = keras_lr.ReduceLROnPlateau("played")
    with pytest.raises(ValueError, match="Pass mode='min' or mode='max'"):
        fit(network("sgd"), Play([1.0]), plateau, epochs=1)


@elsewhere
def test_missing_metric_is_warned_of_once():
    plateau = keras_lr.ReduceLROnPlateau("val_loss")
    with pytest.warns(UserWarning, match="monitors 'val_loss', which is not in the logs") as caught:
        fit(network("sgd"), plateau, epochs=3)
    assert sum("monitors 'val_loss'" in str(warning.message) for warning in caught) == 1


@elsewhere
def test_verbose_prints_the_rates_and_the_reason(capsys):
    plateau = keras_lr.ReduceLROnPlateau("played", 0.5, 1, verbose=1, mode="min")
    fit(network(keras.optimizers.SGD(0.1)), Play([1.0, 2.0]), plateau, epochs=2)
    printed = capsys.readouterr().out
    assert "Epoch 2: learning rate 0.1 -> 0.05: " in printed
    assert plateau.events[0].reason in printed


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, "factor must be"),
        ({"mode": "lower"}, "mode must be 'auto', 'min' or 'max'; got 'lower'"),
        ({"window": "batch"}, "window must be 'epoch' or a number of batches; got 'batch'"),
        ({"monitor": "val_loss", "window": 5}, "known once an epoch"),
        ({"monitor": "loss", "window": 0}, "window must be an integer of at least 1; got 0"),
        ({"min_lr": -1.0}, "min_lr must be at least 0; got -1.0"),
        ({"max_lr": 1.0}, "max_lr needs a growth_factor"),
        ({"min_lr": 0.5, "max_lr": 0.1, "growth_factor": 2.0}, "min_lr must not be above max_lr"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_lr.ReduceLROnPlateau(**arguments)
