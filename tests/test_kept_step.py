"""A steered fit uses the compiled step of an equal earlier one, and only of an equal one."""

import keras
import numpy as np
import pytest

import keras_lr

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="torch compiles nothing by default")
KEPT = "_keras_lr_step"


class Counted(keras.Model):
    """Counts the traces of its step."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(4, name="first")
        self.last = keras.layers.Dense(1, name="last")
        object.__setattr__(self, "traces", [])

    def call(self, x):
        self.traces.append(1)
        return self.last(self.first(x))


def model_of(optimizer=None):
    keras.utils.set_random_seed(1)
    model = Counted()
    model(np.zeros((1, 4), "float32"))
    model.compile(optimizer or keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


def data(rows=32):
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def fit(model, callbacks, rows=32, batch_size=8, **options):
    """Traces, and rates and losses of the epochs."""
    before = len(model.traces)
    options = {"batch_size": batch_size, "epochs": 2, "shuffle": False, "verbose": 0, **options}
    history = model.fit(*data(rows), callbacks=callbacks, **options).history
    return len(model.traces) - before, history["learning_rate"], history["loss"]


def both(fits, make=model_of):
    """Each fit of a model that keeps its step and of one that does not; traces of the first."""
    keeps, forgets, traces = make(), make(), []
    for run in fits:
        kept, plain = run(keeps), run(forgets)
        vars(forgets).pop(KEPT, None)
        np.testing.assert_allclose(kept[1], plain[1], rtol=0, atol=0)
        np.testing.assert_allclose(kept[2], plain[2], rtol=1e-6, atol=0)
        traces.append(kept[0])
    return traces


def one_cycle(model, peak=0.1, **options):
    return fit(model, [keras_lr.OneCycle(peak)], **options)


def test_an_equal_fit_traces_nothing_again():
    traces = both([one_cycle, one_cycle, one_cycle])
    assert traces[0] > 0 and traces[1:] == [0, 0]


def test_a_plain_fit_between_two_does_not_disturb():
    def plain(model):
        model.fit(*data(), batch_size=8, verbose=0, shuffle=False)
        return 0, [0.0], [0.0]

    assert both([one_cycle, plain, one_cycle])[2] == 0


@pytest.mark.parametrize(
    "callback",
    [
        lambda: keras_lr.WarmUp(steps=3),
        lambda: keras_lr.CyclicLR(1e-3, 1e-1, step_size=3, cycle_momentum=True),
        lambda: keras_lr.ScheduleLR(keras.optimizers.schedules.CosineDecay(0.1, 8)),
    ],
    ids=["WarmUp", "CyclicLR", "ScheduleLR"],
)
def test_other_callbacks_keep_their_steps_too(callback):
    assert both([lambda model: fit(model, [callback()])] * 2)[1] == 0


@pytest.mark.parametrize(
    "second",
    [
        lambda model: one_cycle(model, 0.2),
        lambda model: one_cycle(model, epochs=3),
        lambda model: fit(model, [keras_lr.OneCycle(0.1, cycle_momentum=False)]),
        lambda model: fit(model, [keras_lr.OneCycle(0.1, pct_start=0.5)]),
    ],
    ids=["peak", "length", "momentum", "shape"],
)
def test_another_curve_is_traced(second):
    assert both([one_cycle, second])[1] > 0


def layered():
    inner = keras.optimizers.SGD(0.01, momentum=0.9)
    return model_of(keras_lr.optimizers.LayerwiseLR(inner, {"last": 0.5}))


def test_a_callback_that_unfreezes_layers_gets_a_step_of_its_own():
    def thawing(model):
        thaw = keras_lr.GradualUnfreeze(["last", "first"])
        return fit(model, [keras_lr.OneCycle(0.1), thaw])

    traces = both([one_cycle, thawing, thawing, one_cycle], layered)
    assert all(traces[:3])


def test_a_setting_of_the_optimizer_that_changed_since_counts():
    def cycle():
        return fit(model, [keras_lr.OneCycle(0.1, cycle_momentum=False)])

    model = model_of(keras.optimizers.SGD(0.01))
    cycle()
    model.optimizer.clipnorm = 1e-3
    before = [np.array(each) for each in model.get_weights()]
    assert cycle()[0] > 0
    moved = max(np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True))
    assert moved < 8 * 0.1 * 1e-3  # eight updates of at most rate x clipnorm


def test_another_batch_size_is_traced_with_the_curves_of_its_run():
    assert both([one_cycle, lambda model: one_cycle(model, rows=64, batch_size=16)])[1] > 0


def test_a_model_that_is_compiled_again_is_traced():
    def compiled(model):
        name = model.optimizer.name
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9, name=name), "mae")
        return one_cycle(model)

    assert both([one_cycle, compiled])[1] > 0


class TwoOptimizers(Counted):
    """Trains with `extra` as well, which no callback steers."""

    def __init__(self):
        super().__init__()
        self.extra = keras.optimizers.SGD(0.0, name="extra")


def test_another_optimizer_that_was_replaced_since_is_traced():
    model = TwoOptimizers()
    model(np.zeros((1, 4), "float32"))
    model.extra.build(model.trainable_variables)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")

    def cycle():
        return fit(model, [keras_lr.OneCycle(0.1, optimizer="optimizer")])[0]

    cycle()
    assert cycle() == 0
    model.extra = keras.optimizers.SGD(0.0, name="extra")
    model.extra.build(model.trainable_variables)
    assert cycle() > 0


def test_a_layer_that_is_frozen_since_does_not_move():
    model = model_of()
    one_cycle(model)
    model.first.trainable = False
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    before = [np.array(each) for each in model.first.get_weights()]
    one_cycle(model)
    assert all(map(np.array_equal, before, model.first.get_weights()))


def test_plateau_scales_begin_at_one_in_each_fit():
    def run(model):
        plateau = keras_lr.ReduceLROnPlateau("loss", patience=1, factor=0.5, min_delta=1e9)
        return fit(model, [keras_lr.OneCycle(0.1), plateau], epochs=4)

    assert both([run, run])[1] == 0


@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a sequence"])
def test_a_schedule_of_the_user_is_traced_each_time(within):
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        rate = 0.1

        def __call__(self, step):
            return keras.ops.convert_to_tensor(self.rate)

        def get_config(self):
            return {}

    schedule, model = Own(), model_of()
    used = schedule
    if within:
        used = keras_lr.schedules.SequentialSchedule([schedule, schedule], [100])
    fit(model, [keras_lr.ScheduleLR(used)])
    Own.rate = 0.05
    traces, rates, _ = fit(model, [keras_lr.ScheduleLR(used)])
    assert traces > 0
    np.testing.assert_allclose(rates, 0.05, rtol=1e-6)


def test_a_range_test_between_two_fits_does_not_disturb():
    def find(model):
        keras_lr.lr_find(model, *data(), batch_size=8, steps=5, seed=0, verbose=0)
        return 0, [0.0], [0.0]

    assert both([one_cycle, find, one_cycle])[2] == 0


def test_an_interrupted_fit_leaves_a_step_that_counts_from_the_beginning():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    def interrupted(model):
        with pytest.raises(KeyboardInterrupt):
            fit(model, [keras_lr.OneCycle(0.1), Stop()])
        return 0, [0.0], [0.0]

    both([one_cycle, interrupted, one_cycle])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the execution's steps are counted there")
def test_several_steps_an_execution_count_from_the_beginning():
    def make():
        model = model_of()
        model.compile(model.optimizer, "mse", steps_per_execution=4)
        return model

    assert both([one_cycle, one_cycle], make)[1] == 0
