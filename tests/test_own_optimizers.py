"""Models that train with optimizers of their own: which one is meant, and whether it trains."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from models import values

import keras_lr
from keras_lr.steering import choose_optimizer, model_optimizers

BACKEND = keras.backend.backend()
ROWS, BATCH = 64, 16
STEPS = ROWS // BATCH
eager_or_graph = pytest.mark.skipif(
    BACKEND == "jax", reason="JAX's fit trains only what is in its state"
)


def rows():
    x = np.random.default_rng(1).normal(size=(ROWS, 3)).astype("float32")
    return x, (x.sum(axis=1, keepdims=True) + 0.5).astype("float32")


def apply(optimizer, weights, loss):
    """One update of `optimizer`, with gradients by the backend."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply(tape.gradient(value, weights), weights)
    else:
        import torch

        value = loss()
        gradients = torch.autograd.grad(value, [each.value for each in weights])
        with torch.no_grad():
            optimizer.apply(gradients, weights)
    return value


class Pair(keras.Model):
    """Two linear models, each with an optimizer of its own, as a GAN has them."""

    def __init__(self, times=1):
        super().__init__()
        self.a = keras.layers.Dense(1, kernel_initializer="zeros")
        self.b = keras.layers.Dense(1, kernel_initializer="zeros")
        self.times = times
        self.a.build((None, 3))
        self.b.build((None, 3))
        self.built = True

    def compile(self, a_optimizer, b_optimizer, **options):
        super().compile(**options)
        self.a_optimizer, self.parts = a_optimizer, {"b": [b_optimizer]}

    def call(self, x):
        return self.a(x) + self.b(x)

    def train_step(self, data):
        x, y = data
        for _ in range(self.times):
            first = apply(
                self.a_optimizer,
                self.a.trainable_weights,
                lambda: ops.mean((self.a(x) - y) ** 2),
            )
        second = apply(
            self.parts["b"][0], self.b.trainable_weights, lambda: ops.mean((self.b(x) - y) ** 2)
        )
        return {"a_loss": first, "b_loss": second}


def pair(times=1, momentum=0.0):
    keras.utils.set_random_seed(0)
    model = Pair(times)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=momentum), keras.optimizers.SGD(0.02, momentum=momentum)
    )
    return model


def fit(model, *callbacks, epochs=3):
    x, y = rows()
    return model.fit(
        x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def descended(rates, times=1):
    """Weights of a linear model after gradient descent at these rates, one a batch or update."""
    x, y = (part.astype("float64") for part in rows())
    kernel, bias = np.zeros((3, 1)), np.zeros(1)
    for update, rate in enumerate(rates):
        part = slice(update % STEPS * BATCH, (update % STEPS + 1) * BATCH)
        for step in np.broadcast_to(rate, times):
            residual = x[part] @ kernel + bias - y[part]
            kernel = kernel - step * 2 * (x[part] * residual).mean(axis=0)[:, None]
            bias = bias - step * 2 * residual.mean(axis=0)
    return [kernel, bias]


def assert_weights(layer, expected):
    for ours, theirs in zip(values(layer.weights), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def cosine(rate, total):
    return rate * 0.5 * (1 + np.cos(np.pi * np.arange(total) / total))


def falling(rate, total, **options):
    schedule = keras.optimizers.schedules.CosineDecay(rate, total)
    return keras_lr.ScheduleLR(schedule, **options)


def test_optimizers_are_found_in_attributes_lists_and_dictionaries():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(), "mse")
    model.d_optimizer = keras.optimizers.SGD()
    model.more = [keras.optimizers.SGD(), {"g": keras.optimizers.SGD()}]
    model.alias = model.optimizer
    names = ["optimizer", "d_optimizer", "more[0]", "more[1]['g']"]
    assert list(model_optimizers(model)) == names
    assert choose_optimizer(model, "more[1]['g']", "x") is model.more[1]["g"]
    assert choose_optimizer(model, model.d_optimizer, "x") is model.d_optimizer


def test_a_wrapped_optimizer_is_found_once():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.inner = keras.optimizers.SGD()
    model.compile(keras.optimizers.LossScaleOptimizer(model.inner), "mse")
    assert list(model_optimizers(model)) == ["optimizer"]
    assert choose_optimizer(model, model.inner, "x") is model.optimizer


def test_a_compiled_model_inside_another_does_not_make_the_choice_ambiguous():
    teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    teacher.compile("adam", "mse")
    student = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    student.teacher = teacher
    student.compile("sgd", "mse")
    assert choose_optimizer(student, None, "x") is student.optimizer
    assert choose_optimizer(student, "teacher.optimizer", "x") is teacher.optimizer


def test_names_that_are_not_there_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="must name an optimizer of the model .* got 'd'"):
        choose_optimizer(model, "d", "x")
    with pytest.raises(ValueError, match="an optimizer of the model .*; got another SGD"):
        choose_optimizer(model, keras.optimizers.SGD(), "x")
    with pytest.raises(TypeError, match="got 3"):
        choose_optimizer(model, 3, "x")


STEERING = [
    lambda **options: keras_lr.OneCycle(0.1, cycle_momentum=False, **options),
    lambda **options: keras_lr.CyclicLR(0.01, 0.1, 2, **options),
    lambda **options: falling(0.1, 12, **options),
    lambda **options: keras_lr.WarmUp(steps=4, **options),
    lambda **options: keras_lr.ReduceLROnPlateau("a_loss", **options),
    lambda **options: keras_lr.LRLogger(**options),
    lambda **options: keras_lr.HalveOnDivergence(monitor="a_loss", **options),
]


@eager_or_graph
@pytest.mark.parametrize("make", STEERING)
def test_without_a_choice_several_optimizers_are_refused(make):
    model = pair()
    with pytest.raises(ValueError, match="optimizer, a_optimizer, parts\\['b'\\]\\[0\\]"):
        fit(model, make())
    fit(model, epochs=1)
    assert_weights(model.a, descended([0.01] * STEPS))


@eager_or_graph
def test_gradual_unfreezing_is_for_models_with_one_optimizer():
    with pytest.raises(
        ValueError, match="GradualUnfreeze needs a model with one optimizer; .* a_o"
    ):
        fit(pair(), keras_lr.GradualUnfreeze([["dense.*"]]))


@eager_or_graph
@pytest.mark.parametrize("make", STEERING)
def test_an_optimizer_that_trains_nothing_is_refused(make):
    model = pair()
    with pytest.raises(ValueError, match="made no update in the first batches. Pass optimizer='a"):
        fit(model, make(optimizer="optimizer"))
    assert isinstance(model.optimizer._learning_rate, keras.Variable)


@eager_or_graph
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("by_name", [True, False])
def test_the_chosen_optimizer_follows_the_curve_and_the_other_its_own_rate(times, by_name):
    model, total = pair(times), 3 * STEPS
    choice = "a_optimizer" if by_name else model.a_optimizer
    logger = keras_lr.LRLogger(optimizer=choice)
    history = fit(model, falling(0.1, total, optimizer=choice), logger).history
    # Several updates in a batch share a rate, and the curve ends with the run.
    rates = cosine(0.1, total)
    assert_weights(model.a, descended(rates, times))
    assert_weights(model.b, descended([0.02] * total))
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(history["learning_rate"], rates[STEPS - 1 :: STEPS], rtol=1e-5)
    for optimizer, rate in ((model.a_optimizer, 0.01), (model.parts["b"][0], 0.02)):
        assert float(ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(rate)


@eager_or_graph
def test_a_schedule_of_its_own_counts_every_update_of_a_batch():
    model, batches = Pair(times=2), np.arange(3 * STEPS)
    decay = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=4, decay_rate=0.5)
    model.compile(keras.optimizers.SGD(decay), keras.optimizers.SGD(0.02))
    keras.utils.set_random_seed(0)
    fit(model, keras_lr.WarmUp(steps=6, optimizer="a_optimizer"))
    updates = 2 * batches[:, None] + np.arange(2)
    rates = 0.05 * 0.5 ** (updates / 4) * np.minimum(batches / 6, 1.0)[:, None]
    assert_weights(model.a, descended(rates, times=2))


@eager_or_graph
def test_two_optimizers_are_steered_by_a_callback_each():
    model, total = pair(), 3 * STEPS
    name = "parts['b'][0]"
    first, second = keras_lr.LRLogger(optimizer="a_optimizer"), keras_lr.LRLogger(optimizer=name)
    history = fit(
        model,
        falling(0.1, total, optimizer="a_optimizer"),
        falling(0.05, total, optimizer=name),
        keras_lr.WarmUp(steps=6, optimizer=name),
        first,
        second,
    ).history
    warm = np.minimum(np.arange(total) / 6, 1.0)
    expected = {"a_optimizer": cosine(0.1, total), name: cosine(0.05, total) * warm}
    assert_weights(model.a, descended(expected["a_optimizer"]))
    assert_weights(model.b, descended(expected[name]))
    for each, logger in zip(expected, (first, second), strict=True):
        rates = expected[each]
        np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
        shown = history[f"learning_rate_{each}"]
        np.testing.assert_allclose(shown, rates[STEPS - 1 :: STEPS], rtol=1e-5, atol=0)
        assert np.shape(history[f"batch_learning_rate_{each}"]) == (3, STEPS)


@eager_or_graph
def test_a_plateau_lowers_the_rate_of_the_chosen_optimizer_only():
    model = pair()
    plateau = keras_lr.ReduceLROnPlateau(
        "a_loss", factor=0.5, patience=1, min_delta=100.0, optimizer="a_optimizer"
    )
    fit(model, plateau)
    expected = descended(np.repeat([0.01, 0.01, 0.005], STEPS))
    assert_weights(model.a, expected)
    assert_weights(model.b, descended([0.02] * 3 * STEPS))


@eager_or_graph
def test_momentum_of_the_chosen_optimizer_cycles():
    model = pair(momentum=0.9)
    logger = keras_lr.LRLogger(optimizer="a_optimizer")
    fit(model, keras_lr.OneCycle(0.1, optimizer="a_optimizer"), logger)
    assert min(logger.history["momentum"]) < 0.86
    assert model.a_optimizer.momentum == 0.9 and model.parts["b"][0].momentum == 0.9


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has such a train function")
def test_a_train_function_that_calls_no_train_step_is_refused():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            def function(iterator):
                x, y = next(iterator)[:2]
                return {
                    "loss": apply(self.optimizer, self.trainable_weights, lambda: _mse(self, x, y))
                }

            self.train_function = function

    model = Own([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    with pytest.raises(ValueError, match="never calls train_step"):
        fit(model, falling(0.1, 12))


def _mse(model, x, y):
    return ops.mean((model(x) - y) ** 2)


@pytest.mark.skipif(BACKEND != "jax", reason="others train what the step trains")
def test_on_jax_an_optimizer_outside_the_state_is_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.d_optimizer = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="'d_optimizer' .* made no update"):
        fit(model, falling(0.1, 12, optimizer="d_optimizer"))
    history = fit(model, falling(0.1, 12, optimizer="optimizer")).history
    rates = cosine(0.1, 3 * STEPS)[STEPS - 1 :: STEPS]
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5)


def test_a_model_with_nothing_to_train_is_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.trainable = False
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model does not have any trainable weights")
        with pytest.raises(ValueError, match="made no update in the first batches. Check that"):
            fit(model, falling(0.1, 12))
