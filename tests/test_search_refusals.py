"""What a search cannot compare: models of several structures, and data that end."""

import itertools
import re

import keras
import numpy as np
import pytest

import keras_lr

pytestmark = pytest.mark.long_elsewhere(
    "a search trains by `fit`, which other tests steer on each backend"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
HELD = (X[64:], Y[64:])
QUICK = {
    **{"low": 1e-3, "high": 1e-1, "epochs": 1, "fine_rounds": 1, "points": 3},
    **{"final_seeds": 1, "also": (), "verbose": 0},
}


def classifier(units=8, optimizer="sgd", metrics=(), activation="relu", *, built=True):
    first = [keras.Input((6,))] if built else []
    hidden = [
        keras.layers.Dense(each, activation)
        for each in (units if isinstance(units, list) else [units])
    ]
    model = keras.Sequential([*first, *hidden, keras.layers.Dense(2, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


# Functions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {"units": 9}], "the first has kernel of shape (6, 8) where another has kernel of"),
        ([{}, {"units": [8, 8]}], "the first has kernel of shape (8, 2) where another has kernel"),
        (
            [{"units": [8, 2]}, {"units": [8]}],
            "of shape (2, 2) where another has no further weight",
        ),
        ([{}, {"optimizer": "adam"}], "has the optimizer SGD where another has the optimizer Adam"),
        ([{"built": False}, {"built": False, "units": 9}], "has kernel of shape (6, 8) where"),
    ],
)
def test_a_function_whose_models_change_their_structure_is_refused(changes, message):
    if "built" in changes[0] and keras.backend.backend() != "torch":
        pytest.skip("a model that its fit builds is compared on torch alone")
    calls = itertools.chain(changes, itertools.repeat(changes[-1]))
    with pytest.raises(ValueError, match=re.escape(message)):
        keras_lr.search(lambda: classifier(**next(calls)), X, Y, **QUICK)


def test_models_of_a_function_may_differ_in_their_initializers_and_layers_of_one_shape():
    calls = itertools.cycle([{}, {"activation": "tanh"}])
    found = keras_lr.search(lambda: classifier(**next(calls)), X, Y, **QUICK)
    assert 1e-3 <= found.learning_rate <= 1e-1


def test_a_model_without_the_objective_is_no_run_that_diverged():
    calls = itertools.chain([["accuracy"]], itertools.repeat([]))
    with pytest.raises(ValueError, match="objective must be in the logs of each run; got 'val_acc"):
        keras_lr.search(
            lambda: classifier(metrics=next(calls)), X, Y, **QUICK, objective="val_accuracy"
        )


def test_a_function_whose_model_is_not_compiled_is_refused():
    with pytest.raises(ValueError, match="must be compiled with an optimizer and a loss"):
        keras_lr.search(lambda: keras.Sequential([keras.layers.Dense(2)]), X, Y, **QUICK)


# Data


def batches(count=None):
    for place in itertools.count() if count is None else range(count):
        begin = 32 * (place % 2)
        yield X[begin : begin + 32], Y[begin : begin + 32]


def test_data_that_the_first_run_uses_up_are_refused():
    with pytest.raises(ValueError, match="x must be data that each run can read; got a generator"):
        keras_lr.search(classifier(), batches(2), validation_data=HELD, **QUICK)
    with pytest.raises(ValueError, match="validation_data must be data that each run can read"):
        keras_lr.search(classifier(), X, Y, validation_data=batches(2), **QUICK)


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, place):
        return X[:32], Y[:32]


def test_data_without_an_end_are_refused():
    made = [(Endless(), "Endless")]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        repeated = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).repeat()
        made.append((repeated, type(repeated).__name__))
    for endless, kind in made:
        with pytest.raises(ValueError, match=f"epochs of x must end; got a {kind} of endless"):
            keras_lr.search(classifier(), endless, validation_data=HELD, **QUICK)
        with pytest.raises(ValueError, match=f"validation_data must end; got a {kind} of endless"):
            keras_lr.search(classifier(), X, Y, validation_data=endless, **QUICK)


def test_a_data_set_without_an_end_is_searched():
    options = {"validation_data": HELD, "steps_per_epoch": 2, **QUICK}
    assert 1e-3 <= keras_lr.search(classifier(), Endless(), **options).learning_rate <= 1e-1


def test_a_generator_without_an_end_is_searched():
    found = keras_lr.search(
        classifier(), batches(), validation_data=HELD, steps_per_epoch=2, **QUICK
    )
    assert 1e-3 <= found.learning_rate <= 1e-1


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(("count", "done"), [(4, 0), (5, 1)])
def test_a_generator_that_ends_is_refused(count, done):
    done = done if keras.backend.backend() == "torch" else "[01]"  # others read ahead
    message = f"x must have 2 batches for each epoch of each run; it ended after {done}."
    with pytest.raises(ValueError, match=message):
        keras_lr.search(
            classifier(), batches(count), validation_data=HELD, steps_per_epoch=2, **QUICK
        )


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, place):
        return X[32 * place : 32 * place + 32], Y[32 * place : 32 * place + 32]

    def __next__(self):  # as the iterators of ImageDataGenerator have it
        return self[0]

    def __iter__(self):
        return self


def test_a_data_set_of_keras_that_is_an_iterator_too_is_searched():
    found = keras_lr.search(classifier(), Batches(), validation_data=HELD, **QUICK)
    assert 1e-3 <= found.learning_rate <= 1e-1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[:90]}, "must have the same number of rows; got x 96, y 90."),
        ({"sample_weight": np.ones(95)}, "got x 96, y 96, sample_weight 95."),
        ({"x": [X, X[:50]]}, "got x 50 and 96, y 96."),
        ({"x": X.tolist()}, "Rows can be held out from arrays only; np.asarray makes one of a"),
    ],
)
@pytest.mark.parametrize("held", [None, HELD])
def test_rows_that_do_not_belong_together_are_refused(change, message, held):
    if held and "np.asarray" in message:
        pytest.skip("no rows are held out")
    with pytest.raises(ValueError, match=re.escape(message)):
        keras_lr.search(classifier(), **{"x": X, "y": Y, **change}, validation_data=held, **QUICK)


# Arguments


@pytest.mark.parametrize(
    "optimizer",
    [
        keras_lr.optimizers.Prodigy(),
        keras_lr.optimizers.ScheduleFree(keras.optimizers.AdamW(1e-3)),
    ],
)
def test_a_beta_2_that_cannot_be_set_is_refused_before_training(optimizer):
    with pytest.raises(ValueError, match="needs an optimizer whose beta_2 may be set from outside"):
        keras_lr.search(classifier(optimizer=optimizer), X, Y, **{**QUICK, "also": "beta_2"})


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"study": ""}, ValueError, "study must be a name; got ''"),
        ({"study": None}, TypeError, "study must be a name; got None"),
        ({"storage": ""}, ValueError, "storage must name a file or a database; got ''"),
        ({"storage": "journal:"}, ValueError, "storage must name a file or a database; got 'jou"),
        ({"storage": 3}, TypeError, "storage must be a path, a URL, journal:PATH or an Optuna st"),
    ],
)
def test_the_place_of_a_record_is_checked_first(change, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        keras_lr.search(None, X, Y, **QUICK, **change)
