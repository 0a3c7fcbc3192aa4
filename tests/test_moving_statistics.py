"""Batch normalization in a model with `ScheduleFree`: its statistics belong to the average x."""

import keras
import numpy as np
import pytest
from models import classifier, data, same, values

from keras_lr.optimizers import ScheduleFree

X, Y = data()
BATCH = 16


def model_of():
    return classifier(ScheduleFree(keras.optimizers.Adam(0.05)), dropout=0.0)


def statistics_at(model, batches):
    """The means over batches of the moments that the batch normalization sees."""
    kernel, bias = (keras.ops.convert_to_numpy(each) for each in model.layers[0].weights)
    moments = []
    for rows in batches:
        hidden = np.maximum(rows.astype("float64") @ kernel + bias, 0.0)
        moments.append((hidden.mean(axis=0), hidden.var(axis=0)))
    return np.mean(moments, axis=0)


def assert_statistics(model, batches, rtol=1e-4):
    layer = model.layers[1]
    found = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    np.testing.assert_allclose(found, statistics_at(model, batches), rtol=rtol, atol=1e-6)


class Numbered(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return X[rows], Y[rows]


BATCHES = [X[start : start + BATCH] for start in range(0, len(X), BATCH)]


def test_the_statistics_are_the_means_over_the_batches_at_x():
    model, seen = model_of(), []

    def after_epoch(epoch, logs):
        assert model.optimizer.evaluates
        assert_statistics(model, BATCHES)
        seen.append(epoch)

    callback = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    model.fit(Numbered(), epochs=2, callbacks=[callback], verbose=0)
    assert seen == [0, 1]
    assert_statistics(model, BATCHES)


@pytest.mark.parametrize("rows", [96, 40])
def test_of_arrays_all_batches_are_of_the_training_rows(rows):
    model = model_of()
    held = {"validation_split": 1 - rows / 96} if rows < 96 else {}
    model.fit(X, Y, batch_size=rows, verbose=0, **held)  # one batch of all rows
    assert_statistics(model, [X[:rows]])


def test_a_call_within_an_epoch_has_them():
    model, seen = model_of(), []

    def after_batch(batch, logs):
        model.evaluate(X, Y, verbose=0)
        model.optimizer.eval()
        assert_statistics(model, BATCHES)
        model.optimizer.train()
        seen.append(batch)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=after_batch)
    model.fit(Numbered(), callbacks=[callback], verbose=0)
    assert len(seen) == 6


def test_the_validation_in_a_fit_has_them():
    model = model_of()
    history = model.fit(Numbered(), validation_data=(X, Y), verbose=0).history
    loss = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert_statistics(model, BATCHES)
    np.testing.assert_allclose(history["val_loss"], [loss], rtol=1e-5)


def test_a_fit_differs_in_nothing_else():
    """Neither the weights nor the random numbers: dropout is in the model."""
    pair = []
    for collects in (True, False):
        model = classifier(ScheduleFree(keras.optimizers.Adam(0.05)))
        keras.utils.set_random_seed(3)
        if not collects:
            model.layers[1].momentum = 0.5  # the statistics change no step of the training
        history = model.fit(X, Y, batch_size=BATCH, epochs=3, verbose=0).history
        assert model.layers[1].momentum == (0.99 if collects else 0.5)
        pair.append([np.array(history["loss"]), *values(model.trainable_variables)])
    assert same(*pair)


@pytest.mark.once
def test_data_that_can_be_read_once_get_a_warning():
    def batches():
        for part in range(6):
            yield Numbered()[part]

    with pytest.warns(UserWarning, match=r"statistics of 'batch_normal.* \(got a generator\)"):
        model_of().fit(batches(), steps_per_epoch=6, shuffle=False, verbose=0)


@pytest.mark.once
def test_a_model_that_cannot_be_called_gets_one_warning(monkeypatch):
    def call(*arguments, **options):
        raise ValueError("call trains nothing here")

    model = model_of()
    start = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append(epoch))
    calls = []
    monkeypatch.setattr("keras_lr.optimizers.evaluation_point.recompute", call)
    with pytest.warns(UserWarning, match="ValueError: call trains nothing here") as found:
        model.fit(X, Y, epochs=2, callbacks=[start], verbose=0)
    assert calls == [0, 1]
    assert len([each for each in found if "trains nothing" in str(each.message)]) == 1


@pytest.mark.once
def test_frozen_layers_keep_their_statistics():
    model = model_of()
    model.layers[1].trainable = False
    before = values(model.layers[1].non_trainable_variables)
    model.fit(X, Y, verbose=0)
    assert same(values(model.layers[1].non_trainable_variables), before)


@pytest.mark.once
def test_a_dataset_and_a_loader_are_read_again():
    tf, torch = pytest.importorskip("tensorflow"), pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=BATCH
    )
    for source in (tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH), loader):
        model = model_of()
        model.fit(source, shuffle=False, verbose=0)
        assert_statistics(model, BATCHES)
