"""`minutes=`: the curve follows the clock, and the training stops when the budget is over.

The clock is a fake: the first step takes `COMPILING` seconds, and each batch a second.
"""

import copy
import types

import keras
import numpy as np
import pytest
import test_contract
from test_callbacks import sgd
from test_steering import STEPS, assert_close, fit, several_steps, train_by_hand

import keras_lr
from keras_lr.steering import clock

BACKEND = keras.backend.backend()
COMPILING, BUDGET = 5, 60
LEFT = BUDGET - COMPILING  # seconds for the curve
schedules = keras.optimizers.schedules


class FakeClock:
    def __init__(self):
        self.seconds = 1000.0
        self.compiled = False

    def monotonic(self):
        return self.seconds


@pytest.fixture
def fake(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(monotonic=fake.monotonic))
    return fake


class Seconds(keras.callbacks.Callback):
    """Each batch takes a second, and the validation of an epoch some."""

    def __init__(self, fake, validation=0.0, batch=1.0):
        super().__init__()
        self.fake, self.validation, self.batch = fake, validation, batch

    def on_train_batch_end(self, batch, logs=None):
        self.fake.seconds += self.batch

    def on_test_end(self, logs=None):
        self.fake.seconds += self.validation


def network(fake, optimizer=None, compiling=COMPILING, **options):
    class Compiling(keras.Sequential):
        def train_step(self, *arguments):
            fake.seconds += 0.0 if fake.compiled else compiling
            fake.compiled = True
            return super().train_step(*arguments)

    fake.compiled = False
    keras.utils.set_random_seed(0)
    model = Compiling([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(optimizer or sgd(), "mse", **options)
    return model


def recorded(fake, *callbacks, model=None, epochs=100, **options):
    logger = keras_lr.LRLogger()
    fit(model or network(fake), *callbacks, logger, Seconds(fake), epochs=epochs, **options)
    return logger.history


def shares(count, left=LEFT):
    """The share of the curve at each batch: the first two begin where the curve does."""
    return np.minimum(np.floor(np.arange(count) / left * 2**16), 2**16) / 2**16


def one_cycle(share, max_lr=0.1, pct_start=0.3, total=2**16):
    """Leslie Smith's curve with the cosines of fastai, and its momentum."""
    step, peak = share * total, pct_start * total - 1
    height = np.where(
        step < peak, step / peak, np.maximum(total - 1 - step, 0) / (total - 1 - peak)
    )
    height = np.sin(0.5 * np.pi * height) ** 2
    low = np.where(step < peak, max_lr / 25, max_lr / 25e4)
    return low + (max_lr - low) * height, 0.95 - 0.1 * height


def test_one_cycle_follows_the_clock_and_stops_with_the_budget(fake):
    begun, policy, model = fake.seconds, keras_lr.OneCycle(0.1, minutes=1), network(fake)
    history = recorded(fake, policy, model=model)
    count = LEFT + 1  # the last one begins as the budget ends
    rates, momenta = one_cycle(shares(count))
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(history["momentum"], momenta, rtol=1e-5, atol=0)
    assert policy.updates == count and fake.seconds - begun == BUDGET + 1
    by_hand = train_by_hand(network(fake, run_eagerly=True), rates, momenta)
    assert_close([np.array(v) for v in map(keras.ops.convert_to_numpy, model.weights)], by_hand)


def test_the_logs_of_an_epoch_have_the_last_rate_of_it(fake):
    policy = keras_lr.OneCycle(0.1, minutes=1)
    logs = fit(network(fake), policy, Seconds(fake), epochs=100).history
    rates, momenta = one_cycle(shares(LEFT + 1))
    np.testing.assert_allclose(logs["learning_rate"], rates[3::4], rtol=1e-5, atol=0)
    np.testing.assert_allclose(logs["momentum"], momenta[3::4], rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:The training should last")
def test_a_second_fit_begins_the_curve_again(fake):
    model, policy = network(fake), keras_lr.OneCycle(0.1, minutes=1)
    recorded(fake, policy, model=model, epochs=3)
    assert policy.updates is None
    again = recorded(fake, policy, model=model, epochs=3)["learning_rate"]  # compiles nothing
    left = BUDGET - (COMPILING if BACKEND == "torch" else 0)
    left = BUDGET if fake.compiled else left
    np.testing.assert_allclose(again, one_cycle(shares(3 * STEPS, left))[0], rtol=1e-5)


def test_the_warm_up_follows_the_clock_and_the_training_goes_on(fake):
    policy = keras_lr.WarmUp(minutes=0.5)
    cosine = schedules.CosineDecay(0.1, 100)
    history = recorded(fake, policy, model=network(fake, sgd(cosine)), epochs=10)
    # The warm-up needs no deadline: its minutes begin when the first step has ended.
    factors = np.minimum(shares(40, 30), 1)
    rates = 0.1 * 0.5 * (1 + np.cos(np.pi * np.arange(40) / 100)) * factors
    np.testing.assert_allclose(history["learning_rate"][1:], rates[1:], rtol=1e-5, atol=0)
    assert history["learning_rate"][0] == 0.0 and policy.updates == 30


@pytest.mark.parametrize(
    ("schedule", "curve"),
    [
        (schedules.CosineDecay(0.1, 1), lambda u: 0.05 * (1 + np.cos(np.pi * u))),
        (
            schedules.CosineDecay(0.0, 30, warmup_target=0.1, warmup_steps=10),
            lambda u: np.where(u < 0.25, 0.4 * u, 0.05 * (1 + np.cos(np.pi * (u - 0.25) / 0.75))),
        ),
        (schedules.PolynomialDecay(0.1, 7, 0.01), lambda u: 0.1 - 0.09 * u),
        (keras_lr.schedules.LinearRampSchedule(0.1, 0.01, 9), lambda u: 0.1 - 0.09 * u),
        (
            keras_lr.schedules.FlatCosineSchedule(0.1, 2, pct_start=0.5, final_div_factor=1e9),
            lambda u: np.where(u < 0.5, 0.1, 0.05 * (1 - np.cos(np.pi * 2 * (1 - u)))),
        ),
    ],
    ids=["cosine", "cosine with warm-up", "polynomial", "ramp", "flat cosine"],
)
def test_a_schedule_is_stretched_over_the_budget(schedule, curve, fake):
    policy = keras_lr.ScheduleLR(schedule, minutes=1, momentum=lambda step: 0.5 + 0.01 * step)
    history = recorded(fake, policy)
    share = np.minimum(shares(LEFT + 1) * 2**16 / (2**16 - 1), 1)
    np.testing.assert_allclose(history["learning_rate"], curve(share), rtol=1e-5, atol=1e-9)
    end = {1: 1, 30: 40, 7: 7}.get(getattr(schedule, "decay_steps", None))
    end = end or {9: 8, 2: 2}[schedule.total_steps]
    np.testing.assert_allclose(history["momentum"], 0.5 + 0.01 * end * share, rtol=1e-4)


@pytest.mark.once
@pytest.mark.parametrize(
    "schedule",
    [
        0.1,
        schedules.ExponentialDecay(0.1, 10, 0.5),
        schedules.PolynomialDecay(0.1, 10, cycle=True),
        schedules.CosineDecayRestarts(0.1, 10),
        keras_lr.schedules.OneCycleSchedule(0.1, 1),
        keras_lr.schedules.InverseSqrtSchedule(0.1, 2, 9),
    ],
)
def test_a_schedule_without_an_end_is_refused(schedule):
    with pytest.raises(ValueError, match="schedule must have an end after its first step; got"):
        keras_lr.ScheduleLR(schedule, minutes=1)


@several_steps
def test_the_steps_of_an_execution_share_a_reading(fake):
    model = network(fake, steps_per_execution=4)
    policy, logger = keras_lr.OneCycle(0.1, minutes=1), keras_lr.LRLogger()
    fit(model, policy, logger, Seconds(fake, batch=4), epochs=100)
    share = np.repeat(np.floor(np.arange(14) * 4 / LEFT * 2**16) / 2**16, 4)
    rates, _ = one_cycle(np.minimum(share, 1))
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    assert policy.updates == 56  # the last execution ends after 61 seconds


def test_gradient_accumulation_reads_the_clock_at_the_batch_that_updates(fake):
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, gradient_accumulation_steps=2)
    model, policy = network(fake, optimizer), keras_lr.OneCycle(0.1, minutes=1)
    history = recorded(fake, policy, model=model)
    assert policy.updates == (LEFT + 1) // 2
    last = shares(LEFT + 1)[1::2]  # of the two batches of an update
    np.testing.assert_allclose(
        history["learning_rate"], np.repeat(one_cycle(last)[0], 2), rtol=1e-5
    )


def test_a_plateau_scales_the_rate_of_the_clock(fake):
    plateau = keras_lr.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9)
    history = recorded(fake, keras_lr.OneCycle(0.1, minutes=1), plateau, epochs=100)
    rates, _ = one_cycle(shares(LEFT + 1))
    scales = 0.5 ** np.maximum(np.arange(LEFT + 1) // STEPS - 1, 0)
    np.testing.assert_allclose(history["learning_rate"], rates * scales, rtol=1e-5, atol=0)


def test_coupled_weight_decay_follows_the_rate_of_the_clock(fake):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    policy = keras_lr.OneCycle(0.1, minutes=1, couple_weight_decay=True)
    logs = fit(network(fake, optimizer), policy, Seconds(fake), epochs=100).history
    product = np.array(logs["learning_rate"]) * np.array(logs["weight_decay"])
    np.testing.assert_allclose(product, 1e-3, rtol=1e-5)


def test_a_budget_that_ends_during_validation_begins_no_further_epoch(fake):
    policy, seconds = keras_lr.OneCycle(0.1, minutes=1), Seconds(fake, validation=10)
    x = np.zeros((8, 4), "float32")
    logs = fit(network(fake), policy, seconds, epochs=100, validation_data=(x, x[:, :1])).history
    # The batches of the fourth epoch end at 5 + 3 (4 + 10) + 4 = 51 seconds, its validation at 61.
    assert len(logs["loss"]) == 4 and policy.updates == 16
    seconds.validation = 9.5  # the fifth begins at 59
    logs = fit(network(fake), policy, seconds, epochs=100, validation_data=(x, x[:, :1])).history
    assert len(logs["loss"]) == 5 and policy.updates == 16 + 2


def test_epochs_that_end_before_the_budget_are_told(fake):
    rule = (
        r"The training should last as long as the budget of OneCycle; got minutes=1.0, and the "
        r"epochs ended after 0.283 minutes, at 22% of the curve. Pass more epochs to fit"
    )
    with pytest.warns(UserWarning, match=rule):
        recorded(fake, keras_lr.OneCycle(0.1, minutes=1), epochs=3)
    with pytest.warns(UserWarning, match="the budget of WarmUp; .*, or fewer minutes"):
        recorded(fake, keras_lr.WarmUp(minutes=1), epochs=3)


def test_another_callback_may_stop_before_the_budget(fake):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)
    steps = recorded(fake, keras_lr.OneCycle(0.1, minutes=1), stop)["step"]
    assert len(steps) == 2 * STEPS < LEFT  # and no warning of a budget that is left


def test_a_first_step_longer_than_the_budget_is_told(fake):
    begun = fake.seconds
    with pytest.warns(UserWarning, match="should be longer than the first training step"):
        recorded(fake, keras_lr.OneCycle(0.1, minutes=1), model=network(fake, compiling=70))
    assert fake.seconds == begun + 71
    policy = keras_lr.WarmUp(minutes=0.1)  # begins after the first step
    recorded(fake, policy, model=network(fake, compiling=70), epochs=3)
    assert policy.updates == 6


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise Killed


@pytest.mark.parametrize("make", [keras_lr.OneCycle, keras_lr.ScheduleLR, keras_lr.WarmUp])
def test_a_resumed_run_goes_on_with_the_rest_of_its_budget(make, fake, tmp_path):
    cosine = schedules.CosineDecay(0.1, 1000)
    first = {
        keras_lr.ScheduleLR: lambda: make(cosine, minutes=1),
        keras_lr.OneCycle: lambda: make(0.1, minutes=1),
        keras_lr.WarmUp: lambda: make(minutes=0.5),
    }[make]

    def run(policy, *others):
        logger, backup = keras_lr.LRLogger(), keras.callbacks.BackupAndRestore(tmp_path / "backup")
        try:
            fit(network(fake), backup, policy, logger, Seconds(fake), *others, epochs=15)
        except Killed:
            pass
        return np.array(logger.history["learning_rate"])

    before = run(first(), Kill(5))
    assert len(before) == 20
    fake.seconds += 1e6  # between the processes
    policy = first()
    after = run(policy)
    if make is keras_lr.WarmUp:
        # 20 of 30 seconds had passed; those of the first step do not count.
        share = np.minimum(20 / 30 + np.arange(40) / 30, 1)
        np.testing.assert_allclose(after, 0.01 * share, rtol=1e-4)
        assert policy.updates == 30
        return
    # 25 of 60 seconds had passed, and 20 / 55 of the curve; compiling takes 5 again.
    share = 20 / LEFT + (1 - 20 / LEFT) * np.arange(31) / (35 - COMPILING)
    expected = one_cycle(share)[0]
    if make is keras_lr.ScheduleLR:
        expected = 0.05 * (1 + np.cos(np.pi * share))
    np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-7)
    assert policy.updates == 20 + 31


@pytest.mark.filterwarnings("ignore:The training should last")
def test_a_resumed_run_with_another_budget_warns(fake, tmp_path):
    def run(minutes, *others):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        policy = keras_lr.OneCycle(0.1, minutes=minutes)
        fit(network(fake), backup, policy, Seconds(fake), *others, epochs=3)

    with pytest.raises(Killed):
        run(1, Kill(2))
    with pytest.warns(UserWarning, match="planned minutes=1.0, and the run continues with 2.0"):
        run(2)


def test_the_progress_bar_is_followed_by_the_count(fake, capsys):
    policy = keras_lr.OneCycle(0.1, minutes=1)
    model, x = network(fake), np.zeros((64, 4), "float32")
    model.fit(x, x[:, 0], 16, epochs=99, verbose=2, callbacks=[policy, Seconds(fake)])
    assert "OneCycle: 1 minutes were 56 updates." in capsys.readouterr().out


def test_a_loop_of_your_own_is_refused(fake):
    policy = keras_lr.OneCycle(0.1, minutes=1)
    callbacks = keras.callbacks.CallbackList([policy], model=network(fake))
    callbacks.on_train_begin()
    with pytest.raises(ValueError, match="minutes needs fit, which reads the clock"):
        callbacks.on_epoch_begin(0)
    callbacks.on_train_end()


def test_several_processes_are_refused(fake, monkeypatch):
    monkeypatch.setattr("keras_lr._keras.distribution._processes", lambda: 2)
    with pytest.raises(ValueError, match="their clocks differ; got 2 processes"):
        recorded(fake, keras_lr.OneCycle(0.1, minutes=1))


@pytest.mark.once
def test_bad_arguments_are_refused():
    for wrong, error in [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]:
        for make in (
            lambda value: keras_lr.OneCycle(0.1, minutes=value),
            lambda value: keras_lr.WarmUp(minutes=value),
            lambda value: keras_lr.ScheduleLR(schedules.CosineDecay(0.1, 9), minutes=value),
        ):
            with pytest.raises(error, match="minutes must be a"):
                make(wrong)
    with pytest.raises(ValueError, match="Only one of total_steps and minutes can be given"):
        keras_lr.OneCycle(0.1, 100, minutes=1)
    with pytest.raises(ValueError, match="got steps and minutes"):
        keras_lr.WarmUp(4, minutes=1)
    with pytest.raises(ValueError, match="preview knows no time per update; got OneCycle with"):
        keras_lr.preview(keras_lr.OneCycle(0.1, minutes=1), 10)


def test_a_clock_forgets_the_batches_that_a_callback_takes_back():
    one = clock.Clock(clock.Budget(1.0, False), 0.0)
    one.read(0.0, 0)
    one.start(0.0)
    for batch in (1, 2, 3, 4):
        one.read(15.0 * batch, batch)
    assert one.ticks(np.arange(6)).tolist() == [0, 16384, 32768, 49152, 65536, 65536]
    assert one.end == 4
    one.read(70.0, 2)
    assert one.ticks(np.arange(4)).tolist() == [0, 16384, 65536, 65536] and one.end == 2


LONG = 1e7  # minutes: the curve stays at its first tick
ROWS = {
    "OneCycle": lambda: keras_lr.OneCycle(0.1, minutes=LONG),
    "WarmUp": lambda: keras_lr.WarmUp(minutes=LONG, start_factor=0.5),
    "ScheduleLR": lambda: keras_lr.ScheduleLR(
        schedules.CosineDecay(0.1, 6), minutes=LONG, momentum=0.8
    ),
}


@pytest.mark.filterwarnings("ignore:The training should last")
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_the_contract_of_callbacks_holds(make, tmp_path):
    test_contract.test_an_instance_serves_two_fits(make)
    test_contract.test_a_copy_trains_as_a_new_instance_does_and_holds_no_model(
        make, True, copy.deepcopy
    )
    test_contract.test_after_fit_the_optimizer_is_an_ordinary_one_that_saves_and_loads(
        make, tmp_path
    )
    test_contract.test_a_plain_fit_afterwards_trains_at_the_optimizers_own_rate(make)
