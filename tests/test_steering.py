"""Rates and momenta that callbacks put into optimizers really get there, under every `fit`.

The reference is always the same optimizer in an eager loop of `train_on_batch`, whose rate is
assigned and whose momentum is set as a plain number before each batch.
"""

import keras
import numpy as np
import pytest
from keras import ops
from models import multi_optimizer, same, sampled, values

import keras_lr
from keras_lr.steering.optimizers import momentum_names

BACKEND = keras.backend.backend()
ROWS, BATCH = 64, 16
STEPS = ROWS // BATCH
compiled_or_not = pytest.mark.parametrize("jit", [False] if BACKEND == "torch" else [False, True])
several_steps = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras on torch takes one step an execution"
)


def rows(count=ROWS):
    x = np.random.default_rng(1).normal(size=(count, 4)).astype("float32")
    return x, x.sum(axis=1) + 0.5


def network(optimizer, jit_compile="auto", **compile_options):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse", jit_compile=jit_compile, **compile_options)
    return model


def groups(first=None, second=None):
    inner = keras.optimizers
    default = first or inner.SGD(0.1, momentum=0.9)
    return multi_optimizer(default, {".*bias": second or inner.Adam(0.01)})


def leaves(optimizer):
    if hasattr(optimizer, "inner_optimizer"):
        return [optimizer.inner_optimizer]
    return getattr(optimizer, "optimizers", None) or [optimizer]


def train_by_hand(model, rates, momenta=None, batches_per_update=1, batch=BATCH):
    """One rate for each update (a list of them for several optimizers)."""
    x, y = rows()
    for index in range(len(rates) * batches_per_update):
        update = index // batches_per_update
        parts = leaves(model.optimizer)
        for part, rate in zip(parts, np.broadcast_to(rates[update], len(parts)), strict=True):
            part.learning_rate = float(rate)
            if momenta is not None:
                for name in momentum_names(part):
                    object.__setattr__(part, name, float(momenta[update]))
        start = index * batch % ROWS
        model.train_on_batch(x[start : start + batch], y[start : start + batch])
    return values(model.trainable_variables)


def fit(model, *callbacks, epochs=3, batch_size=BATCH, **options):
    x, y = rows()
    return model.fit(
        x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def assert_close(weights, expected, rtol=2e-5, atol=1e-6):
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def one_cycle(total=3 * STEPS, max_lr=0.05):
    """Rates and momenta of torch's scheduler."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total)
    rates, momenta = [], []
    for step in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if step + 1 < total:
            schedule.step()
    return rates, momenta


inner = keras.optimizers
OPTIMIZERS = {
    "SGD": lambda: inner.SGD(0.01, momentum=0.9),
    "Nesterov": lambda: inner.SGD(0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda: inner.RMSprop(0.01, momentum=0.9),
    "Adam": lambda: inner.Adam(0.01),
    "AMSGrad": lambda: inner.Adam(0.01, amsgrad=True),
    "AdamW": lambda: inner.AdamW(0.01, weight_decay=0.1),
    "Adamax": lambda: inner.Adamax(0.01),
    "Nadam": lambda: inner.Nadam(0.01),
    "Lamb": lambda: inner.Lamb(0.01),
    "Lion": lambda: inner.Lion(0.01),
    "Muon": lambda: inner.Muon(0.01),
    "loss scale": lambda: inner.LossScaleOptimizer(inner.SGD(0.01, momentum=0.9), 1.0),
    "average": lambda: inner.SGD(0.01, momentum=0.9, use_ema=True, ema_momentum=0.5),
    "clipped": lambda: inner.Adam(0.01, clipnorm=0.1),
}
# The others hold no momentum: Adadelta's rho and Adafactor's decay belong to second moments.
WITHOUT = {"Adadelta", "Adafactor", "Adagrad", "Ftrl", "ScheduleFreeAdamW"}
WRAPPERS = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}


@pytest.mark.once
def test_every_optimizer_of_keras_is_known_to_have_a_momentum_or_none():
    found = {
        name
        for name, cls in vars(keras.optimizers).items()
        if isinstance(cls, type) and issubclass(cls, keras.optimizers.Optimizer)
    }
    known = {type(make()).__name__ for make in OPTIMIZERS.values()} | WITHOUT | WRAPPERS
    assert found <= known


# Compiling takes most of the time, so the way that is not the backend's own is tried on two.
WAYS = {f"{name}-auto": (name, "auto") for name in OPTIMIZERS}
if BACKEND != "torch":
    own = BACKEND == "tensorflow"
    WAYS |= {f"{name}-{own}": (name, own) for name in ("SGD", "Adam")}


@pytest.mark.parametrize(
    "way",
    sampled(
        WAYS,
        *("SGD-auto", "SGD-True", "SGD-False", "Adam-auto", "loss scale-auto", "average-auto"),
        why="the attributes of every optimizer are replaced alike",
    ),
)
def test_one_cycle_moves_rate_and_momentum_of_every_optimizer(way):
    name, jit = way
    rates, momenta = one_cycle()
    reference = network(OPTIMIZERS[name](), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates, momenta)
    model = network(OPTIMIZERS[name](), jit_compile=jit)
    fit(model, keras_lr.OneCycle(0.05))
    if name == "average":  # `fit` ends with the averages in the place of the weights
        reference.optimizer.finalize_variable_values(reference.trainable_variables)
        expected = values(reference.trainable_variables)
    # The iteration that makes a matrix orthogonal enlarges what is rounded.
    atol = 2e-5 if name == "Muon" else 1e-6
    assert_close(values(model.trainable_variables), expected, atol=atol)


@compiled_or_not
def test_second_fit_runs_a_second_cycle(jit):
    rates, momenta = one_cycle()
    reference = network(OPTIMIZERS["SGD"](), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates * 2, momenta * 2)
    model, callback = network(OPTIMIZERS["SGD"](), jit_compile=jit), keras_lr.OneCycle(0.05)
    for _ in range(2):
        fit(model, callback)
    assert_close(values(model.trainable_variables), expected)


@compiled_or_not
def test_fit_before_and_after_is_that_of_the_plain_optimizer(jit):
    rates, momenta = one_cycle()
    plain = [0.01] * 3 * STEPS
    reference = network(OPTIMIZERS["SGD"](), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(
        reference, plain + rates + plain, [0.9] * len(plain) + momenta + [0.9] * len(plain)
    )
    model = network(OPTIMIZERS["SGD"](), jit_compile=jit)
    for callbacks in ([], [keras_lr.OneCycle(0.05)], []):
        fit(model, *callbacks)
    assert_close(values(model.trainable_variables), expected)


@several_steps
@pytest.mark.parametrize("together", [3, 8])
def test_steps_of_one_execution_have_their_own_rates(together):
    rates, momenta = one_cycle()
    expected = train_by_hand(network(OPTIMIZERS["SGD"](), run_eagerly=True), rates, momenta)
    model = network(OPTIMIZERS["SGD"](), steps_per_execution=together)
    logger = keras_lr.LRLogger()
    fit(model, keras_lr.OneCycle(0.05), logger)
    assert_close(values(model.trainable_variables), expected)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(logger.history["momentum"], momenta, rtol=1e-5, atol=0)


def test_updates_are_counted_and_not_batches_under_accumulation():
    rates, momenta = one_cycle(total=3 * 2 * STEPS // 4)  # 24 batches of 8 make 6 updates
    make = lambda: inner.SGD(0.01, momentum=0.9, gradient_accumulation_steps=4)  # noqa: E731
    reference = network(make(), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates, momenta, batches_per_update=4, batch=8)
    model = network(make())
    fit(model, keras_lr.OneCycle(0.05), batch_size=8)
    assert_close(values(model.trainable_variables), expected)


def test_groups_keep_the_ratios_of_their_rates():
    rates, momenta = one_cycle()
    reference = network(groups(), run_eagerly=True, jit_compile=False)
    ratios = np.array([part.learning_rate for part in leaves(reference.optimizer)])
    ratios = np.array([float(ops.convert_to_numpy(ratio)) for ratio in ratios]) / 0.1
    assert sorted(ratios.round(6)) == [0.1, 1.0]
    expected = train_by_hand(reference, np.outer(rates, ratios), momenta)
    model = network(groups())
    history = fit(model, keras_lr.OneCycle(0.05)).history
    assert_close(values(model.trainable_variables), expected)
    np.testing.assert_allclose(
        history["learning_rate"], rates[STEPS - 1 :: STEPS], rtol=1e-5, atol=0
    )
    names = [part.name for part in leaves(model.optimizer)]
    for name, ratio in zip(names, ratios, strict=True):
        np.testing.assert_allclose(
            history[f"learning_rate_{name}"],
            np.array(rates[STEPS - 1 :: STEPS]) * ratio,
            rtol=1e-5,
            atol=0,
        )


def test_updates_that_half_precision_skips_count():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(inner.SGD(0.01, momentum=0.9))
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        rates, _ = one_cycle(2 * STEPS, 0.01)
        logger = keras_lr.LRLogger()
        history = fit(model, keras_lr.OneCycle(0.01, cycle_momentum=False), logger, epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert int(ops.convert_to_numpy(model.optimizer.iterations.value)) < 2 * STEPS  # some were
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    assert np.all(np.isfinite(history.history["loss"]))


def test_warm_up_multiplies_the_optimizers_own_number_and_schedule():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
    warm = np.minimum(np.arange(3 * STEPS) / 6, 1.0)
    decayed = 0.1 * 0.5 ** (np.arange(3 * STEPS) / 5)
    for own, rates in ((0.1, 0.1 * warm), (decay, decayed * warm)):
        reference = network(inner.SGD(0.1), run_eagerly=True, jit_compile=False)
        expected = train_by_hand(reference, rates)
        model = network(inner.SGD(own))
        fit(model, keras_lr.WarmUp(steps=6))
        assert_close(values(model.trainable_variables), expected)


def test_second_warm_up_begins_anew_where_the_own_schedule_goes_on():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
    steps = np.arange(2 * STEPS)
    rates = 0.1 * 0.5 ** (steps / 5) * np.minimum(steps % STEPS / 2, 1.0)
    reference = network(inner.SGD(0.1), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates)
    model = network(inner.SGD(decay))
    for _ in range(2):
        fit(model, keras_lr.WarmUp(steps=2), epochs=1)
    assert_close(values(model.trainable_variables), expected)


def test_assigning_the_rate_in_a_steered_fit_sets_the_factor_that_is_the_optimizers_own():
    by_epoch = keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.1 / (epoch + 1))
    warm = np.minimum(np.arange(3 * STEPS) / 6, 1.0)
    rates = warm * np.repeat([0.1, 0.05, 0.1 / 3], STEPS)
    reference = network(inner.SGD(0.1), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates)
    model = network(inner.SGD(0.3))
    fit(model, keras_lr.WarmUp(steps=6), by_epoch)
    assert_close(values(model.trainable_variables), expected)
    np.testing.assert_allclose(float(ops.convert_to_numpy(model.optimizer.learning_rate)), 0.1 / 3)


def test_assigning_a_rate_that_a_schedule_sets_is_refused():
    by_epoch = keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.1)

    class Own(keras.callbacks.Callback):  # nobody can know what it will do
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.1

    model = network(inner.SGD(0.3))
    with pytest.raises(ValueError, match="LearningRateScheduler assigns the learning rate, and"):
        fit(model, keras_lr.OneCycle(0.1, cycle_momentum=False), by_epoch)
    with pytest.raises(ValueError, match="OneCycle sets the learning rate of this fit"):
        fit(model, keras_lr.OneCycle(0.1, cycle_momentum=False), Own())


def test_rate_that_others_read_is_the_one_of_the_next_update():
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(float(ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    rates, _ = one_cycle()
    fit(network(inner.SGD(0.3)), keras_lr.OneCycle(0.05, cycle_momentum=False), Reader())
    np.testing.assert_allclose(seen, rates, rtol=1e-5, atol=0)


@pytest.mark.parametrize("when", ["step", "epoch"])
def test_interrupted_fit_leaves_an_optimizer_that_the_next_fit_finds_ordinary(when):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if when == "step" and batch == 1:
                raise KeyboardInterrupt

        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = network(OPTIMIZERS["SGD"]())
    config = model.optimizer.get_config()
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras_lr.OneCycle(0.05), Interrupt())
    assert model.optimizer.get_config() == config
    twin = network(OPTIMIZERS["SGD"]())
    twin.optimizer.build(twin.trainable_variables)
    twin.set_weights(model.get_weights())
    for ours, theirs in zip(twin.optimizer.variables, model.optimizer.variables, strict=True):
        ours.assign(np.array(ops.convert_to_numpy(theirs.value)))  # JAX donates what is shared
    for each in (model, twin):
        fit(each)
    assert_close(values(model.trainable_variables), values(twin.trainable_variables))
    assert model.optimizer.momentum == 0.9


def test_interrupted_fit_can_be_followed_by_another_cycle():
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = network(OPTIMIZERS["SGD"]())
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras_lr.OneCycle(0.05), Interrupt())
    logger = keras_lr.LRLogger()
    fit(model, keras_lr.OneCycle(0.05), logger)
    rates, momenta = one_cycle()
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(logger.history["momentum"], momenta, rtol=1e-5, atol=0)


def test_range_test_after_an_interrupted_fit_finds_an_ordinary_optimizer():
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model, (x, y) = network(OPTIMIZERS["SGD"]()), rows()
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras_lr.OneCycle(0.05), Interrupt())
    keras_lr.lr_find(model, x, y, batch_size=16, steps=8, seed=0, verbose=0)
    assert model.optimizer.momentum == 0.9
    assert isinstance(model.optimizer._learning_rate, keras.Variable)


def test_train_on_batch_inside_a_steered_fit_leaves_it_steered():
    x, y = rows()

    class Extra(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.train_on_batch(x[:16], y[:16])

    logger = keras_lr.LRLogger()
    model = network(OPTIMIZERS["SGD"]())
    cycle = keras_lr.schedules.OneCycleSchedule(0.05, 13)
    fit(model, keras_lr.ScheduleLR(cycle), logger, Extra(), epochs=2)
    rates, _ = one_cycle(13)
    # The update between the epochs counts as one.
    np.testing.assert_allclose(
        logger.history["learning_rate"][-STEPS:],
        rates[STEPS + 1 : 2 * STEPS + 1],
        rtol=1e-5,
        atol=0,
    )


def counted(optimizer):
    """A model that counts how often the step's Python code runs: once a trace."""
    traces = []

    class Counted(keras.Sequential):
        def compute_loss(self, *args, **kwargs):
            traces.append(1)
            return super().compute_loss(*args, **kwargs)

    keras.utils.set_random_seed(0)
    model = Counted([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=BACKEND == "jax")
    return model, traces


@pytest.mark.skipif(BACKEND == "torch", reason="eager torch traces nothing")
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_lr.OneCycle(0.05),
        lambda: keras_lr.WarmUp(steps=3),
        lambda: keras_lr.ReduceLROnPlateau("loss", patience=1, min_delta=9.0),
        lambda: keras_lr.LRLogger(),
    ],
)
def test_second_fit_traces_at_most_once_and_a_plain_one_not_at_all(make):
    model, traces = counted(OPTIMIZERS["SGD"]())
    fit(model)
    plain, callback = len(traces), make()
    fit(model, callback)
    fit(model, callback)
    assert len(traces) <= plain + 2 * plain
    before = len(traces)
    fit(model, callback)
    assert len(traces) - before <= plain
    before = len(traces)
    fit(model)
    assert len(traces) == before


@pytest.mark.skipif(BACKEND == "torch", reason="eager torch traces nothing")
@pytest.mark.parametrize("accumulation", [None, 2])
def test_the_momentum_is_computed_once_an_update_and_not_for_each_variable(accumulation):
    calls = []

    def momentum(updates):
        calls.append(1)
        return 0.9 - 0.01 * keras.ops.cast(updates, "float32")

    made = []
    for layers in (1, 6):
        model = keras.Sequential(
            [keras.Input((4,)), *[keras.layers.Dense(4) for _ in range(layers)]]
        )
        optimizer = keras.optimizers.SGD(
            0.01, momentum=0.9, gradient_accumulation_steps=accumulation
        )
        model.compile(optimizer, "mse")
        calls.clear()
        rate = keras.optimizers.schedules.CosineDecay(0.01, 10)
        x = np.ones((8, 4), "float32")
        model.fit(
            x, x, batch_size=2, verbose=0, callbacks=[keras_lr.ScheduleLR(rate, momentum=momentum)]
        )
        made.append(len(calls))
    assert made[0] == made[1]


def test_own_train_step_is_steered_and_kept():
    class Own(keras.Sequential):
        pass

    model = network(OPTIMIZERS["SGD"]())
    calls = []
    inherited = model.train_step

    def train_step(*args):
        calls.append(1)
        return inherited(*args)

    object.__setattr__(model, "train_step", train_step)
    rates, momenta = one_cycle()
    reference = network(OPTIMIZERS["SGD"](), run_eagerly=True, jit_compile=False)
    expected = train_by_hand(reference, rates, momenta)
    model.make_train_function(force=True)
    fit(model, keras_lr.OneCycle(0.05))
    assert calls and vars(model)["train_step"] is train_step
    assert_close(values(model.trainable_variables), expected)


def test_model_saved_in_the_middle_of_a_fit_is_that_of_the_plain_optimizer(tmp_path):
    path = tmp_path / "middle.keras"
    model = network(OPTIMIZERS["Adam"]())
    config = model.optimizer.get_config()
    fit(model, keras_lr.OneCycle(0.05), keras.callbacks.ModelCheckpoint(path), epochs=2)
    loaded = keras.saving.load_model(path)
    assert loaded.optimizer.get_config() == config
    assert same(values(loaded.optimizer.variables), values(model.optimizer.variables))
    fit(loaded, epochs=1)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a graph draws the batches there")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@compiled_or_not
def test_the_end_of_data_of_unknown_length_does_not_count_as_a_batch(jit):
    import tensorflow as tf

    x, y = rows()
    model = network(keras.optimizers.SGD(0.01), jit_compile=jit)
    data = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(BATCH).filter(lambda *_: True)
    cycle = keras_lr.OneCycle(0.05, total_steps=3 * STEPS, cycle_momentum=False)
    model.fit(data, epochs=3, shuffle=False, verbose=0, callbacks=[cycle])
    rates, _ = one_cycle()
    expected = network(keras.optimizers.SGD(0.01))
    assert_close(values(model.trainable_variables), train_by_hand(expected, rates))
