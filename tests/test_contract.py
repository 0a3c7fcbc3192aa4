"""The contract that every callback, optimizer and schedule keeps, on the backend that runs."""

import copy
import functools
import inspect
import pickle
import re

import keras
import numpy as np
import pytest
from contract import (
    CALLBACKS,
    KINDS,
    MORE_OPTIMIZERS,
    OPTIMIZERS,
    SCHEDULES,
    fitted_weight,
    public_classes,
)
from models import classifier, data, same, sampled, values

import keras_lr
from keras_lr.schedules.base import evaluate

of_curves = pytest.mark.long_elsewhere(
    "the curves are keras.ops; other tests here compute them on each backend"
)

of_config = pytest.mark.long_elsewhere("a config is a dictionary on every backend")

callbacks = pytest.mark.parametrize(
    "make", CALLBACKS.values(), ids=[cls.__name__ for cls in CALLBACKS]
)
optimizers = pytest.mark.parametrize(
    "make",
    [*OPTIMIZERS.values(), *MORE_OPTIMIZERS.values()],
    ids=[*(cls.__name__ for cls in OPTIMIZERS), *MORE_OPTIMIZERS],
)
some_optimizers = pytest.mark.parametrize(
    "make",
    sampled(
        {cls.__name__: make for cls, make in OPTIMIZERS.items()} | MORE_OPTIMIZERS,
        *("LayerwiseLR", "ScheduleFree"),
        why="the state is saved and restored alike; all train in every mode on each backend",
    ),
)
schedules = pytest.mark.parametrize(
    "make", SCHEDULES.values(), ids=[cls.__name__ for cls in SCHEDULES]
)


@pytest.mark.parametrize("module", KINDS)
def test_every_class_has_a_row(module):
    base, rows = KINDS[module]
    assert public_classes(module, base) == set(rows)


# What a callback's constructor needs, apart from its flags and strings.
REQUIRED = {
    keras_lr.CyclicLR: (1e-3, 0.1, 2),
    keras_lr.GradualUnfreeze: ([["dense.*"]],),
    keras_lr.OneCycle: (0.1,),
    keras_lr.ScheduleHyperparameter: ("epsilon", 0.1),
    keras_lr.ScheduleLR: (0.1,),
    keras_lr.WarmUp: (4,),
    keras_lr.WarmUpStableDecay: (0.1,),
}


def arguments(kind, *others):
    """The arguments of callbacks with a default of this kind: the class, the name, the default."""
    return [
        pytest.param(cls, name, parameter.default, id=f"{cls.__name__}-{name}")
        for cls in CALLBACKS
        for name, parameter in inspect.signature(cls).parameters.items()
        if type(parameter.default) is kind and name not in others
    ]


@pytest.mark.once
@pytest.mark.parametrize(("cls", "name", "default"), arguments(bool))
def test_a_flag_is_true_or_false_of_any_kind_and_nothing_else(cls, name, default):
    required = REQUIRED.get(cls, ())
    cls(*required, **{name: np.bool_(default)})
    for wrong in ("no", 0, None):
        rule = re.escape(f"{name} must be True or False; got {wrong!r}.")
        with pytest.raises(TypeError, match=rule):
            cls(*required, **{name: wrong})


@pytest.mark.once
@pytest.mark.parametrize(("cls", "name", "default"), arguments(str, "monitor"))
def test_a_choice_goes_by_value(cls, name, default):
    required = REQUIRED.get(cls, ())
    cls(*required, **{name: np.str_(default)})
    with pytest.raises(ValueError, match=f"{name} must be .*; got 'other'"):
        cls(*required, **{name: "other"})


def adam():
    """An optimizer with every number that the rows of the callbacks set."""
    return keras.optimizers.Adam(weight_decay=0.01)


@callbacks
@pytest.mark.long_elsewhere("test_kept_step.py has second fits, and below a plain fit follows")
def test_an_instance_serves_two_fits(make):
    x, y = data()
    callback, model = make(), classifier(adam())
    for _ in range(2):
        model.fit(x, y, batch_size=16, callbacks=[callback], verbose=0)


PYTHON = "what Python copies is the same on every backend"


def weights_by(callback):
    x, y = data()
    model = classifier(adam())
    model.fit(x, y, batch_size=16, callbacks=[callback], verbose=0)
    return values(model.variables)


@functools.cache
def weights_by_a_new_one(make):
    return weights_by(make())


@pytest.mark.parametrize(
    "make",
    sampled(
        {cls.__name__: make for cls, make in CALLBACKS.items()},
        *("OneCycle",),
        why=PYTHON,
    ),
)
@pytest.mark.parametrize("used", sampled({"new": False, "used": True}, "used", why=PYTHON))
@pytest.mark.parametrize(
    "duplicate",
    sampled(
        {"copy": copy.deepcopy, "pickle": lambda each: pickle.loads(pickle.dumps(each))},
        *("pickle",),
        why=PYTHON,
    ),
)
def test_a_copy_trains_as_a_new_instance_does_and_holds_no_model(make, used, duplicate):
    original, expected = make(), weights_by_a_new_one(make)
    if used:
        weights_by(original)
    callback = duplicate(original)
    assert callback.model is None and vars(callback).keys() == vars(make()).keys()
    assert same(weights_by(callback), expected)
    assert same(weights_by(original), expected)  # is not disturbed by the copy


@pytest.mark.parametrize(
    "make",
    sampled(
        {cls.__name__: make for cls, make in CALLBACKS.items()},
        *("GradualUnfreeze", "LRFinder", "OneCycle", "ScheduleHyperparameter"),
        why="Keras saves; the next test fits with each callback",
    ),
)
def test_after_fit_the_optimizer_is_an_ordinary_one_that_saves_and_loads(make, tmp_path):
    x, y = data()
    model, twin = classifier(adam()), classifier(adam())
    layout = [(v.path.split("/")[-1], v.shape) for v in twin.optimizer.variables]
    config = model.optimizer.get_config()
    model.fit(x, y, batch_size=16, callbacks=[make()], verbose=0)
    assert type(model.optimizer) is type(twin.optimizer)
    assert model.optimizer.get_config() == config
    names = [(v.path.split("/")[-1], v.shape) for v in model.optimizer.variables]
    assert names[: len(layout)] == layout
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(values(loaded.optimizer.variables), values(model.optimizer.variables))


@callbacks
def test_a_plain_fit_afterwards_trains_at_the_optimizers_own_rate(make):
    x, y = data()
    model, twin = (
        classifier(keras.optimizers.SGD(0.05, momentum=0.5, weight_decay=0.01), dropout=0.0)
        for _ in range(2)
    )
    model.fit(x, y, batch_size=16, callbacks=[make()], verbose=0)
    before = values(model.trainable_variables)
    twin.set_weights(model.get_weights())
    twin.optimizer.build(twin.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    for ours, theirs in zip(twin.optimizer.variables, model.optimizer.variables, strict=True):
        if "learning_rate" not in ours.path:
            ours.assign(np.array(keras.ops.convert_to_numpy(theirs.value)))
    for each in (model, twin):
        each.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert not same(values(model.trainable_variables), before)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def trained(model, epochs=1):
    x, y = data()
    model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return values(model.variables) + values(model.optimizer.variables)


@optimizers
@of_config
def test_config_makes_an_equal_optimizer(make):
    optimizer = make()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


@some_optimizers
@pytest.mark.parametrize("before", [0, 1], ids=["never fitted", "fitted before"])
def test_a_loaded_model_goes_on_training_as_the_saved_one(make, before, tmp_path):
    model = classifier(make(), dropout=0.0)
    if before:
        trained(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    assert same(trained(loaded), trained(model))


@some_optimizers
def test_a_second_fit_goes_on_where_the_first_one_ended(make):
    once, twice = (classifier(make(), dropout=0.0) for _ in range(2))
    trained(twice)
    assert same(trained(twice), trained(once, epochs=2))


@optimizers
@pytest.mark.parametrize(
    "options",
    sampled(
        {"plain": {}, "jit": {"jit_compile": True}, "several steps": {"steps_per_execution": 4}},
        *("plain", "several steps"),
        why="Keras compiles by default where it can",
    ),
)
def test_training_is_the_same_in_every_mode(make, options):
    if options and keras.backend.backend() == "torch":
        pytest.skip("Keras on torch runs one step at a time, and torch.compile needs a compiler")
    plain = classifier(make(), dropout=0.0, run_eagerly=True)
    model = classifier(make(), dropout=0.0, **options)
    pairs = list(zip(trained(model, 2), trained(plain, 2), strict=True))
    variables = [*model.variables, *model.optimizer.variables]
    for variable, (ours, theirs) in zip(variables, pairs, strict=True):
        if variable.name != "at_average":  # a checksum, which rounding changes
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-5)


@some_optimizers
def test_a_loss_scale_goes_around_it(make):
    scaled = classifier(keras.optimizers.LossScaleOptimizer(make(), 8.0), dropout=0.0)
    plain = classifier(make(), dropout=0.0)
    trained(scaled), trained(plain)
    for ours, theirs in zip(scaled.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-5)


@some_optimizers
def test_a_range_test_leaves_no_trace_in_the_optimizer(make):
    x, y = data()
    for before in (0, 1):
        model = classifier(make(), dropout=0.0)
        if before:
            trained(model)
        state = values(model.variables) + values(model.optimizer.variables)
        test = keras_lr.lr_find(model, x, y, steps=20, end_lr=1.0, verbose=0)
        assert len(test.losses) > 5
        assert same(values(model.variables) + values(model.optimizer.variables), state)
        twin = classifier(make(), dropout=0.0)
        if before:
            trained(twin)
        assert same(trained(model), trained(twin))


@optimizers
def test_the_rate_of_a_callback_reaches_it_or_is_refused(make):
    x, y = data()
    moved = []
    for rate in (1e-12, 1.0):
        model = classifier(make(), dropout=0.0)
        before = model.get_weights()[0]
        if getattr(model.optimizer, "constant_rate", False):
            with pytest.raises(ValueError, match="No callback can set the learning rate of"):
                model.fit(x, y, verbose=0, callbacks=[keras_lr.ScheduleLR(rate)])
            return
        model.fit(x, y, verbose=0, callbacks=[keras_lr.ScheduleLR(rate)])
        moved.append(np.abs(model.get_weights()[0] - before).max())
    assert moved[0] < 1e-7 < 1e-6 < moved[1]


@schedules
@of_config
def test_config_makes_an_equal_schedule(make):
    schedule = make(12)
    again = type(schedule).from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()
    same_rates = evaluate(schedule, np.arange(15)) == evaluate(again, np.arange(15))
    assert same_rates.all()


@schedules
@of_config
def test_a_saved_model_brings_its_schedule_along(make, tmp_path):
    schedule = make(12)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(loaded) is type(schedule)
    assert loaded.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "make",
    sampled(
        {cls.__name__: make for cls, make in SCHEDULES.items()},
        *("CyclicSchedule", "OneCycleSchedule", "SequentialSchedule", "WarmUpSchedule"),
        why="the other curves have no operations of their own",
    ),
)
def test_any_kind_of_step_gives_the_same_rate(make):
    schedule, steps = make(12), np.arange(40)
    rates = evaluate(schedule, steps)
    assert evaluate(schedule, steps.reshape(5, 8)).tolist() == rates.reshape(5, 8).tolist()

    def counter(step):
        return keras.Variable(step, dtype="int32", trainable=False)

    for kind in (int, float, keras.ops.convert_to_tensor, counter):
        one_by_one = [schedule(kind(int(step))) for step in steps]
        assert all(keras.backend.standardize_dtype(rate.dtype) == "float32" for rate in one_by_one)
        np.testing.assert_allclose([float(rate) for rate in one_by_one], rates, rtol=1e-6)


@schedules
@pytest.mark.parametrize("steps", [1, 2, 3])
@of_curves
def test_a_run_of_few_steps_has_rates(make, steps):
    rates = evaluate(make(steps), np.arange(steps + 3))
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates[:steps].max() > 0


@schedules
@of_curves
def test_rates_are_finite_where_steps_can_no_longer_be_counted(make):
    rates = evaluate(make(12), np.array([2**24 + 1, 2**31, 2**40]))
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()


def callbacks_alike(make):
    """What gives the rates of a row's schedule by a callback: all of them by `ScheduleLR`."""
    schedule = make(12)
    yield 0.3, keras_lr.ScheduleLR(schedule)
    config = {name: getattr(schedule, name, None) for name in schedule.get_config()}
    if isinstance(schedule, keras_lr.schedules.OneCycleSchedule):
        yield 0.3, keras_lr.OneCycle(**config, cycle_momentum=False)
    if isinstance(schedule, keras_lr.schedules.CyclicSchedule):
        yield 0.3, keras_lr.CyclicLR(**config)
    if isinstance(schedule, keras_lr.schedules.WarmUpSchedule):
        own, steps = config.pop("schedule"), config.pop("warmup_steps")
        yield own, keras_lr.WarmUp(steps, **config)


@pytest.mark.filterwarnings("ignore:OneCycle should end with the training")
@schedules
def test_training_in_the_graph_and_by_callback_follow_the_array(make):
    schedule, x = make(12), np.random.default_rng(0).uniform(1, 2, 20).astype("float32")
    expected = -(evaluate(schedule, np.arange(20)) * x).sum()
    np.testing.assert_allclose(fitted_weight(schedule, x), expected, rtol=1e-5)
    for own, callback in callbacks_alike(make):
        np.testing.assert_allclose(fitted_weight(own, x, callback), expected, rtol=1e-5)
