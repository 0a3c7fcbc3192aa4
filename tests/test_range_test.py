"""The range test itself: what it records, on which models and data, and where it stops."""

import json
import warnings

import keras
import numpy as np
import pytest
from models import classifier, data, same, values

import keras_lr
from keras_lr import lr_find
from keras_lr.range_test.stopping import first_divergence

by_python = pytest.mark.long_elsewhere("how data end and repeat is decided in Python")
with_short_runs = pytest.mark.long_elsewhere(
    "a whole test with short runs, which test_short_runs.py has on each backend"
)

by_numpy = pytest.mark.long_elsewhere("computed with NumPy from the record")

BACKEND = keras.backend.backend()
layers, ops = keras.layers, keras.ops


def by_hand(model, batches, rates, **weights):
    """What `train_on_batch` reports when the rate is set before each batch."""
    logs = []
    for batch, rate in zip(batches, rates, strict=True):
        model.optimizer.learning_rate = float(rate)
        model.reset_metrics()  # older versions of Keras average over the batches so far
        logs.append(model.train_on_batch(*batch, **weights, return_dict=True))
    return {name: np.array([float(log[name]) for log in logs]) for name in logs[0]}


def batches_of(arrays, size, count):
    """`count` batches in order, starting again at the end, the last of an epoch smaller."""
    rows = len(arrays[0])
    starts = list(range(0, rows, size))
    return [
        tuple(a[starts[i % len(starts)] : starts[i % len(starts)] + size] for a in arrays)
        for i in range(count)
    ]


def assert_records_what_train_on_batch_reports(make, arrays=None, batch_size=20, **options):
    """20 does not divide 96: the last batch of an epoch is smaller, and the epoch repeats."""
    arrays = arrays or data()
    test = lr_find(
        make(), *arrays, batch_size=batch_size, shuffle=False, steps=30, start_lr=1e-4,
        end_lr=1.0, stop_factor=None, verbose=0, **options
    )  # fmt: skip
    rates = 1e-4 * 1e4 ** (np.arange(30) / 29)
    expected = by_hand(make(), batches_of(arrays, batch_size, 30), rates, **options)
    np.testing.assert_allclose(test.learning_rates, rates, rtol=1e-12)
    np.testing.assert_allclose(test.losses, expected.pop("loss"), rtol=2e-5)
    assert test.metrics.keys() == expected.keys()
    for name, recorded in test.metrics.items():
        np.testing.assert_allclose(recorded, expected[name], rtol=2e-5)
    return test


def plain(**options):
    return classifier(keras.optimizers.SGD(0.01, momentum=0.9), dropout=0.0, **options)


def test_losses_and_metrics_are_the_true_ones_of_each_batch():
    test = assert_records_what_train_on_batch_reports(plain)
    assert test.losses.dtype == np.float64
    assert test.stop_reason == "completed"
    assert 30 < test.training_steps <= 30 + 150


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"jit_compile": False}])
def test_losses_are_true_with_and_without_jit(options):
    if BACKEND == "torch" and options["jit_compile"]:
        pytest.skip("torch.compile needs a C++ tool chain and minutes; it is run by hand")
    assert_records_what_train_on_batch_reports(lambda: plain(**options))


@pytest.mark.long_elsewhere("every operation alone, without the compiled step that is steered")
def test_losses_are_true_when_the_model_runs_eagerly():
    assert_records_what_train_on_batch_reports(lambda: plain(run_eagerly=True))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch takes one step an execution")
def test_losses_are_true_with_several_steps_an_execution():
    assert_records_what_train_on_batch_reports(lambda: plain(steps_per_execution=4))


def test_class_weights_count_as_in_fit():
    weights = {0: 1.0, 1: 5.0, 2: 0.1}
    test = assert_records_what_train_on_batch_reports(plain, class_weight=weights)
    assert not np.allclose(
        test.losses[0], assert_records_what_train_on_batch_reports(plain).losses[0]
    )


def two_headed():
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((2,), name="right")
    joined = layers.Concatenate()([layers.Dense(4, activation="tanh")(left), right])
    outputs = {"kind": layers.Dense(3)(joined), "size": layers.Dense(1)(joined)}
    model = keras.Model({"left": left, "right": right}, outputs)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.01),
        loss={"kind": crossentropy, "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.3},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    return model


def test_several_inputs_and_outputs_with_sample_weights():
    x, y = data()
    inputs = {"left": x, "right": x[:, :2]}
    targets = {"kind": y, "size": x[:, :1]}
    weights = {"kind": np.linspace(0.1, 2.0, len(y)), "size": np.ones(len(y))}
    rates = np.geomspace(1e-4, 0.1, 6)
    test = lr_find(
        two_headed(), inputs, targets, sample_weight=weights, batch_size=16, shuffle=False,
        steps=6, start_lr=1e-4, end_lr=0.1, verbose=0,
    )  # fmt: skip
    twin = two_headed()
    for i, rate in enumerate(rates):
        rows = slice(16 * i, 16 * i + 16)
        part = [{k: v[rows] for k, v in whole.items()} for whole in (inputs, targets, weights)]
        twin.optimizer.learning_rate = float(rate)
        twin.reset_metrics()
        logs = twin.train_on_batch(*part, return_dict=True)
        np.testing.assert_allclose(test.losses[i], float(logs.pop("loss")), rtol=2e-5)
        assert set(test.metrics) == set(logs)
        for name, value in logs.items():
            np.testing.assert_allclose(test.metrics[name][i], float(value), rtol=2e-5)


class OwnStep(keras.Model):
    """A train step that adds a penalty to the loss and returns it as a bare number."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)

    if BACKEND == "jax":

        def train_step(self, state, batch):
            logs, state = super().train_step(state, batch)
            return {"loss": logs["loss"] * 2.0, "twice": logs["loss"] * 4.0}, state
    else:

        def train_step(self, batch):
            logs = super().train_step(batch)
            return {"loss": logs["loss"] * 2.0, "twice": logs["loss"] * 4.0}


def test_subclassed_model_that_was_never_called_with_its_own_train_step():
    def make():
        keras.utils.set_random_seed(0)
        model = OwnStep()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    test = assert_records_what_train_on_batch_reports(make)
    np.testing.assert_allclose(test.metrics["twice"], 2.0 * test.losses, rtol=1e-6)


def test_a_train_step_without_a_loss_is_refused_with_its_names():
    class Silent(keras.Sequential):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            return ({"other": 1.0}, result[1]) if BACKEND == "jax" else {"other": 1.0}

    model = Silent([keras.Input((6,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match="logs no scalar 'loss'; it logs other. Pass monitor='other'"
    ):
        lr_find(model, data()[0], np.zeros((96, 3)), verbose=0)


def test_gradient_accumulation_makes_one_step_of_several_batches():
    x, y = data()

    def make():
        return plain_sgd(gradient_accumulation_steps=2)

    def plain_sgd(**options):
        return classifier(keras.optimizers.SGD(0.01, **options), dropout=0.0)

    rates = np.geomspace(1e-2, 1.0, 9)
    test = lr_find(
        make(), x, y, batch_size=16, shuffle=False, steps=9, start_lr=1e-2, end_lr=1.0,
        stop_factor=None, budget=9, verbose=0,
    )  # fmt: skip
    expected = by_hand(make(), batches_of((x, y), 16, 18), np.repeat(rates, 2))["loss"]
    np.testing.assert_allclose(test.losses, expected.reshape(9, 2).mean(axis=1), rtol=2e-5)
    assert test.training_steps == 9


def test_accumulation_that_stands_between_two_updates_ends_that_update_first():
    x, y = data()
    model = classifier(keras.optimizers.SGD(0.01, gradient_accumulation_steps=4), dropout=0.0)
    for _ in range(3):
        model.train_on_batch(x[:16], y[:16])
    twin = classifier(keras.optimizers.SGD(0.01, gradient_accumulation_steps=4), dropout=0.0)
    for _ in range(3):
        twin.train_on_batch(x[:16], y[:16])
    test = lr_find(
        model, x, y, batch_size=16, shuffle=False, steps=3, start_lr=1e-2, end_lr=1.0,
        stop_factor=None, verbose=0,
    )  # fmt: skip
    rates = np.repeat([1e-2, 1e-1, 1.0], [1, 4, 4])
    losses = by_hand(twin, batches_of((x, y), 16, 9), rates)["loss"]
    expected = [losses[0], losses[1:5].mean(), losses[5:].mean()]
    np.testing.assert_allclose(test.losses, expected, rtol=2e-5)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="needs Keras 3.15")
def test_groups_of_a_multi_optimizer_keep_their_ratios():
    x, y = data()
    fast, slow = keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.05)

    def make(fast, slow):
        groups = keras.optimizers.OptimizerMap(fast, {"dense.*": slow})
        model = classifier(keras.optimizers.MultiOptimizer(groups), dropout=0.0)
        return model

    model = make(fast, slow)
    test = lr_find(
        model, x, y, batch_size=16, shuffle=False, steps=6, start_lr=1e-2, end_lr=1.0,
        stop_factor=None, verbose=0,
    )  # fmt: skip
    fast, slow = keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.05)
    twin = make(fast, slow)
    for i, rate in enumerate(np.geomspace(1e-2, 1.0, 6)):
        fast.learning_rate, slow.learning_rate = float(rate), float(rate / 10)
        twin.reset_metrics()
        loss = twin.train_on_batch(x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16])[0]
        np.testing.assert_allclose(test.losses[i], float(loss), rtol=2e-5)
    assert sorted(test.provenance["group_ratios"]) == pytest.approx([0.1, 1.0])


def test_mixed_precision_with_its_loss_scale():
    def make():
        keras.utils.set_random_seed(0)
        policy = "mixed_float16"
        model = keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(8, activation="relu", dtype=policy),
                layers.Dense(3, activation="softmax", dtype="float32"),
            ]
        )
        model.compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)),
            "sparse_categorical_crossentropy",
        )
        return model

    test = assert_records_what_train_on_batch_reports(make, batch_size=16)
    assert test.losses[-1] < test.losses[0]


# Data ---------------------------------------------------------------------------------------


def batch_generator(count=None):
    x, y = data()
    i = 0
    while count is None or i < count:
        start = 16 * (i % 6)
        yield x[start : start + 16], y[start : start + 16]
        i += 1


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        x, y = data()
        return x[16 * index : 16 * index + 16], y[16 * index : 16 * index + 16]


def tf_dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data()).batch(16)


def torch_loader():
    import torch

    x, y = data()
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=16
    )


@pytest.mark.parametrize("source", [batch_generator, Batches, tf_dataset, torch_loader])
@by_python
def test_every_kind_of_data_gives_the_losses_that_arrays_give(source):
    options = {"steps": 14, "start_lr": 1e-3, "end_lr": 1.0, "verbose": 0, "shuffle": False}
    x, y = data()
    expected = lr_find(plain(), x, y, batch_size=16, **options).losses
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        losses = lr_find(plain(), source(), **options).losses
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 9, 30])
@by_python
def test_a_generator_that_ends_early_ends_the_test(count):
    ramp = {"start_lr": 1e-7, "end_lr": 10.0, "steps": 100}
    test = lr_find(plain(), batch_generator(count), **ramp, stop_factor=None, verbose=0)
    assert test.stop_reason == "data_ended"
    assert len(test.losses) == count
    np.testing.assert_allclose(test.learning_rates, np.geomspace(1e-7, 10, 100)[:count])


@by_python
def test_a_generator_goes_on_from_repeat_to_repeat():
    test = lr_find(plain(), batch_generator(25), steps=10, repeats=4, verbose=0)
    assert test.losses.shape == (3, 10)
    assert np.isfinite(test.losses).sum(axis=1).tolist() == [10, 10, 5]
    assert test.stop_reason == "data_ended"
    test = lr_find(plain(), batch_generator(20), steps=10, repeats=4, verbose=0)
    assert test.losses.shape == (2, 10)
    assert test.stop_reason == "data_ended"


@by_python
def test_shuffled_data_has_its_order_from_the_seed():
    x, y = data()
    options = {"batch_size": 16, "steps": 20, "verbose": 0}
    first = lr_find(plain(), x, y, seed=1, **options)
    again = lr_find(plain(), x, y, seed=1, **options)
    other = lr_find(plain(), x, y, seed=2, **options)
    assert same([first.losses], [again.losses])
    assert not np.allclose(first.losses, other.losses)


@by_python
def test_repeats_start_from_the_same_weights_on_other_batches():
    x, y = data()
    test = lr_find(plain(), x, y, batch_size=96, steps=10, repeats=3, verbose=0)
    assert test.losses.shape == test.metrics["accuracy"].shape == (3, 10)
    # The whole data are one batch, and every repeat begins with the weights of the model.
    np.testing.assert_allclose(test.losses, test.losses[:1] * np.ones((3, 1)), rtol=1e-3)
    test = lr_find(plain(), x, y, batch_size=16, steps=10, repeats=2, seed=0, verbose=0)
    assert not np.allclose(test.losses[0], test.losses[1])


# Validation ---------------------------------------------------------------------------------


def test_validation_loss_is_that_of_evaluate_on_the_sample():
    x, y = data()
    held = data(seed=1)
    model = plain()
    expected = model.evaluate(*held, verbose=0, return_dict=True)
    test = lr_find(
        model, x, y, steps=8, start_lr=1e-12, end_lr=1e-11, validation_data=held,
        validation_every=3, batch_size=16, verbose=0,
    )  # fmt: skip
    rates = np.geomspace(1e-12, 1e-11, 8)
    np.testing.assert_allclose(test.validation["learning_rates"], rates[[2, 5, 7]])
    # Rates this small leave the weights; batch normalisation still moves its statistics.
    assert test.validation.keys() == {"learning_rates", "loss", "accuracy"}
    np.testing.assert_allclose(test.validation["loss"], expected["loss"], rtol=0.2)


@by_python
def test_validation_sample_is_spread_over_the_rows_and_does_not_train():
    x, y = data()
    held = (x[:40], np.sort(y[:40]))
    quiet = lr_find(plain(), x, y, steps=12, shuffle=False, verbose=0)
    watched = lr_find(
        plain(), x, y, steps=12, shuffle=False, validation_data=held, validation_samples=9,
        validation_every=1, verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(watched.losses, quiet.losses, rtol=1e-6)
    assert len(watched.validation["loss"]) == 12


def linear():
    """Loss w.x with w = 1: what a batch weighs is the mean of its rows."""
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(keras.optimizers.SGD(0.1), loss=lambda y, p: ops.mean(p) + 0.0 * ops.mean(y))
    return model


@by_numpy
def test_validation_rows_are_evenly_spaced():
    x = np.arange(10, dtype="float32")[:, None]
    test = lr_find(
        linear(), np.zeros((8, 1)), np.zeros((8, 1)), steps=3, validation_data=(x, x),
        validation_samples=4, validation_every=1, verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(test.validation["loss"], np.mean([0, 3, 6, 9]))


# Stopping -----------------------------------------------------------------------------------


@by_python
def test_losses_below_zero_run_on_while_they_fall_and_stop_when_they_climb():
    # SGD on the loss w * 1 takes w to 1 - sum of the rates: below zero, ever faster.
    ones = np.ones((32, 1), "float32")
    test = lr_find(linear(), ones, ones, steps=40, start_lr=1e-3, end_lr=10.0, verbose=0)
    rates = np.geomspace(1e-3, 10.0, 40)
    np.testing.assert_allclose(test.losses, 1.0 - np.append(0, np.cumsum(rates)[:-1]), rtol=1e-4)
    assert test.stop_reason == "completed"


def test_a_diverging_run_is_stopped_and_says_so():
    x, y = data()
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    test = lr_find(model, x, y, verbose=0)
    assert test.stop_reason == "diverged"
    assert len(test.losses) < 100
    assert first_divergence(test.losses, 4.0) == len(test.losses) - 1
    assert np.all(np.isfinite(test.losses))


@by_python
def test_without_a_stop_factor_only_a_loss_that_is_not_finite_stops():
    x, y = data()
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    test = lr_find(model, x, y, end_lr=1e6, steps=200, stop_factor=None, verbose=0)
    assert test.stop_reason == "non_finite"
    assert 50 < len(test.losses) < 200
    assert np.all(np.isfinite(test.losses))


def curve(*pieces):
    return np.concatenate([np.linspace(a, b, n) for a, b, n in pieces])


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        (curve((2.3, 2.3, 50)), False),
        (curve((2.3, 0.5, 50), (0.5, 60.0, 30)), True),
        (curve((2.3, 1e-6, 50), (1e-6, 1e-3, 30)), False),  # 1000 times almost nothing
        (curve((2.3, 1e-6, 50), (1e-6, 60.0, 30)), True),
        (curve((5.0, -100.0, 50), (-100.0, -90.0, 30)), False),  # 4 * best would be -400
        (curve((5.0, -100.0, 50), (-100.0, 2000.0, 30)), True),
        (curve((-3.0, -3.0, 50), (-3.0, 50.0, 30)), True),
        (0.01 * np.sin(np.arange(100.0)), False),  # noise around zero
        (np.append(0.01 * np.sin(np.arange(100.0)), np.linspace(0, 5, 30)), True),
        (np.zeros(40), False),
    ],
)
@by_numpy
def test_stop_rule_holds_for_losses_of_any_sign_and_scale(losses, stops):
    assert (first_divergence(losses, 4.0) is not None) == stops
    assert (first_divergence(1e-9 * losses, 4.0) is not None) == stops


@by_numpy
def test_stop_rule_is_stop_factor_times_best_for_a_loss_that_never_fell():
    # Average a_i of a constant 1 followed by a jump to 31: 1 + 30 * (1 - .9^k) / (1 - .9^(50 + k)).
    losses = np.append(np.ones(50), np.full(5, 31.0))
    average = [1 + 30 * (1 - 0.9**k) / (1 - 0.9 ** (50 + k)) for k in range(1, 6)]
    first = next(i for i, value in enumerate(average) if value > 5.0)
    assert first_divergence(losses, 5.0) == 50 + first


# Results ------------------------------------------------------------------------------------


@by_numpy
def test_saved_test_loads_with_the_same_numbers(tmp_path):
    x, y = data()
    test = lr_find(plain(), x, y, repeats=2, steps=12, validation_data=(x, y), verbose=0)
    test.losses[1, 9:] = np.nan
    test.save(tmp_path / "test.json")
    loaded = keras_lr.RangeTest.load(tmp_path / "test.json")
    for name in ("learning_rates", "losses"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(test, name))
    for group in ("metrics", "validation"):
        ours, theirs = getattr(test, group), getattr(loaded, group)
        assert ours.keys() == theirs.keys()
        assert same(ours.values(), theirs.values())
    assert loaded.provenance == json.loads(json.dumps(test.provenance))
    assert (loaded.stop_reason, loaded.training_steps) == (test.stop_reason, test.training_steps)
    assert loaded.provenance["versions"]["keras"] == keras.__version__
    assert loaded.provenance["options"]["steps"] == 12


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"format": "keras-lr range test"}', "\x00\x01", "1" * 99]
)
@by_numpy
def test_a_file_that_is_no_test_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="other.json is not a range test"):
        keras_lr.RangeTest.load(path)


@by_numpy
def test_a_test_of_a_later_version_is_refused_with_both_versions(tmp_path):
    path = tmp_path / "later.json"
    keras_lr.RangeTest([1e-3, 1e-2], [1.0, 2.0]).save(path)
    path.write_text(path.read_text().replace('"version": 2', '"version": 7'))
    with pytest.raises(ValueError, match="format 7, this one reads up to 2"):
        keras_lr.RangeTest.load(path)


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        ([1e-3, 1e-2], [1.0], r"2 steps like learning_rates; got \(1,\)"),
        ([[1e-3]], [[1.0]], r"shape \(steps,\); got an array of shape \(1, 1\)"),
        ([1e-2, 1e-3], [1.0, 1.0], "increasing"),
        ([0.0, 1e-3], [1.0, 1.0], "above 0"),
        ([np.nan, 1e-3], [1.0, 1.0], "finite"),
    ],
)
@by_numpy
def test_a_curve_of_the_wrong_form_is_refused(rates, losses, message):
    with pytest.raises(ValueError, match=message):
        keras_lr.RangeTest(rates, losses)


def test_a_suggestion_that_is_less_sure_warns():
    rates = np.geomspace(1e-7, 10, 100)
    noise = 0.01 * np.random.default_rng(0).normal(size=100)
    falls_to_its_end = keras_lr.RangeTest(rates, 2 - np.tanh(np.linspace(-4, 2, 100)) + noise)
    with pytest.warns(keras_lr.SuggestionWarning) as caught:
        found = falls_to_its_end.suggest()
    assert tuple(str(warning.message) for warning in caught) == found.warnings
    assert "raise end_lr" in found.warnings[0]
    assert found.high == rates[-1]


# Arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_lr": 0.0}, r"start_lr must be above 0; got 0.0\."),
        ({"end_lr": float("nan")}, r"end_lr must be a finite number above 0; got nan\."),
        ({"end_lr": "high"}, r"end_lr must be a finite number above 0; got 'high'\."),
        ({"start_lr": 0.3, "end_lr": 0.2}, r"start_lr=0.3 and end_lr=0.2\."),
        ({"steps": 2}, r"steps must be an integer of at least 3; got 2\."),
        ({"steps": 10.5}, r"steps must be an integer of at least 3; got 10.5\."),
        ({"steps": True}, r"steps must be an integer of at least 3; got True\."),
        ({"ramp": "cubic"}, r"ramp must be 'exponential' or 'linear'; got 'cubic'\."),
        ({"repeats": 0}, r"repeats must be an integer of at least 1; got 0\."),
        ({"stop_factor": 1.0}, r"above 1; got 1.0\. Pass None"),
        ({"confirm": "yes"}, r"confirm must be True or False; got 'yes'\."),
        ({"validation_every": 0}, r"validation_every must be an integer of at least 1; got 0\."),
        ({"validation_samples": 0}, "validation_samples must be an integer of at least 1; got 0"),
        ({"seed": -1}, r"seed must be an integer of at least 0; got -1\."),
        ({"verbose": 3}, r"verbose must be 'auto', 0 or 1; got 3\."),
    ],
)
@by_numpy
def test_bad_arguments_are_refused_before_anything_runs(options, message):
    refusal = pytest.raises((TypeError, ValueError), match=message)
    with refusal:
        lr_find(None, **options)
    with refusal:
        keras_lr.LRFinder(**options)


def test_what_is_no_compiled_model_is_refused():
    with pytest.raises(TypeError, match="must be a Keras model; got str"):
        lr_find("model.keras", *data())
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="bare")
    with pytest.raises(ValueError, match="'bare' must be compiled"):
        lr_find(model, *data())
    with pytest.raises(ValueError, match="needs data; got x=None"):
        lr_find(plain())


@by_python
def test_linear_ramp_is_evenly_spaced():
    test = lr_find(
        plain(), *data(), start_lr=0.001, end_lr=0.009, steps=5, ramp="linear", verbose=0
    )
    np.testing.assert_allclose(test.learning_rates, [0.001, 0.003, 0.005, 0.007, 0.009])


@by_python
def test_progress_goes_to_stderr_and_only_when_asked_for(capfd):
    lr_find(plain(), *data(), steps=5, verbose=0)
    lr_find(plain(), *data(), steps=5)  # not a terminal
    assert "Range test" not in "".join(capfd.readouterr())
    lr_find(plain(), *data(), steps=5, verbose=1)
    printed = capfd.readouterr()
    assert printed.out == ""


# The callback -------------------------------------------------------------------------------


def test_callback_records_what_lr_find_records():
    x, y = data()
    options = {"steps": 6, "start_lr": 1e-3, "end_lr": 1.0}
    expected = lr_find(plain(), x, y, batch_size=16, shuffle=False, verbose=0, **options)
    finder = keras_lr.LRFinder(**options)
    plain().fit(x, y, batch_size=16, shuffle=False, epochs=3, callbacks=[finder], verbose=0)
    np.testing.assert_allclose(finder.result.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(finder.result.learning_rates, expected.learning_rates)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_callback_repeats_an_epoch_that_is_shorter_than_the_ramp(steps_per_execution):
    if BACKEND == "torch" and steps_per_execution > 1:
        pytest.skip("Keras on torch takes one step an execution")
    x, y = data()
    finder = keras_lr.LRFinder(steps=20, stop_factor=None)
    model = plain(steps_per_execution=steps_per_execution)
    model.fit(x, y, batch_size=16, callbacks=[finder], verbose=0)
    assert len(finder.result.losses) == 20


@pytest.mark.parametrize("use_ema", [False, True])
def test_callback_leaves_the_model_as_it_was_and_the_next_fit_trains(use_ema):
    x, y = data()
    model = classifier(keras.optimizers.Adam(0.01, use_ema=use_ema))
    before = values(model.variables)
    finder = keras_lr.LRFinder(steps=10)
    model.fit(x, y, batch_size=16, epochs=5, callbacks=[finder], verbose=0)
    assert same(values(model.variables), before)
    assert finder.result is not None
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert not same(values(model.variables), before)


def test_a_fit_that_is_broken_off_while_the_callback_collects_hurts_no_later_fit():
    x, y = data()
    model, twin = classifier(dropout=0.0), classifier(dropout=0.0)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=16, callbacks=[keras_lr.LRFinder(), Stop()], verbose=0)
    for each in (model, twin):
        keras.utils.set_random_seed(1)
        each.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    assert same(values(model.variables), values(twin.variables))


@pytest.mark.parametrize(
    ("optimizer", "usual"),
    [(lambda: keras.optimizers.SGD(0.01), -1.0), (lambda: keras.optimizers.Adam(), -2.25)],
    ids=["SGD", "Adam"],
)
@by_numpy
def test_the_ramp_lies_around_the_usual_rate_of_the_family(optimizer, usual):
    test = lr_find(
        classifier(optimizer(), dropout=0.0), *data(), stop_factor=None, budget=200, verbose=0
    )
    ends = test.learning_rates[[0, -1]]
    np.testing.assert_allclose(ends, [10 ** (usual - 2.5), 10 ** (usual + 1.5)], rtol=1e-5)
    assert len(test.learning_rates) == 50


def test_the_ramp_of_an_unknown_family_covers_eight_decades():
    test = lr_find(
        classifier(keras.optimizers.Adagrad(), dropout=0.0), *data(), stop_factor=None, verbose=0
    )
    np.testing.assert_allclose(test.learning_rates[[0, -1]], [1e-7, 10.0], rtol=1e-5)


# Short runs ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
@pytest.mark.parametrize("held_out", [False, True], ids=["own hold-out", "validation data"])
@pytest.mark.parametrize("budget", [100, 500])
@with_short_runs
def test_the_test_stays_within_its_budget_and_answers(held_out, budget):
    x, y = data()
    options = {"validation_data": data(seed=1)} if held_out else {}
    test = lr_find(classifier("adam"), x, y, budget=budget, seed=0, verbose=0, **options)
    assert test.probes is not None
    assert 100 <= test.training_steps <= budget
    assert len(test.probes.learning_rates) == len(test.probes.losses)
    suggestion = test.suggest()
    assert suggestion.low <= suggestion.learning_rate <= suggestion.high


@by_python
def test_a_generator_that_ends_keeps_the_curve_and_warns():
    test = lr_find(classifier("adam"), batch_generator(110), steps=100, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", keras_lr.SuggestionWarning)
        test.suggest()
    told = [str(each.message) for each in caught]
    assert any("The data ended before the short runs" in each for each in told), told
    assert test.probes is None
    assert len(test.losses) > 30


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
@with_short_runs
def test_short_runs_and_the_planned_run_survive_a_round_trip(tmp_path):
    test = lr_find(
        classifier("adam"), *data(), policy="one-cycle", total_steps=9000, seed=0, verbose=0
    )
    test.save(tmp_path / "test.json")
    loaded = keras_lr.RangeTest.load(tmp_path / "test.json")
    assert loaded.suggest() == test.suggest()
    assert loaded.suggest(policy="constant") == test.suggest(policy="constant")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse inputs on torch")
def test_sparse_matrices_give_the_losses_of_dense_ones():
    sparse = pytest.importorskip("scipy.sparse")
    x, y = data()
    x = np.where(x > 0.5, x, 0.0).astype("float32")

    def model(**options):
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input((6,), **options), layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.SGD(0.01), loss)
        return network

    test = lr_find(
        model(sparse=True), sparse.csr_matrix(x), y, batch_size=16, shuffle=False, steps=9,
        start_lr=1e-2, end_lr=1.0, stop_factor=None, budget=9, verbose=0,
    )  # fmt: skip
    expected = by_hand(model(), batches_of((x, y), 16, 9), np.geomspace(1e-2, 1.0, 9))["loss"]
    np.testing.assert_allclose(test.losses, expected, rtol=1e-4)
