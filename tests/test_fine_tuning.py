"""`fine_tune` against the same two phases written out with Keras and the composition rule."""

import keras
import numpy as np
import pytest
from models import data, same, values
from test_gradual_unfreeze import Record, network, parts

import keras_lr
from keras_lr import fine_tune
from keras_lr.optimizers import LayerwiseLR

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)

OPTIONS = {"batch_size": 16, "shuffle": False, "verbose": 0}


def test_the_head_trains_first_and_then_everything():
    model, record = network(), Record()
    optimizer, config = model.optimizer, model.optimizer.get_config()
    phases = fine_tune(model, *data(), 2, 3, 1e-2, callbacks=[record], **OPTIONS)
    assert len(phases.head.history["loss"]) == 2
    assert len(phases.whole.history["loss"]) == 3
    assert record.changes == [{*parts(model)}] * 3  # of the second phase, a run of its own
    assert model.optimizer is optimizer
    assert optimizer.get_config() == config
    assert int(optimizer.iterations) == 5 * 6

    losses = phases.head.history["loss"][-1], phases.whole.history["loss"][-1]
    words = "<FineTuning: head 2 epochs, loss {:.4g}; whole 3 epochs, loss {:.4g}>"
    assert repr(phases) == words.format(*losses)

    only = Record()
    alone = fine_tune(model, *data(), 2, 0, 1e-2, callbacks=[only], **OPTIONS)
    assert only.changes == [{"head"}] * 2
    assert "whole" not in repr(alone)


def test_the_rates_are_those_of_fastai():
    """Peaks of base_lr and base_lr / 2, a start of 1/25 and 1/5 of it, the top at .99 and .3."""
    model, logger = network(), keras_lr.LRLogger()
    phases = fine_tune(model, *data(), 5, 10, 1e-2, callbacks=[logger], **OPTIONS)
    rates = np.array(logger.history["learning_rate"])  # 60 updates of the second phase
    np.testing.assert_allclose(rates[0], 5e-3 / 5, rtol=1e-5)
    assert abs(int(rates.argmax()) - 0.3 * 60) <= 1
    np.testing.assert_allclose(rates.max(), 5e-3, rtol=1e-3)
    head = phases.head.history["learning_rate"]
    assert head[:-1] == sorted(head[:-1])  # it climbs, up to the last update
    assert 0.9e-2 < head[-2] <= 1e-2
    assert head[-1] < 1e-6


def test_the_whole_equals_the_phases_written_out():
    ours, twin = (network(keras.optimizers.SGD(0.3)) for _ in range(2))
    fine_tune(ours, *data(), 1, 2, 0.1, lr_mult=16.0, **OPTIONS)

    x, y = data()
    for name in ("block1", "block2", "norm2"):
        twin.layers[0].get_layer(name).trainable = False
    twin.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
    cycle = keras_lr.schedules.OneCycleSchedule(0.1, 6, 0.99)
    twin.fit(x, y, callbacks=[keras_lr.ScheduleLR(cycle)], **OPTIONS)
    for layer in twin.layers[0].layers:
        layer.trainable = True
    # Three groups, the normalisation with the layer before it: 1/16, 1/4 and 1.
    ratios = {"block1": 1 / 16, "block2": 1 / 4, "norm2": 1 / 4, "head": 1.0}
    optimizer = LayerwiseLR(keras.optimizers.SGD(0.3), ratios)
    twin.compile(optimizer, "sparse_categorical_crossentropy")
    cycle = keras_lr.schedules.OneCycleSchedule(0.05, 12, 0.3, div_factor=5.0)
    twin.fit(x, y, epochs=2, callbacks=[keras_lr.ScheduleLR(cycle)], **OPTIONS)
    for got, expected in zip(ours.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_the_head_can_be_named_and_multipliers_of_the_optimizer_come_back():
    model = network(LayerwiseLR(keras.optimizers.Adam(0.01), {"head": 0.5}))
    record = Record()
    fine_tune(model, *data(), 1, 0, head=["norm2", "head"], callbacks=[record], **OPTIONS)
    assert record.changes == [{"norm2", "norm2 statistics", "head"}]
    assert model.optimizer.multipliers == {"head": 0.5}
    model.fit(*data(), callbacks=[record], **OPTIONS)
    assert record.changes == [{*parts(model)}]


def test_data_sets_weights_and_validation_go_to_fit():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            x, y = data()
            return x[:16], y[:16]

    phases = fine_tune(
        network(), Batches(), head_epochs=1, epochs=1, validation_data=data(), verbose=0
    )
    assert "val_loss" in phases.whole.history
    weighted = fine_tune(network(), *data(), 1, 1, sample_weight=np.zeros(96), **OPTIONS)
    assert weighted.head.history["loss"] == [0.0]


def test_an_error_on_the_way_leaves_the_optimizer_in_place():
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError

    model = network()
    optimizer = model.optimizer
    with pytest.raises(ZeroDivisionError):
        fine_tune(model, *data(), 1, 1, callbacks=[Fails()], **OPTIONS)
    assert model.optimizer is optimizer
    record = Record()
    model.fit(*data(), callbacks=[keras_lr.LRLogger(), record], **OPTIONS)
    assert record.changes == [{*parts(model)}]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs must be an integer of at least 0"),
        ({"head_epochs": 1.5}, ValueError, "head_epochs"),
        ({"base_lr": 0.0}, ValueError, "base_lr"),
        ({"lr_mult": 0.5}, ValueError, "lr_mult"),
        ({"head": ".*"}, ValueError, "a body besides the head"),
        ({"head": "nobody"}, ValueError, "No trainable variable matches 'nobody'"),
        ({"initial_epoch": 3}, TypeError, "does not take initial_epoch"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(options, error, message):
    model = network()
    before = values(model.variables)
    with pytest.raises(error, match=message):
        fine_tune(model, *data(), **options)
    assert same(values(model.variables), before)


@pytest.mark.once
@pytest.mark.parametrize("given", [data(), (*data(), np.zeros(96))])
def test_a_tuple_of_inputs_and_targets_is_refused_with_the_way_out(given):
    """`fit` would train on the targets as a second input of the model."""
    model = network()
    before = values(model.variables)
    with pytest.raises(TypeError, match=rf"tuple of {len(given)}\. .*fine_tune\(model, x, y\)"):
        fine_tune(model, given, head_epochs=1, epochs=1, **OPTIONS)
    assert same(values(model.variables), before)


@pytest.mark.once
def test_inputs_of_several_in_a_list_need_no_targets():
    left, right = keras.Input((4,)), keras.Input((4,))
    inner = keras.layers.Dense(4, name="body")
    out = keras.layers.Dense(1, name="head")(keras.layers.Add()([inner(left), right]))
    model = keras.Model([left, right], out)
    model.compile("sgd")
    model.compute_loss = lambda x, y, y_pred, *_, **__: keras.ops.mean(y_pred**2)
    phases = fine_tune(
        model, [np.ones((32, 4)), np.ones((32, 4))], epochs=1, callbacks=None, verbose=0
    )
    assert phases.whole.history["loss"][0] < phases.head.history["loss"][0]
