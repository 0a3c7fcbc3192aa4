"""`keras_lr.Diagnose`: findings during `fit`, each once, and a stop if asked."""

import keras
import numpy as np
import pytest

import keras_lr
from keras_lr.diagnosis import diagnose

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)

X = np.ones((32, 1), "float32")


def scaled(rate):
    """A model whose loss is the square of its weight, which starts at 1.

    SGD multiplies the weight by 1 - 2 * rate in each step.
    """
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def fit(model, callback, epochs=20, **options):
    options = {"batch_size": 32, "verbose": 0, **options}
    return model.fit(X, 0 * X, epochs=epochs, callbacks=[callback], **options)


def test_a_run_that_diverges_is_reported_once_and_goes_on(capsys):
    watch = keras_lr.Diagnose()
    history = fit(scaled(1.2), watch)  # the loss grows by 1.4 ** 2 in each epoch
    assert len(history.epoch) == 20
    assert [finding.name for finding in watch.reported] == ["diverged"]
    text = capsys.readouterr().out
    assert text.count("error, diverged. The loss rose from 1 in epoch 1 to") == 1
    # Three losses are the fewest that can be called divergence; patience needs three such epochs.
    assert "Epoch 5: error" in text and "The training stops" not in text
    assert watch.diagnosis.names == ("diverged",) and watch.diagnosis.last == 20


def test_it_stops_the_training_if_asked(capsys):
    watch = keras_lr.Diagnose(stop="error", verbose=0)
    assert len(fit(scaled(1.2), watch).epoch) == 5
    assert capsys.readouterr().out == ""
    assert len(fit(scaled(1.2), keras_lr.Diagnose("error", patience=1, verbose=0)).epoch) == 3
    fit(scaled(0.1), watch)
    assert watch.reported == [] and watch.diagnosis.verdict == "healthy"


@pytest.mark.once
def test_nan_is_reported_at_once_and_a_warning_stops_only_if_asked():
    losses = iter([1.0, 0.5, float("nan"), 0.4])

    class Fake(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = next(losses)

    watch = keras_lr.Diagnose("error", verbose=0)
    model = scaled(0.1)
    history = model.fit(X, 0 * X, epochs=4, verbose=0, callbacks=[Fake(), watch])
    assert len(history.epoch) == 3
    assert (watch.reported[0].name, watch.reported[0].first) == ("not-a-number", 3)


@pytest.mark.once
@pytest.mark.parametrize("stop", ["error", "warning"])
def test_overfitting_is_a_warning(stop):
    """The validation loss falls to epoch 8 and rises by a tenth of its least value from then on."""

    class Fake(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = 0.8**epoch
            logs["val_loss"] = 0.8 ** min(epoch, 7) * (1 + 0.1 * max(0, epoch - 7))

    watch = keras_lr.Diagnose(stop, verbose=0)
    model = scaled(0.1)
    history = model.fit(X, 0 * X, epochs=20, verbose=0, callbacks=[Fake(), watch])
    assert [finding.name for finding in watch.reported] == ["overfitting"]
    assert watch.reported[0].first == 8
    sure = next(rows for rows in range(10, 20) if all(map(_overfits, range(rows - 2, rows + 1))))
    assert sure < 15
    assert len(history.epoch) == (sure if stop == "warning" else 20)


def _overfits(rows):
    epochs = np.arange(rows)
    held_out = 0.8 ** np.minimum(epochs, 7) * (1 + 0.1 * np.maximum(0, epochs - 7))
    log = {"loss": 0.8**epochs, "val_loss": held_out}
    return "overfitting" in diagnose(log, total_epochs=20).names


@pytest.mark.once
def test_a_long_run_is_checked_about_200_times(monkeypatch):
    import keras_lr.callbacks.live_diagnosis as module

    calls = []

    def counted(rows, **options):
        calls.append(len(rows))
        return diagnose({"loss": [1.0]})

    monkeypatch.setattr(module, "diagnose", counted)
    watch = keras_lr.Diagnose(verbose=0)
    watch._rows, watch._found, watch._epochs = [], {}, 1000
    for epoch in range(1000):
        watch.judge(epoch, {"loss": 1.0})
    assert 150 < len(calls) <= 201 and calls[-1] == 1000


def test_the_rate_of_a_schedule_is_judged():
    watch = keras_lr.Diagnose(verbose=0)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 30)
    fit(scaled(schedule), watch, epochs=30)
    assert watch.diagnosis.learning_rate == pytest.approx(0.1, rel=1e-5)


@pytest.mark.once
def test_a_resumed_run_keeps_its_rows(tmp_path):
    backup = tmp_path / "backup"

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 6:
                raise KeyboardInterrupt

    def callbacks(watch, *others):
        return [keras.callbacks.BackupAndRestore(backup), watch, *others]

    with pytest.raises(KeyboardInterrupt):
        scaled(0.1).fit(
            X, 0 * X, epochs=12, verbose=0, callbacks=callbacks(keras_lr.Diagnose(), Kill())
        )
    watch = keras_lr.Diagnose(verbose=0)
    scaled(0.1).fit(X, 0 * X, epochs=12, verbose=0, callbacks=callbacks(watch))
    assert (watch.diagnosis.rows, watch.diagnosis.first, watch.diagnosis.last) == (12, 1, 12)
    assert watch.diagnosis.earlier == ()


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stop": "hint"}, ValueError, "stop must be 'error', 'warning' or None; got 'hint'."),
        ({"patience": 0}, ValueError, "patience must be"),
        ({"untrained_loss": "x"}, TypeError, "untrained_loss"),
    ],
)
def test_bad_arguments_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        keras_lr.Diagnose(**options)
