"""What training changes beside weights comes back too: states, buffers, queues, counters.

For each kind of model: `fit` after `lr_find` equals `fit` of an untouched twin to the last bit, and
two runs of a search from the same start agree, whatever ran between them.
"""

import collections
import random
import types

import keras
import numpy as np
import pytest
from models import same, sampled, values

import keras_lr
from keras_lr.rate_search.data import Data
from keras_lr.rate_search.plan import Job, Setting
from keras_lr.rate_search.runner import Runner

BACKEND = keras.backend.backend()
JAX = BACKEND == "jax"
layers = keras.layers
SEQUENCES = np.random.default_rng(0).normal(size=(96, 5, 4)).astype("float32")
TARGETS = SEQUENCES[:, 0, :1]


def sequences(layer, *after):
    inputs = keras.Input(batch_shape=(16, 5, 4))
    outputs = layer(inputs)
    for each in after:
        outputs = each(outputs)
    model = keras.Model(inputs, layers.Dense(1)(outputs))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def stacked():
    cells = [layers.LSTMCell(3), layers.GRUCell(4)]
    return sequences(layers.RNN(layers.StackedRNNCells(cells), stateful=True))


def in_a_model():
    inner = sequences(layers.SimpleRNN(3, stateful=True))
    inputs = keras.Input(batch_shape=(16, 5, 4))
    model = keras.Model(inputs, layers.Dense(1)(inner(inputs)))
    model.compile("adam", "mse")
    return model


class CountingCell(keras.Layer):
    """A cell of a program's own, whose state is a dictionary's worth of nothing but numbers."""

    state_size = 3
    output_size = 3

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, inputs, states):
        after = states[0] * 0.9 + inputs @ self.kernel
        return after, [after]


def two_outputs():
    inputs = keras.Input(batch_shape=(16, 5, 4))
    wrapped = layers.TimeDistributed(layers.Dense(3))(inputs)
    states = layers.SimpleRNN(3, stateful=True, return_sequences=True)(wrapped)
    model = keras.Model(inputs, layers.Dense(1)(layers.SimpleRNN(3, stateful=True)(states)))
    model.compile("adam", "mse")
    return model


def dense(loss="mse", cls=keras.Model, **options):
    inputs = keras.Input((5, 4))
    model = cls(inputs, layers.Dense(1)(layers.Flatten()(inputs)))
    model.compile(keras.optimizers.SGD(0.01), loss, **options)
    return model


class Moving(keras.losses.Loss):
    """Divides by a moving average that the loss keeps itself."""

    def __init__(self):
        super().__init__()
        self.scale = keras.Variable(1.0, trainable=False)

    def call(self, y, p):
        error = keras.ops.mean((y - p) ** 2, axis=-1)
        self.scale.assign(0.9 * self.scale.value + 0.1 * keras.ops.mean(error))
        return error / keras.ops.stop_gradient(self.scale.value + 1e-3)


def closure_with_a_variable():
    scale = keras.Variable(1.0, trainable=False)

    def loss(y, p):
        error = keras.ops.mean((y - p) ** 2, axis=-1)
        scale.assign(0.9 * scale.value + 0.1 * keras.ops.mean(error))
        return error / keras.ops.stop_gradient(scale.value + 1e-3)

    return dense(loss)


class Helper:
    """What a program may keep beside its model."""

    total = 0

    def __init__(self):
        self.seen = 0
        self.memory = np.zeros(2, "float32")
        self.queue = collections.deque(maxlen=5)
        self.names = {}
        self.random = np.random.default_rng(5)
        self.python = random.Random(5)
        self.space = types.SimpleNamespace(ratio=1.0)

    def __call__(self, y, p):
        error = keras.ops.mean((y - p) ** 2, axis=-1)
        self.seen += 1
        Helper.total += 1
        self.memory += 1
        self.queue.append(self.seen)
        self.names.setdefault("steps", []).append(self.seen)
        self.space.ratio *= 0.9
        factor = 1 + self.memory[0] / 10 + sum(self.queue) / 100 + len(self.names["steps"]) / 10
        factor += self.random.random() + self.python.random() + self.space.ratio
        return error * float(factor + Helper.total / 100)


def helper_object():
    return dense(Helper(), run_eagerly=True)


STEPS = [0]
COUNT = 0


def loss_with_globals(y, p):
    global COUNT
    COUNT += 1
    STEPS.append(COUNT)
    return keras.ops.mean((y - p) ** 2, axis=-1) * (1 + len(STEPS) / 10 + COUNT / 10)


def nonlocal_counter():
    seen = 0

    def loss(y, p):
        nonlocal seen
        seen += 1
        loss.calls = getattr(loss, "calls", 0) + 1
        return keras.ops.mean((y - p) ** 2, axis=-1) * (1 + seen / 10 + loss.calls / 10)

    return dense(loss, run_eagerly=True)


class Replays(keras.Model):
    """Mixes what it has seen into what it learns from, as with a queue of negatives."""

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options)
        self.buffer, self.steps, self.latest = [], 0, None

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.steps += 1
        self.latest = np.array(keras.ops.convert_to_numpy(keras.ops.stop_gradient(y_pred)))
        self.buffer.append(float(self.latest.mean()))
        extra = sum(self.buffer[-3:]) + self.steps / 10
        return super().compute_loss(x, y, y_pred, sample_weight, training) * (1 + abs(extra))


def replays():
    return dense(cls=Replays, run_eagerly=True)


class OwnTensors(keras.Model):
    """Holds tensors of the backend that are no Keras variables, and a torch optimizer."""

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            self.scale = tf.Variable(1.0, trainable=False)
            self.parts = {"drawn": [tf.random.Generator.from_seed(3)]}
        else:
            import torch

            self.scale = torch.ones(())
            self.parts = {"module": [torch.nn.Linear(1, 1)]}
            torch.nn.init.ones_(self.parts["module"][0].weight)
            self.torch_optimizer = torch.optim.Adam(self.parts["module"][0].parameters(), 0.1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if BACKEND == "tensorflow":
            self.scale.assign(self.scale * 0.9 + 0.1)
            self.scale.assign_add(self.parts["drawn"][0].uniform(()))
        else:
            import torch

            module = self.parts["module"][0]
            self.scale.mul_(0.9).add_(0.1)
            with torch.enable_grad():
                self.torch_optimizer.zero_grad()
                (module(torch.ones(1, 1)) ** 2).sum().backward()
                self.torch_optimizer.step()
            return loss * self.scale * (1 + module.weight.detach().sum() ** 2)
        return loss * self.scale


class TwoOptimizers(keras.Model):
    """Trains its bias with an optimizer that lies in a dictionary, not yet built."""

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options)
        self.others = {"bias": [keras.optimizers.Adam(0.1)]}

    def train_step(self, data):
        logs = super().train_step(data)
        bias = self.layers[-1].bias
        gradient = keras.ops.ones_like(bias.value)
        if BACKEND == "torch":
            import torch

            with torch.no_grad():
                self.others["bias"][0].apply([gradient], [bias])
        else:
            self.others["bias"][0].apply([gradient], [bias])
        return logs


class Noisy(keras.Layer):
    """Draws from a generator in a list that Keras does not look into."""

    def __init__(self):
        super().__init__()
        self.held = types.SimpleNamespace(seeds=[keras.random.SeedGenerator(7)])

    def call(self, x, training=False):
        return x + keras.random.normal((4,), seed=self.held.seeds[0]) if training else x


CASES = {
    "SimpleRNN": lambda: sequences(layers.SimpleRNN(6, stateful=True, activation="relu")),
    "LSTM": lambda: sequences(layers.LSTM(3, stateful=True)),
    "bidirectional": lambda: sequences(layers.Bidirectional(layers.SimpleRNN(3, stateful=True))),
    "stacked cells": stacked,
    "own cell": lambda: sequences(layers.RNN(CountingCell(), stateful=True)),
    "inside a model": in_a_model,
    "after TimeDistributed": two_outputs,
    "generator of seeds in an object": lambda: sequences(Noisy(), layers.Flatten()),
    "variable of a loss": lambda: dense(Moving()),
    "variable in a closure": closure_with_a_variable,
    "object": helper_object,
    "global variables": lambda: dense(loss_with_globals, run_eagerly=True),
    "counter in a closure": nonlocal_counter,
    "replay buffer": replays,
    "tensors of the backend": lambda: dense(cls=OwnTensors),
    "optimizer in a dictionary": lambda: dense(cls=TwoOptimizers),
}
if JAX:  # a jitted step can change nothing but the variables that Keras lists
    for name in (
        *("generator of seeds in an object", "variable of a loss", "variable in a closure"),
        *("tensors of the backend", "optimizer in a dictionary", "replay buffer", "object"),
    ):
        del CASES[name]


if BACKEND == "torch":  # Keras's own fit fails: "modified by an inplace operation"
    del CASES["LSTM"]


def made(make):
    global COUNT
    keras.utils.set_random_seed(0)
    STEPS[:], COUNT, Helper.total = [0], 0, 0
    return make()


def fitted(model):
    history = model.fit(SEQUENCES, TARGETS, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return [*values(model.variables), np.array(history.history["loss"])]


def find(model, **options):
    options = {"steps": 12, "end_lr": 1e3, "batch_size": 16, "verbose": 0, **options}
    options["optimizer"] = "optimizer"  # of several, that of `compile`
    return keras_lr.lr_find(model, SEQUENCES, TARGETS, **options)


WHY = "the object graph is walked alike"
KINDS = ("SimpleRNN", "own cell", "variable of a loss", "object", "tensors of the backend")


@pytest.mark.parametrize("make", sampled(CASES, *KINDS, "optimizer in a dictionary", why=WHY))
def test_fit_after_find_equals_fit_of_an_untouched_twin(make):
    expected = fitted(made(make))
    model = made(make)
    find(model)
    assert same(fitted(model), expected)
    assert np.isfinite(expected[-1]).all()


@pytest.mark.parametrize("make", sampled(CASES, "own cell", "object", why=WHY))
def test_repeats_of_a_test_start_alike(make):
    # One batch, so that the same data come in both.
    model = made(make)
    test = find(model, repeats=2, steps_per_epoch=1, shuffle=False, stop_factor=None, end_lr=1e-3)
    np.testing.assert_array_equal(test.losses[0], test.losses[1])


SEARCHED = {name: make for name, make in CASES.items() if name != "optimizer in a dictionary"}


@pytest.mark.parametrize("make", sampled(SEARCHED, "SimpleRNN", "object", why=WHY))
def test_runs_of_a_search_from_one_start_agree_whatever_ran_between(make):
    held = (SEQUENCES[:32], TARGETS[:32])
    data = Data.of(SEQUENCES, TARGETS, None, held, 0.2, 0, {"shuffle": False})
    with Runner.borrow(made(make), data, "val_loss", 16, 0) as runner:
        first, diverged, again = (
            runner.run(Job("sweep", Setting(rate, batch_size=16), 0, 1.0, 1))
            for rate in (1e-2, 1e3, 1e-2)
        )
    assert np.isfinite(first.value)
    assert first.value == again.value


def random_state():
    """What the next draws of every generator would be; draws them and puts them back."""
    state = [np.array(random.getstate()[1]), np.random.get_state()[1]]
    if BACKEND == "torch":
        import torch

        state.append(torch.get_rng_state().numpy())
    if BACKEND == "tensorflow":
        from tensorflow.python.eager import context

        state.append(np.array(context.context()._seed or 0))
    held = keras.src.backend.common.global_state.get_global_attribute
    generator = held("global_seed_generator")
    state += [] if generator is None else values([generator.state])
    return [*state, np.array(held("global_random_seed") or 0)]


def test_a_search_with_a_function_that_makes_models_leaves_the_random_generators():
    keras.utils.set_random_seed(11)
    keras.random.normal((2,))  # makes Keras's own generator
    before = random_state()
    sweep = {
        "low": 1e-3,
        "high": 1e-2,
        "epochs": 1,
        "fine_rounds": 0,
        "points": 3,
        "final_seeds": 1,
    }
    keras_lr.search(dense, SEQUENCES, TARGETS, verbose=0, **sweep)
    assert same(random_state(), before)


def test_a_function_that_makes_no_model_leaves_the_random_generators():
    keras.utils.set_random_seed(11)
    before = random_state()
    with pytest.raises(TypeError, match="must be a Keras model"):
        keras_lr.search(lambda: random.random(), SEQUENCES, TARGETS, verbose=0)
    assert same(random_state(), before)


class Unbuildable(keras.Model):
    """Its call fails, after it has built a part of the model."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(3)

    def call(self, x):
        self.first(x)
        raise ZeroDivisionError("cannot be called")


def test_a_build_that_fails_leaves_nothing_behind():
    model = Unbuildable()
    model.compile("adam", "mse")
    before = {name: value for name, value in vars(model).items() if name != "_keras_lr_fit"}
    for _ in range(2):
        with pytest.raises(Exception, match="cannot be called|build"):
            find(model)
        assert not model.built and not model.first.built and not model.weights
        after = {name: value for name, value in vars(model).items() if name in before}
        assert all(after[name] is before[name] for name in before)


def test_a_model_that_was_not_built_is_given_back_so_and_trains_as_its_twin():
    def make():
        return keras.Sequential([layers.Flatten(), layers.Dense(3), layers.Dense(1)])

    def prepared():
        keras.utils.set_random_seed(0)
        model = make()
        model.compile("adam", "mse")
        return model

    expected = fitted(prepared())
    model = prepared()
    find(model)
    assert not model.built and not model.layers[1].weights
    assert same(fitted(model), expected)


def test_an_iterator_that_a_model_holds_is_named_before_the_run():
    class Draws(keras.Model):
        def compile(self, *arguments, **options):
            super().compile(*arguments, **options)
            self.noise = iter(range(1000))

    with pytest.warns(UserWarning, match=r"iterator, noise \(range_iterator\)"):
        find(dense(cls=Draws))


def test_a_large_array_is_not_copied_and_named(monkeypatch):
    monkeypatch.setattr(keras_lr._keras.tensors, "_LARGEST", 100)

    class Holds(keras.Model):
        def compile(self, *arguments, **options):
            super().compile(*arguments, **options)
            self.table = {"rows": np.zeros(200, "float32")}

    with pytest.warns(UserWarning, match=r"table\['rows'\], which is not copied"):
        find(dense(cls=Holds))


class MakesALayer(layers.Layer):
    """Makes a layer when it is built, as the preprocessors of KerasHub do."""

    def __init__(self):
        super().__init__()
        self.inner = None

    def build(self, shape):
        self.inner = layers.Rescaling(0.5)

    def call(self, x):
        return self.inner(x)


class Prepares(keras.Model):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.prepare = MakesALayer()

    def train_step(self, *arguments):
        *state, (x, y) = arguments  # JAX passes the state before the data
        return super().train_step(*state, (self.prepare(x), y))


def test_a_layer_that_the_first_step_makes_serves_every_run():
    model = dense(cls=Prepares)
    find(model, repeats=3)
    assert not model.prepare.built and model.prepare.inner is None
    fitted(model)
    np.testing.assert_allclose(model.prepare(np.ones(2, "float32")), [0.5, 0.5])


@pytest.mark.skipif(not JAX, reason="counts JAX's arrays")
def test_find_keeps_no_arrays_alive_on_jax():
    import gc

    import jax

    def live():
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    model = dense()
    fitted(model)
    before = live()
    find(model, repeats=2)
    after = live()
    assert after - before <= 32  # constants of the compiled step, a few scalars; a weight has 80
    find(model)
    fitted(model)
    assert live() == after
