"""`keras_lr.search`: runs that equal a plain fit, and a model that comes back as it was."""

import inspect
import math
import sys

import keras
import numpy as np
import pytest
from models import multi_optimizer, saturated

import keras_lr
from keras_lr._keras import distribution
from keras_lr._keras.random_state import seed_everything
from keras_lr.rate_search.data import Data
from keras_lr.rate_search.options import Options, usual_sizes
from keras_lr.rate_search.plan import Job, Setting
from keras_lr.rate_search.policies import python_for
from keras_lr.rate_search.runner import Runner
from keras_lr.rate_search.split import held_out, part

pytestmark = pytest.mark.long_elsewhere(
    "a search trains by `fit`, which other tests steer on each backend"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype("int32")
DEFAULTS = {
    name: each.default for name, each in inspect.signature(keras_lr.search).parameters.items()
}
QUICK = {"epochs": 2, "fine_rounds": 1, "points": 3, "final_seeds": 1, "also": (), "verbose": 0}


def classifier(optimizer="sgd", dropout=0.0, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def slope(momentum=0.0):
    """One weight that begins at 1 and should be 0; its loss is the square of it.

    A step of SGD multiplies it by 1 - 2 * rate, so 0.5 is best, and from 1 on it diverges.
    """
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=momentum), "mse")
    return model


def fitted(model, rows, judged, *, seed, epochs=2, callbacks=()):
    """The logs of a plain fit.

    The model is built before it: a first fit draws a batch to look at, and so another order.
    """
    model.optimizer.build(model.trainable_variables)
    model.evaluate(X[:16], Y[:16], batch_size=16, verbose=0)
    seed_everything(seed)
    return model.fit(
        X[rows],
        Y[rows],
        batch_size=16,
        epochs=epochs,
        validation_data=(X[judged], Y[judged]),
        validation_batch_size=16,
        verbose=0,
        callbacks=list(callbacks),
    ).history


ONES, ZEROS = np.ones((64, 1), "float32"), np.zeros((64, 1), "float32")


def states(model):
    weights = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    return weights + [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def run_of(model, setting, *, seed=0, fraction=1.0, epochs=2, report=None, **options):
    """One run of a search, outside of any."""
    data = Data.of(X, Y, None, options.pop("validation", None), 0.25, 0, options)
    with Runner.borrow(model, data, "val_loss", setting.batch_size, 0) as runner:
        return runner.run(Job("fine 1", setting, seed, fraction, epochs), report)


# What it finds


def test_finds_the_rate_that_arithmetic_says():
    found = keras_lr.search(
        slope(),
        ONES,
        ZEROS,
        batch_size=32,
        low=5e-3,
        high=5.0,
        fraction=1.0,
        **{**QUICK, "points": 5},
    )
    assert found.learning_rate == found.answer.tried.learning_rate == 0.5
    assert found.low <= found.learning_rate <= found.high
    # At 0.5 the first step ends at 0.
    assert found.answer.mean == 0.0
    ends = {row["learning_rate"]: row["ended"] for row in found.rows() if row["round"] == "coarse"}
    assert ends[5.0] == "diverged" and ends[0.5] == "finished"


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy", "loss"])
def test_the_objective_before_training_is_that_of_evaluate(objective):
    model, held = classifier(), (X[:24], Y[:24])
    data = Data.of(X, Y, None, held, 0.25, 0, {})
    with Runner.borrow(model, data, objective, 12, 0) as runner:
        runner.run(Job("coarse", Setting(0.1, batch_size=12), 0, 1.0, 1))
        found = runner.untrained()
    logs = model.evaluate(*held, verbose=0, return_dict=True)
    wanted = logs.get(objective.removeprefix("val_")) if objective != "loss" else math.nan
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=0)


def test_batch_sizes_that_are_tried_are_those_that_devices_can_share(monkeypatch):
    data = Data.of(X, Y, None, (X[:24], Y[:24]), 0.25, 0, {})  # 96 rows that train
    with Runner.borrow(classifier(), data, "val_loss", 12, 0) as runner:
        assert usual_sizes(runner, 12, 96.0) == [6, 12, 24]  # 48: two batches
        monkeypatch.setattr(distribution, "sharing_devices", lambda: 4)
        assert usual_sizes(runner, 12, 96.0) == [12, 24]


@pytest.mark.parametrize(
    "optimizer, rule",
    [("sgd", "linear"), ("adam", "sqrt"), ("rmsprop", "sqrt"), ("lion", "sqrt")],
)
def test_the_rule_for_batch_sizes_is_that_of_the_optimizer(optimizer, rule):
    """The sources know none for Lion: the square root is half way, in decades."""
    options = Options.among({**DEFAULTS, "also": "batch_size"})
    data = Data.of(X, Y, None, (X[:24], Y[:24]), 0.25, 0, {})
    with Runner.borrow(classifier(optimizer), data, "val_loss", 12, 0) as runner:
        assert options.design(runner, 12).batch_rule == rule


def test_a_run_that_diverges_ends_after_a_few_batches():
    seen = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    data = Data.of(np.repeat(ONES, 50, 0), np.repeat(ZEROS, 50, 0), None, None, 0.2, 0, {})
    with Runner.borrow(slope(), data, "val_loss", 8, 0, lambda: [Count()]) as runner:
        outcome = runner.run(Job("coarse", Setting(1.5, batch_size=8), 0, 1.0, 3))
    assert outcome.ended == "diverged" and math.isnan(outcome.value)
    assert len(seen) <= 30  # of 320 an epoch: it doubles with each


def test_searches_from_a_range_test_where_no_bounds_are_given():
    found = keras_lr.search(classifier(), X, Y, seed=1, **QUICK)
    rates = found.range_test["learning_rates"]
    assert rates[0] == pytest.approx(1e-7) and len(rates) == len(found.range_test["losses"])
    assert [each.name for each in found.rounds] == ["fine 1"]
    tried = [row["learning_rate"] for row in found.rows()]
    assert any(found.range_test["suggestion"] == pytest.approx(rate, rel=0.06) for rate in tried)
    assert found.low <= found.learning_rate <= found.high


def test_by_default_it_compares_policies_first_and_keeps_to_its_budget():
    found = keras_lr.search(classifier(), X, Y, epochs=2, seed=1, verbose=0)
    first = found.rounds[0]
    assert first.name == "policy"
    assert {job.setting.policy for job in first.jobs} == {"constant", "one-cycle", "cosine", "wsd"}
    # The range test counts as 2 runs: its 100 updates are more than those of 2 runs, 2 x 2 x 3.
    assert 2 + sum(outcome.job.fraction for outcome in found.outcomes) <= 20
    assert found.answer.finished


def test_accuracy_should_rise():
    found = keras_lr.search(
        classifier(), X, Y, objective="val_accuracy", low=1e-2, high=1.0, **QUICK
    )
    assert found.maximize
    values = [row["value"] for row in found.rows() if row["ended"] == "finished"]
    assert found.answer.mean <= max(values) <= 1.0
    last = [row["value"] for row in found.rows() if row["round"] == "fine 1"]
    assert found.answer.mean == max(value for value in last if not math.isnan(value))


# What a run is


def test_a_run_is_a_fit_from_the_same_weights():
    outcome = run_of(classifier("adam"), Setting(3e-3, batch_size=16), seed=5, fraction=0.5)
    kept, judged = held_out(Y, len(X), 0.25, 0)
    rows = kept[part(Y[kept], len(kept), 0.5, 0)]
    history = fitted(classifier(keras.optimizers.Adam(3e-3)), rows, judged, seed=5)
    assert outcome.ended == "finished"
    assert outcome.history.keys() == history.keys()
    for name, values in history.items():
        assert outcome.history[name] == pytest.approx(values, rel=1e-6), name
    assert outcome.value == outcome.history["val_loss"][-1]


@pytest.mark.parametrize(
    "setting, callbacks",
    [
        (Setting(0.1, policy="one-cycle"), lambda: [keras_lr.OneCycle(0.1)]),
        (
            Setting(0.1, momentum=0.8, policy="one-cycle"),
            lambda: [keras_lr.OneCycle(0.1, base_momentum=0.7, max_momentum=0.8)],
        ),
        (
            Setting(0.1, policy="cosine"),
            lambda: [keras_lr.ScheduleLR(keras.optimizers.schedules.CosineDecay(0.1, 10))],
        ),
        (
            Setting(0.1, momentum=0.7, warmup=0.5),
            lambda: [
                keras_lr.ScheduleLR(keras_lr.schedules.ConstantSchedule(0.1), 0.7),
                keras_lr.WarmUp(fraction=0.5),
            ],
        ),
    ],
    ids=["one-cycle", "one-cycle and momentum", "cosine", "momentum and warm-up"],
)
def test_policies_are_the_callbacks_of_those_names(setting, callbacks):
    setting = Setting(**{**setting.__dict__, "batch_size": 16})
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    outcome = run_of(classifier(optimizer), setting, seed=1)
    kept, judged = held_out(Y, len(X), 0.25, 0)
    model = classifier(keras.optimizers.SGD(0.01, momentum=0.9))
    history = fitted(model, kept, judged, seed=1, callbacks=callbacks())
    assert outcome.history["val_loss"] == pytest.approx(history["val_loss"], rel=1e-6)


def test_momentum_alone_is_set():
    model = classifier(keras.optimizers.SGD(0.01, momentum=0.9))
    outcome = run_of(model, Setting(0.05, momentum=0.5, batch_size=16))
    wanted = run_of(
        classifier(keras.optimizers.SGD(0.01, momentum=0.5)), Setting(0.05, batch_size=16)
    )
    assert outcome.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-5)
    assert model.optimizer.momentum == 0.9


def adamw(weight_decay=0.1, beta_2=0.999):
    return keras.optimizers.AdamW(0.01, weight_decay=weight_decay, beta_2=beta_2)


@pytest.mark.parametrize("policy", ["constant", "cosine"])
def test_weight_decay_and_beta_2_are_set_for_the_run_alone(policy):
    model = classifier(adamw())
    setting = Setting(0.02, None, 16, policy=policy, beta_2=0.9, rate_decay=0.02 * 0.5)
    first = run_of(model, setting)
    assert model.optimizer.weight_decay == 0.1 and model.optimizer.beta_2 == 0.999
    plain = Setting(0.02, None, 16, policy=policy)
    wanted = run_of(classifier(adamw(0.5, 0.9)), plain)
    assert first.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-5)
    other = run_of(model, plain)
    assert other.history["loss"] != pytest.approx(wanted.history["loss"], rel=1e-3)


def test_also_needs_an_optimizer_that_has_what_is_searched():
    with pytest.raises(ValueError, match="also='beta_2' needs an optimizer like Adam; got SGD"):
        keras_lr.search(classifier(), X, Y, **{**QUICK, "also": "beta_2"})
    with pytest.raises(ValueError, match=r"a weight decay above 0; got Adam with weight_decay=No"):
        keras_lr.search(classifier("adam"), X, Y, **{**QUICK, "also": "weight-decay"})


def test_weight_decay_and_beta_2_are_searched_with_the_usual_values():
    options = Options.among({**DEFAULTS, "also": ["weight-decay", "beta-2"]})
    data = Data.of(X, Y, None, (X[:24], Y[:24]), 0.25, 0, {})
    with Runner.borrow(classifier(adamw(0.1)), data, "val_loss", 12, 0) as runner:
        design = options.design(runner, 12)
    np.testing.assert_allclose(design.also["weight_decay"], [0, 0.01, 0.1, 1], rtol=1e-9)
    assert design.also["beta_2"] == (0.9, 0.95, 0.99, 0.999)
    assert design.base == Setting(1.0, None, 12, beta_2=0.999)


def several():
    """Groups whose rates are 1 and a half of it."""
    groups = {"dense": 1.0, "bias": 0.5}
    optimizers = {name: keras.optimizers.SGD(rate) for name, rate in groups.items()}
    return keras.optimizers.MultiOptimizer(
        lambda variable: optimizers["bias" if variable.path.endswith("bias") else "dense"]
    )


@pytest.mark.parametrize(
    "make, same",
    [
        (
            lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(1.0, 3)),
            lambda: keras.optimizers.SGD(1.0),
        ),
        (
            several,
            lambda: keras_lr.optimizers.LayerwiseLR(keras.optimizers.SGD(1.0), {".*/bias": 0.5}),
        ),
    ],
    ids=["schedule", "groups"],
)
def test_a_rate_that_is_no_number_is_searched_as_well(make, same):
    if make is several and not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    outcome = run_of(classifier(make()), Setting(0.1, batch_size=16))
    wanted = run_of(classifier(same()), Setting(0.1, batch_size=16))
    assert outcome.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch executes one step at a time")
def test_several_steps_an_execution_change_nothing():
    setting = Setting(0.1, batch_size=16)
    several_steps = run_of(classifier(steps_per_execution=3), setting)
    wanted = run_of(classifier(), setting)
    assert several_steps.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-5)
    assert run_of(slope_of_rows(), Setting(2.0, batch_size=16)).ended == "diverged"


def slope_of_rows():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=3)
    return model


def test_every_run_begins_anew():
    data = Data.of(X, Y, None, None, 0.25, 0, {})
    with Runner.borrow(classifier("adam", dropout=0.4), data, "val_loss", 16, 0) as runner:
        job = Job("coarse", Setting(0.01, batch_size=16), 3, 1.0, 2)
        first = runner.run(job)
        other = runner.run(Job("coarse", Setting(0.3, batch_size=16), 4, 1.0, 2))
        again = runner.run(job)
    assert first.history == again.history
    assert first.history["loss"] != other.history["loss"]


def test_seeds_order_the_data_and_draw_the_dropout():
    setting = Setting(1e-6, batch_size=96)  # one batch: the order of the data changes nothing
    ordered = [run_of(classifier(), setting, seed=s, epochs=1).history["loss"] for s in (0, 1)]
    assert ordered[0] == pytest.approx(ordered[1], rel=1e-6)
    drawn = [
        run_of(classifier(dropout=0.5), setting, seed=s, epochs=1).history["loss"] for s in (0, 1)
    ]
    assert drawn[0] != pytest.approx(drawn[1], rel=1e-4)


def test_a_function_makes_a_new_model_for_each_run():
    made = []

    def make():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        made.append(model)
        return model

    data = Data.of(X, Y, None, None, 0.25, 0, {})
    with Runner.borrow(make, data, "val_loss", 16, 0) as runner:
        losses = [
            runner.run(Job("fine 1", Setting(1e-7, batch_size=96), seed, 1.0, 1)).value
            for seed in (0, 1, 0)
        ]
    assert len(made) == 4  # one to look at
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_weights_of_rows_and_classes_count():
    setting, plain = Setting(0.1, batch_size=16), classifier()
    usual = run_of(plain, setting).history["loss"]
    classes = run_of(classifier(), setting, class_weight={0: 5.0, 1: 1.0}).history["loss"]
    assert classes != pytest.approx(usual, rel=1e-3)
    weight = np.where(Y == 0, 5.0, 1.0).astype("float32")
    data = Data.of(X, Y, weight, None, 0.25, 0, {})
    with Runner.borrow(classifier(), data, "val_loss", 16, 0) as runner:
        rows = runner.run(Job("fine 1", setting, 0, 1.0, 2)).history["loss"]
    assert rows == pytest.approx(classes, rel=1e-5)
    assert len(data.validation) == 3


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], Y[rows]


def test_a_data_set_brings_its_own_batches():
    found = keras_lr.search(
        classifier(),
        Batches(),
        validation_data=(X, Y),
        fraction=0.5,
        low=1e-2,
        high=1.0,
        **QUICK,
    )
    assert found.setting.batch_size is None
    with pytest.raises(ValueError, match="validation_data must be given"):
        keras_lr.search(classifier(), Batches(), **QUICK)
    with pytest.raises(ValueError, match="also='batch_size' needs arrays as x"):
        options = {**QUICK, "also": "batch_size"}
        keras_lr.search(classifier(), Batches(), validation_data=(X, Y), **options)


def test_the_last_epoch_is_judged_and_a_run_behind_is_stopped():
    told = []

    def report(epoch, value):
        told.append((epoch, value))
        return epoch == 2

    outcome = run_of(classifier(), Setting(0.1, batch_size=16), epochs=4, report=report)
    assert outcome.ended == "behind" and outcome.epochs == 2
    assert [epoch for epoch, _ in told] == [1, 2]
    assert outcome.value == told[-1][1] == outcome.history["val_loss"][-1]
    ended = run_of(classifier(), Setting(0.1, batch_size=16), epochs=2, report=report)
    assert ended.ended == "finished"


def test_further_callbacks_are_made_for_each_run():
    made = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            made.append(self)

    keras_lr.search(slope(), ONES, ZEROS, low=1e-2, high=1.0, callbacks=lambda: [Note()], **QUICK)
    assert len(set(map(id, made))) == len(made) >= 5


# What is put back


@pytest.mark.parametrize("built", [True, False], ids=["trained", "new"])
def test_fit_after_a_search_equals_fit_without_one(built):
    def trained(searched):
        model = classifier("adam", dropout=0.3)
        if built:
            seed_everything(1)
            model.fit(X, Y, batch_size=16, verbose=0)
        if searched:
            before = states(model)
            options = {**QUICK, "epochs": 1, "also": {"policy": ["one-cycle"]} if built else ()}
            keras_lr.search(model, X, Y, low=1e-2, high=0.1, **options)
            assert equal(before, states(model))
        seed_everything(2)
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        return states(model)

    assert equal(trained(True), trained(False))


def test_an_error_in_a_run_leaves_the_model_as_it_was_and_the_search_to_go_on(tmp_path):
    broken = [True]

    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if broken:
                raise KeyboardInterrupt

    model = classifier("adam")
    before = states(model)
    options = {"low": 1e-2, "high": 1.0, "storage": tmp_path / "record.sqlite3", **QUICK}
    options["callbacks"] = lambda: [Broken()]
    with pytest.raises(KeyboardInterrupt):
        keras_lr.search(model, X, Y, **options)
    assert equal(before, states(model))
    broken.clear()
    found = keras_lr.search(model, X, Y, **options)
    assert found.answer.finished


def test_random_generators_go_on_from_where_they_were():
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    keras_lr.search(slope(), ONES, ZEROS, low=1e-2, high=1.0, **QUICK)
    assert np.array_equal(np.random.random(3), expected)


# The record


def test_a_finished_search_is_read_again_without_training(tmp_path, monkeypatch):
    options = {"low": 1e-2, "high": 1.0, "storage": str(tmp_path / "record.sqlite3"), **QUICK}
    first = keras_lr.search(classifier(), X, Y, **options)

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Runner, "run", never)
    again = keras_lr.search(classifier(), X, Y, **options)
    first, again = first.to_dict(), again.to_dict()
    assert first["provenance"].pop("model") and again["provenance"].pop("model")  # numbered
    assert first == again


def test_optuna_reads_the_study(tmp_path):
    import optuna

    place = f"sqlite:///{tmp_path / 'record.sqlite3'}"
    found = keras_lr.search(
        classifier(), X, Y, low=1e-2, high=1.0, storage=place, study="mine", **QUICK
    )
    study = optuna.load_study(storage=place, study_name="mine")
    rates = {trial.params["learning_rate"] for trial in study.trials}
    assert rates == {row["learning_rate"] for row in found.rows()}
    rate = found.answer.tried.learning_rate
    best = {t.value for t in study.trials if t.params["learning_rate"] == rate}
    assert found.answer.mean in best


def test_time_can_be_limited(tmp_path):
    options = {"low": 1e-2, "high": 1.0, "storage": tmp_path / "record.sqlite3", **QUICK}
    with pytest.raises(keras_lr.NoSuggestion, match="The timeout expired before a run finished"):
        keras_lr.search(slope(), ONES, ZEROS, timeout=1e-9, **options)
    found = keras_lr.search(slope(), ONES, ZEROS, **options)
    assert found.answer.finished


def test_every_run_diverging_is_said():
    with pytest.raises(
        keras_lr.NoSuggestion, match="runs at rates from 2 to 20 finished; they diverged"
    ):
        keras_lr.search(slope(), ONES, ZEROS, batch_size=8, low=2.0, high=20.0, **QUICK)


def test_runs_that_trained_nothing_give_no_rate():
    said = r"No run changed val_loss from 1, the value before training"
    with pytest.raises(keras_lr.NoSuggestion, match=said):
        keras_lr.search(*saturated(), batch_size=8, low=0.01, high=1.0, **QUICK)


# What is refused


@pytest.mark.parametrize(
    "options, error",
    [
        ({"low": 1e-3}, "low and high must be given together; got low=0.001 and high=None"),
        ({"low": 1.0, "high": 0.1}, "low must be below high; got low=1.0 and high=0.1"),
        ({"low": -1.0, "high": 1.0}, "low must be above 0; got -1.0"),
        ({"fraction": 0.0}, "fraction must be in (0, 1]; got 0.0"),
        ({"epochs": 0}, "epochs must be an integer of at least 1; got 0"),
        ({"fine_rounds": -1}, "fine_rounds must be an integer of at least 0"),
        ({"points": 4}, "points must be odd, so that the rates lie evenly around the best; got 4"),
        ({"final_seeds": 0}, "final_seeds must be an integer of at least 1"),
        ({"mode": "best"}, "mode must be 'auto', 'min' or 'max'; got 'best'"),
        ({"pruner": "asha"}, "pruner must be 'median', 'halving' or 'none'; got 'asha'"),
        ({"validation_split": 1.0}, "validation_split must be in (0, 1); got 1.0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"timeout": 0}, "timeout must be above 0; got 0"),
        (
            {"also": "rate"},
            "also must be 'momentum', 'beta_2', 'batch_size', 'weight_decay'",
        ),
        (
            {"also": None},
            "also must be names, or a mapping from names to values; got None. Pass ()",
        ),
        ({"also": 3}, "also must be names, or a mapping from names to values; got 3. Pass ()"),
        ({"also": {"momentum": [1.0]}}, "momentum must be in (0, 1); got 1.0"),
        ({"also": {"weight_decay": [-0.1]}}, "weight_decay must be at least 0; got -0.1"),
        ({"also": {"beta_2": [1.0]}}, "beta_2 must be in (0, 1); got 1.0"),
        ({"also": {"batch_size": [0]}}, "batch_size must be an integer of at least 1; got 0"),
        (
            {"also": {"policy": ["step"]}},
            "policy must be 'constant', 'one-cycle', 'cosine' or 'wsd'",
        ),
        ({"also": {"warmup": []}}, "also['warmup'] must be a list of at least one value; got"),
        ({"heartbeat": 0}, "heartbeat must be an integer of at least 1"),
        ({"objective": ""}, "objective must be the name of a log entry; got ''"),
        ({"verbose": 3}, "verbose must be 'auto', 0 or 1; got 3"),
    ],
)
@pytest.mark.once
def test_bad_options_are_refused(options, error):
    with pytest.raises((ValueError, TypeError)) as caught:
        Options.among({**DEFAULTS, **options})
    assert error in str(caught.value)


@pytest.mark.parametrize(
    "change, error",
    [
        ({"x": None}, "search needs data; got x=None"),
        (
            {"objective": "val_f1"},
            "objective must be in the logs of this model; got 'val_f1'. The",
        ),
        ({"also": "momentum"}, "also='momentum' needs an optimizer with a momentum above 0; got"),
        (
            {"model": "mlp"},
            "model must be a Keras model or a function that returns one; got 'mlp'",
        ),
        ({"model": lambda: 3}, "or a function that returns one; the function returned int"),
        (
            {"storage": "/no/such/folder/record.sqlite3"},
            "must exist; /no/such/folder does not exist",
        ),
    ],
    ids=["data", "objective", "momentum", "model", "function", "folder"],
)
def test_what_cannot_be_searched_is_refused_before_training(change, error):
    given = {"model": classifier(), "x": X, "y": Y, **QUICK, **change}
    with pytest.raises((ValueError, TypeError)) as caught:
        keras_lr.search(**given)
    assert error in str(caught.value)


@pytest.mark.once
def test_optuna_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install optuna\."):
        keras_lr.search(classifier(), X, Y, **QUICK)


@pytest.mark.parametrize(
    "setting",
    [
        Setting(0.1, batch_size=16),
        Setting(0.1, policy="one-cycle"),
        Setting(0.1, 0.8, 16, 0.3, "one-cycle"),
        Setting(0.1, 0.8, 16, 0.3, "cosine"),
        Setting(0.1, 0.8, 16, 0.3),
        Setting(0.1, warmup=0.3),
    ],
)
def test_the_python_of_an_answer_runs(setting):
    from keras_lr.rate_search.policies import python_for

    model = classifier(keras.optimizers.SGD(0.01, momentum=0.9))
    names = {"model": model, "x": X, "y": Y, "keras": keras, "keras_lr": keras_lr}
    exec(python_for(setting), names)
    wanted = 0.1 if setting.policy == "constant" and not setting.momentum else 0.01
    assert float(model.optimizer.learning_rate) == pytest.approx(wanted)


def two_groups():
    groups = {".*bias": keras.optimizers.SGD(0.02)}
    return multi_optimizer(keras.optimizers.SGD(0.01), groups)


def test_the_python_of_a_search_sets_weight_decay_and_beta_2():
    setting = Setting(0.02, policy="one-cycle", beta_2=0.9, rate_decay=1e-3)
    assert python_for(setting) == (
        "model.fit(x, y, callbacks=[keras_lr.OneCycle(max_lr=0.02), "
        'keras_lr.ScheduleHyperparameter("beta_2", 0.9), '
        'keras_lr.ScheduleHyperparameter("weight_decay", 0.05)])'
    )
    model = classifier(adamw())
    exec(python_for(setting), {"model": model, "x": X, "y": Y, "keras_lr": keras_lr})


@pytest.mark.parametrize("policy", ["constant", "one-cycle", "cosine", "wsd"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)),
        lambda: keras.optimizers.RMSprop(0.01),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01, momentum=0.9)),
        two_groups,
    ],
)
def test_the_python_of_a_search_runs_on_the_model_that_was_searched(policy, optimizer):
    model = classifier(optimizer())
    found = keras_lr.search(
        model, X, Y, low=1e-3, high=1e-1, epochs=1, fine_rounds=1, points=3, final_seeds=1,
        also={"policy": [policy]}, verbose=0,
    )  # fmt: skip
    logger = keras_lr.LRLogger()
    python = found.python()
    assert f"{found.learning_rate:g}" in python
    call = python.replace("model.fit(x, y", "model.fit(x, y, verbose=0")
    names = {"model": model, "x": X, "y": Y, "keras": keras, "keras_lr": keras_lr}
    exec(call, names)
    model.fit(X, Y, verbose=0, callbacks=[logger])
    if "optimizer.learning_rate" in python:
        np.testing.assert_allclose(
            logger.history["learning_rate"], found.learning_rate, rtol=1e-5, atol=0
        )
