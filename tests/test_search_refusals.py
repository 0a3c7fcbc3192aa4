"""What a search cannot compare: models of several structures, and data that end."""

import itertools
import math
import re

import keras
import numpy as np
import pytest

import keras_lr
from keras_lr.rate_search.data import Data
from keras_lr.rate_search.jobs import Job, Setting
from keras_lr.rate_search.runner import Runner
from keras_lr.rate_search.split import held_out, part

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


LOSS = "sparse_categorical_crossentropy"


def classifier(
    units=8,
    optimizer="sgd",
    metrics=(),
    activation="relu",
    *,
    built=True,
    loss=LOSS,
    frozen=False,
):
    first = [keras.Input((6,))] if built else []
    hidden = [
        keras.layers.Dense(each, activation)
        for each in (units if isinstance(units, list) else [units])
    ]
    model = keras.Sequential([*first, *hidden, keras.layers.Dense(2, "softmax")])
    model.layers[0].trainable = not frozen
    model.compile(optimizer, loss, metrics=list(metrics))
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
        (
            [{}, {"optimizer": keras.optimizers.SGD(momentum=0.9)}],
            "has momentum=0.0 of the optimizer where another has momentum=0.9 of the optimizer",
        ),
        (
            [{}, {"loss": keras.losses.SparseCategoricalCrossentropy(reduction="sum")}],
            "has the loss sparse_categorical_crossentropy where another has the loss SparseC",
        ),
        ([{}, {"frozen": True}], "has nothing of the kind where another has a frozen layer Dense"),
    ],
)
def test_a_function_whose_models_change_their_structure_is_refused(changes, message):
    calls = itertools.chain(changes, itertools.repeat(changes[-1]))
    with pytest.raises(ValueError, match=re.escape(message)):
        keras_lr.search(lambda: classifier(**next(calls)), X, Y, **QUICK)


def test_models_of_a_function_may_differ_in_their_initializers_and_layers_of_one_shape():
    calls = itertools.cycle([{}, {"activation": "tanh"}])
    found = keras_lr.search(lambda: classifier(**next(calls)), X, Y, **QUICK)
    assert 1e-3 <= found.learning_rate <= 1e-1


def test_a_function_that_returns_one_model_searches_as_the_model_itself_does():
    model = classifier()
    model.compile(keras.optimizers.SGD(), LOSS)
    found = [keras_lr.search(each, X, Y, **QUICK) for each in (model, lambda: model)]
    assert found[0].rows()[0]["value"] == found[1].rows()[0]["value"]
    assert found[0].learning_rate == found[1].learning_rate


def test_a_function_that_returns_a_model_again_that_a_run_has_trained_is_refused():
    models = itertools.cycle([classifier(), classifier()])
    with pytest.raises(ValueError, match="must return a new model each time; it returned 'seq"):
        keras_lr.search(lambda: next(models), X, Y, **QUICK)


def test_models_that_share_an_optimizer_are_refused():
    shared = keras.optimizers.SGD()
    with pytest.raises(ValueError, match=r"two of them share one \(SGD\). Make the optimizer ins"):
        keras_lr.search(lambda: classifier(optimizer=shared), X, Y, **QUICK)


def test_models_that_share_layers_all_begin_with_their_first_weights():
    body = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu")])
    before = body.get_weights()

    def make():
        model = keras.Sequential([keras.Input((6,)), body, keras.layers.Dense(2, "softmax")])
        model.compile("sgd", LOSS)
        return model

    found = [keras_lr.search(make, X, Y, **QUICK).learning_rate for _ in range(2)]
    assert found[0] == found[1]
    for mine, theirs in zip(before, body.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_function_with_arguments_is_refused():
    with pytest.raises(TypeError, match="function without arguments; this one has a missing a req"):
        keras_lr.search(lambda units: classifier(units), X, Y, **QUICK)


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
        ({"x": X.tolist()}, "x must be an array, so that rows can be held out; got a list."),
        ({"y": Y.tolist()}, "y must be an array, so that rows can be held out; got a list."),
    ],
)
@pytest.mark.parametrize("held", [None, HELD])
def test_rows_that_do_not_belong_together_are_refused(change, message, held):
    if held and "held out" in message:
        pytest.skip("no rows are held out")
    with pytest.raises(ValueError, match=re.escape(message)):
        keras_lr.search(classifier(), **{"x": X, "y": Y, **change}, validation_data=held, **QUICK)


TEXT = np.array(["no", "yes"])[Y]
NAN = np.where(np.arange(96)[:, None] == 90, np.nan, X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": TEXT}, "y must hold numbers; it holds text. Encode it as numbers first"),
        ({"y": TEXT.astype(object)}, "y must hold numbers; it holds Python objects."),
        ({"x": X.astype(str)}, "x must hold numbers; it holds text."),
        ({"sample_weight": np.full(96, "1")}, "sample_weight must hold numbers; it holds text."),
        ({"validation_data": (X, TEXT)}, "y of validation_data must hold numbers; it holds text."),
        (
            {"validation_data": (X, Y[:90])},
            "x, y and sample_weight of validation_data must have the same number of rows; got x 96",
        ),
        ({"validation_data": (X[:0], Y[:0])}, "validation_data must have at least one row; got n"),
        ({"validation_data": X}, "validation_data must have targets, as the training data do;"),
        ({"validation_data": (X, Y, None, None)}, "or a data set; got 4 parts."),
        ({"validation_data": "abc"}, "x=abc (of type <class 'str'>). Check the data that it is "),
        ({"class_weight": "balanced"}, "class_weight must map each class, an integer, to its wei"),
        ({"class_weight": {"0": 2.0}}, "class_weight must map each class, an integer, to its wei"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer of at least 1; got 0."),
        ({"callbacks": []}, "callbacks must be a function that returns a list, so that each run"),
        ({"y": None}, "y must be given, because the model is compiled with a loss; got None."),
        ({"callbacks": lambda: [keras_lr.LRFinder()]}, "must leave the rate to the search; got LR"),
        (
            {"callbacks": keras.callbacks.TerminateOnNaN},
            "returns a list of Keras callbacks; it returned TerminateOnNaN. Let it return a list.",
        ),
    ],
)
def test_what_fit_cannot_read_is_refused_with_the_reason(change, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        keras_lr.search(classifier(), **{"x": X, "y": Y, **QUICK, **change})


@pytest.mark.parametrize(
    "callback",
    [
        lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.01),
        lambda: keras_lr.OneCycle(0.1, cycle_momentum=False),
    ],
)
@pytest.mark.parametrize("objective", ["val_loss", "loss"])
def test_a_callback_that_assigns_its_own_rate_leaves_nothing_to_compare(callback, objective):
    options = {**QUICK, "callbacks": lambda: [callback()], "objective": objective}
    with pytest.raises(keras_lr.NoSuggestion, match="at rates from 0.001 to 0.1 do not differ"):
        keras_lr.search(classifier(), X, Y, **options)


def test_a_callback_that_lowers_the_rate_of_a_run_is_searched_with():
    plateau = {"patience": 0, "min_delta": 10.0, "monitor": "loss"}
    options = {**QUICK, "epochs": 2}
    found = keras_lr.search(
        *(classifier(), X, Y),
        **options,
        callbacks=lambda: [keras.callbacks.ReduceLROnPlateau(**plateau)],
    )
    assert found.learning_rate > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_no_divergence(value):
    def odd(true, predicted):
        return keras.ops.mean(predicted) * value

    with pytest.raises(keras_lr.NoSuggestion, match="val_odd was not finite in any of the 3 runs"):
        keras_lr.search(classifier(metrics=[odd]), X, Y, **QUICK, objective="val_odd", mode="min")


def test_the_seeds_of_a_function_may_be_as_large_as_those_of_a_model():
    for model in (classifier(), classifier):
        found = keras_lr.search(model, X, Y, **{**QUICK, "final_seeds": 2, "seed": 2**32 - 1})
        assert found.answer.finished


def test_a_value_that_has_no_run_is_said():
    """With 960 rows a batch the rates would be 30 times as high, and above `high`."""
    options = {**QUICK, "also": {"batch_size": [32, 960]}}
    found = keras_lr.search(classifier(), X, Y, **options)
    assert any("max_runs left no room: batch size 960." in each for each in found.warnings)


def test_text_in_a_table_of_pandas_is_refused():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X).assign(text=TEXT)
    for call in (keras_lr.search, keras_lr.lr_find, keras_lr.find_warmup):
        with pytest.raises(ValueError, match="x must hold numbers; it holds Python objects"):
            call(classifier(), table, Y, verbose=0)


@pytest.mark.parametrize("call", [keras_lr.lr_find, keras_lr.find_warmup, keras_lr.noise_scale])
def test_text_and_wrong_weights_are_refused_by_all_that_train(call):
    with pytest.raises(ValueError, match="y must hold numbers; it holds text"):
        call(classifier(), X, TEXT)
    with pytest.raises(TypeError, match="class_weight must map each class, an integer, to its we"):
        call(classifier(), X, Y, class_weight="balanced")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": NAN}, "diverged. x has NaN in row 90, column 0: fill or drop such rows"),
        ({"x": NAN, "low": None, "high": None}, "x has NaN in row 90, column 0"),
        ({"validation_data": (NAN, Y)}, "In validation_data x has NaN in row 90, column 0: fill"),
    ],
)
def test_nan_in_the_data_is_said_with_the_row_that_the_user_has(change, message):
    given = {"x": X, "y": Y, **QUICK, "validation_split": 0.05, "batch_size": 96, **change}
    with pytest.raises((ValueError, keras_lr.NoSuggestion), match=re.escape(message)):
        keras_lr.search(classifier(activation="tanh"), **given)  # relu hides NaN on TensorFlow


def test_a_last_round_that_diverges_is_not_called_unfinished():
    kept, _ = held_out(Y, 96, 0.2, 0)
    bad = next(row for row in kept if row not in kept[part(Y[kept], len(kept), 0.2, 0)])
    x = np.where(np.arange(96)[:, None] == bad, np.nan, X)
    options = {**QUICK, "fraction": 0.2, "batch_size": 96}
    found = keras_lr.search(classifier(activation="tanh"), x, Y, **options)
    notes = " ".join(found.warnings)
    assert re.search(r"All \d+ runs of the fine 1 round diverged, on all data: this is the", notes)
    assert f"x has NaN in row {bad}, column 0" in notes and "not finished" not in notes


@pytest.mark.parametrize(
    ("given", "size", "fraction", "steps"),
    [(6, 16, 1.0, 6), (6, 16, 0.5, 3), (50, 16, 1.0, 6), (50, 16, 0.5, 3), (6, 32, 1.0, 3)],
)
def test_steps_per_epoch_are_those_that_the_share_of_the_rows_has(given, size, fraction, steps):
    data = Data(X, Y, None, HELD, {"shuffle": True, "steps_per_epoch": given})
    counts = Counts()
    with Runner.borrow(classifier(), data, "val_loss", 16, 0, lambda: [counts]) as runner:
        runner.run(Job("fine 1", Setting(0.01, None, size, policy="cosine"), 0, fraction, 2))
        assert runner.updates(16, 2) == 2 * min(given, 6)
    assert counts.params["steps"] == steps and counts.batches == 2 * steps


def test_an_epoch_of_a_data_set_is_no_longer_than_its_batches():
    data = Data(Batches(), None, None, HELD, {"shuffle": True, "steps_per_epoch": 50})
    counts = Counts()
    with Runner.borrow(classifier(), data, "val_loss", None, 0, lambda: [counts]) as runner:
        runner.run(Job("fine 1", Setting(0.01, policy="cosine"), 0, 1.0, 2))
    assert counts.params["steps"] == len(Batches()) and counts.batches == 2 * len(Batches())


class Counts(keras.callbacks.Callback):
    """Counts the batches of a run."""

    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


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
