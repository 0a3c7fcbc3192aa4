"""Schedules apart from the values of their curves: steps, errors, saving, training."""

import doctest
import functools
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from contract import SCHEDULES, fitted_weight
from keras import ops
from models import multi_optimizer

import keras_lr.schedules
from keras_lr._keras.frames import caller_self
from keras_lr.schedules import (
    ConstantSchedule,
    CyclicSchedule,
    ExponentialRampSchedule,
    FlatCosineSchedule,
    InverseSqrtSchedule,
    LinearRampSchedule,
    OneCycleSchedule,
    SequentialSchedule,
    SlantedTriangularSchedule,
    StepDecaySchedule,
    WarmUpSchedule,
    WarmUpStableDecaySchedule,
    scale_lr,
)
from keras_lr.schedules.base import as_schedule, evaluate
from keras_lr.schedules.warm_up import WarmUpFactor

BACKEND = keras.backend.backend()
theirs = keras.optimizers.schedules


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=0)


def compiled(function):
    """The function as the backend compiles it, with the step as a traced tensor."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


# Examples and names


@pytest.mark.once
def test_examples_in_docstrings_run():
    ran = 0
    for module in pkgutil.iter_modules(keras_lr.schedules.__path__):
        found = importlib.import_module(f"keras_lr.schedules.{module.name}")
        failed, count = doctest.testmod(found)
        assert failed == 0
        ran += count
    assert ran >= 26


@pytest.mark.once
def test_every_argument_is_in_the_docstring():
    for name in keras_lr.schedules.__all__:
        documented = getattr(keras_lr.schedules, name)
        for argument in inspect.signature(documented).parameters:
            assert re.search(rf"^ +{argument}: ", documented.__doc__, re.MULTILINE), (
                name,
                argument,
            )


# Short runs


@pytest.mark.parametrize("pct_start", [0.05, 0.3])
def test_one_cycle_of_few_steps_climbs_before_it_falls(pct_start):
    first, last = 0.1 / 25, 0.1 / 25 / 1e4
    for steps, rates in ((1, [0.1]), (2, [first, 0.1]), (3, [first, 0.1, last])):
        close(evaluate(OneCycleSchedule(0.1, steps, pct_start), range(steps)), rates)


def test_one_cycle_climbs_in_one_step_where_torch_divides_by_zero():
    rates = evaluate(OneCycleSchedule(0.1, 10, pct_start=0.1, anneal="linear"), range(3))
    close(rates, [0.1 / 25, 0.1, 4e-7 + (0.1 - 4e-7) * 7 / 8])


def test_one_cycle_in_three_phases_of_few_steps_returns_to_the_first_rate():
    for steps, rates in ((1, [0.1]), (2, [0.004, 0.1]), (3, [0.004, 0.1, 0.004])):
        schedule = OneCycleSchedule(0.1, steps, three_phase=True)
        close(evaluate(schedule, range(steps)), rates)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_momentum_of_few_steps_mirrors_the_rate(steps, three_phase):
    schedule = OneCycleSchedule(0.1, steps, three_phase=three_phase)
    momenta = evaluate(schedule.momentum(0.85, 0.95), range(steps))
    close(momenta, {1: [0.85], 2: [0.95, 0.85], 3: [0.95, 0.85, 0.95]}[steps])


def test_slanted_triangle_of_few_steps_climbs_before_it_falls():
    for steps, rates in ((1, [0.8]), (2, [0.1, 0.8]), (3, [0.1, 0.8, 0.45])):
        schedule = SlantedTriangularSchedule(0.8, steps, ratio=8)
        close(evaluate(schedule, range(steps)), rates)


@pytest.mark.parametrize("ramp", [LinearRampSchedule, ExponentialRampSchedule])
@pytest.mark.parametrize("start, end", [(0.1, 0.9), (0.9, 0.1)])
def test_a_ramp_of_one_step_is_at_its_start(ramp, start, end):
    close(evaluate(ramp(start, end, 1), range(3)), [start, end, end])
    close(evaluate(ramp(start, end, 2), range(3)), [start, end, end])


def test_after_its_end_a_schedule_keeps_its_last_rate():
    for schedule, last in (
        (OneCycleSchedule(0.1, 9), 0.1 / 25 / 1e4),
        (OneCycleSchedule(0.1, 9, three_phase=True), 0.1 / 25 / 1e4),
        (SlantedTriangularSchedule(0.8, 9, ratio=8), 0.1),
        (FlatCosineSchedule(0.1, 9, final_div_factor=100), 1e-3),
        (WarmUpStableDecaySchedule(0.1, 9, min_lr=0.02), 0.02),
        (ExponentialRampSchedule(0.1, 10.0, 9), 10.0),
    ):
        close(evaluate(schedule, [9, 10, 10**6]), [last] * 3)


# Cycles


def test_a_cycle_begins_at_its_base_and_peaks_after_step_size():
    schedule = CyclicSchedule(0.1, 0.9, 3, 5, mode="triangular2")
    starts = np.arange(0, 10**6, 8)
    assert np.unique(evaluate(schedule, starts)).tolist() == [np.float32(0.1)]
    close(evaluate(schedule, starts[:20] + 3), 0.1 + 0.8 * 0.5 ** np.arange(20))


def test_longer_cycles_begin_exactly_where_the_sum_of_the_shorter_ones_ends():
    schedule = CyclicSchedule(0.0, 0.8, 2, 2, cycle_mult=2.0, mode="triangular2")
    starts = 4 * (2 ** np.arange(22) - 1)
    assert evaluate(schedule, starts).tolist() == [0.0] * 22
    close(evaluate(schedule, starts + 2 ** (1 + np.arange(22))), 0.8 * 0.5 ** np.arange(22))


def test_a_cycle_accepts_fractional_steps():
    close(evaluate(CyclicSchedule(0.1, 0.9, 2), [0.5, 2.5, 5.5]), [0.3, 0.7, 0.7])
    tripled = CyclicSchedule(0.1, 0.9, 2, cycle_mult=1.25)
    close(evaluate(tripled, [0.5, 3.5, 4 + 1.25, 9 + 1.5625]), [0.3, 0.3, 0.5, 0.5])


def test_scale_fn_receives_the_number_of_the_cycle():
    schedule = CyclicSchedule(0.1, 0.9, 1, scale_fn=lambda cycle: cycle)
    close(evaluate(schedule, [1, 3, 5, 7]), [0.9, 1.7, 2.5, 3.3])


@pytest.mark.parametrize("mult", [3.0, 2.0, 1.5, 1.1, 1.01])
def test_the_number_of_a_longer_cycle_is_right_from_its_first_step_to_its_last(mult):
    seen = []
    schedule = CyclicSchedule(0.1, 0.9, 2, cycle_mult=mult, scale_fn=lambda n: seen.append(n) or n)
    number = np.arange(1 + int(np.log(4e6 * (mult - 1)) / np.log(mult)))
    begin = np.ceil(np.round(4 * (mult**number - 1) / (mult - 1), 9))
    evaluate(schedule, begin)
    evaluate(schedule, begin[1:] - 1)
    first, last = (ops.convert_to_numpy(numbers) for numbers in seen)
    assert first.tolist() == (number + 1).tolist()
    assert last.tolist() == number[1:].tolist()


# Warm-up, sequences, longer runs


def test_the_factor_of_a_warm_up_is_a_curve():
    close(evaluate(WarmUpFactor(4), range(6)), [0, 0.25, 0.5, 0.75, 1, 1])
    close(evaluate(WarmUpFactor(2, 0.25, "exponential"), range(4)), [0.25, 0.5, 1, 1])
    close(evaluate(WarmUpFactor(2, 0.25, "constant"), range(4)), [0.25, 0.25, 1, 1])


def test_a_warm_up_multiplies_a_schedule_that_runs_meanwhile():
    schedule = WarmUpSchedule(theirs.ExponentialDecay(1.0, 1, 0.5), 4, start_factor=0.5)
    close(evaluate(schedule, range(6)), [0.5, 0.3125, 0.1875, 0.109375, 0.0625, 0.03125])


def test_a_warm_up_accepts_arrays_for_a_schedule_that_accepts_single_steps():
    cosine = theirs.CosineDecay(0.01, 9, warmup_target=0.1, warmup_steps=5)
    rates = evaluate(WarmUpSchedule(cosine, 3), np.arange(12).reshape(3, 4))
    close(
        rates,
        evaluate(cosine, range(12)).reshape(3, 4) * np.minimum(np.arange(12) / 3, 1).reshape(3, 4),
    )


def test_each_part_of_a_sequence_begins_at_its_own_step_0():
    parts = [0.5, WarmUpSchedule(1.0, 2), theirs.PolynomialDecay(0.8, 4, 0.0)]
    rates = evaluate(SequentialSchedule(parts, [2, 5]), range(11))
    close(rates, [0.5, 0.5, 0, 0.5, 1, 0.8, 0.6, 0.4, 0.2, 0, 0])


def test_a_longer_run_does_not_change_the_rates_before_the_decay():
    short, long = (WarmUpStableDecaySchedule(0.1, total, 10, 20) for total in (100, 500))
    assert (evaluate(short, range(81)) == evaluate(long, range(81))).all()
    assert evaluate(short, 81) < evaluate(long, 81)


def test_the_decay_of_warm_up_stable_decay_is_a_tenth_of_the_run_by_default():
    assert WarmUpStableDecaySchedule(0.1, 250).decay_steps == 25
    assert WarmUpStableDecaySchedule(0.1, 3).decay_steps == 1


# Steps


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=[cls.__name__ for cls in SCHEDULES])
def test_a_traced_step_gives_the_same_rate(make):
    schedule, steps = make(12), [0, 1, 2, 7, 11, 12, 30]
    graph = compiled(schedule.__call__)
    traced = [float(graph(ops.convert_to_tensor(step))) for step in steps]
    np.testing.assert_allclose(traced, evaluate(schedule, steps), rtol=1e-6)
    traced = ops.convert_to_numpy(graph(ops.convert_to_tensor(steps)))
    np.testing.assert_allclose(traced, evaluate(schedule, steps), rtol=1e-6)


def test_the_arguments_may_be_numpy_numbers():
    schedule = OneCycleSchedule(np.float32(0.5), np.int64(9), np.float64(0.3))
    assert schedule.get_config() == OneCycleSchedule(0.5, 9, 0.3).get_config()
    assert all(type(value) in (float, int, str, bool) for value in schedule.get_config().values())


# Gradient accumulation: Keras counts batches, a schedule updates


X = np.random.default_rng(1).uniform(1, 2, 24).astype("float32")


def accumulated(schedule):
    """What `fitted_weight` must give with 4 batches an update."""
    return -(evaluate(schedule, np.arange(6)) * X.reshape(6, 4).mean(axis=1)).sum()


@pytest.mark.parametrize(
    "schedule",
    [
        OneCycleSchedule(0.1, 6),
        CyclicSchedule(0.01, 0.1, 2, mode="triangular2", cycle_mult=1.5),
        WarmUpSchedule(theirs.ExponentialDecay(0.1, 1, 0.5), 3, 0.1),
        SequentialSchedule([OneCycleSchedule(0.1, 3), StepDecaySchedule(0.1, 1)], [3]),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_schedule_counts_updates_under_gradient_accumulation(schedule):
    close(fitted_weight(schedule, X, gradient_accumulation_steps=4), accumulated(schedule))


def test_two_optimizers_that_share_a_schedule_count_their_own_updates():
    schedule = LinearRampSchedule(0.1, 1.0, 10)
    plain = keras.optimizers.SGD(schedule)
    grouped = keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)
    for optimizer in (plain, grouped):
        optimizer._iterations.assign(6)
    assert float(plain.learning_rate) == pytest.approx(0.7)
    assert float(grouped.learning_rate) == pytest.approx(0.3)
    assert float(schedule(grouped.iterations)) == pytest.approx(0.3)


def test_the_optimizer_within_a_wrapper_counts_updates():
    schedule = LinearRampSchedule(0.1, 1.0, 10)
    inner = keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)
    wrapped = keras.optimizers.LossScaleOptimizer(inner)
    inner._iterations.assign(6)
    assert float(wrapped.learning_rate) == pytest.approx(0.3)


def test_the_counter_of_no_optimizer_counts_updates():
    counter = keras.Variable(6, dtype="int32", trainable=False)
    assert float(LinearRampSchedule(0.1, 1.0, 10)(counter)) == pytest.approx(0.7)


def test_momentum_and_warm_up_factor_count_updates_too():
    class Reader(keras.optimizers.SGD):
        def read(self, curve):
            return float(curve(self._iterations))

    optimizer = Reader(0.1, gradient_accumulation_steps=4)
    optimizer._iterations.assign(8)
    momentum = OneCycleSchedule(0.1, 6).momentum(0.85, 0.95)
    assert optimizer.read(momentum) == pytest.approx(float(momentum(2)))
    assert optimizer.read(WarmUpFactor(4)) == pytest.approx(0.5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a loop of one's own in tf.function")
def test_a_custom_training_loop_counts_updates():
    import tensorflow as tf

    schedule = LinearRampSchedule(0.1, 1.0, 10)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=4)
    weight = keras.Variable(0.0)
    optimizer.build([weight])

    @tf.function
    def train(gradient):
        optimizer.apply([gradient], [weight])

    for value in X:
        train(tf.constant(value))
    close(float(weight.numpy()), accumulated(schedule))


@pytest.mark.once
def test_the_nearest_caller_that_fits_is_found():
    class Caller:
        def __init__(self, name):
            self.name = name

        def call(self, function):
            return function()

    def named(name):
        return lambda: caller_self(lambda each: getattr(each, "name", None) == name)

    outer, inner = Caller("outer"), Caller("inner")
    assert outer.call(lambda: inner.call(named("inner"))) is inner
    assert outer.call(lambda: inner.call(named("outer"))) is outer
    assert outer.call(lambda: inner.call(named("nobody"))) is None


# Other schedules


@pytest.mark.parametrize(
    "schedule, steps, rates",
    [
        (theirs.CosineDecay(0, 8, warmup_target=1, warmup_steps=2), [0, 1, 6], [0, 0.5, 0.5]),
        (theirs.ExponentialDecay(1, 1, 0.5), [0, 1, 2], [1, 0.5, 0.25]),
        (theirs.PiecewiseConstantDecay([2, 4], [1, 0.5, 0]), [0, 3, 5], [1, 0.5, 0]),
        (theirs.PolynomialDecay(1, 4, 0), [0, 1, 4], [1, 0.75, 0]),
        (theirs.InverseTimeDecay(1, 1, 0.5), [0, 1, 2], [1, 1 / 1.5, 0.5]),
        (theirs.CosineDecayRestarts(1, 4, 1.0), [0, 2, 4], [1, 0.5, 1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedules_of_keras_with_integer_rates_are_converted_to_floats(schedule, steps, rates):
    np.testing.assert_allclose(evaluate(as_schedule(schedule), steps), rates, rtol=1e-5, atol=1e-7)
    doubled = SequentialSchedule([schedule], [])
    np.testing.assert_allclose(evaluate(doubled, steps), rates, rtol=1e-5, atol=1e-7)


def test_schedules_with_float_rates_are_not_changed():
    class Mine(theirs.ExponentialDecay):
        pass

    for schedule in (theirs.ExponentialDecay(1.0, 9, 0.5), Mine(1, 9, 0.5), OneCycleSchedule(1, 9)):
        assert as_schedule(schedule) is schedule


def test_a_number_is_a_constant_schedule():
    assert isinstance(as_schedule(1), ConstantSchedule)
    assert evaluate(as_schedule(np.float32(0.5)), [0, 10**9]).tolist() == [0.5, 0.5]


def test_any_function_of_the_step_can_be_evaluated():
    assert evaluate(lambda step: 0.5**step if step < 2 else 1, [[0, 1], [2, 3]]).tolist() == [
        [1, 0.5],
        [1, 1],
    ]
    assert evaluate(OneCycleSchedule(0.5, 1), 0) == 0.5


# Saving


@keras.saving.register_keras_serializable(package="keras_lr_tests")
def halved(cycle):
    return 0.5 ** (cycle - 1.0)


@keras.saving.register_keras_serializable(package="keras_lr_tests")
class Sawtooth(theirs.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "schedule",
    [
        CyclicSchedule(0.01, 0.1, 2, scale_fn=halved),
        CyclicSchedule(0.01, 0.1, 2, 3, "exp_range", 0.5),
        WarmUpSchedule(WarmUpSchedule(theirs.CosineDecay(0, 9, warmup_target=1), 3), 4),
        SequentialSchedule([0.1, Sawtooth(), CyclicSchedule(0.1, 1, 2, scale_fn=halved)], [4, 6]),
    ],
    ids=["rule", "gamma", "nested", "own"],
)
def test_nested_schedules_and_scale_fn_are_restored(schedule):
    again = theirs.deserialize(theirs.serialize(schedule))
    assert theirs.serialize(again) == theirs.serialize(schedule)
    assert (evaluate(again, range(12)) == evaluate(schedule, range(12))).all()


def test_a_loaded_model_continues_at_the_step_of_the_schedule(tmp_path):
    schedule = WarmUpSchedule(theirs.CosineDecay(0.1, 20), 8)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    x = np.ones((5, 1), "float32")
    model.fit(x, x, batch_size=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == float(schedule(5))
    loaded.fit(x, x, batch_size=1, verbose=0)
    assert float(loaded.optimizer.learning_rate) == float(schedule(10))


@pytest.mark.once
def test_a_model_loads_in_a_process_that_only_imports_the_package(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    schedule = SequentialSchedule([WarmUpSchedule(theirs.CosineDecay(0.1, 9), 4), 0.5], [6])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, keras_lr;"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r});"
        "print(type(model.optimizer._learning_rate).__name__)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "SequentialSchedule", shown.stderr


def test_curves_of_momentum_and_warm_up_can_be_pickled():
    for curve in (
        OneCycleSchedule(0.1, 9).momentum(0.8, 0.9),
        CyclicSchedule(0.01, 0.1, 2, cycle_mult=1.5, scale_fn=halved).momentum(0.8, 0.9),
        WarmUpFactor(5, 0.1, "exponential"),
        WarmUpSchedule(OneCycleSchedule(0.1, 9), 3),
    ):
        expected = evaluate(curve, range(12))
        assert (evaluate(pickle.loads(pickle.dumps(curve)), range(12)) == expected).all()


# Errors

WRONG = [
    (
        ConstantSchedule,
        (0.0,),
        ValueError,
        "learning_rate must be above 0; got 0.0.",
    ),
    (ConstantSchedule, (True,), TypeError, "learning_rate must be .* above 0; got True."),
    (OneCycleSchedule, (float("nan"), 9), ValueError, "max_lr must .* above 0; got nan."),
    (OneCycleSchedule, (float("inf"), 9), ValueError, "max_lr must be .* got inf."),
    (OneCycleSchedule, (-1, 9), ValueError, "max_lr must be .* got -1."),
    (OneCycleSchedule, ("0.1", 9), TypeError, "max_lr must be .* got '0.1'."),
    (
        OneCycleSchedule,
        (0.1, 0),
        ValueError,
        "total_steps must be an integer of at least 1; got 0.",
    ),
    (OneCycleSchedule, (0.1, 9.5), ValueError, "total_steps must be .* got 9.5."),
    (OneCycleSchedule, (0.1, None), TypeError, "total_steps must be .* got None."),
    (OneCycleSchedule, (0.1, True), TypeError, "total_steps must be .* got True."),
    (
        OneCycleSchedule,
        (0.1, 9, 1.5),
        ValueError,
        r"pct_start must be in \[0, 1\]; got 1.5.",
    ),
    (
        OneCycleSchedule,
        (0.1, 9, 0.3, "sin"),
        ValueError,
        "anneal must be 'cos' or 'linear'; got 'sin'.",
    ),
    (OneCycleSchedule, (0.1, 9, 0.3, "cos", 0.5), ValueError, "div_factor must .* got 0.5."),
    (OneCycleSchedule, (0.1, 9, 0.3, "cos", 2, 0), ValueError, "final_div_factor must .* got 0."),
    (OneCycleSchedule, (0.1, 9, 0.6, "cos", 2, 9, True), ValueError, "pct_start must .* got 0.6."),
    (OneCycleSchedule, (0.1, 9, 0, "cos", 2, 9, True), ValueError, "pct_start must .* got 0."),
    (
        OneCycleSchedule,
        (0.1, 9, 0.3, "cos", 2, 9, 1),
        TypeError,
        "three_phase must be True or False; got 1.",
    ),
    (CyclicSchedule, (-0.1, 0.1, 9), ValueError, "base_lr must be at least 0; got -0.1."),
    (CyclicSchedule, (0.2, 0.1, 9), ValueError, "base_lr=0.2 and max_lr=0.1."),
    (CyclicSchedule, (0.1, 0.2, 0), ValueError, "step_size must be .* got 0."),
    (CyclicSchedule, (0.1, 0.2, 9, 0), ValueError, "step_size_down must be .* got 0."),
    (
        CyclicSchedule,
        (0.1, 0.2, 9, 9, "square"),
        ValueError,
        "mode must be 'triangular', 'triangular2' or 'exp_range'; got 'square'.",
    ),
    (CyclicSchedule, (0.1, 0.2, 9, 9, "exp_range", 1.1), ValueError, "gamma must .* got 1.1."),
    (CyclicSchedule, (0.1, 0.2, 9, 9, "triangular", 0.5), ValueError, "gamma must .* got 0.5."),
    (CyclicSchedule, (0.1, 0.2, 9, 9, "triangular", 1, 3), TypeError, "scale_fn must .* got 3."),
    (
        CyclicSchedule,
        (0.1, 0.2, 9, 9, "triangular2", 1, halved),
        ValueError,
        "combined with a mode; got mode='triangular2'.",
    ),
    (
        CyclicSchedule,
        (0.1, 0.2, 9, 9, "triangular", 1, None, 0.9),
        ValueError,
        "cycle_mult .* got 0.9.",
    ),
    (WarmUpSchedule, ("cosine", 9), TypeError, "schedule must be .* got 'cosine'."),
    (WarmUpSchedule, (OneCycleSchedule, 9), TypeError, "schedule must be .* LearningRateSchedule"),
    (WarmUpSchedule, (0.0, 9), ValueError, "schedule must be above 0; got 0.0."),
    (WarmUpSchedule, (0.1, 0), ValueError, "warmup_steps must be .* got 0."),
    (WarmUpSchedule, (0.1, 9, 1.5), ValueError, "start_factor must be .* got 1.5."),
    (WarmUpSchedule, (0.1, 9, 0.0, "exponential"), ValueError, "start_factor must .* got 0.0."),
    (WarmUpSchedule, (0.1, 9, 0.0, "constant"), ValueError, "start_factor must .* got 0.0."),
    (
        WarmUpSchedule,
        (0.1, 9, 0.5, "cosine"),
        ValueError,
        "mode must be 'linear', 'exponential' or 'constant'; got 'cosine'.",
    ),
    (
        WarmUpStableDecaySchedule,
        (0.1, 9, -1),
        ValueError,
        "warmup_steps must be .* at least 0; got -1.",
    ),
    (
        WarmUpStableDecaySchedule,
        (0.1, 9, 5, 6),
        ValueError,
        "must be at most total_steps; got 5 . 6 and total_steps=9.",
    ),
    (WarmUpStableDecaySchedule, (0.1, 9, 5, 0), ValueError, "decay_steps must be .* got 0."),
    (WarmUpStableDecaySchedule, (0.1, 9, 5, 4, "exp"), ValueError, "decay must be .* got 'exp'."),
    (
        WarmUpStableDecaySchedule,
        (0.1, 9, 5, 4, "linear", 0.2),
        ValueError,
        "start_lr=0.2 and max_lr=0.1",
    ),
    (
        WarmUpStableDecaySchedule,
        (0.1, 9, 5, 4, "linear", 0.0, 0.3),
        ValueError,
        "min_lr=0.3 and max_lr=0.1",
    ),
    (
        SlantedTriangularSchedule,
        (0.1, 9, 0.0),
        ValueError,
        r"cut_frac must be in \(0, 1\); got 0.0.",
    ),
    (SlantedTriangularSchedule, (0.1, 9, 0.1, 0.5), ValueError, "ratio must .* got 0.5."),
    (StepDecaySchedule, (0.1, 9, 0.0), ValueError, "gamma must be .* got 0.0."),
    (InverseSqrtSchedule, (0.1, 0), ValueError, "timescale must be given .* warmup_steps=0."),
    (InverseSqrtSchedule, (0.1, 9, 0), ValueError, "timescale must be .* got 0."),
    (FlatCosineSchedule, (0.1, 9, -0.5), ValueError, "pct_start must be .* got -0.5."),
    (FlatCosineSchedule, (0.1, 9, 0.5, 0.5), ValueError, "final_div_factor must be .* got 0.5."),
    (LinearRampSchedule, (0.1, 0.0, 9), ValueError, "end_lr must be .* got 0.0."),
    (ExponentialRampSchedule, (0.0, 0.1, 9), ValueError, "start_lr must be .* got 0.0."),
    (SequentialSchedule, ([], []), ValueError, "got 0 boundaries and 0 schedules."),
    (SequentialSchedule, ([0.1, 0.2], [2, 3]), ValueError, "got 2 boundaries and 2 schedules."),
    (SequentialSchedule, (0.1, []), TypeError, "schedules must be a list; got 0.1."),
    (SequentialSchedule, ([0.1, "x"], [2]), TypeError, r"schedules\[1\] must be .* got 'x'."),
    (SequentialSchedule, ([0.1, 0.2], [0]), ValueError, r"boundaries\[0\] must be .* got 0."),
    (
        SequentialSchedule,
        ([0.1, 0.2, 0.3], [4, 4]),
        ValueError,
        r"boundaries must be strictly increasing; got \[4, 4\].",
    ),
    (scale_lr, (0.1, 0), ValueError, "batch_size must be .* got 0."),
    (scale_lr, (0.1, 64, 0), ValueError, "base_batch_size must be .* got 0."),
    (scale_lr, (0.0, 64), ValueError, "lr must be .* got 0.0."),
    (
        functools.partial(scale_lr, optimizer="adam"),
        (0.1, 64, 32, "sqrt"),
        ValueError,
        "Only one of rule and optimizer can be given; got rule='sqrt'",
    ),
    (
        functools.partial(scale_lr, optimizer="lion"),
        (0.1, 64),
        ValueError,
        "a known rule, the same for all groups; got Lion. Pass rule='linear' or",
    ),
    (
        functools.partial(scale_lr, optimizer="adm"),
        (0.1, 64),
        ValueError,
        "optimizer must be an optimizer of Keras or its name; got 'adm'",
    ),
    (
        functools.partial(scale_lr, optimizer=3),
        (0.1, 64),
        TypeError,
        "optimizer must be an optimizer of Keras or its name; got 3",
    ),
    (scale_lr, (0.1, 64, 32, "cubic"), ValueError, "rule must be 'linear' or 'sqrt'; got 'cubic'."),
]


@pytest.mark.once
@pytest.mark.parametrize("make, arguments, error, message", WRONG)
def test_wrong_arguments_are_refused(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(*arguments)


@pytest.mark.once
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=[each.__name__ for each in SCHEDULES])
def test_strings_and_flags_are_checked_by_value(make):
    schedule = make(12)
    config = schedule.get_config()

    def stored(name, value):
        return type(schedule).from_config({**config, name: value}).get_config()[name]

    for name, value in config.items():
        if isinstance(value, bool):
            assert type(stored(name, np.bool_(value))) is bool
            for wrong in ("no", 1, None):
                with pytest.raises(TypeError, match=f"{name} must be True or False; got "):
                    stored(name, wrong)
        elif isinstance(value, str):
            assert type(stored(name, np.str_(value))) is str
            for wrong in (value.upper(), [value], None):
                with pytest.raises(ValueError, match=f"{name} must be '.*; got "):
                    stored(name, wrong)


@pytest.mark.once
def test_wrong_momenta_are_refused():
    schedule = OneCycleSchedule(0.1, 9)
    with pytest.raises(ValueError, match=r"max_momentum must be in \[0, 1\); got 1.0."):
        schedule.momentum(0.8, 1.0)
    with pytest.raises(ValueError, match="base_momentum=0.9 and max_momentum=0.8."):
        schedule.momentum(0.9, 0.8)
    with pytest.raises(TypeError, match="base_momentum must be .* got None."):
        schedule.momentum(None, 0.8)


@pytest.mark.once
def test_scale_lr_knows_the_rule_of_the_optimizer():
    inner = keras.optimizers
    linear, root = 0.1 * 4, 0.1 * 2
    for optimizer, expected in (
        (inner.SGD(momentum=0.9), linear),
        ("sgd", linear),
        (inner.AdamW(), root),
        ("rmsprop", root),
        (inner.LossScaleOptimizer(inner.Nadam()), root),
        (keras_lr.optimizers.LayerwiseLR(inner.SGD(0.1), {}), linear),
        (keras_lr.optimizers.LayerwiseLR(inner.Adam(0.1), {}), root),
        (multi_optimizer(inner.Adam(), {".*bias": inner.AdamW()}), root),
    ):
        assert scale_lr(0.1, 1024, 256, optimizer=optimizer) == pytest.approx(expected, rel=1e-12)
    mixed = multi_optimizer(inner.Adam(), {".*bias": inner.SGD()})
    with pytest.raises(ValueError, match="the same for all groups; got .*(Adam and SGD|SGD and A)"):
        scale_lr(0.1, 1024, optimizer=mixed)
