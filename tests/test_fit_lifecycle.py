"""The steering of a fit begins with it and is gone when it ends, however it ends."""

import keras
import numpy as np
import pytest
from keras import ops
from models import values

import keras_lr

BACKEND = keras.backend.backend()
ROWS, BATCH = 64, 16
STEPS = ROWS // BATCH


def rows():
    x = np.random.default_rng(1).normal(size=(ROWS, 4)).astype("float32")
    return x, x.sum(axis=1) + 0.5


def network(optimizer, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **options)
    return model


def sgd(momentum=0.9, rate=0.01):
    return keras.optimizers.SGD(rate, momentum=momentum)


def fit(model, *callbacks, epochs=3, **options):
    x, y = rows()
    return model.fit(
        x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def rate_of(optimizer):
    return float(ops.convert_to_numpy(optimizer.learning_rate))


def one_cycle(total, max_lr):
    """The curve of `OneCycle` by its formula: cosine up for 3 tenths, cosine down."""
    steps, peak = np.arange(total), 0.3 * total - 1
    start, end = max_lr / 25, max_lr / 25 / 1e4

    def cosine(a, b, share):
        return b + (a - b) / 2 * (1 + np.cos(np.pi * share))

    down = cosine(max_lr, end, (steps - peak) / (total - 1 - peak))
    return np.where(steps <= peak, cosine(start, max_lr, steps / peak), down)


def is_ordinary(model, rate=0.01, momentum=0.9):
    optimizer = model.optimizer
    assert isinstance(optimizer._learning_rate, keras.Variable)
    assert optimizer.momentum == momentum and type(optimizer.momentum) is float
    assert not {"get_config", "apply"} & set(vars(optimizer))
    left = {"_keras_lr_fit", "_keras_lr_memory", "_keras_lr_fits", "save_own_variables"}
    assert not left & set(vars(model))
    np.testing.assert_allclose(rate_of(optimizer), rate, rtol=1e-6)


class Raises(keras.callbacks.Callback):
    """Raises in a hook, as a callback of somebody else's, or Ctrl-C, does."""

    def __init__(self, hook, error=RuntimeError):
        super().__init__()

        def raising(*args, **kwargs):
            raise error("somebody else's")

        setattr(self, hook, raising)


without_momentum = [keras.optimizers.SGD, keras.optimizers.RMSprop, keras.optimizers.Adagrad]


@pytest.mark.parametrize("optimizer", [lambda kind=kind: kind(0.01) for kind in without_momentum])
def test_refused_callback_leaves_nothing_for_the_next_fit(optimizer):
    model = network(optimizer())
    for _ in range(2):
        with pytest.raises(ValueError, match="cycle_momentum=False"):
            fit(model, keras_lr.OneCycle(0.5))
    history = fit(model, keras_lr.ReduceLROnPlateau("loss"), epochs=2).history
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.01], rtol=1e-5, atol=0)
    logger = keras_lr.LRLogger()
    fit(model, keras_lr.OneCycle(0.1, cycle_momentum=False), logger, epochs=1)
    assert len(logger.history["learning_rate"]) == STEPS


HOOKS = ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"]
HOOKS += ["on_test_begin", "on_epoch_end", "on_train_end"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_optimizer_is_ordinary_as_soon_as_a_fit_has_raised(hook, error):
    model = network(sgd())
    x, y = rows()
    # After ours in the list for the end of the training, before it for the beginning.
    order = [keras_lr.OneCycle(0.1), Raises(hook, error)]
    try:
        fit(model, *order, validation_data=(x, y))
    except error:
        is_ordinary(model)  # also while the exception, and so the frame of `fit`, is alive
        model.optimizer.learning_rate = 1e-3
        assert rate_of(model.optimizer) == pytest.approx(1e-3, rel=1e-6)
    else:
        pytest.fail("fit did not raise")
    before = values(model.trainable_variables)
    model.optimizer.momentum = 0.0
    model.train_on_batch(x[:BATCH], y[:BATCH])
    residual = x[:BATCH] @ before[0] + before[1] - y[:BATCH, None]
    slope = 2 * (x[:BATCH] * residual).mean(axis=0)[:, None]
    moved = values(model.trainable_variables)[0]
    if hook in ("on_train_begin", "on_epoch_begin", "on_train_batch_begin"):  # no velocity yet
        np.testing.assert_allclose(moved, before[0] - 1e-3 * slope, rtol=1e-4, atol=1e-6)


def test_a_momentum_that_another_callback_assigns_in_a_steered_fit_stays():
    class Assigns(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                self.model.optimizer.momentum = 0.5

    model = network(sgd())
    fit(model, keras_lr.OneCycle(0.05), Assigns())
    is_ordinary(model, momentum=0.5)


def test_rate_assigned_after_an_interrupted_warm_up_is_the_rate():
    model = network(sgd())
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras_lr.WarmUp(steps=10), Raises("on_epoch_end", KeyboardInterrupt))
    model.optimizer.learning_rate = 1e-3
    is_ordinary(model, rate=1e-3)


def test_data_that_raise_leave_an_ordinary_optimizer():
    x, y = rows()

    def batches():
        yield x[:BATCH], y[:BATCH]
        raise OSError("the disk is gone")

    model = network(sgd())
    with pytest.raises(Exception, match="the disk is gone"):
        model.fit(
            batches(), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False,
            callbacks=[keras_lr.OneCycle(0.1)],
        )  # fmt: skip
    is_ordinary(model)


class Within(keras.callbacks.Callback):
    """Does something with the model at the end of the first epoch."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.act(self.model)


def find(model):
    keras_lr.lr_find(model, *rows(), batch_size=BATCH, steps=8, seed=0, verbose=0)


def fit_inside(model):
    fit(model, epochs=1)


def steered_fit_inside(model):
    history = fit(model, keras_lr.WarmUp(steps=2), epochs=1).history
    np.testing.assert_allclose(history["learning_rate"], [0.01], rtol=1e-5, atol=0)


def interrupted_fit_inside(model):
    with pytest.raises(RuntimeError, match="somebody else's"):
        fit(model, keras_lr.WarmUp(steps=10), Raises("on_train_batch_end"))


def search_inside(model):
    keras_lr.search(
        model,
        *rows(),
        low=1e-3,
        high=1e-1,
        epochs=1,
        fine_rounds=1,
        points=3,
        final_seeds=1,
        verbose=0,
    )


@pytest.mark.parametrize(
    "act", [find, fit_inside, steered_fit_inside, interrupted_fit_inside, search_inside]
)
def test_schedule_goes_on_after_a_fit_or_a_finder_inside_a_callback(act):
    model, logger = network(sgd()), keras_lr.LRLogger()
    fit(model, keras_lr.OneCycle(0.1), logger, Within(act))
    expected = one_cycle(3 * STEPS, 0.1)
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)
    is_ordinary(model)


def test_what_a_fit_inside_another_one_trains_runs_at_its_own_rate():
    moved = []

    def act(model):
        before = values(model.trainable_variables)[1]
        x = np.zeros((BATCH, 4), "float32")
        loss = model.fit(x, x[:, 0] + 100.0, batch_size=BATCH, verbose=0).history["loss"]
        after = values(model.trainable_variables)[1]
        moved.append((loss, (after - before) / (2 * (100.0 - before))))

    model = network(keras.optimizers.SGD(0.01))
    fit(model, keras_lr.OneCycle(0.5, cycle_momentum=False), Within(act), epochs=2)
    np.testing.assert_allclose(moved[0][1], 0.01, rtol=1e-3)


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: keras.callbacks.ReduceLROnPlateau("loss"),
        lambda: keras.callbacks.LearningRateScheduler(lambda epoch, lr: 7.0),
    ],
)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_callbacks_that_cannot_assign_the_rate_are_refused_when_fit_begins(theirs, first):
    for ours, own in (
        (keras_lr.OneCycle(0.1), 0.01),
        (keras_lr.ScheduleLR(keras_lr.schedules.ConstantSchedule(0.1)), 0.01),
        (keras_lr.CyclicLR(0.01, 0.1, 4), 0.01),
        (keras_lr.WarmUp(steps=2), keras.optimizers.schedules.CosineDecay(0.1, 10)),
    ):
        model = network(sgd(rate=own))
        before = values(model.variables)
        both = [ours, theirs()] if first == "ours" else [theirs(), ours]
        with pytest.raises(ValueError, match="assigns the learning rate, and .* sets it"):
            fit(model, *both)
        if isinstance(own, float):
            is_ordinary(model)
        for now, then in zip(values(model.variables), before, strict=True):
            np.testing.assert_array_equal(now, then)


# Loops of the user's own


def loop(model, callbacks, epochs, step, hooks=True, first=0):
    """A training loop that calls the callbacks as Keras's fit does."""
    x, y = rows()
    callbacks.on_train_begin()
    for epoch in range(first, epochs):
        if hooks:
            callbacks.on_epoch_begin(epoch)
        for index in range(STEPS):
            part = slice(index * BATCH, (index + 1) * BATCH)
            callbacks.on_train_batch_begin(index)
            step(model, x[part], y[part])
            callbacks.on_train_batch_end(index)
        if hooks:
            callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()


def train_on_batch(model, x, y):
    model.train_on_batch(x, y)


def by_gradient(model, x, y):
    """One step without Keras's trainer: gradients of the backend, applied by the optimizer."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.mean((model(x)[:, 0] - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_weights)
    elif BACKEND == "torch":
        import torch

        loss = ops.mean((model(x)[:, 0] - ops.convert_to_tensor(y)) ** 2)
        gradients = torch.autograd.grad(loss, [v.value for v in model.trainable_weights])
    else:
        import jax

        def loss_of(weights):
            predicted, _ = model.stateless_call(weights, [], x)
            return ops.mean((predicted[:, 0] - y) ** 2)

        gradients = jax.grad(loss_of)([v.value for v in model.trainable_weights])
    model.optimizer.apply(gradients, model.trainable_weights)


@pytest.mark.parametrize("step", [train_on_batch, by_gradient])
@pytest.mark.parametrize("hooks", [True, False])
def test_a_loop_by_hand_follows_the_curve(step, hooks):
    momentum = step is train_on_batch
    rates = one_cycle(2 * STEPS, 0.1)
    momenta = 0.85 + 0.1 * (0.1 - rates) / 0.1
    x, y = rows()

    model = network(sgd(0.9 if momentum else 0.0))
    weights = [each.astype("float64") for each in values(model.trainable_variables)]
    velocity = [np.zeros_like(each) for each in weights]
    total = 2 * STEPS
    share = (np.arange(total) - (0.3 * total - 1)) / (total - 1 - (0.3 * total - 1))
    up = np.arange(total) / (0.3 * total - 1)
    momenta = np.where(
        np.arange(total) <= 0.3 * total - 1,
        0.85 + 0.1 / 2 * (1 + np.cos(np.pi * up)),
        0.95 + (0.85 - 0.95) / 2 * (1 + np.cos(np.pi * share)),
    )
    for update in range(total):
        part = slice(update % STEPS * BATCH, (update % STEPS + 1) * BATCH)
        residual = x[part] @ weights[0] + weights[1] - y[part, None]
        slopes = [2 * (x[part] * residual).mean(axis=0)[:, None], 2 * residual.mean(axis=0)]
        for index, slope in enumerate(slopes):
            decay = momenta[update] if momentum else 0.0
            velocity[index] = decay * velocity[index] - rates[update] * slope
            weights[index] = weights[index] + velocity[index]

    callback = keras_lr.OneCycle(0.1, cycle_momentum=momentum, total_steps=total)
    logger = keras_lr.LRLogger()
    callbacks = keras.callbacks.CallbackList([callback, logger], model=model)
    loop(model, callbacks, 2, step, hooks)
    for ours, theirs in zip(values(model.trainable_variables), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    if hooks:
        np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    is_ordinary(model, momentum=0.9 if momentum else 0.0)


def test_a_loop_by_hand_tells_the_length_as_fit_does():
    model, logger = network(sgd()), keras_lr.LRLogger()
    callbacks = keras.callbacks.CallbackList(
        [keras_lr.OneCycle(0.1), logger], model=model, epochs=3, steps=STEPS
    )
    loop(model, callbacks, 3, train_on_batch)
    expected = one_cycle(3 * STEPS, 0.1)
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)


def test_a_loop_by_hand_may_count_its_epochs_from_1():
    model, expected = network(sgd()), one_cycle(3 * STEPS, 0.1)

    def rates(epochs, first):
        logger = keras_lr.LRLogger()
        callbacks = [keras_lr.OneCycle(0.1), logger]
        callbacks = keras.callbacks.CallbackList(callbacks, model=model, epochs=3, steps=STEPS)
        loop(model, callbacks, epochs, train_on_batch, first=first)
        return logger.history["learning_rate"]

    np.testing.assert_allclose(rates(4, 1), expected, rtol=1e-5, atol=0)
    np.testing.assert_allclose(rates(4, 1), expected, rtol=1e-5, atol=0)
    # The optimizer has made one epoch of updates, so epoch 1 is the second one of a run.
    model = network(sgd())
    np.testing.assert_allclose(rates(1, 0), expected[:STEPS], rtol=1e-5, atol=0)
    np.testing.assert_allclose(rates(3, 1), expected[STEPS:], rtol=1e-5, atol=0)


def test_a_loop_that_calls_no_hook_before_it_trains_is_warned_of():
    model, (x, y) = network(sgd()), rows()
    callbacks = keras.callbacks.CallbackList([keras_lr.WarmUp(steps=4)], model=model)
    callbacks.on_train_begin()
    model.train_on_batch(x, y)
    with pytest.warns(UserWarning, match="WarmUp had no effect"):
        callbacks.on_train_end()


def test_a_loop_that_was_broken_off_is_over_when_the_next_fit_begins():
    model = network(sgd())
    callbacks = keras.callbacks.CallbackList(
        [keras_lr.OneCycle(0.5)], model=model, epochs=3, steps=STEPS
    )
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    history = fit(model, keras_lr.WarmUp(steps=1), epochs=1).history
    np.testing.assert_allclose(history["learning_rate"], [0.01], rtol=1e-5, atol=0)
    is_ordinary(model)


def test_methods_that_a_program_put_into_objects_are_called_and_stay(tmp_path):
    model, expected, saved = network(sgd(0.0)), network(sgd(0.0, rate=0.02)), []
    optimizer, own, save = model.optimizer, model.optimizer.apply, model.save_own_variables

    def doubled(gradients, variables=None):
        return own([2 * each for each in gradients], variables)

    def noted(store):
        saved.append(store)
        save(store)

    object.__setattr__(optimizer, "apply", doubled)
    object.__setattr__(model, "save_own_variables", noted)
    path = tmp_path / "model.weights.h5"
    saving = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.save_weights(path))
    fit(model, keras_lr.WarmUp(steps=6), saving, epochs=2)
    fit(expected, keras_lr.WarmUp(steps=6), epochs=2)
    pairs = zip(values(model.weights), values(expected.weights), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert len(saved) == 2
    assert optimizer.apply is doubled and model.save_own_variables is noted


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_later_epoch_of_unknown_length_has_no_place_in_a_curve():
    x, y = rows()
    model = network(sgd())
    before = values(model.weights)

    def resume(*callbacks, **options):
        batches = ((x[:BATCH], y[:BATCH]) for _ in range(2 * STEPS))
        history = model.fit(
            batches, initial_epoch=2, epochs=3, shuffle=False, verbose=0,
            callbacks=list(callbacks), **options,
        )  # fmt: skip
        return history.history["learning_rate"]

    for callback in (
        keras_lr.OneCycle(0.1, total_steps=20),
        keras_lr.WarmUp(steps=6),
        keras_lr.ScheduleHyperparameter("momentum", lambda update: 0.9 - 0.01 * update),
    ):
        name = type(callback).__name__
        with pytest.raises(ValueError, match=f"{name} counts updates.*initial_epoch=2.*steps_per"):
            resume(callback)
        assert all(map(np.array_equal, before, values(model.weights)))
        is_ordinary(model)
    # Update 11 of the run, of 12.
    rates = resume(keras_lr.OneCycle(0.1), steps_per_epoch=STEPS)
    np.testing.assert_allclose(rates, one_cycle(12, 0.1)[-1:], rtol=1e-5, atol=0)
    constant = keras_lr.WarmUpStableDecay(0.05)
    np.testing.assert_allclose(resume(constant, keras_lr.LRLogger()), [0.05], rtol=1e-5, atol=0)
