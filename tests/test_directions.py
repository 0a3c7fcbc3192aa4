"""Whether a monitored metric should fall or rise: the compiled metric tells, under its log name."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lr
from keras_lr._keras.metrics import direction_of, should_rise

elsewhere = pytest.mark.long_elsewhere("the directions are read in Python")

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype("int32")
TARGETS = {"line": X.sum(axis=1, keepdims=True), "kind": CLASSES}
QUICK = {"steps": 10, "budget": 10, "verbose": 0}


def two_headed(**compile_options) -> keras.Model:
    """A regression and a classification, which have their metrics by the names of their outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    outputs = {
        "line": layers.Dense(1, name="line")(inputs),
        "kind": layers.Dense(2, activation="softmax", name="kind")(inputs),
    }
    model = keras.Model(inputs, outputs)
    metrics = {"line": ["mae", keras.metrics.R2Score()], "kind": ["accuracy", confidence]}
    model.compile(
        keras.optimizers.SGD(0.01),
        {"line": "mse", "kind": "sparse_categorical_crossentropy"},
        metrics=metrics,
        weighted_metrics={"kind": ["accuracy"]},
        **compile_options,
    )
    return model


def confidence(y_true, y_pred):
    return keras.ops.max(y_pred, axis=-1)


class Heads(keras.Model):
    """Two outputs without names: Keras numbers the names of the metrics."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(1), layers.Dense(1)

    def call(self, inputs):
        return self.first(inputs), self.second(inputs)


class Played(keras.callbacks.Callback):
    """Writes values to the logs of the epochs, in place of the metric."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def trained(model, *callbacks, epochs=1, targets=TARGETS, **options):
    options = {"batch_size": 16, "validation_data": (X, targets), "verbose": 0, **options}
    return model.fit(X, targets, epochs=epochs, callbacks=callbacks, **options)


@pytest.mark.parametrize(
    ("entry", "direction"),
    [
        ("val_kind_accuracy", "max"),
        ("kind_weighted_accuracy", "max"),
        ("val_line_mae", "min"),
        ("line_r2_score", "max"),
        ("val_kind_loss", "min"),
        ("val_loss", "min"),
    ],
)
def test_metrics_of_named_outputs_have_directions(entry, direction):
    model = two_headed()
    assert entry in trained(model).history
    assert direction_of(model, entry) == direction
    assert should_rise(model, entry.removeprefix("val_")) == (direction == "max")


def test_metrics_of_outputs_without_names_have_directions():
    model = Heads()
    model.compile("sgd", ["mse", "mse"], metrics=[["mae"], ["mae", "r2_score"]])
    history = model.fit(X, [TARGETS["line"], TARGETS["line"]], verbose=0).history
    entries = [name for name in history if "loss" not in name]
    assert len([name for name in entries if "mae" in name]) == 2
    for name in entries:
        assert direction_of(model, name) == ("max" if "r2" in name else "min")


def test_a_metric_without_a_direction_is_refused():
    model = two_headed()
    trained(model)
    with pytest.raises(ValueError, match="Pass mode='min' or mode='max'"):
        direction_of(model, "val_kind_confidence")
    assert not should_rise(model, "kind_confidence")


# Callbacks

RISES = [0.5, 0.6, 0.7, 0.7, 0.7]


@elsewhere
@pytest.mark.parametrize("entry", ["val_kind_accuracy", "kind_accuracy"])
def test_the_plateau_callback_knows_the_metric_of_an_output(entry):
    plateau = keras_lr.ReduceLROnPlateau(entry, 0.5, patience=2)
    trained(two_headed(), Played(entry, RISES), plateau, epochs=5)
    assert [event.epoch for event in plateau.events] == [4]


@elsewhere
def test_the_decay_begins_when_an_accuracy_stops_rising():
    policy = keras_lr.WarmUpStableDecay(
        0.01, decay_steps=2, monitor="val_kind_accuracy", patience=2
    )
    trained(two_headed(), Played("val_kind_accuracy", [*RISES, 0.7]), policy, epochs=6)
    assert policy.decay_begun_at == 5 * 4


@elsewhere
def test_a_range_test_runs_when_an_accuracy_stops_rising():
    rule = keras_lr.PlateauRule(monitor="val_kind_accuracy", patience=2)
    finder = keras_lr.LRFinder(every=rule, **QUICK)
    for _ in range(2):
        trained(two_headed(), Played("val_kind_accuracy", [*RISES, 0.7]), finder, epochs=6)
        assert [epoch for epoch, _ in finder.results] == [5]


@pytest.mark.once
def test_a_rule_without_a_model_takes_the_direction_of_the_name():
    for monitor, values in [("val_accuracy", RISES), ("val_loss", [-each for each in RISES])]:
        rule = keras_lr.PlateauRule(monitor=monitor, patience=2)
        assert [rule.observe(each).action for each in values] == ["none"] * 4 + ["reduce"]
    with pytest.raises(ValueError, match="whether 'score' should fall or rise.*Pass mode='min' or"):
        keras_lr.PlateauRule(monitor="score").observe(1.0)
    assert keras_lr.PlateauRule(monitor="score", mode="max").observe(1.0).improved


# Losses


def test_halving_refuses_a_metric_that_should_rise():
    halve = keras_lr.HalveOnDivergence(monitor="kind_accuracy", check_every=1)
    with pytest.raises(ValueError, match="monitors a loss; got 'kind_accuracy', which should rise"):
        trained(two_headed(), halve)
    trained(two_headed(), keras_lr.HalveOnDivergence(monitor="line_loss"))


def test_a_range_test_refuses_a_metric_that_should_rise_as_its_loss():
    model = two_headed()
    before = model.get_weights()
    for call in (
        lambda: keras_lr.lr_find(model, X, TARGETS, monitor="kind_accuracy", **QUICK),
        lambda: keras_lr.find_warmup(model, X, TARGETS, max_lr=0.01, monitor="kind_accuracy"),
    ):
        with pytest.raises(ValueError, match="monitor must be a loss; got 'kind_accuracy'"):
            call()
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    keras_lr.lr_find(model, X, TARGETS, monitor="line_loss", **QUICK)


def test_a_range_test_records_the_directions_of_the_metrics_of_outputs():
    test = keras_lr.lr_find(two_headed(), X, TARGETS, **QUICK)
    directions = test.provenance["directions"]
    assert directions["kind_accuracy"] == directions["line_r2_score"] == "max"
    assert directions["line_mae"] == "min"


@elsewhere
def test_a_search_maximizes_the_metric_of_an_output():
    found = keras_lr.search(
        two_headed, X, TARGETS, validation_data=(X, TARGETS), objective="val_kind_accuracy",
        low=1e-3, high=1e-1, epochs=1, fine_rounds=0, points=3, final_seeds=1, also=(), verbose=0,
    )  # fmt: skip
    assert found.maximize
