"""A model with `ScheduleFree` trains at y, and everything else sees the average x."""

import keras
import numpy as np
import pytest
from field_models.generative import gan, pictures
from models import same, values

import keras_lr
from keras_lr.optimizers import ScheduleFree

RATE, BETA, BATCH, EPOCHS = 0.125, 0.75, 8, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3))
T = X @ np.array([[1.0], [-2.0], [0.5]]) + RNG.normal(size=(24, 1))
START = np.array([[0.5], [0.5], [0.5]])


def by_the_paper(batches):
    """The points y and x of linear regression after each batch, by equations 3 to 5."""
    x = y = z = START
    points = []
    for k in range(batches):
        rows = slice(k % 3 * BATCH, (k % 3 + 1) * BATCH)
        gradient = 2 / BATCH * X[rows].T @ (X[rows] @ y - T[rows])
        z = z - RATE * gradient
        x = x + (z - x) / (k + 1)
        y = (1 - BETA) * z + BETA * x
        points.append((y, x))
    return points


def loss_at(weights):
    return ((X @ weights - T) ** 2).mean()


def regression(**options):
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), dense])
    dense.set_weights([START])
    inner = keras.optimizers.SGD(RATE, momentum=BETA)
    model.compile(ScheduleFree(inner), "mse", **options)
    return model


def fit(model, epochs=EPOCHS, **options):
    return model.fit(
        X, T, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, **options
    ).history


def assert_at(model, weights):
    np.testing.assert_allclose(model.get_weights()[0], weights, rtol=1e-5)


@pytest.mark.parametrize("modes", [{}, {"steps_per_execution": 3}])
def test_validation_and_the_end_of_an_epoch_are_at_the_average(modes, tmp_path):
    if modes and keras.backend.backend() == "torch":
        pytest.skip("Keras on torch runs one step at a time")
    points, seen = by_the_paper(3 * EPOCHS), []
    model = regression(**modes)
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0])
        ),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras")),
    ]
    history = fit(model, validation_data=(X, T), callbacks=callbacks)
    for epoch in range(EPOCHS):
        _, x = points[3 * epoch + 2]
        np.testing.assert_allclose(history["val_loss"][epoch], loss_at(x), rtol=1e-5)
        np.testing.assert_allclose(seen[epoch], x, rtol=1e-5)
        loaded = keras.saving.load_model(tmp_path / f"{epoch + 1}.keras", compile=False)
        assert_at(loaded, x)


def test_after_fit_the_model_is_at_the_average_and_the_next_fit_goes_on_from_y():
    points, model = by_the_paper(9), regression()
    fit(model, 1)
    assert_at(model, points[2][1])
    np.testing.assert_allclose(model.predict(X, verbose=0), X @ points[2][1], rtol=1e-4, atol=1e-5)
    fit(model, 2)
    assert_at(model, points[8][1])


def test_methods_called_within_an_epoch_see_the_average(tmp_path):
    points, model, losses = by_the_paper(6), regression(), []

    def after_batch(batch, logs):
        losses.append(model.evaluate(X, T, verbose=0))
        np.testing.assert_allclose(model.test_on_batch(X, T), losses[-1], rtol=1e-5)
        np.testing.assert_allclose(((model.predict_on_batch(X) - T) ** 2).mean(), losses[-1], 1e-5)
        model.save(tmp_path / f"{batch}.keras")

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=after_batch)
    fit(model, 2, callbacks=[callback])
    np.testing.assert_allclose(losses, [loss_at(x) for _, x in points], rtol=1e-5)
    assert_at(model, points[5][1])
    for batch in range(3):
        assert_at(keras.saving.load_model(tmp_path / f"{batch}.keras"), points[3 + batch][1])


def test_train_on_batch_trains_at_y_also_after_a_fit():
    points, model = by_the_paper(6), regression()
    fit(model, 1)
    for batch in range(3):
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        model.train_on_batch(X[rows], T[rows])
    assert_at(model, points[5][0])
    np.testing.assert_allclose(model.evaluate(X, T, verbose=0), loss_at(points[5][1]), rtol=1e-5)
    assert_at(model, points[5][0])


def test_compiling_again_keeps_the_average():
    model, points = regression(), by_the_paper(2)
    for batch in range(2):
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        model.train_on_batch(X[rows], T[rows])
    model.compile("sgd", "mse")
    assert_at(model, points[-1][1])


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
def test_a_fit_within_a_fit_lets_the_outer_one_go_on_where_it_was(hook):
    points, model = by_the_paper(9), regression()

    def train_once():
        setattr(callback, hook, lambda index, logs=None: None)
        fit(callback.model, 1)

    callback = keras.callbacks.Callback()
    setattr(callback, hook, lambda index, logs=None: index == 0 and train_once())
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(watch.model.optimizer.evaluates)
    )
    fit(model, 2, callbacks=[callback, watch])
    assert seen == [False] * 6
    if hook != "on_train_batch_end":
        assert_at(model, points[8][1])


def test_all_optimizers_of_a_model_are_switched():
    seen = []
    model = gan(ScheduleFree)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(watch.model.d_optimizer.evaluates),
        on_epoch_end=lambda epoch, logs: seen.append(watch.model.d_optimizer.evaluates),
    )
    model.fit(pictures()[0], batch_size=16, epochs=1, verbose=0, callbacks=[watch])
    assert seen == [False] * (len(seen) - 1) + [True]
    assert len(seen) > 1
    at_average = values(model.discriminator.trainable_variables)
    model.d_optimizer.train()
    assert not same(at_average, values(model.discriminator.trainable_variables))


class Around(keras.Model):
    """Trains a part of it that is a model, with the optimizer that this part was compiled with."""

    def __init__(self, part, **attributes):
        super().__init__()
        self.part = part
        for name, value in attributes.items():
            setattr(self, name, value)

    def call(self, x):
        return self.part(x)

    def train_step(self, data):
        x, t = data[0], keras.ops.convert_to_tensor(data[1], "float32")
        weights = self.part.trainable_variables
        if keras.backend.backend() == "torch":
            self.part.zero_grad()
            loss = keras.ops.mean((self(x) - t) ** 2)
            loss.backward()
            gradients = [each.value.grad for each in weights]
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self(x) - t) ** 2)
            gradients = tape.gradient(loss, [each.value for each in weights])
        self.part.optimizer.apply(gradients, weights)
        return {"loss": loss}


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="a fit on JAX trains model.optimizer")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_an_optimizer_of_a_part_of_the_model_is_refused_or_switched(train, trained):
    part = regression()
    if trained:
        fit(part)
    around = Around(part)
    around.compile(loss="mse")
    before = values(part.variables)
    step = fit if train == "fit" else lambda model: model.train_on_batch(X[:8], T[:8])
    with pytest.raises(ValueError, match="must hold .* self.part_optimizer = self.part.optimizer"):
        step(around)
    assert same(values(part.variables), before)
    held = Around(part, part_optimizer=part.optimizer)
    held.compile(loss="mse")
    step(held)
    assert not same(values(part.variables), before)
    if train == "fit":
        assert part.optimizer.evaluates


def test_an_interrupted_fit_leaves_the_model_at_the_average():
    def stop(batch, logs):
        if batch == 1:
            raise KeyboardInterrupt

    points, model = by_the_paper(2), regression()
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=stop)])
    assert_at(model, points[1][1])


def test_a_saved_model_goes_on_from_y(tmp_path):
    points, model = by_the_paper(9), regression()
    fit(model, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(values(loaded.variables), values(model.variables))
    fit(loaded, 2)
    assert_at(loaded, points[8][1])


def test_the_best_weights_of_early_stopping_are_an_average():
    points, model = by_the_paper(9), regression()
    callback = keras.callbacks.EarlyStopping(
        "val_loss", mode="max", patience=5, restore_best_weights=True
    )
    fit(model, validation_data=(X, T), callbacks=[callback])  # the loss falls: the first is "best"
    assert_at(model, points[2][1])


def restarted(start, batches, order=(0, 1, 2)):
    """x after more batches of linear regression from `start`, which begins a new average."""
    x = y = z = start
    for k in range(batches):
        rows = slice(order[k % 3] * BATCH, (order[k % 3] + 1) * BATCH)
        z = z - RATE * 2 / BATCH * X[rows].T @ (X[rows] @ y - T[rows])
        x = x + (z - x) / (k + 1)
        y = (1 - BETA) * z + BETA * x
    return x


def test_a_fit_after_early_stopping_begins_a_new_average_at_the_best_weights():
    best, model = by_the_paper(3)[2][1], regression()
    callback = keras.callbacks.EarlyStopping("val_loss", mode="max", restore_best_weights=True)
    fit(model, 5, validation_data=(X, T), callbacks=[callback])
    assert_at(model, best)
    fit(model, 2)
    assert_at(model, restarted(best, 6))
    fit(model, 1)  # nothing was set in between
    assert_at(model, restarted(best, 9))


def test_weights_that_are_set_between_two_fits_begin_a_new_average(tmp_path):
    points, model = by_the_paper(6), regression()
    fit(model, 1)
    model.save_weights(tmp_path / "first.weights.h5")  # with the optimizer
    fit(model, 1)
    assert_at(model, points[5][1])
    model.load_weights(tmp_path / "first.weights.h5")
    fit(model, 1)
    assert_at(model, points[5][1])  # so it goes on from y
    model.set_weights([START + 1.0])
    fit(model, 1)
    assert_at(model, restarted(START + 1.0, 3))


@pytest.mark.parametrize("every", ["epoch", 2])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(every, tmp_path):
    def stop(batch, logs):
        counts.append(batch)
        if len(counts) == 6:
            raise KeyboardInterrupt

    def backup(name):
        return keras.callbacks.BackupAndRestore(str(tmp_path / name), save_freq=every)

    counts, whole, stopped, resumed = [], regression(), regression(), regression()
    fit(whole, callbacks=[backup("whole")])
    with pytest.raises(KeyboardInterrupt):
        stopper = keras.callbacks.LambdaCallback(on_train_batch_begin=stop)
        fit(stopped, callbacks=[backup("run"), stopper])
    fit(resumed, callbacks=[backup("run")])
    if every == "epoch":
        assert same(values(resumed.variables), values(whole.variables))
        assert same(values(resumed.optimizer.variables), values(whole.optimizer.variables))
    else:  # Keras repeats the epoch from its first batch, with the state of the middle
        assert resumed.optimizer.evaluates


def test_a_range_test_after_a_fit_trains_at_y():
    model, rows, targets = regression(), np.ones((24, 3)), np.full((24, 1), 9.0)
    model.fit(rows, targets, batch_size=BATCH, verbose=0)
    x = model.get_weights()[0]
    model.optimizer.train()
    y = model.get_weights()[0]
    model.optimizer.eval()
    test = keras_lr.lr_find(model, rows, targets, steps=20, start_lr=1e-6, end_lr=0.01, verbose=0)
    np.testing.assert_allclose(test.losses[0], (y.sum() - 9.0) ** 2, rtol=1e-4)
    assert abs(y.sum() - x.sum()) > 0.01
    assert_at(model, x)


@pytest.mark.once
@pytest.mark.parametrize("kind", [list, tuple, keras.callbacks.CallbackList])
def test_callbacks_are_given_as_fit_takes_them(kind):
    model, seen = regression(), []
    one = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    given = kind([one])
    if kind is keras.callbacks.CallbackList:
        given = kind([one], add_history=True, model=model, epochs=1)
    fit(model, 1, callbacks=given)
    assert seen == [0]
    assert_at(model, by_the_paper(3)[2][1])
    if kind is list:
        assert given == [one]
