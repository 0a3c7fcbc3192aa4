"""`WarmUpStableDecay`: the decay begins on command, with the rates of transformers."""

import os
import time
import types

import keras
import numpy as np
import pytest
from test_callbacks import finite, recorded
from test_schedules_references import wsd
from test_steering import STEPS, fit, network, several_steps

import keras_lr

elsewhere = pytest.mark.long_elsewhere("when the decay begins is decided in Python")

inner = keras.optimizers


def sgd(**options):
    return network(inner.SGD(0.01), **options)


def expected(updates, warmup=0, stable=0, decay=1, shape="1-sqrt", max_lr=0.1):
    return [wsd(step, max_lr, warmup, stable, decay, shape, 0.0) for step in range(updates)]


def close(history, values):
    np.testing.assert_allclose(history["learning_rate"], values, rtol=1e-5, atol=0)


class At(keras.callbacks.Callback):
    """Acts when a batch of the `fit` ends."""

    def __init__(self, batch, act):
        super().__init__()
        self.left, self.act = batch, act

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.act()


@pytest.mark.parametrize("shape", ["1-sqrt", "linear", "cosine"])
def test_decay_now_begins_the_decay_with_the_next_batch_and_then_stops(shape):
    policy = keras_lr.WarmUpStableDecay(0.1, 3, decay=shape)
    history = recorded(sgd(), At(6, lambda: policy.decay_now(5)), policy, epochs=9)
    close(history, expected(11, 3, 3, 5, shape))
    assert policy.decay_begun_at == 6


def test_the_weights_are_those_of_the_schedule():
    model, twin = sgd(), sgd()
    policy = keras_lr.WarmUpStableDecay(0.1, 2, decay="linear")
    fit(model, At(5, lambda: policy.decay_now(7)), policy, epochs=9)
    rates = expected(12, 2, 3, 7, "linear")
    x, y = np.random.default_rng(1).normal(size=(64, 4)).astype("float32"), None
    y = x.sum(axis=1) + 0.5
    for step, rate in enumerate(rates):
        twin.optimizer.learning_rate = rate
        start = step * 16 % 64
        twin.train_on_batch(x[start : start + 16], y[start : start + 16])
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_without_a_command_the_decay_ends_with_the_fit():
    policy = keras_lr.WarmUpStableDecay(0.1, 2, 4)
    close(recorded(sgd(), policy), expected(3 * STEPS, 2, 6, 4))
    assert policy.decay_begun_at is None
    close(recorded(sgd(), keras_lr.WarmUpStableDecay(0.1), epochs=10), expected(40, 0, 36, 4))


@elsewhere
def test_a_run_decays_after_a_tenth_of_it_by_default():
    policy = keras_lr.WarmUpStableDecay(0.1)
    history = recorded(sgd(), At(18, policy.decay_now), policy, epochs=9)
    close(history, expected(20, 0, 18, 2))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@elsewhere
def test_the_length_of_the_run_may_be_unknown():
    policy, logger = keras_lr.WarmUpStableDecay(0.1, 1), keras_lr.LRLogger()
    sgd().fit(
        finite(), shuffle=False, verbose=0,
        callbacks=[At(2, lambda: policy.decay_now(2)), policy, logger],
    )  # fmt: skip
    close(logger.history, expected(4, 1, 1, 2))


def test_the_decay_begins_when_the_metric_stalls():
    policy = keras_lr.WarmUpStableDecay(
        0.1, decay_steps=3, monitor="loss", patience=2, min_delta=1e9
    )
    # The first epoch is the best, the next two do not improve.
    close(recorded(sgd(), policy, epochs=20), expected(15, 0, 3 * STEPS, 3))


@elsewhere
def test_the_decay_begins_when_the_file_appears(tmp_path):
    file = tmp_path / "decay"
    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=3, file=str(file))

    def touch():
        file.touch()
        time.sleep(1.1)  # it is looked for once a second

    close(recorded(sgd(), At(5, touch), policy, epochs=20), expected(8, 0, 5, 3))
    with pytest.raises(ValueError, match="file must not exist when the fit begins; got '.*decay'"):
        fit(sgd(), policy)
    os.remove(file)
    fit(sgd(), policy, epochs=1)


@elsewhere
def test_the_decay_begins_at_the_deadline():
    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=3, minutes=1.0)
    later = At(5, lambda: setattr(policy, "_deadline", time.monotonic()))
    history = recorded(sgd(), later, policy, epochs=20)
    close(history, expected(8, 0, 5, 3))
    short = keras_lr.WarmUpStableDecay(0.1, decay_steps=2, minutes=1e-9)
    close(recorded(sgd(), short, epochs=20), expected(2, 0, 0, 2))


@elsewhere
def test_a_decay_in_the_warm_up_begins_after_it():
    policy = keras_lr.WarmUpStableDecay(0.1, 4)
    history = recorded(sgd(), At(1, lambda: policy.decay_now(3)), policy, epochs=9)
    close(history, expected(7, 4, 0, 3))


@elsewhere
def test_an_instance_serves_two_fits_and_a_later_command_is_refused():
    policy, errors = keras_lr.WarmUpStableDecay(0.1), []

    def again():
        policy.decay_now(4)

    def refused():
        with pytest.raises(ValueError, match="only once; got decay_now after it began at update 2"):
            policy.decay_now(4)
        errors.append(1)

    for _ in range(2):
        close(
            recorded(sgd(), At(2, again), At(4, refused), policy, epochs=9),
            expected(6, 0, 2, 4),
        )
    assert len(errors) == 2
    with pytest.raises(ValueError, match="during a fit; got no running fit"):
        policy.decay_now(4)


@elsewhere
def test_a_command_during_the_decay_that_ends_with_the_fit_is_refused():
    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=4)
    with pytest.raises(ValueError, match="only once; got decay_now after it began at update 8"):
        recorded(sgd(), At(10, lambda: policy.decay_now(2)), policy)


@elsewhere
def test_a_decay_that_the_fit_cuts_is_warned_of():
    policy = keras_lr.WarmUpStableDecay(0.1)
    with pytest.warns(UserWarning, match="got 9 updates from update 6 on, and this fit makes 12"):
        history = recorded(sgd(), At(6, lambda: policy.decay_now(9)), policy)
    close(history, expected(12, 0, 6, 9))


def test_gradient_accumulation_counts_updates():
    model = network(inner.SGD(0.01, gradient_accumulation_steps=2))
    policy = keras_lr.WarmUpStableDecay(0.1, decay="linear")
    history = recorded(model, At(6, lambda: policy.decay_now(4)), policy, epochs=9)
    close(history, np.repeat(expected(7, 0, 3, 4, "linear"), 2))


@several_steps
def test_the_steps_of_one_execution_have_their_own_rates():
    policy = keras_lr.WarmUpStableDecay(0.1, 2)
    model = sgd(steps_per_execution=2)
    history = recorded(model, At(3, lambda: policy.decay_now(6)), policy, epochs=9)
    close(history, expected(12, 2, 4, 6))


def test_a_resumed_run_goes_on_with_the_decay(tmp_path):
    def run(stop=None):
        policy, logger = keras_lr.WarmUpStableDecay(0.1), keras_lr.LRLogger()
        model = sgd()
        callbacks = [keras.callbacks.BackupAndRestore(str(tmp_path)), policy, logger]
        if stop:
            callbacks += [At(6, lambda: policy.decay_now(12)), At(stop, interrupt)]
        fit(model, *callbacks, epochs=9)
        return logger.history, policy

    def interrupt():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(stop=10)  # in the third epoch
    history, policy = run()
    assert policy.decay_begun_at == 6
    close({"learning_rate": history["learning_rate"][-10:]}, expected(18, 0, 6, 12)[8:])


@pytest.mark.once
def test_bad_arguments_are_refused_at_once():
    made = keras_lr.WarmUpStableDecay
    for error, message, options in (
        (ValueError, "max_lr must be above 0; got 0", {"max_lr": 0}),
        (ValueError, "warmup_steps must be an integer", {"warmup_steps": -1}),
        (ValueError, "decay_steps must be an integer", {"decay_steps": 0}),
        (ValueError, "start_lr must not be above max_lr", {"start_lr": 1.0}),
        (ValueError, "minutes must be above 0; got 0", {"minutes": 0}),
        (ValueError, "patience must be an integer of at least 1", {"patience": 0}),
        (TypeError, "monitor must be the name of a log entry", {"monitor": 3}),
        (TypeError, "file must be a path; got 3", {"file": 3}),
        (TypeError, "checkpoint must be a path; got True", {"checkpoint": True}),
    ):
        with pytest.raises(error, match=message):
            made(**{"max_lr": 0.1, **options})
    with pytest.raises(
        ValueError, match="must be at most total_steps; got 9 . 6 and total_steps=12"
    ):
        fit(sgd(), made(0.1, 9, 6))


@pytest.mark.once
@elsewhere
def test_a_metric_that_is_not_in_the_logs_is_warned_of():
    policy = keras_lr.WarmUpStableDecay(0.1, monitor="val_los")
    with pytest.warns(UserWarning, match="monitors 'val_los', which is not in"):
        fit(sgd(), policy, epochs=1)


# From a checkpoint


def line(seed=1):
    x = np.random.default_rng(seed).normal(size=(64, 4)).astype("float32")
    return x, x.sum(axis=1) + 0.5


@pytest.mark.parametrize("shape", ["1-sqrt", "linear", "cosine"])
@elsewhere
def test_cooldown_decays_from_the_rate_and_stops(shape):
    logger, model = keras_lr.LRLogger(), network(inner.SGD(0.1, momentum=0.9))
    keras_lr.cooldown(
        model, *line(), steps=10, shape=shape, batch_size=16, verbose=0, callbacks=[logger]
    )
    close(logger.history, expected(10, 0, 0, 10, shape))
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == np.float32(0.1)


@pytest.mark.parametrize("how", ["by command", "at the end of the fit"])
@elsewhere
def test_checkpoint_has_the_run_before_the_decay(how, tmp_path):
    """Loaded by plain Keras, it decays as the run itself did."""
    path, options = tmp_path / "before.keras", {"batch_size": 16, "shuffle": False, "verbose": 0}
    model = network(inner.SGD(0.1, momentum=0.9))
    policy = keras_lr.WarmUpStableDecay(0.1, 2, 4, decay="linear", checkpoint=path)
    callbacks, epochs = [policy], 3
    if how == "by command":
        callbacks, epochs = [At(2 * STEPS, lambda: policy.decay_now(4)), policy], 9
    model.fit(*line(), epochs=epochs, callbacks=callbacks, **options)
    again = keras.models.load_model(path)
    assert float(keras.ops.convert_to_numpy(again.optimizer.iterations)) == 2 * STEPS
    keras_lr.cooldown(again, *line(), steps=4, shape="linear", **options)
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_checkpoint_of_a_decay_asked_for_in_the_warm_up_has_the_whole_warm_up(tmp_path):
    path = tmp_path / "stable.keras"
    policy = keras_lr.WarmUpStableDecay(0.1, 6, checkpoint=path)
    fit(sgd(), At(2, lambda: policy.decay_now(4)), policy, epochs=9)
    assert policy.decay_begun_at == 6
    assert int(keras.saving.load_model(path).optimizer.iterations) == 6


@several_steps
def test_checkpoint_is_saved_before_the_execution_that_decays(tmp_path):
    path = tmp_path / "before.keras"
    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=2, checkpoint=path)
    fit(sgd(steps_per_execution=4), policy)
    again = keras.models.load_model(path)
    assert int(keras.ops.convert_to_numpy(again.optimizer.iterations)) == 2 * STEPS


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"steps": 0}, "steps must be an integer of at least 1; got 0"),
        (ValueError, {"shape": "sqrt"}, "shape must be '1-sqrt', 'linear' or 'cosine'"),
        (ValueError, {"min_lr": 0.2}, "min_lr must not be above max_lr"),
        (TypeError, {"epochs": 3}, "cooldown does not take epochs"),
        (
            ValueError,
            {"callbacks": [keras_lr.OneCycle(0.1)]},
            "Only one callback of a fit can set the schedule; got Cooldown and OneCycle",
        ),
    ],
)
def test_cooldown_refuses_bad_arguments(error, options, message):
    with pytest.raises(error, match=message):
        keras_lr.cooldown(sgd(), *line(), verbose=0, **options)


@pytest.mark.once
def test_checkpoint_must_be_a_file_of_keras():
    with pytest.raises(ValueError, match="checkpoint must end in .keras; got 'before.h5'"):
        keras_lr.WarmUpStableDecay(0.1, checkpoint="before.h5")


def test_a_resumed_run_goes_on_with_the_minutes_that_were_left(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(seconds=100.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.seconds)
    monkeypatch.setattr("keras_lr.callbacks.warm_up_stable_decay.time", fake)

    class Seconds(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            clock.seconds += 6.0

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("killed")

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return backup, policy, Seconds(), *more

    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=4, minutes=1)
    with pytest.raises(RuntimeError, match="killed"):
        fit(sgd(), *callbacks(Kill()), epochs=9)
    clock.seconds += 1e6  # between the processes
    policy = keras_lr.WarmUpStableDecay(0.1, decay_steps=4, minutes=1)
    fit(sgd(), *callbacks(), epochs=9)
    assert policy.decay_begun_at == 10  # of 6 seconds each
