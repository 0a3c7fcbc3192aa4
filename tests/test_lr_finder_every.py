"""`LRFinder(every=n)`: tests the weights of a run that goes on as if nobody had looked."""

import random

import keras
import numpy as np
import pytest
from models import classifier, data, same, values
from test_steering import STEPS, groups, network, rows
from test_steering import fit as fit_line

import keras_lr
from keras_lr._keras.object_graph import optimizers_of

elsewhere = pytest.mark.long_elsewhere("what the callback decides is Python, from the curve")

BACKEND = keras.backend.backend()
SUGGESTS = {"apply": True, "steps": 150, "start_lr": 1e-5, "end_lr": 10.0, "seed": 3}
# A small ramp on a small model is noisy; what counts here is where its answer goes.
noisy = pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")


def finder(**options):
    return keras_lr.LRFinder(**{"every": 2, "steps": 12, "end_lr": 1.0, **options})


def fit(model, *callbacks, epochs=3, **options):
    x, y = data()
    options = {"validation_data": (x[:20], y[:20]), **options}
    return model.fit(
        x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )


def random_states():
    """What the generators would draw next; reading it moves none of them."""
    states = [random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]]
    if BACKEND == "torch":
        import torch

        states.append(torch.get_rng_state().tolist())
    if BACKEND == "tensorflow":
        from tensorflow.python.eager import context

        states += [context.context()._seed, context.context()._rng.getstate()]
    return states


def everything(model, history):
    """The end of a run: all that a twin must share to the last bit."""
    variables = [*model.variables, *model.metrics_variables]
    for optimizer in optimizers_of(model):
        variables += optimizer.variables
    generator = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    variables += [] if generator is None else [generator.state]
    return values(variables), history.history, random_states()


def assert_twins(left, right):
    assert same(left[0], right[0])
    assert left[1] == right[1]
    assert left[2] == right[2]


COMPANY = {
    "alone": lambda: [],
    "OneCycle": lambda: [keras_lr.OneCycle(0.1)],
    "WarmUp and plateau": lambda: [
        keras_lr.WarmUp(epochs=1),
        keras_lr.ReduceLROnPlateau("val_loss", 0.5, 1, min_delta=100.0),
        keras_lr.LRLogger(),
    ],
}


@pytest.mark.parametrize(
    ("company", "first"),
    [("alone", True), ("OneCycle", True), ("OneCycle", False), ("WarmUp and plateau", False)],
)
def test_a_fit_is_the_same_with_and_without_it(company, first):
    looking, ends = finder(), []
    for extra in ([], [looking]):
        model = classifier(keras.optimizers.SGD(0.05, momentum=0.9))
        others = COMPANY[company]()
        callbacks = [*extra, *others] if first else [*others, *extra]
        ends.append(everything(model, fit(model, *callbacks)))
    assert_twins(*ends)
    assert [epoch for epoch, _ in looking.results] == [0, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 20)),
        lambda: keras.optimizers.SGD(0.05, gradient_accumulation_steps=4),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)),
    ],
    ids=["schedule", "accumulation", "loss scale"],
)
@elsewhere
def test_no_optimizer_notices_it(make):
    ends = []
    for extra in ([], [finder(every=1, seed=5)]):
        model = network(make())
        ends.append(everything(model, fit_line(model, *extra, epochs=2)))
    assert_twins(*ends)


def test_tells_what_lr_find_tells_about_the_same_weights():
    x, y = rows()
    looking, model = finder(seed=5, end_lr=0.1), network(keras.optimizers.SGD(0.01))
    copies = []

    class Copy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            copies.append(self.model.get_weights())

    fit_line(model, Copy(), looking)
    assert [epoch for epoch, _ in looking.results] == [0, 2]
    for epoch, test in looking.results:
        model.set_weights(copies[epoch])
        options = {"batch_size": 16, "shuffle": False, "steps": 12, "end_lr": 0.1, "seed": 5}
        again = keras_lr.lr_find(model, x, y, **options)
        np.testing.assert_allclose(test.losses, again.losses, rtol=1e-5)
    assert looking.result is looking.results[-1][1]


@pytest.mark.parametrize("make", [COMPANY["OneCycle"]], ids=["OneCycle"])
def test_the_compiled_step_of_the_fit_stays_in_use(make):
    traced, seen = [], []

    def loss(y_true, y_pred):
        traced.append(1)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(len(traced))

    jit = {"jit_compile": False} if BACKEND == "torch" else {}
    model = classifier(keras.optimizers.SGD(0.05, momentum=0.9), loss=loss, **jit)
    fit(model, finder(every=1), Count(), *make(), epochs=4, validation_data=None)
    if BACKEND == "torch":  # eager: a call a step, and those of the tests are put back
        assert np.diff(seen).tolist() == [6] * 3
    else:
        assert seen[1] == seen[2] == seen[3]


@elsewhere
def test_begins_with_the_first_epoch_of_a_continued_run_that_is_its_turn():
    looking = finder(every=3)
    fit_line(network("sgd"), looking, epochs=8, initial_epoch=2)
    assert [epoch for epoch, _ in looking.results] == [3, 6]


@noisy
@pytest.mark.parametrize("position", [0, 1])
@elsewhere
def test_applies_the_suggestion_to_the_optimizer(position):
    looking, logger = finder(**SUGGESTS, every=1), keras_lr.LRLogger()
    model = network(keras.optimizers.SGD(1e-5))
    callbacks = [logger]
    callbacks.insert(position, looking)
    history = fit_line(model, *callbacks).history
    expected = [test.suggest(policy="constant").learning_rate for _, test in looking.results]
    assert looking.applied == list(enumerate(expected))
    assert len(set(expected)) == 3
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    np.testing.assert_allclose(
        logger.history["learning_rate"], np.repeat(expected, STEPS), rtol=1e-6
    )
    np.testing.assert_allclose(own_rates(model), expected[-1:], rtol=1e-6)


def own_rates(model):
    parts = getattr(model.optimizer, "optimizers", [model.optimizer])
    return [float(keras.ops.convert_to_numpy(part.learning_rate)) for part in parts]


@noisy
@elsewhere
def test_a_suggestion_keeps_the_ratios_of_groups_and_is_scaled_by_a_warm_up():
    sgd = keras.optimizers.SGD
    model = network(groups(sgd(0.01), sgd(0.001)))
    looking, logger = finder(**SUGGESTS), keras_lr.LRLogger()
    fit_line(model, keras_lr.WarmUp(STEPS), looking, logger, epochs=2)
    rate = looking.result.suggest(policy="constant").learning_rate
    np.testing.assert_allclose(sorted(own_rates(model)), [rate / 10, rate], rtol=1e-6)
    ramp = np.minimum(np.arange(2 * STEPS) / STEPS, 1.0)
    np.testing.assert_allclose(logger.history["learning_rate"], rate * ramp, rtol=1e-5)


@elsewhere
def test_without_a_suggestion_the_rate_stays_and_a_warning_says_why():
    looking = finder(apply=True, start_lr=1e-12, end_lr=1e-11, budget=12)
    model = network(keras.optimizers.SGD(0.05))
    with pytest.warns(UserWarning, match="leaves the learning rate of epoch 0 as it is: "):
        fit_line(model, looking, epochs=1)
    assert looking.applied == []
    np.testing.assert_allclose(own_rates(model), [0.05], rtol=1e-6)


@noisy
@elsewhere
def test_only_the_rate_differs_where_a_suggestion_is_applied():
    looking, model = finder(**SUGGESTS), network(keras.optimizers.SGD(1e-5, momentum=0.5))
    fit_line(model, looking, epochs=2)
    twin = network(keras.optimizers.SGD(looking.applied[0][1], momentum=0.5))
    fit_line(twin, epochs=2)
    assert same(values(model.variables), values(twin.variables))


class Rows(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.order = np.arange(96)

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = self.order[16 * index : 16 * index + 16]
        return data()[0][rows], data()[1][rows]

    def on_epoch_end(self):  # a data set that is moved on by being read
        self.order = np.roll(self.order, 7)


@pytest.mark.parametrize("given", [data, Rows], ids=["arrays", "data set"])
@elsewhere
def test_data_of_its_own_serve_a_fit_whose_data_cannot_be_read_twice(given):
    ends = []
    for extra in ([], [finder(data=given())]):
        model = classifier()
        history = model.fit(Rows(), epochs=2, verbose=0, callbacks=list(extra))
        ends.append(everything(model, history))
    assert_twins(*ends)


@elsewhere
def test_data_of_the_fit_that_cannot_be_read_twice_are_refused():
    rows = Rows()
    for looking in (finder(), finder(data=rows)):
        with pytest.raises(ValueError, match="without advancing it; got Rows. Pass data="):
            classifier().fit(rows, callbacks=[looking], verbose=0)


class Break(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        raise RuntimeError("no such shape")


def test_a_test_that_breaks_off_is_as_any_other_callback_that_does():
    ends = []
    for breaking in (finder(data=(np.zeros((32, 7)), np.zeros(32))), Break()):
        model = classifier(keras.optimizers.SGD(0.1, momentum=0.9))
        with pytest.raises(Exception, match="shape"):
            fit(model, keras_lr.OneCycle(0.1), breaking)
        ends.append(everything(model, fit(model, epochs=1)))
    assert_twins(*ends)


@noisy
@pytest.mark.parametrize("options", [{}, SUGGESTS], ids=["looking on", "applying"])
@elsewhere
def test_an_instance_serves_two_fits(options):
    looking = finder(**options)
    for _ in range(2):
        fit_line(network("adam"), looking, epochs=1)
        assert [epoch for epoch, _ in looking.results] == [0]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.once
def test_a_suggestion_is_not_applied_against_a_schedule(order):
    callbacks = [finder(apply=True), keras_lr.OneCycle(0.1)][::order]
    with pytest.raises(ValueError, match="LRFinder sets the optimizer's own rate, and OneCycle"):
        fit(classifier(), *callbacks)
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(ValueError, match="this one was compiled with CosineDecay"):
        fit(classifier(keras.optimizers.SGD(cosine)), finder(apply=True))


# When the metric stalls


class Losses(keras.callbacks.Callback):
    """Writes given values to the logs of the epochs."""

    def __init__(self, losses, name="val_loss"):
        super().__init__()
        self.losses, self.name = losses, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.losses[epoch]


STALLS = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def plateaus_of_keras(losses, **options):
    """The epochs before which Keras's callback has just reduced the rate."""
    model = network(keras.optimizers.SGD(1.0))
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, **options)
    plateau.set_model(model)
    plateau.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        plateau.on_epoch_end(epoch, {"val_loss": loss})
        rates.append(own_rates(model)[0])
    ends = np.flatnonzero(np.diff([1.0, *rates])) + 1
    return [int(epoch) for epoch in ends if epoch < len(losses)]


@pytest.mark.parametrize("options", [{"patience": 2}, {"patience": 1, "cooldown": 3}])
@elsewhere
def test_tests_where_the_plateau_callback_of_keras_would_reduce(options):
    rule = keras_lr.PlateauRule(**options)
    looking, model = finder(every=rule), network("sgd")
    for _ in range(2):  # the rule begins anew with each fit, and others can use it
        fit_line(model, Losses(STALLS), looking, epochs=len(STALLS))
        expected = plateaus_of_keras(STALLS, **options)
        assert len(expected) >= 2
        assert [epoch for epoch, _ in looking.results] == expected
    assert rule.progress.seen == 0


@pytest.mark.once
def test_the_default_rule_is_that_of_the_plateau_callback():
    looking = finder(every="plateau")
    losses = [1.0] * 12
    fit_line(network("sgd"), Losses(losses), looking, epochs=12)
    assert [epoch for epoch, _ in looking.results] == plateaus_of_keras(losses, patience=10) == [11]


def test_a_fit_is_the_same_with_and_without_tests_at_plateaus():
    looking, ends = finder(every=keras_lr.PlateauRule(patience=1, min_delta=9.0)), []
    for extra in ([], [looking]):
        model = classifier(keras.optimizers.SGD(0.05, momentum=0.9))
        history = fit(model, *extra)
        history.history.pop("learning_rate", None)
        ends.append(everything(model, history))
    assert_twins(*ends)
    assert [epoch for epoch, _ in looking.results] == [2]


@noisy
@pytest.mark.once
def test_a_plateau_applies_the_suggestion():
    looking = finder(**SUGGESTS | {"every": keras_lr.PlateauRule(patience=1)})
    model = network(keras.optimizers.SGD(1e-5))
    history = fit_line(model, Losses([1.0, 1.0, 0.5]), looking).history
    ((epoch, rate),) = looking.applied
    assert epoch == 2
    np.testing.assert_allclose(history["learning_rate"], [1e-5, 1e-5, rate], rtol=1e-6)


@pytest.mark.once
def test_a_rule_with_a_limit_stops_the_fit():
    rule = keras_lr.PlateauRule(patience=1, max_reductions=1)
    looking = finder(every=rule)
    history = fit_line(network("sgd"), Losses([1.0] * 9), looking, epochs=9)
    assert [epoch for epoch, _ in looking.results] == [2]
    assert len(history.history["loss"]) == 3


@pytest.mark.once
def test_a_metric_that_is_not_there_is_warned_of():
    looking = finder(every=keras_lr.PlateauRule(patience=1, monitor="val_acc"))
    with pytest.warns(UserWarning, match="LRFinder monitors 'val_acc', which is not in the logs"):
        fit_line(network("sgd"), looking, epochs=1)


@pytest.mark.once
@pytest.mark.parametrize("stop", [2, 3])
@elsewhere
def test_a_resumed_run_goes_on_with_the_counters_of_the_rule(stop, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == stop and not resumed:
                raise KeyboardInterrupt

    losses = [1.0, 1.0, 1.0, 1.0]
    for resumed in (False, True):
        looking = finder(every=keras_lr.PlateauRule(patience=2))
        model = network("sgd")
        backup = keras.callbacks.BackupAndRestore(str(tmp_path))
        callbacks = [Losses(losses), Stop(), backup, looking]
        if not resumed:
            with pytest.raises(KeyboardInterrupt):
                fit_line(model, *callbacks, epochs=4)
    fit_line(model, *callbacks, epochs=4)
    assert [epoch for epoch, _ in looking.results] == [3]


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"every": 0}, "every must be an integer of at least 1; got 0"),
        (ValueError, {"every": 1.5}, "every must be an integer of at least 1; got 1.5"),
        (TypeError, {"every": [2]}, r"every must be an integer of at least 1; got \[2\]"),
        (
            ValueError,
            {"every": "epoch"},
            "every must be a number of epochs, 'plateau' or a PlateauRule; got 'epoch'",
        ),
        (
            ValueError,
            {"every": keras_lr.PlateauRule(growth_factor=2.0)},
            "LRFinder must have no growth_factor.*; got growth_factor=2.0",
        ),
        (TypeError, {"every": 1, "apply": "yes"}, "apply must be True or False; got 'yes'"),
        (ValueError, {"apply": True}, "apply=True goes with every; got every=None"),
        (ValueError, {"data": data()}, "data goes with every; got every=None"),
    ],
)
def test_bad_arguments_are_refused_at_once(error, arguments, message):
    with pytest.raises(error, match=message):
        keras_lr.LRFinder(**arguments)
