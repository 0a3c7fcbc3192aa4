"""What the callbacks ask for, refuse and log."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import ops
from test_steering import STEPS, fit, groups, network, one_cycle, rows

import keras_lr
from keras_lr.schedules import CyclicSchedule, OneCycleSchedule

elsewhere = pytest.mark.long_elsewhere(
    "the curve is tested on each backend by test_contract.py and test_steering.py"
)

BACKEND = keras.backend.backend()
sgd = lambda rate=0.01: keras.optimizers.SGD(rate, momentum=0.9)  # noqa: E731


def swap():
    return keras.callbacks.SwapEMAWeights(swap_on_epoch=True)


def recorded(model, *callbacks, **options):
    logger = keras_lr.LRLogger()
    fit(model, *callbacks, logger, **options)
    return logger.history


# The curves that reach the optimizer


def test_cyclic_lr_is_the_curve_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.01, 0.1, 3, 2, mode="triangular2", base_momentum=0.7, max_momentum=0.9
    )
    rates, momenta = [], []
    for _ in range(3 * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    callback = keras_lr.CyclicLR(
        0.01, 0.1, 3, 2, "triangular2", cycle_momentum=True, base_momentum=0.7
    )
    history = recorded(network(sgd()), callback)
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(history["momentum"], momenta, rtol=1e-5, atol=0)


def test_schedule_lr_takes_schedules_of_keras_and_a_function_for_the_momentum():
    decay = keras.optimizers.schedules.InverseTimeDecay(1, 4, 0.5)  # an integer: Keras says 0
    callback = keras_lr.ScheduleLR(decay, momentum=lambda step: ops.cast(step, "float32") * 0.01)
    history = recorded(network(sgd()), callback)
    steps = np.arange(3 * STEPS)
    np.testing.assert_allclose(history["learning_rate"], 1 / (1 + 0.5 * steps / 4), rtol=1e-5)
    np.testing.assert_allclose(history["momentum"], 0.01 * steps, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [({"steps": 5}, 5), ({"epochs": 1.5}, 6), ({"fraction": 0.25}, 3), ({"fraction": 0.26}, 4)],
)
@elsewhere
def test_warm_up_lasts_as_long_as_it_is_told(arguments, updates):
    history = recorded(network(sgd(0.1)), keras_lr.WarmUp(start_factor=0.2, **arguments))
    factor = 0.2 + 0.8 * np.minimum(np.arange(3 * STEPS) / updates, 1)
    np.testing.assert_allclose(history["learning_rate"], 0.1 * factor, rtol=1e-5, atol=0)


def test_warm_up_goes_with_a_schedule_of_a_callback():
    cycle = CyclicSchedule(0.01, 0.1, 3)
    history = recorded(network(sgd()), keras_lr.ScheduleLR(cycle), keras_lr.WarmUp(steps=4))
    steps = np.arange(3 * STEPS)
    rates = 0.01 + 0.09 * (1 - np.abs(steps % 6 / 3 - 1))
    np.testing.assert_allclose(
        history["learning_rate"], rates * np.minimum(steps / 4, 1), rtol=1e-5, atol=0
    )


def generator():
    x, y = rows()
    while True:
        for start in range(0, 64, 16):
            yield x[start : start + 16], y[start : start + 16]


@elsewhere
def test_length_comes_from_fit_or_from_the_argument():
    rates, _ = one_cycle(6)
    history = keras_lr.LRLogger()
    model = network(sgd())
    model.fit(
        generator(), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0,
        callbacks=[keras_lr.OneCycle(0.05), history],
    )  # fmt: skip
    np.testing.assert_allclose(history.history["learning_rate"], rates, rtol=1e-5, atol=0)


def finite():
    x, y = rows()
    for start in range(0, 64, 16):
        yield x[start : start + 16], y[start : start + 16]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@elsewhere
def test_unknown_length_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="length of the run is unknown.*pass|Pass total_steps"):
        network(sgd()).fit(finite(), shuffle=False, verbose=0, callbacks=[keras_lr.OneCycle(0.05)])
    with pytest.raises(ValueError, match="got fraction=0.5. Pass a number of steps to WarmUp"):
        network(sgd()).fit(
            finite(), shuffle=False, verbose=0, callbacks=[keras_lr.WarmUp(fraction=0.5)]
        )
    logger = keras_lr.LRLogger()
    network(sgd()).fit(
        finite(),
        shuffle=False,
        verbose=0,
        callbacks=[keras_lr.OneCycle(0.05, total_steps=4), logger],
    )
    np.testing.assert_allclose(logger.history["learning_rate"], one_cycle(4)[0], rtol=1e-5, atol=0)


def test_cycle_that_does_not_end_with_the_training_is_warned_of():
    with pytest.warns(UserWarning, match="total_steps=5, and this fit makes 12 updates"):
        fit(network(sgd()), keras_lr.OneCycle(0.05, total_steps=5))
    with pytest.warns(UserWarning, match="a warm-up of 50 updates, and this fit makes 12"):
        fit(network(sgd()), keras_lr.WarmUp(steps=50))


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_runs_of_one_two_and_three_updates(batches):
    model = network(sgd())
    x, y = rows(16 * batches)
    logger = keras_lr.LRLogger()
    callbacks = [keras_lr.OneCycle(0.05), logger]
    model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
    first, last = 0.05 / 25, 0.05 / 25 / 1e4
    expected = {1: [0.05], 2: [first, 0.05], 3: [first, 0.05, last]}[batches]
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)


# What makes no sense together


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: [keras_lr.WarmUp(steps=2), keras_lr.OneCycle(0.1)],
            "OneCycle includes a warm-up; got WarmUp in the same list",
        ),
        (
            lambda: [keras_lr.OneCycle(0.1), keras_lr.WarmUp(steps=2)],
            "OneCycle includes a warm-up; got WarmUp in the same list",
        ),
        (
            lambda: [keras_lr.OneCycle(0.1), keras_lr.CyclicLR(0.1, 0.2, 5)],
            "Only one callback of a fit can set the schedule; got OneCycle and CyclicLR",
        ),
        (
            lambda: [keras_lr.WarmUp(steps=2), keras_lr.WarmUp(steps=3)],
            "Only one callback of a fit can set the warm-up; got WarmUp and WarmUp",
        ),
        (
            lambda: [keras_lr.LRFinder(), keras_lr.OneCycle(0.1)],
            "LRFinder stops the fit before it trains; got OneCycle in the same list",
        ),
        (
            lambda: [keras_lr.OneCycle(0.1), keras_lr.LRFinder()],
            "LRFinder stops the fit before it trains; got OneCycle in the same list",
        ),
        (
            lambda: [keras_lr.LRFinder(), keras_lr.LRLogger()],
            "LRFinder stops the fit before it trains; got LRLogger in the same list",
        ),
        (
            lambda: [keras_lr.HalveOnDivergence(), keras_lr.LRFinder()],
            "LRFinder stops the fit before it trains; got HalveOnDivergence in the same list",
        ),
        (
            lambda: [swap(), keras_lr.HalveOnDivergence()],
            "HalveOnDivergence must come before SwapEMAWeights.swap_on_epoch=True. in the list",
        ),
        (
            lambda: [swap(), keras_lr.ReduceLROnPlateau(restore_best_weights=True)],
            "ReduceLROnPlateau must come before SwapEMAWeights.swap_on_epoch=True. in the list",
        ),
        (
            lambda: [keras_lr.LRFinder(every=1, apply=True), swap()],
            "LRFinder must come after SwapEMAWeights.swap_on_epoch=True. in the list",
        ),
        (
            lambda: [keras_lr.LRFinder(every=1), swap()],
            "LRFinder must come after SwapEMAWeights.swap_on_epoch=True. in the list",
        ),
        (
            lambda: [keras_lr.LRFinder(), swap()],
            "LRFinder stops the fit before it trains, so there are no averages; got SwapEMAWeights",
        ),
        (
            lambda: [keras.callbacks.SwapEMAWeights(), keras_lr.LRFinder()],
            "LRFinder stops the fit before it trains, so there are no averages; got SwapEMAWeights",
        ),
    ],
)
@elsewhere
def test_callbacks_that_make_no_sense_together_are_refused(make, message):
    model = network(sgd())
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(model, *make())
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    fit(model, keras_lr.OneCycle(0.1), epochs=1)  # the refused ones are forgotten


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda: keras.optimizers.Adagrad(0.1), "of an optimizer that has one; got Adagrad"),
        (lambda: keras.optimizers.SGD(0.1), "because SGD then stores no velocities; got momentum="),
        (lambda: keras.optimizers.RMSprop(0.1), "because RMSprop then stores no velocities"),
        (lambda: groups(second=keras.optimizers.Adagrad(0.1)), "got Adagrad"),
    ],
)
@elsewhere
def test_momentum_that_cannot_cycle_is_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        fit(network(optimizer()), keras_lr.OneCycle(0.1))
    fit(network(optimizer()), keras_lr.OneCycle(0.1, cycle_momentum=False), epochs=1)


@pytest.mark.once
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras_lr.OneCycle(0.0), "max_lr must be above 0; got 0.0"),
        (lambda: keras_lr.OneCycle(0.1, pct_start=1.5), "pct_start must be"),
        (lambda: keras_lr.OneCycle(0.1, total_steps=0), "total_steps must be an integer"),
        (lambda: keras_lr.OneCycle(0.1, base_momentum=0.99), "must not be above max_momentum"),
        (lambda: keras_lr.OneCycle(0.1, max_momentum=1.0), "max_momentum must be"),
        (lambda: keras_lr.CyclicLR(0.2, 0.1, 5), "base_lr must not be above max_lr"),
        (lambda: keras_lr.CyclicLR(0.1, 0.2, 0), "step_size must be an integer of at least 1"),
        (lambda: keras_lr.WarmUp(), "Exactly one of steps, epochs, fraction and minutes.*got none"),
        (lambda: keras_lr.WarmUp(5, fraction=0.1), "got steps and fraction"),
        (lambda: keras_lr.WarmUp(0), "steps must be an integer of at least 1; got 0"),
        (lambda: keras_lr.WarmUp(fraction=1.1), "fraction must be"),
        (lambda: keras_lr.WarmUp(5, mode="slow"), "mode must be"),
        (lambda: keras_lr.ScheduleLR(OneCycleSchedule(0.1, 5), momentum=1.0), "momentum must be"),
    ],
)
def test_bad_arguments_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.once
def test_what_is_no_schedule_is_refused():
    with pytest.raises(TypeError, match="schedule must be a number above 0 or a LearningRateSch"):
        keras_lr.ScheduleLR(lambda step: 0.1)


# The logger


def test_logger_notes_what_other_callbacks_set_between_batches():
    class Set(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.01 * (batch + 1)

    for order in (1, -1):
        logger = keras_lr.LRLogger()
        fit(network(sgd()), *[Set(), logger][::order], epochs=2)
        expected = 0.01 * (np.arange(2 * STEPS) % STEPS + 1)
        np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)
        np.testing.assert_allclose(logger.history["momentum"], 0.9)


def test_logger_follows_a_schedule_that_the_model_was_compiled_with():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
    model = network(keras.optimizers.SGD(decay, gradient_accumulation_steps=2))
    logger = keras_lr.LRLogger()
    fit(model, logger)
    # Keras's schedule counts batches, and an update happens at the second of two.
    expected = 0.1 * 0.5 ** ((np.arange(3 * STEPS) // 2 * 2 + 1) / 5)
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)
    assert logger.history["step"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert logger.history["momentum"] == [0.0] * 12


def test_two_loggers_of_one_fit_have_the_whole_history_each():
    first, second, halve = keras_lr.LRLogger(), keras_lr.LRLogger(), keras_lr.HalveOnDivergence()
    fit(network(sgd()), first, keras_lr.OneCycle(0.05), halve, second, epochs=3)
    assert len(first.history["learning_rate"]) == 3 * STEPS
    assert second.history == first.history


def test_history_of_fit_has_a_list_of_rates_for_each_epoch():
    history = fit(network(sgd()), keras_lr.OneCycle(0.05), keras_lr.LRLogger()).history
    rates, momenta = one_cycle()
    assert [len(epoch) for epoch in history["batch_learning_rate"]] == [STEPS] * 3
    np.testing.assert_allclose(np.ravel(history["batch_learning_rate"]), rates, rtol=1e-5)
    np.testing.assert_allclose(np.ravel(history["batch_momentum"]), momenta, rtol=1e-5)
    np.testing.assert_allclose(history["learning_rate"], rates[STEPS - 1 :: STEPS], rtol=1e-5)
    np.testing.assert_allclose(history["momentum"], momenta[STEPS - 1 :: STEPS], rtol=1e-5)


@elsewhere
def test_epoch_logs_reach_the_loggers_of_keras(tmp_path):
    path = tmp_path / "log.csv"
    fit(network(sgd()), keras_lr.OneCycle(0.05), keras.callbacks.CSVLogger(str(path)))
    with open(path) as file:
        table = list(csv.DictReader(file))
    rates = [float(row["learning_rate"]) for row in table]
    np.testing.assert_allclose(rates, one_cycle()[0][STEPS - 1 :: STEPS], rtol=1e-5, atol=0)
    assert "momentum" in table[0]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_file_has_a_row_for_each_batch(tmp_path):
    path = tmp_path / "rates.csv"
    for append, count in ((False, 12), (False, 12), (True, 24)):
        fit(network(sgd()), keras_lr.OneCycle(0.05), keras_lr.LRLogger(path, append=append))
        table = read(path)
        assert len(table) == count
        assert list(table[0]) == ["epoch", "step", "learning_rate", "momentum"]
    rates, momenta = one_cycle()
    np.testing.assert_allclose([float(row["learning_rate"]) for row in table], rates * 2, rtol=1e-5)
    np.testing.assert_allclose([float(row["momentum"]) for row in table], momenta * 2, rtol=1e-5)
    assert [int(row["step"]) for row in table] == list(range(12)) * 2
    assert [int(row["epoch"]) for row in table] == list(np.repeat(range(3), 4)) * 2


@elsewhere
def test_csv_file_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    model = network(sgd())
    before = model.get_weights()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        fit(model, keras_lr.LRLogger(tmp_path / "nowhere" / "rates.csv"))
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.once
def test_tensorboard_gets_a_point_for_each_batch(tmp_path):
    tf = pytest.importorskip("tensorflow")
    fit(network(sgd()), keras_lr.OneCycle(0.05), keras_lr.LRLogger(tensorboard=tmp_path), epochs=2)
    found = {"batch_learning_rate": {}, "batch_momentum": {}}
    for path in (tmp_path / "train").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    rates, momenta = one_cycle(8)
    np.testing.assert_allclose(list(found["batch_learning_rate"].values()), rates, rtol=1e-5)
    np.testing.assert_allclose(list(found["batch_momentum"].values()), momenta, rtol=1e-5)
    assert list(found["batch_momentum"]) == list(range(8))


@elsewhere
def test_history_is_json(tmp_path):
    logger = keras_lr.LRLogger()
    history = fit(network(groups()), keras_lr.OneCycle(0.05), logger)
    assert json.loads(json.dumps(history.history)) == history.history
    assert len(json.loads(json.dumps(logger.history))) == 6
