"""A preview equals training: the same rates, errors and warnings."""

import doctest
import importlib
import math
import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_lr
from keras_lr import Preview, preview, schedules
from keras_lr.plotting import plot_preview, save_preview_plot
from keras_lr.schedule_preview.shape import turns
from keras_lr.schedule_preview.simulate import rates_at
from keras_lr.schedule_preview.sparkline import sparkline

pytestmark = pytest.mark.long_elsewhere("computed with NumPy, from a record or a plan")

once = pytest.mark.once
decays = keras.optimizers.schedules


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def fitted(callbacks, rate=0.1, epochs=3, batches=4, **optimizer_options):
    """Train with these callbacks, four batches an epoch; the model."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, **optimizer_options), "mse")
    x = np.random.default_rng(0).normal(size=(4 * batches, 2)).astype("float32")
    model.fit(x, x[:, :1], epochs=epochs, batch_size=4, callbacks=callbacks, verbose=0)
    return model


def warm_cosine():
    return decays.CosineDecay(0.0, 9, warmup_target=0.1, warmup_steps=3)


def rising_momentum(step):
    return 0.8 + 0.01 * keras.ops.cast(step, "float32")


# Rate and momentum of the optimizer, callbacks, and other arguments of preview and optimizer
STACKS = {
    "number": lambda: (0.1, 0.0, [], {}),
    "one cycle": lambda: (0.1, 0.9, [keras_lr.OneCycle(0.4)], {}),
    "warm-up of a number": lambda: (0.1, 0.9, [keras_lr.WarmUp(epochs=1.5)], {}),
    "warm-up of a schedule": lambda: (warm_cosine(), 0.0, [keras_lr.WarmUp(fraction=0.5)], {}),
    "warm-up of a cycle": lambda: (
        0.1,
        0.9,
        [keras_lr.WarmUp(steps=3), keras_lr.CyclicLR(0.01, 0.2, 3, cycle_momentum=True)],
        {},
    ),
    "any schedule and a momentum": lambda: (
        0.1,
        0.9,
        [keras_lr.ScheduleLR(warm_cosine(), momentum=rising_momentum)],
        {},
    ),
    "a plateau that never comes": lambda: (
        warm_cosine(),
        0.0,
        [keras_lr.ReduceLROnPlateau("loss", patience=99), keras.callbacks.TerminateOnNaN()],
        {},
    ),
    "accumulated gradients": lambda: (
        warm_cosine(),
        0.0,
        [keras_lr.WarmUp(steps=2)],
        {"gradient_accumulation_steps": 2},
    ),
    "keras scheduler before a warm-up": lambda: (
        0.1,
        0.0,
        [
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 + 0.01),
            keras_lr.WarmUp(steps=6, start_factor=0.2),
        ],
        {},
    ),
    "keras scheduler after a warm-up": lambda: (
        0.1,
        0.0,
        [
            keras_lr.WarmUp(steps=6, start_factor=0.2),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 + 0.01),
        ],
        {},
    ),
    "keras scheduler of the epoch alone": lambda: (
        0.1,
        0.0,
        [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1.0 + epoch))],
        {},
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_preview_gives_what_training_records(name):
    rate, momentum, callbacks, options = STACKS[name]()
    logger = keras_lr.LRLogger()
    fitted([*callbacks, logger], rate, momentum=momentum, **options)
    updates = np.array(logger.history["step"])
    _, last = np.unique(updates[::-1], return_index=True)
    trained = {
        key: np.array(values)[::-1][last]
        for key, values in logger.history.items()
        if key in ("learning_rate", "momentum")
    }

    rate, momentum, callbacks, options = STACKS[name]()
    shown = preview(
        [*callbacks, keras_lr.LRLogger()],
        len(last),
        learning_rate=rate,
        momentum=momentum,
        epochs=3,
        **options,
    )
    np.testing.assert_allclose(shown.learning_rates, trained["learning_rate"], rtol=1e-6)
    np.testing.assert_allclose(shown.momenta, trained["momentum"], rtol=1e-6)


@once
def test_one_cycle_has_two_half_cosines_and_the_momentum_mirrors_them():
    shown = preview(keras_lr.OneCycle(0.1), 50)
    up, down = np.arange(15) / 14, np.arange(1, 36) / 35
    height = np.concatenate([1 - np.cos(np.pi * up), 1 + np.cos(np.pi * down)]) / 2
    low = np.where(np.arange(50) < 15, 0.004, 4e-7)
    np.testing.assert_allclose(shown.learning_rates, low + (0.1 - low) * height, rtol=1e-5)
    np.testing.assert_allclose(shown.momenta, 0.95 - 0.1 * height, rtol=1e-5)


@once
@pytest.mark.parametrize(
    "module", ["keras_lr.schedule_preview.simulate", "keras_lr.plotting.schedule_preview"]
)
def test_examples_in_docstrings_run(module):
    failed, count = doctest.testmod(importlib.import_module(module))
    assert not failed and count


@once
def test_a_schedule_in_the_list_is_the_optimizers_own():
    shown = preview([schedules.StepDecaySchedule(0.1, 2), keras_lr.WarmUp(steps=4)], 6)
    expected = [0.0, 0.025, 0.005, 0.0075, 0.001, 0.001]
    np.testing.assert_allclose(shown.learning_rates, expected, rtol=1e-5)
    assert shown.momenta is None
    assert shown.steps == 6


@once
def test_rates_at_some_updates_are_those_of_the_whole_run():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate)
    updates = np.array([0, 4, 5, 11])
    for policy in ([keras_lr.OneCycle(0.4)], [warm_cosine(), keras_lr.WarmUp(epochs=1)]):
        some = rates_at(updates, policy, 12, epochs=3)
        np.testing.assert_array_equal(
            some, preview(policy, 12, epochs=3).learning_rates[updates], strict=True
        )
    halved = rates_at(updates, scheduler, 12, learning_rate=0.8, epochs=3)
    np.testing.assert_allclose(halved, [0.4, 0.2, 0.2, 0.1], rtol=1e-5)


def test_numbers_are_rounded_to_float32():
    shown = preview(0.1, 1, momentum=0.9)
    assert (shown.learning_rates[0], shown.momenta[0]) == (np.float32(0.1), np.float32(0.9))


@once
def test_a_variable_of_an_optimizer_is_a_rate():
    optimizer = keras.optimizers.SGD(0.25)
    assert preview(optimizer.learning_rate, 2).learning_rates.tolist() == [0.25, 0.25]
    shown = preview(keras_lr.WarmUp(steps=2), 3, learning_rate=optimizer.learning_rate)
    assert shown.learning_rates.tolist() == [0.0, 0.125, 0.25]


@once
def test_the_schedule_of_a_callback_overrides_the_optimizers_rate():
    shown = preview(keras_lr.ScheduleLR(0.5), 2, learning_rate=0.1)
    assert shown.learning_rates.tolist() == [0.5, 0.5]


CONFLICTS = {
    "two schedules": lambda: [keras_lr.OneCycle(0.1), keras_lr.CyclicLR(0.01, 0.1, 2)],
    "two warm-ups": lambda: [keras_lr.WarmUp(steps=2), keras_lr.WarmUp(steps=3)],
    "one cycle and a warm-up": lambda: [keras_lr.WarmUp(steps=2), keras_lr.OneCycle(0.1)],
    "range test and schedule": lambda: [keras_lr.LRFinder(), keras_lr.OneCycle(0.1)],
    "scheduler of Keras and schedule": lambda: [
        keras_lr.OneCycle(0.1),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.25),
    ],
    "scheduler of Keras and a schedule of the optimizer": lambda: [
        keras_lr.WarmUp(steps=2),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.25),
    ],
}


@once
@pytest.mark.parametrize("name", CONFLICTS)
def test_preview_raises_the_errors_of_fit(name):
    own = warm_cosine() if "optimizer" in name else 0.1
    with pytest.raises((ValueError, TypeError)) as of_fit:
        fitted(CONFLICTS[name](), own, momentum=0.9)
    with pytest.raises((ValueError, TypeError)) as of_preview:
        preview(CONFLICTS[name](), 12, learning_rate=own)
    assert str(of_preview.value) == str(of_fit.value)
    assert of_preview.type is of_fit.type


@once
@pytest.mark.parametrize(
    "make", [lambda: keras_lr.OneCycle(0.1, total_steps=5), lambda: keras_lr.WarmUp(steps=50)]
)
def test_preview_gives_the_warnings_of_fit(make):
    said = []
    for run in (
        lambda: fitted([make()], momentum=0.9),
        lambda: preview(make(), 12, learning_rate=0.1),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        said.append([str(each.message) for each in caught if each.category is UserWarning])
    assert said[0] == said[1]
    assert len(said[0]) == 1


@once
@pytest.mark.parametrize("callback", [keras_lr.WarmUp(steps=2), keras_lr.LRLogger()])
def test_callbacks_without_a_rate_are_refused(callback):
    name = type(callback).__name__
    with pytest.raises(
        ValueError, match=f"include a rate or a schedule; got {name}. Pass learning_rate"
    ):
        preview([callback], 3)


@once
@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("one-cycle", {}, r"policy must be a rate, a schedule, a callback.*got 'one-cycle'"),
        (True, {}, r"policy must be a rate, .*got True"),
        ([0.1, None], {}, r"policy must be a rate, .*got None"),
        (-0.1, {}, r"policy must be at least 0; got -0.1"),
        (0.1, {"learning_rate": "fast"}, r"got 2\.|learning_rate must be"),
        ([], {"learning_rate": "fast"}, r"learning_rate must be a number or a Learn.*'fast'"),
        ([0.1, 0.2], {}, r"only one rate or schedule; got 2\."),
        (0.1, {"learning_rate": 0.2}, r"only one rate or schedule; got 2\."),
        ([], {}, r"got an empty list"),
        (0.1, {"steps": 0}, r"steps must be an integer of at least 1; got 0"),
        (0.1, {"steps": 2.5}, r"steps must be an integer of at least 1; got 2.5"),
        (0.1, {"steps": 2**24 + 1}, r"steps must be at most 16777216, .*got 16777217"),
        (0.1, {"epochs": 0}, r"epochs must be an integer of at least 1; got 0"),
        (0.1, {"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        (keras_lr.OneCycle(0.1), {"momentum": 0.0}, r"OneCycle cannot cycle a momentum that is 0"),
        (keras_lr.LRFinder(), {}, r"LRFinder stops fit before the model is trained"),
        (
            keras.callbacks.LambdaCallback(),
            {"learning_rate": 0.1},
            r"a custom callback; got LambdaCallback\. Leave it out",
        ),
        (
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
            {"learning_rate": 0.1, "epochs": 4},
            r"steps must be a multiple of epochs .*got steps=10 and epochs=4",
        ),
        (
            [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), keras_lr.WarmUp(steps=2)],
            {},
            r"got LearningRateScheduler, WarmUp\. Pass learning_rate",
        ),
        (
            decays.ExponentialDecay(-0.1, 10, 0.5),
            {},
            r"A learning rate must be finite and at least 0; got -0.1 at step 0",
        ),
        (
            keras_lr.ScheduleLR(0.1, momentum=lambda step: math.nan if step > 3 else 0.9),
            {},
            r"A momentum must be finite and at least 0; got nan at step 4",
        ),
    ],
)
def test_wrong_input_is_refused(policy, options, message):
    options = {"steps": 10, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        preview(policy, options.pop("steps"), **options)


@once
def test_preview_leaves_the_callbacks_as_they_were(tmp_path):
    logger = keras_lr.LRLogger(csv=tmp_path / "log.csv")
    plateau = keras_lr.ReduceLROnPlateau("loss")
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2, verbose=1)
    stack = [logger, plateau, scheduler, keras_lr.WarmUp(epochs=1)]
    before = [dict(vars(each)) for each in stack]
    preview(stack, 8, learning_rate=0.1, epochs=2)
    assert [vars(each) for each in stack] == before
    assert list(tmp_path.iterdir()) == []


# Schedules of Keras and of users, compared with their formulas in float64
STEPS = np.arange(200)


class Own(decays.LearningRateSchedule):
    """Records the shape of the steps of each call."""

    def __init__(self, rate):
        self.rate = rate
        self.calls = []

    def __call__(self, step):
        self.calls.append(tuple(step.shape))
        return self.rate(step)


def warmed_cosine(warm_up, decay):
    down = 0.05 * (1 + np.cos(np.pi * np.clip((STEPS - warm_up) / decay, 0, 1)))
    return np.where(STEPS < warm_up, 0.1 * STEPS / warm_up, down)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (decays.ExponentialDecay(0.1, 50, 0.5), 0.1 * 0.5 ** (STEPS / 50)),
        (decays.CosineDecay(0.1, 200), 0.05 * (1 + np.cos(np.pi * STEPS / 200))),
        (decays.CosineDecay(0.0, 150, warmup_target=0.1, warmup_steps=50), warmed_cosine(50, 150)),
        (
            decays.PiecewiseConstantDecay([49, 99], [0.1, 0.01, 0.001]),
            np.select([STEPS <= 49, STEPS <= 99], [0.1, 0.01], 0.001),
        ),
        (decays.InverseTimeDecay(0.1, 50, 0.5), 0.1 / (1 + 0.5 * STEPS / 50)),
        (decays.PolynomialDecay(0.1, 100, 0.01), 0.01 + 0.09 * np.clip(1 - STEPS / 100, 0, 1)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, np.ndarray) else "",
)
def test_schedules_of_keras_follow_their_formulas_in_a_long_run(schedule, expected):
    shown = preview(schedule, 200).learning_rates
    np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-8)


def test_a_schedule_that_accepts_arrays_is_called_once_for_all_steps():
    schedule = Own(lambda step: 0.1 / (1.0 + keras.ops.cast(step, "float32")))
    shown = preview(schedule, 5000).learning_rates
    np.testing.assert_allclose(shown, 0.1 / (1 + np.arange(5000)), rtol=1e-6)
    assert schedule.calls.count((5000,)) == 1
    assert len(schedule.calls) < 20


def test_a_schedule_that_accepts_single_steps_is_called_for_each():
    schedule = Own(lambda step: 0.1 if int(step) < 70 else 0.01)
    shown = preview(schedule, 200).learning_rates
    np.testing.assert_allclose(shown, np.where(STEPS < 70, 0.1, 0.01), rtol=1e-6)


def test_a_schedule_that_is_wrong_for_arrays_is_called_for_each_step():
    schedule = Own(lambda step: 0.1 + 0.001 * keras.ops.cast(keras.ops.max(step) - step, "float32"))
    shown = preview(schedule, 200).learning_rates
    np.testing.assert_allclose(shown, np.full(200, 0.1), rtol=1e-6)


@once
def test_a_momentum_that_accepts_single_steps_is_called_for_each():
    shown = preview(keras_lr.ScheduleLR(0.1, momentum=lambda step: 0.9 if step < 60 else 0.5), 100)
    np.testing.assert_allclose(shown.momenta, [0.9] * 60 + [0.5] * 40)
    assert [point.step for point in shown.key_points()] == [0, 60, 99]


# Key points


def points(policy, steps, **options):
    return [(point.step, point.what) for point in preview(policy, steps, **options).key_points()]


@once
@pytest.mark.parametrize(
    ("policy", "steps", "expected"),
    [
        (0.1, 100, [(0, "start"), (99, "end")]),
        (0.1, 1, [(0, "start, end")]),
        (
            keras_lr.OneCycle(0.1),
            1000,
            [(0, "start"), (299, "highest"), (999, "lowest, end")],
        ),
        (
            keras_lr.OneCycle(0.1, three_phase=True),
            1000,
            [(0, "start"), (299, "highest"), (598, "next phase"), (999, "lowest, end")],
        ),
        (
            schedules.WarmUpStableDecaySchedule(0.1, 1000, 100, 200),
            1000,
            [
                (0, "start, lowest"),
                (100, "highest, flat from here"),
                (800, "falls from here"),
                (999, "end"),
            ],
        ),
        (
            schedules.StepDecaySchedule(0.1, 40),
            100,
            [
                (0, "start, highest"),
                (40, "flat from here"),
                (80, "lowest, flat from here"),
                (99, "end"),
            ],
        ),
        (
            [keras_lr.CyclicLR(0.01, 0.1, 20), keras_lr.WarmUp(steps=10)],
            90,
            [
                (0, "start, lowest"),
                (10, "next phase"),
                (20, "highest"),
                (40, "bottom"),
                (60, "top"),
                (80, "bottom"),
                (89, "end"),
            ],
        ),
        (
            decays.CosineDecayRestarts(0.1, 50, t_mul=1.0, alpha=0.1),
            100,
            [(0, "start, highest"), (49, "lowest"), (50, "top"), (99, "end")],
        ),
        (
            schedules.ExponentialRampSchedule(1e-7, 10.0, 50),
            50,
            [(0, "start, lowest"), (49, "highest, end")],
        ),
    ],
)
def test_key_points_are_where_the_phases_are(policy, steps, expected):
    assert points(policy, steps) == expected


@once
def test_key_points_have_the_values_of_their_step():
    shown = preview(keras_lr.OneCycle(0.1), 1000)
    peak = shown.key_points()[1]
    assert peak.learning_rate == pytest.approx(0.1, rel=1e-6)
    assert peak.momentum == pytest.approx(0.85, rel=1e-6)
    assert preview(0.1, 3).key_points()[0].momentum is None


@once
def test_a_million_steps_have_the_key_points_of_a_thousand():
    found = points(keras_lr.OneCycle(0.1), 10**6)
    assert [what for _, what in found] == ["start", "highest", "lowest, end"]
    assert found[1][0] == pytest.approx(299_999, abs=2)


@once
def test_the_top_between_a_quick_climb_and_a_slow_fall_is_where_the_climb_ends():
    step = np.arange(10**5)
    down = 0.05 * (1 + np.cos(np.pi * (step - 100) / 10**5))
    rates = np.where(step < 100, 0.001 * step, down).astype("float32")
    assert (rates[100:110] == rates[100]).all()
    assert turns(rates.astype(float)) == [100]


@once
def test_rounding_errors_are_not_turns():
    step = np.arange(10**5)
    fall = np.float32(0.1) * (1 + np.cos(np.pi * step.astype("float32") / 1e5).astype("float32"))
    wobbling = fall.astype(float) * (1 + 1e-7 * (-1.0) ** step)
    assert turns(wobbling) == []
    stumbling = fall.astype(float)
    stumbling[[20_000, 50_000]] *= 1 - 1e-4
    assert turns(stumbling) == []


@once
def test_very_frequent_oscillations_are_not_phases():
    assert turns(np.arange(1000) % 2.0) == []
    assert len(points(keras_lr.CyclicLR(0.01, 0.1, 2), 1000)) == 3


@once
def test_short_flat_stretches_are_not_phases():
    flat = np.concatenate([np.linspace(0, 1, 500), np.ones(20), np.linspace(1, 0, 500)])
    assert turns(flat) == [499, 520]
    short = np.concatenate([np.linspace(0, 1, 500), np.ones(3), np.linspace(1, 0, 500)])
    assert len(turns(short)) == 1


# `Preview` from recorded values; CSV and dict


@once
def test_recorded_rates_can_be_shown():
    shown = Preview([0.1, 0.2, 0.1], [0.9, 0.8, 0.9])
    assert [point.step for point in shown.key_points()] == [0, 1, 2]
    assert repr(shown) == "<Preview of 3 steps, learning rate 0.1 to 0.2>"


@once
@pytest.mark.parametrize(
    ("rates", "momenta", "message"),
    [
        ([], None, r"learning_rates must have shape \(steps,\).*\(0,\)"),
        ([[0.1]], None, r"learning_rates must have shape \(steps,\).*\(1, 1\)"),
        ([0.1, 0.2], [0.9], r"momenta must have shape \(steps,\).*\(1,\)"),
        ([0.1, math.inf], None, r"A learning rate must be finite .*got inf at step 1"),
        ([0.1], [-0.5], r"A momentum must be finite and at least 0; got -0.5 at step 0"),
    ],
)
def test_wrong_rates_are_refused(rates, momenta, message):
    with pytest.raises(ValueError, match=message):
        Preview(rates, momenta)


@once
def test_csv_has_a_row_for_each_step_in_the_digits_of_float32(tmp_path):
    path = tmp_path / "rates.csv"
    preview(keras_lr.OneCycle(0.1, pct_start=0.5, anneal="linear"), 4).to_csv(path)
    assert path.read_text().splitlines()[:2] == ["step,learning_rate,momentum", "0,0.004,0.95"]
    table = np.genfromtxt(path, delimiter=",", names=True)
    assert table["step"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(table["learning_rate"], [0.004, 0.1, 0.0500002, 4e-7], rtol=1e-5)
    np.testing.assert_allclose(table["momentum"], [0.95, 0.85, 0.9, 0.95], rtol=1e-6)
    preview(0.1, 2).to_csv(path)
    assert path.read_text() == "step,learning_rate\n0,0.1\n1,0.1\n"


@once
def test_dict_holds_plain_lists_and_numbers():
    shown = preview(schedules.StepDecaySchedule(0.1, 2), 4).to_dict()
    assert shown["steps"] == 4
    assert shown["learning_rates"] == [0.1, 0.1, 0.01, 0.01]
    assert shown["momenta"] is None
    assert shown["key_points"][0] == {
        "step": 0,
        "learning_rate": 0.1,
        "momentum": None,
        "what": "start, highest",
    }


# As text


def bars(lines):
    """The drawing alone, without the numbers at its left, padded to the full width."""
    return [line[9:] for line in lines]


@once
def test_bars_have_a_resolution_of_an_eighth():
    lines = sparkline(np.arange(1.0, 9.0), (9 + 8, 1), base=0.0)
    assert bars(lines) == ["▁▂▃▄▅▆▇█"]
    two = sparkline(np.arange(1.0, 9.0), (9 + 8, 2), base=0.0)
    assert bars(two) == ["    ▂▄▆█", "▂▄▆█████"]
    assert [line[:9] for line in two] == ["      8 ┤", "      0 ┤"]


@once
def test_zero_has_no_bar_and_a_tiny_value_has_one():
    assert bars(sparkline(np.array([0.0, 1e-6, 1.0]), (9 + 3, 1), base=0.0)) == [" ▁█"]


@once
def test_many_steps_share_columns_and_few_steps_fill_the_line():
    assert bars(sparkline(np.array([0.0, 4.0, 8.0, 0.0]), (9 + 2, 1), base=0.0)) == ["▄█"]
    assert bars(sparkline(np.array([4.0, 8.0]), (9 + 5, 1), base=0.0)) == ["▄▄▄██"]


@once
def test_logarithmic_bars_rise_evenly_with_the_decades():
    rates = 10.0 ** np.arange(-8, 1)
    assert bars(sparkline(rates, (9 + 9, 1), base=1e-8, log=True)) == ["▁▁▂▃▄▅▆▇█"]


@once
@pytest.mark.parametrize("steps", [1, 2, 79, 1000])
@pytest.mark.parametrize("unicode", [True, False])
def test_text_fits_the_width_and_the_encoding(steps, unicode):
    for policy in (keras_lr.OneCycle(0.1), 0.1, schedules.ExponentialRampSchedule(1e-7, 10, 50)):
        text = preview(policy, steps).to_text(width=60, unicode=unicode)
        assert max(map(len, text.splitlines())) <= 60
        assert text.isascii() or unicode


@once
def test_print_shows_the_curve_and_the_key_points():
    lines = str(preview(keras_lr.OneCycle(0.1), 1000)).splitlines()
    assert lines[0] == " Learning rate"
    assert lines[5] == " Momentum"
    assert lines[8].split() == ["step", "0", "999"]
    assert lines[-4:] == [
        "     Step  Learning rate  Momentum",
        "        0          0.004      0.95  start",
        "      299            0.1      0.85  highest",
        "      999          4e-07      0.95  lowest, end",
    ]
    assert "Momentum" not in str(preview(0.1, 10))


@once
def test_a_long_table_is_cut_in_the_middle():
    shown = preview(keras_lr.CyclicLR(0.01, 0.1, 20), 1001)
    table = str(shown).split("Learning rate")[-1].splitlines()[1:]
    assert len(table) == 16
    assert table[12].split() == ["...", "36", "more"]
    assert [int(row.split()[0]) for row in table[-3:]] == [960, 980, 1000]
    assert len(shown.key_points()) == 51


@once
def test_only_rising_ramps_are_logarithmic_by_default():
    ramp = preview(schedules.ExponentialRampSchedule(1e-7, 10.0, 50), 50)
    assert "(log scale)" in str(ramp)
    assert "(log scale)" not in ramp.to_text(log=False)
    for policy in (decays.ExponentialDecay(1.0, 10, 0.1), keras_lr.OneCycle(0.1), 0.1):
        assert "(log scale)" not in str(preview(policy, 50))
        assert "(log scale)" in preview(policy, 50).to_text(log=True)


# As a picture


@once
def test_plot_draws_rate_and_momentum_against_the_step():
    shown = preview(keras_lr.OneCycle(0.1), 100)
    rate, momentum = shown.plot()
    for ax, values in ((rate, shown.learning_rates), (momentum, shown.momenta)):
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(100))
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
        assert ax.lines[1].get_xdata().tolist() == [0, 29, 99]
    assert (rate.get_ylabel(), momentum.get_ylabel()) == ("Learning rate", "Momentum")
    assert (rate.get_xlabel(), momentum.get_xlabel()) == ("", "Step (optimizer updates)")
    assert rate.get_xlim() == momentum.get_xlim()
    assert rate.get_title(loc="left") == "100 updates, highest learning rate 0.1"


@once
def test_plot_draws_into_the_axes_that_it_is_given():
    shown = preview(keras_lr.OneCycle(0.1), 50)
    axes = tuple(Figure().subplots(2, 1))
    assert plot_preview(shown, axes) == axes
    one = Figure().subplots()
    assert plot_preview(shown, one) is one
    assert one.get_ylabel() == "Learning rate"
    with pytest.raises(ValueError, match=r"1 to 1 axes, one for each panel \(rate\); got 2"):
        plot_preview(preview(0.1, 5), axes)


@once
def test_plot_of_a_ramp_is_logarithmic():
    ramp = preview(schedules.ExponentialRampSchedule(1e-7, 10.0, 50), 50)
    assert plot_preview(ramp).get_yscale() == "log"
    assert plot_preview(ramp, log=False).get_yscale() == "linear"


@once
def test_plot_of_a_long_run_keeps_every_extreme_and_few_points():
    rates = np.full(10**5, 0.1)
    spikes = set(range(1_234, 10**5, 3_000))  # too many to be marked
    rates[list(spikes)] = np.where(np.arange(len(spikes)) % 2, 0.2, 0.01)
    line = plot_preview(Preview(rates)).lines[0]
    assert len(line.get_xdata()) < 5000
    assert {0, 99_999} | spikes <= set(line.get_xdata())
    np.testing.assert_array_equal(line.get_ydata(), rates[line.get_xdata()])


@once
def test_saving_returns_the_path(tmp_path):
    shown = preview(0.1, 4)
    assert shown.to_csv(str(tmp_path / "rates.csv")) == tmp_path / "rates.csv"
    assert save_preview_plot(shown, str(tmp_path / "rates.png")) == tmp_path / "rates.png"


@once
@pytest.mark.parametrize("name", ["log", "unicode"])
def test_flags_of_text_and_plot_are_checked_by_value(name):
    shown = preview(0.1, 4)
    with pytest.raises(TypeError, match=f"{name} must be True or False; got 'no'"):
        shown.to_text(**{name: "no"})
    with pytest.raises(TypeError, match="log must be True or False; got 'no'"):
        shown.plot(log="no")


@once
def test_the_package_and_the_function_live_side_by_side():
    package = importlib.import_module("keras_lr.schedule_preview")
    assert (package.preview, package.Preview) == (keras_lr.preview, keras_lr.Preview)
    assert keras_lr.schedule_preview is package


@once
@pytest.mark.parametrize("steps", [1, 2, 10**5])
def test_save_writes_a_picture_and_makes_no_pyplot_figure(tmp_path, steps):
    path = tmp_path / "rates.png"
    save_preview_plot(preview(keras_lr.CyclicLR(0.01, 0.1, 3, cycle_momentum=True), steps), path)
    assert plt.imread(path).shape == (648, 840, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["rates.png"]
    assert plt.get_fignums() == []
