"""`ScheduleHyperparameter`: each update uses its value; the expected weights are by NumPy."""

import keras
import numpy as np
import pytest
from keras import ops
from models import multi_optimizer, sampled
from test_steering import STEPS, fit, network, several_steps

import keras_lr
from keras_lr.schedules import LinearRampSchedule, OneCycleSchedule
from keras_lr.schedules.base import evaluate

inner = keras.optimizers
ROWS = 12
X = np.random.default_rng(0).uniform(-2, 2, ROWS)
RATE = 0.1
falling = LinearRampSchedule(0.9, 0.1, ROWS)
VALUES = np.linspace(0.9, 0.1, ROWS)


def weight(optimizer, *callbacks, **options):
    """The weight of a linear model from 1 on, whose gradients are the values of `X`."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, loss=lambda y_true, y_pred: y_pred, **options)
    x = X[:, None].astype("float32")
    model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=list(callbacks))
    return float(model.get_weights()[0].item())


def sgd(decays=0.0, rates=RATE, clip=lambda g, value: g, values=VALUES):
    """The weight by SGD: decay, then the step along the clipped gradient."""
    w, each = 1.0, np.broadcast_arrays(X, decays, rates, values)
    for g, decay, rate, value in zip(*each, strict=True):
        w -= w * decay * rate
        w -= rate * clip(g, value)
    return w


def adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7, decay=0.0):
    """The weight by Adam, Kingma and Ba, with the epsilon of section 2 as in Keras."""
    each = np.broadcast_arrays(beta_1, beta_2, epsilon, decay, X)[:4]
    w, m, v = 1.0, 0.0, 0.0
    for t, (g, b1, b2, eps, wd) in enumerate(zip(X, *each, strict=True), 1):
        w -= w * wd * RATE
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w -= RATE * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
    return w


def momentum():
    w, velocity = 1.0, 0.0
    for g, value in zip(X, VALUES, strict=True):
        velocity = value * velocity - RATE * g
        w += velocity
    return w


def rms(rhos=VALUES):
    w, v = 1.0, 0.0
    for g, rho in zip(X, rhos, strict=True):
        v = rho * v + (1 - rho) * g**2
        w -= RATE * g / np.sqrt(v + 1e-7)
    return w


def average():
    w, mean = 1.0, None
    for g, value in zip(X, VALUES, strict=True):
        w -= RATE * g
        mean = w if mean is None else value * mean + (1 - value) * w
    return mean


def by_norm(g, value):
    return g * value / max(abs(g), value)


CASES = {
    "SGD weight_decay": (
        lambda: inner.SGD(RATE, weight_decay=0.5),
        lambda: sgd(decays=VALUES),
    ),
    "SGD clipvalue": (
        lambda: inner.SGD(RATE, clipvalue=0.5),
        lambda: sgd(clip=lambda g, value: np.clip(g, -value, value)),
    ),
    "SGD clipnorm": (lambda: inner.SGD(RATE, clipnorm=1), lambda: sgd(clip=by_norm)),
    "SGD global_clipnorm": (
        lambda: inner.SGD(RATE, global_clipnorm=1.0),
        lambda: sgd(clip=by_norm),
    ),
    "SGD momentum": (lambda: inner.SGD(RATE, momentum=0.5), momentum),
    "SGD ema_momentum": (lambda: inner.SGD(RATE, use_ema=True), average),
    "Adam beta_1": (lambda: inner.Adam(RATE), lambda: adam(beta_1=VALUES)),
    "Adam beta_2": (lambda: inner.Adam(RATE), lambda: adam(beta_2=VALUES)),
    "Adam epsilon": (lambda: inner.Adam(RATE), lambda: adam(epsilon=VALUES)),
    "AdamW weight_decay": (
        lambda: inner.AdamW(RATE, weight_decay=0.5),
        lambda: adam(decay=VALUES),
    ),
    "RMSprop rho": (lambda: inner.RMSprop(RATE), rms),
}


@pytest.mark.parametrize(
    "case",
    sampled(
        list(CASES),
        *("SGD weight_decay", "SGD clipvalue", "SGD momentum", "Adam beta_2"),
        why="every attribute is replaced alike",
    ),
)
def test_every_update_uses_the_value_of_the_schedule(case):
    make, expected = CASES[case]
    optimizer, name = make(), case.split()[1]
    if name == "clipvalue" and keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match="On JAX the clipvalue.*Schedule clipnorm"):
            weight(optimizer, keras_lr.ScheduleHyperparameter(name, falling))
        assert optimizer.clipvalue == 0.5
        return
    own = getattr(optimizer, name)
    found = weight(optimizer, keras_lr.ScheduleHyperparameter(name, falling))
    np.testing.assert_allclose(found, expected(), rtol=2e-5)
    assert getattr(optimizer, name) is own


def test_a_function_and_a_number_are_schedules_too():
    linear = lambda step: 0.9 - ops.cast(step, "float32") * (0.8 / (ROWS - 1))  # noqa: E731
    for schedule, values in ((linear, VALUES), (0.3, np.full(ROWS, 0.3)), (0, np.zeros(ROWS))):
        callback = keras_lr.ScheduleHyperparameter("weight_decay", schedule)
        found = weight(inner.SGD(RATE, weight_decay=0.5), callback)
        np.testing.assert_allclose(found, sgd(decays=values), rtol=2e-5)


@several_steps
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["weight_decay", "clipnorm"])
def test_steps_of_one_execution_have_their_own_values(jit, name):
    optimizer = inner.SGD(RATE, **{name: 0.5})
    callback = keras_lr.ScheduleHyperparameter(name, falling)
    found = weight(optimizer, callback, steps_per_execution=5, jit_compile=jit)
    np.testing.assert_allclose(found, CASES[f"SGD {name}"][1](), rtol=2e-5)


def test_it_goes_with_a_schedule_of_the_rate_and_with_another_of_its_kind():
    rates = evaluate(OneCycleSchedule(0.2, ROWS), np.arange(ROWS))
    found = weight(
        inner.SGD(RATE, weight_decay=0.5, clipnorm=0.5),
        keras_lr.ScheduleHyperparameter("weight_decay", falling),
        keras_lr.OneCycle(0.2, cycle_momentum=False),
        keras_lr.ScheduleHyperparameter("clipnorm", LinearRampSchedule(0.2, 1.3, ROWS)),
    )
    values = np.linspace(0.2, 1.3, ROWS)
    np.testing.assert_allclose(found, sgd(VALUES, rates, by_norm, values), rtol=2e-5)


def test_it_goes_with_the_momentum_of_one_cycle():
    decayed, plain = (network(inner.SGD(0.01, momentum=0.9, weight_decay=0.5)) for _ in range(2))
    plain.optimizer.weight_decay = 0.1
    fit(plain, keras_lr.OneCycle(0.05))
    fit(decayed, keras_lr.OneCycle(0.05), keras_lr.ScheduleHyperparameter("weight_decay", 0.1))
    for ours, theirs in zip(decayed.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_every_fit_has_its_own_schedule():
    model = network(inner.SGD(0.0, weight_decay=0.5))
    for low in (0.1, 0.2, 0.2):
        schedule = LinearRampSchedule(0.9, low, 3 * STEPS)
        history = fit(model, keras_lr.ScheduleHyperparameter("weight_decay", schedule)).history
        expected = np.linspace(0.9, low, 3 * STEPS)[STEPS - 1 :: STEPS]
        np.testing.assert_allclose(history["weight_decay"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("accumulated", [None, 2])
def test_a_second_fit_with_other_values_is_compiled_for_them(accumulated):
    def made(decay):
        options = {"gradient_accumulation_steps": accumulated} if accumulated else {}
        return network(inner.SGD(0.1, weight_decay=decay, **options))

    model = made(0.5)
    for value in (0.1, 0.3):
        twin = made(value)
        twin.set_weights(model.get_weights())
        fit(twin)
        fit(model, keras_lr.ScheduleHyperparameter("weight_decay", value))
        for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_groups_and_the_optimizer_within_a_loss_scale_follow_it():
    def groups(*decays):
        first, second = (inner.SGD(0.1, weight_decay=decay) for decay in decays)
        return multi_optimizer(first, {".*bias": second})

    for make in (
        lambda *decays: inner.LossScaleOptimizer(inner.SGD(0.1, weight_decay=decays[0]), 2.0),
        groups,
    ):
        model, twin = network(make(0.5, 0.7)), network(make(0.2, 0.2))
        fit(twin)
        fit(model, keras_lr.ScheduleHyperparameter("weight_decay", 0.2))
        for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_model_saved_in_the_middle_has_the_optimizers_own_value(tmp_path):
    path = tmp_path / "model.keras"
    save = keras.callbacks.ModelCheckpoint(str(path))
    fit(
        network(inner.AdamW(0.01, weight_decay=0.5)),
        keras_lr.ScheduleHyperparameter("weight_decay", 0.1),
        save,
    )
    assert keras.saving.load_model(path).optimizer.weight_decay == 0.5


def test_the_logger_has_a_scheduled_momentum_of_each_batch():
    logger = keras_lr.LRLogger()
    schedule = LinearRampSchedule(0.9, 0.1, 3 * STEPS)
    callback = keras_lr.ScheduleHyperparameter("beta_1", schedule)
    fit(network(inner.Adam(0.01)), callback, logger)
    expected = np.linspace(0.9, 0.1, 3 * STEPS)
    np.testing.assert_allclose(logger.history["momentum"], expected, rtol=1e-5, atol=0)


def test_an_exception_restores_the_optimizer():
    optimizer = inner.AdamW(0.01, weight_decay=0.5)

    def stop(epoch, logs):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(
            network(optimizer),
            keras_lr.ScheduleHyperparameter("weight_decay", 0.1),
            keras.callbacks.LambdaCallback(on_epoch_end=stop),
        )
    assert optimizer.weight_decay == 0.5 and "weight_decay" in vars(optimizer)


def schedule_free():
    return keras_lr.optimizers.ScheduleFree(inner.SGD(0.1, momentum=0.5))


REFUSED = [
    (lambda: inner.SGD(0.1), "clip", "must have the attribute 'clip'; got SGD"),
    (lambda: inner.SGD(0.1), "weight_decay", "weight_decay of the optimizer must.*got None, with"),
    (lambda: inner.SGD(0.1), "momentum", "momentum of the optimizer must be above 0.*got 0.0"),
    (lambda: inner.SGD(0.1), "nesterov", "SGD has no number 'nesterov' that a schedule can"),
    (lambda: inner.SGD(0.1), "name", "SGD has no number 'name'"),
    (lambda: inner.SGD(0.1), "ema_momentum", "only with use_ema=True; got SGD with use_ema=False"),
    (lambda: keras_lr.optimizers.Prodigy(), "beta_2", "Prodigy has no number 'beta_2'"),
    (schedule_free, "momentum", r"ScheduleFree\[SGD\] has no number 'momentum'"),
]


@pytest.mark.once
@pytest.mark.parametrize(("make", "name", "message"), REFUSED)
def test_an_attribute_that_cannot_be_scheduled_is_refused(make, name, message):
    model = network(make())
    with pytest.raises(ValueError, match=message):
        fit(model, keras_lr.ScheduleHyperparameter(name, 0.5))
    fit(model, epochs=1)


@pytest.mark.once
def test_bad_arguments_are_refused_at_once():
    scheduled = keras_lr.ScheduleHyperparameter
    for error, message, arguments in (
        (TypeError, "name must be the name of an attribute; got 1", (1, 0.1)),
        (ValueError, "got 'learning_rate'. Use ScheduleLR", ("learning_rate", 0.1)),
        (ValueError, "got 'gradient_accum", ("gradient_accumulation_steps", 2)),
        (ValueError, "got 'initial_accum.* before the first", ("initial_accumulator_value", 0.1)),
        (TypeError, "schedule must be a schedule, a function.*got 'cos'", ("epsilon", "cos")),
        (TypeError, "schedule must be a schedule, a function.*got True", ("epsilon", True)),
        (ValueError, "schedule must be at least 0; got -1", ("weight_decay", -1)),
        (ValueError, r"schedule must be in \[0, 1\); got 1.0", ("beta_2", 1.0)),
        (ValueError, "schedule must be a finite number", ("weight_decay", float("nan"))),
    ):
        with pytest.raises(error, match=message):
            scheduled(*arguments)


def test_a_schedule_that_leaves_the_range_is_refused_before_the_training():
    model = network(inner.Adam(0.01))
    before = model.get_weights()
    rising = LinearRampSchedule(0.5, 1.5, 3 * STEPS)
    with pytest.raises(ValueError, match=r"beta_2 at update 6 must be in \[0, 1\); got 1.04"):
        fit(model, keras_lr.ScheduleHyperparameter("beta_2", rising))
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_two_callbacks_that_set_the_same_are_refused():
    decay = keras_lr.ScheduleHyperparameter
    pairs = (
        ([decay("weight_decay", 0.1), decay("weight_decay", 0.2)], "set the weight_decay; got"),
        ([keras_lr.OneCycle(0.1), decay("beta_1", 0.5)], "set the momentum; got OneCycle and Sch"),
    )
    for callbacks, message in pairs:
        with pytest.raises(ValueError, match=message):
            fit(network(inner.AdamW(0.01)), *callbacks)
