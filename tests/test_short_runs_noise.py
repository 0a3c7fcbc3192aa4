"""Short runs see the same noise, whatever generator it comes from."""

import keras
import numpy as np
import pytest

from keras_lr._keras.random_state import random_generators_kept, seed_everything
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.short_runs import prepare
from keras_lr.range_test.training_data import TrainingData

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def global_noise(shape):
    """Noise from the backend's global generator, which no variable of Keras holds."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.random.normal(shape)
    if BACKEND == "torch":
        import torch

        return torch.randn(*shape, device="cpu").to(keras.ops.zeros(1).device)
    return keras.ops.zeros(shape)  # JAX has no such generator


def noise_in_a_function(shape):
    """The same, in a function that a function of TensorFlow calls."""
    if BACKEND != "tensorflow":
        return global_noise(shape)
    import tensorflow as tf

    return tf.cond(tf.constant(True), lambda: tf.random.normal(shape), lambda: tf.zeros(shape))


class Noisy(keras.Model):
    def __init__(self, noise, built=False):
        super().__init__()
        self.dense, self.noise = keras.layers.Dense(1), noise
        if built:
            self(X[:1])

    def call(self, x, training=None):
        y = self.dense(x)
        return y + 0.5 * self.noise((1, 1)) if training else y


class Jittered(keras.utils.PyDataset):
    """Batches with noise that is drawn when they are read."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def __len__(self):
        return 8

    def __getitem__(self, index):
        rows = slice(32 * index, 32 * index + 32)
        return X[rows] + keras.ops.convert_to_numpy(self.noise((32, 4))), Y[rows]


def dropout():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)],
    )


CASES = {
    "no noise": (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), (X, Y)),
    "dropout": (dropout, (X, Y)),
    "keras.random": (lambda: Noisy(keras.random.normal), (X, Y)),
    "keras.random, built": (lambda: Noisy(keras.random.normal, built=True), (X, Y)),
    "global": (lambda: Noisy(global_noise), (X, Y)),
    "global, in a function": (lambda: Noisy(noise_in_a_function), (X, Y)),
    "global, in the data": (dropout, (Jittered(global_noise), None)),
    "keras.random, in the data": (dropout, (Jittered(keras.random.normal), None)),
}
IN_STEP = ("keras.random", "keras.random, built")
CLEARED = ("global", "global, in a function", "global, in the data", "keras.random, in the data")


@pytest.fixture(params=list(CASES))
def case(request):
    return request.param


@pytest.fixture
def runs(case):
    if BACKEND == "jax" and case in IN_STEP:
        pytest.skip("Keras refuses an unseeded draw in a step on JAX")
    keras.utils.set_random_seed(1)
    make, (x, y) = CASES[case]
    model = make()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    data = TrainingData(model, x, y, fit_options={"batch_size": 32, "shuffle": True})
    with borrow(model, data.stream, None, optimizer=model.optimizer) as bench:
        bench.run(np.geomspace(1e-5, 1e-3, 30))
        yield prepare(bench, data, 64, None)


def test_short_runs_see_the_same_noise(runs):
    first, other, again = (runs.train(rate, 30, 1e9) for rate in (0.01, 0.02, 0.01))
    assert np.isfinite(first.loss) and first.loss != other.loss
    assert first.loss == again.loss
    runs.train(0.02, 20, 1e9, other.state)
    longer = [runs.train(0.01, 20, 1e9, run.state).loss for run in (first, again)]
    assert longer[0] == longer[1]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow drops compiled functions")
def test_tensorflow_keeps_its_functions_where_only_keras_draws(runs, case, monkeypatch):
    import tensorflow as tf

    cleared = []
    monkeypatch.setattr(tf.random, "set_seed", cleared.append)
    runs.train(0.01, 30, 1e9)
    assert bool(cleared) == (case in CLEARED)


@pytest.mark.parametrize("operations", [True, False])
def test_the_order_of_arrays_follows_the_seed(operations):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    data = TrainingData(model, X, Y, fit_options={"batch_size": 32, "shuffle": True})

    def order(seed):
        seed_everything(seed, operations=operations)
        stream = data.stream()
        batches = [keras.ops.convert_to_numpy(x) for x, _ in stream.iterator()]
        stream.close()
        return np.concatenate(batches)

    with random_generators_kept():
        first, other, again = order(3), order(4), order(3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != X).any()
