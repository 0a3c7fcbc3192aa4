"""Short runs on real models: what they train, what they compare, and what they leave."""

import warnings

import keras
import numpy as np
import pytest
from models import classifier

import keras_lr
from keras_lr import lr_find
from keras_lr._util.terminal import cause_of
from keras_lr.loops import CHUNK

pytestmark = pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
ROWS, MOMENTUM = 60, 0.9


def regression(seed, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype("float32")
    return x, (x @ [[1.0], [-2.0], [0.5]] + 0.3 * rng.normal(size=(rows, 1))).astype("float32")


def linear():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.01, momentum=MOMENTUM), "mse")
    model.layers[0].set_weights([np.array([[0.1], [0.2], [0.3]], "float32")])
    return model


def loss_by_hand(rate, steps):
    """The held-out loss after updates on the whole data, with Keras's momentum."""
    (x, y), (held_x, held_y) = regression(0), regression(1)
    weights, velocity = np.array([[0.1], [0.2], [0.3]]), np.zeros((3, 1))
    for _ in range(steps):
        gradient = 2 / len(x) * x.T @ (x @ weights - y)
        velocity = MOMENTUM * velocity - rate * gradient
        weights = weights + velocity
    return float(np.mean((held_x @ weights - held_y) ** 2))


def assert_as_by_hand(probes):
    runs = list(zip(probes.learning_rates, probes.losses, probes.steps, strict=True))
    ran = [run for run in runs if np.isfinite(run[1])]
    assert len(ran) > 1
    for rate, loss, steps in ran:
        np.testing.assert_allclose(loss, loss_by_hand(rate, steps), rtol=1e-3)
    np.testing.assert_allclose(probes.start, loss_by_hand(0.0, 1), rtol=1e-5)


def test_each_run_starts_from_the_model_and_goes_on_from_its_own_state():
    model = linear()
    options = {"batch_size": ROWS, "validation_data": regression(1), "verbose": 0}
    test = lr_find(model, *regression(0), budget=350, **options)
    assert test.training_steps <= 350 and test.probes.rows == ROWS
    assert max(test.probes.steps) > min(test.probes.steps)  # some went on
    assert_as_by_hand(test.probes)
    before = list(test.probes.steps)
    assert test.continue_(40) is test
    assert sum(test.probes.steps) == sum(before) + 40
    assert_as_by_hand(test.probes)
    np.testing.assert_array_equal(
        model.layers[0].get_weights()[0], np.array([[0.1], [0.2], [0.3]], "float32")
    )


def test_a_test_that_cannot_continue_is_refused(tmp_path):
    model = linear()
    test = lr_find(model, *regression(0), verbose=0)
    test.save(tmp_path / "test.json")
    with pytest.raises(ValueError, match="Only a test of lr_find with short runs can continue"):
        keras_lr.RangeTest.load(tmp_path / "test.json").continue_(40)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    with pytest.raises(ValueError, match="compiled or built anew"):
        test.continue_(40)


class Trains(keras.Model):
    """A model that trains, and cannot be evaluated."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)

    def test_step(self, *arguments):
        raise NotImplementedError("not here")


class Forgets(Trains):
    """A model whose test step logs the loss without measuring it, as the default one of a GAN."""

    def test_step(self, *arguments):
        logs = self.get_metrics_result()
        return (logs, arguments[0]) if keras.backend.backend() == "jax" else logs


def test_a_loss_that_the_test_step_does_not_update_judges_nothing():
    model = Forgets()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    data = {"x": x, "y": x[:, :3].argmax(axis=1), "verbose": 0}
    test = lr_find(model, **data)
    assert test.probes is None and len(test.losses) > 30
    assert any("logs 'loss', but does not update" in note for note in test.suggest().warnings)
    with pytest.raises(ValueError, match="logs 'loss', but does not update that metric") as refused:
        lr_find(model, **data, validation_data=(x, data["y"]))
    assert "pass equal steps and budget" in str(refused.value)
    advised = lr_find(model, **data, steps=100, budget=100)
    assert not any("Define test_step" in note for note in advised.suggest().warnings)


@pytest.mark.parametrize("budget", [None, 100])
def test_a_model_that_cannot_be_evaluated_is_judged_by_its_curve(budget):
    model = Trains()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    test = lr_find(model, x, x[:, :3].argmax(axis=1), budget=budget, verbose=0)
    assert test.probes is None and len(test.losses) > 30
    found = test.suggest()
    assert found.learning_rate > 0
    assert any("could not be evaluated on held-out data" in note for note in found.warnings)


def test_the_reason_is_the_error_of_the_layer_and_not_the_frame_that_keras_puts_around_it():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Exception encountered when calling") as caught:
        network(np.ones((2, 3), "float32"))
    assert cause_of(caught.value).startswith("Input 0 ")


def test_the_planned_run_multiplies_the_rate():
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    model = classifier("adam")
    test = lr_find(model, x, x[:, :3].argmax(axis=1), batch_size=32, epochs=250, verbose=0)
    assert test.planned.total_steps == 250 * 8
    constant = test.suggest(policy="constant")
    longer = test.suggest(policy="constant", total_steps=4 * 250 * 8)
    # .2 decades less for 4 times as many updates at a constant rate. One-cycle has .3 more in 500
    # updates, and loses only .1 for 4 times as many: .4 more here.
    np.testing.assert_allclose(longer.learning_rate / constant.learning_rate, 10**-0.2, rtol=1e-5)
    peak = test.suggest(policy="one-cycle").learning_rate
    np.testing.assert_allclose(peak / constant.learning_rate, 10**0.4, rtol=1e-5)
    notes = test.suggest().warnings
    assert any("250 times" in note and "overfitting" in note for note in notes)


def test_a_policy_may_count_the_epochs_of_the_data():
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    halving = keras.callbacks.LearningRateScheduler(lambda epoch: 0.3 * 0.5**epoch)
    data = {"x": x, "y": x[:, :3].argmax(axis=1), "batch_size": 32, "budget": 10, "verbose": 0}
    test = lr_find(classifier("adam"), **data, policy=halving, epochs=4)
    at = (np.arange(1000) * 32) // 1000 // 8  # the epoch of 8 updates at each point of the shape
    np.testing.assert_allclose(test.planned.shape, 0.5**at, rtol=1e-5)
    longer = test._run(halving, 48)  # six epochs
    np.testing.assert_allclose(longer.shape[[0, -1]], [1.0, 0.5**5], rtol=1e-5)


@pytest.mark.parametrize("steps", [None, 12])
def test_an_update_may_take_more_batches_than_the_loop_trains_in_one_call(steps):
    model, (x, y) = linear(), regression(0, rows=320)
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=CHUNK + 2), "mse")
    options = {} if steps is None else {"steps": steps, "budget": steps}
    test = lr_find(model, x, y, batch_size=4, epochs=27, verbose=0, seed=0, **options)
    if steps is None:
        assert len(test.probes.losses) >= 2 and np.isfinite(test.probes.losses).any()
    else:
        assert 3 <= len(test.losses) <= steps and np.isfinite(test.losses).all()


def test_a_run_of_few_epochs_has_no_warning_of_overfitting():
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    test = lr_find(classifier("adam"), x, x[:, :3].argmax(axis=1), epochs=20, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not any("overfitting" in note for note in test.suggest().warnings)


def test_epochs_of_data_of_unknown_length_are_refused():
    def batches():
        while True:
            yield regression(0)

    with pytest.raises(ValueError, match=r"epochs=3 says nothing .* Pass total_steps\."):
        lr_find(linear(), batches(), epochs=3, verbose=0)
