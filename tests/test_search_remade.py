"""A search of a function: models that are alike train in one of them, which is compiled once."""

import keras
import numpy as np
import pytest

from keras_lr.rate_search.data import Data
from keras_lr.rate_search.jobs import Job, Setting
from keras_lr.rate_search.remade import Template, made
from keras_lr.rate_search.runner import Runner

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
# With a new model Keras on JAX draws an order of the rows before the first epoch, to build metrics.
DATA = Data(X[:48], Y[:48], None, (X[48:], Y[48:]), {"shuffle": False})
layers = keras.layers


def model_of(*inner, optimizer="adam", loss="sparse_categorical_crossentropy", **options):
    model = keras.Sequential([keras.Input((6,)), *inner, layers.Dense(2, "softmax")])
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def usual(noise=True):
    dropout = [layers.Dropout(0.5)] if noise else []
    return model_of(layers.Dense(8, "relu"), layers.BatchNormalization(), *dropout)


def quiet():
    """On torch dropout draws from the generator of all torch, also while Keras builds metrics."""
    return usual(noise=keras.backend.backend() != "torch")


def histories(make, settings):
    """The logs of runs with two seeds, a setting each, and with the first again."""
    jobs = [Job("fine 1", setting, seed, 1.0, 2) for seed, setting in enumerate(settings)]
    with Runner.borrow(make, DATA, "val_loss", 16, 0) as runner:
        return [runner.run(job).history for job in [*jobs, jobs[0]]]


@pytest.mark.parametrize("policy", ["constant", "one-cycle"])
def test_runs_in_one_model_are_those_of_new_models_bit_for_bit(policy, monkeypatch):
    settings = [Setting(rate, batch_size=16, policy=policy) for rate in (0.01, 0.02)]
    taken = []
    original = Template.take

    def take(self, model):
        taken.append(original(self, model))
        return taken[-1]

    monkeypatch.setattr(Template, "take", take)
    found = histories(quiet, settings)
    assert taken == [True] * 3
    monkeypatch.setattr(Template, "take", lambda self, model: False)
    assert found == histories(quiet, settings)
    assert found[0] == found[2] != found[1]


def test_a_function_is_compiled_once(monkeypatch):
    if keras.backend.backend() == "torch":
        pytest.skip("torch compiles nothing")
    traces = []
    original = keras.Model.compute_loss

    def compute_loss(self, *args, **kwargs):
        traces.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "compute_loss", compute_loss)
    with Runner.borrow(usual, DATA, "val_loss", 16, 0) as runner:
        counts = []
        for seed in range(3):
            runner.run(Job("fine 1", Setting(0.01, batch_size=16), seed, 1.0, 2))
            counts.append(len(traces))
    assert counts[0] > 0 and counts[1:] == [counts[0]] * 2


class Own(layers.Dense):
    """A layer of a program, which may hold anything."""


def deeper(seed=[0]):  # noqa: B006  counts the calls
    seed[0] += 1
    return model_of(*(layers.Dense(4) for _ in range(seed[0])))


def shifted():
    inputs = keras.Input((6,))
    outputs = layers.Dense(2, "softmax")(inputs + np.random.normal(size=6).astype("float32"))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def adapted():
    norm = layers.Normalization()
    norm.adapt(np.random.normal(size=(32, 6)))
    return model_of(norm)


def trained():
    model = model_of()
    model.fit(X, Y, verbose=0)
    return model


def with_loss():
    scale = float(np.random.uniform(0.5, 2.0))
    return model_of(
        loss=lambda y, p: scale * keras.ops.mean((p[:, 0] - keras.ops.cast(y, "float32")) ** 2)
    )


def with_rate():
    return model_of(optimizer=keras.optimizers.Adam(beta_1=float(np.random.uniform(0.5, 0.9))))


def test_a_run_is_the_same_whichever_came_before():
    settings = [Setting(rate, batch_size=16, policy="cosine") for rate in (0.01, 0.02)]
    jobs = [Job("fine 1", setting, seed, 1.0, 2) for seed, setting in enumerate(settings)]
    shuffled = Data(DATA.x, DATA.y, None, DATA.validation, {"shuffle": True})
    found = []
    for order in (jobs, jobs[::-1]):
        with Runner.borrow(usual, shuffled, "val_loss", 16, 0) as runner:
            found.append({job.key: runner.run(job).history for job in order})
    assert found[0] == found[1]


@pytest.mark.once
@pytest.mark.parametrize(
    "make",
    [
        *(deeper, shifted, adapted, trained, with_loss, with_rate),
        lambda: model_of(Own(4)),
        lambda: model_of(layers.Lambda(lambda x: 2 * x)),
    ],
    ids=["depth", "constant", "adapted", "trained", "loss", "optimizer", "own layer", "lambda"],
)
def test_models_that_may_differ_in_more_than_variables_are_trained_themselves(make):
    template = Template(made(make, 0))
    assert not template.take(made(make, 1))


def test_a_model_that_is_alike_gives_its_variables():
    first, second = made(usual, 0), made(usual, 1)
    assert not np.array_equal(first.get_weights()[0], second.get_weights()[0])
    assert Template(first).take(second)
    for mine, theirs in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine.value, theirs.value)))
