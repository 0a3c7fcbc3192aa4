"""Range tests of models that nothing but their first training step can build, or cannot build."""

import keras
import numpy as np
import pytest
from keras import ops
from models import same, values

import keras_lr

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = X[:, :1] * 2.0 + 1.0
RAMP = {"steps": 6, "stop_factor": None, "batch_size": 16, "verbose": 0, "seed": 3}
step_builds = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="fit builds by calling the model on the other backends"
)


class Block(keras.layers.Layer):
    """Makes its parts when it is built, as many of KerasHub's layers do."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.dense = keras.layers.Dense(self.units)
        self.dense.build(shape)
        self.dropout = keras.layers.Dropout(0.5)
        self.built = True

    def call(self, x, training=False):
        return self.dropout(self.dense(x), training=training)


class Autoencoder(keras.Model):
    """No `call`: the step puts the parts together."""

    def __init__(self, built=False):
        super().__init__()
        self.encoder = Block(3)
        self.decoder = keras.Sequential([keras.layers.Dense(4)])
        self.total = keras.metrics.Mean(name="loss")
        if built:
            self.decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])

    @property
    def metrics(self):
        return [self.total]

    def train_step(self, x):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.mean((self.decoder(self.encoder(x, training=True)) - x) ** 2)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.total.update_state(loss)
        return {"loss": self.total.result()}


def autoencoder(**options):
    keras.utils.set_random_seed(0)
    model = Autoencoder()
    model.compile(keras.optimizers.Adam(0.01), **options)
    return model


def deferred(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([Block(5), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], **options)
    return model


def fitted(model, *data):
    keras.utils.set_random_seed(1)
    model.fit(*data, batch_size=16, epochs=2, verbose=0)
    return values([*model.variables, *model.optimizer.variables])


@step_builds
@pytest.mark.parametrize("eager", [False, True])
def test_the_first_step_builds_and_fit_is_the_one_without_the_test(eager):
    plain = fitted(autoencoder(run_eagerly=eager), X)
    model = autoencoder(run_eagerly=eager)
    test = keras_lr.lr_find(model, X, repeats=2, **RAMP)
    assert test.losses.shape == (2, 6)
    assert not model.built and not model.encoder.built and not model.optimizer.built
    assert model.weights == []
    assert same(plain, fitted(model, X))


@step_builds
@pytest.mark.parametrize("eager", [False, True])
def test_each_repeat_starts_from_the_weights_that_fit_would_start_from(eager):
    # One batch over and over, so only the start decides the losses: weights, slots and noise.
    ones = np.ones((16, 4), "float32")
    test = keras_lr.lr_find(autoencoder(run_eagerly=eager), ones, repeats=2, **RAMP)
    np.testing.assert_array_equal(test.losses[0], test.losses[1])


@step_builds
def test_the_callback_trains_what_only_its_step_can_build():
    plain = fitted(autoencoder(), X)
    model, finder = (
        autoencoder(),
        keras_lr.LRFinder(**{k: RAMP[k] for k in RAMP if k != "batch_size"}),
    )
    model.fit(X, batch_size=16, callbacks=[finder], verbose=0)
    assert len(finder.result.losses) == 6
    assert model.weights == []
    assert same(plain, fitted(model, X))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the first step builds there")
def test_what_fit_cannot_build_is_refused_twice_alike_with_the_reason_of_keras():
    model = autoencoder()
    said = []
    for _ in range(2):
        with pytest.raises(Exception) as info:
            keras_lr.lr_find(model, X, **RAMP)
        said.append((type(info.value), str(info.value)))
        assert not model.built
    assert said[0] == said[1]


def test_a_deferred_model_is_left_as_it_was_and_fit_is_the_one_without_the_test():
    plain = fitted(deferred(), X, Y)
    model = deferred()
    keras_lr.lr_find(model, X, Y, repeats=2, **RAMP)
    assert not model.built and not model.layers[0].built
    assert same(plain, fitted(model, X, Y))


def test_a_build_that_fails_leaves_nothing_and_fails_again_alike():
    class Wrong(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1],))

        def call(self, x):
            return ops.matmul(x, ops.ones((shape_of(x) + 1, 1)))

    def shape_of(x):
        return x.shape[-1]

    model = keras.Sequential([keras.layers.Dense(3), Wrong()])
    model.compile("adam", "mse")
    said = []
    for _ in range(2):
        with pytest.raises(Exception) as info:
            keras_lr.lr_find(model, X, Y, **RAMP)
        said.append(type(info.value))
        assert not any(layer.built for layer in model.layers) and model.weights == []
    assert said[0] == said[1]


class Nested(keras.Model):
    """Keras's guide on `fit` with compiled metrics, shortened: the logs hold a dictionary."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer="zeros")
        self.built = True

    def call(self, x):
        return self.w + 0.0 * x

    def logs(self, w):
        return {"loss": w + 5.0, "compile_metrics": {"mae": w + 7.0, "deeper": {"b": w}}, "text": 3}

    if BACKEND == "jax":

        def train_step(self, state, data):
            trainable, other, slots, metrics = state
            logs = self.logs(trainable[0])
            trainable, slots = self.optimizer.stateless_apply(slots, [ops.ones(())], trainable)
            return logs, (trainable, other, slots, metrics)

        def test_step(self, state, data):
            return self.logs(state[0][0]), state

    else:

        def train_step(self, data):
            logs = self.logs(self.w.value + 0.0)
            if BACKEND == "torch":
                import torch

                with torch.no_grad():
                    self.optimizer.apply([torch.ones(())], [self.w])
            else:
                self.optimizer.apply([ops.ones(())], [self.w])
            return logs

        def test_step(self, data):
            return self.logs(self.w.value + 0.0)


def test_nested_logs_are_flattened_as_fit_flattens_them():
    model = Nested()
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(X, batch_size=16, verbose=0).history
    model.w.assign(0.0)
    options = {**RAMP, "start_lr": 0.1, "end_lr": 1.0, "ramp": "linear"}
    test = keras_lr.lr_find(model, X, validation_data=X, validation_every=3, **options)
    assert {"loss", *test.metrics} == set(history)
    before = -np.concatenate([[0.0], np.cumsum(np.linspace(0.1, 1.0, 6))])
    np.testing.assert_allclose(test.losses, before[:-1] + 5.0, rtol=1e-5)
    np.testing.assert_allclose(test.metrics["mae"], before[:-1] + 7.0, rtol=1e-5)
    np.testing.assert_allclose(test.metrics["b"], before[:-1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(test.validation["mae"], before[[3, 6]] + 7.0, rtol=1e-5)
    np.testing.assert_allclose(test.validation["loss"], before[[3, 6]] + 5.0, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX gets variables as arguments")
def test_a_second_test_of_a_model_that_was_never_fitted_compiles_nothing(monkeypatch):
    from keras_lr.loops.jax import JaxLoop

    traces, run_step = [], JaxLoop._run_step

    def counted(*arguments):
        traces.append(1)
        return run_step(*arguments)

    monkeypatch.setattr(JaxLoop, "_run_step", counted)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    first = keras_lr.lr_find(model, X, Y, **RAMP)
    traced, variables = len(traces), len(model.optimizer.variables)
    second = keras_lr.lr_find(model, X, Y, **RAMP)
    assert traced and len(traces) == traced
    assert np.array_equal(first.losses, second.losses)
    assert variables == len(model.optimizer.variables) == 2  # iterations and the rate
    # A model that is compiled anew trains with its new optimizer and loss.
    model.compile("sgd", "mae", metrics=["mae"])
    third = keras_lr.lr_find(model, X, Y, **RAMP)
    assert len(traces) > traced
    assert not np.allclose(third.losses, second.losses, rtol=0.01)
