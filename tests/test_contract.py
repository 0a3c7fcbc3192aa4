"""The contract that every callback keeps, on the backend that runs."""

import keras
import numpy as np
import pytest
from contract import CALLBACKS, KINDS, public_classes
from models import classifier, data, same, values

callbacks = pytest.mark.parametrize(
    "make", CALLBACKS.values(), ids=[cls.__name__ for cls in CALLBACKS]
)


@pytest.mark.parametrize("module", KINDS)
def test_every_class_has_a_row(module):
    base, rows = KINDS[module]
    assert public_classes(module, base) == set(rows)


@callbacks
def test_config_makes_an_equal_callback(make):
    callback = make()
    again = type(callback)(**callback.get_config())
    assert again.get_config() == callback.get_config()


@callbacks
def test_an_instance_serves_two_fits(make):
    x, y = data()
    callback, model = make(), classifier()
    for _ in range(2):
        model.fit(x, y, batch_size=16, callbacks=[callback], verbose=0)


@callbacks
def test_after_fit_the_optimizer_is_an_ordinary_one_that_saves_and_loads(make, tmp_path):
    x, y = data()
    model, twin = classifier(), classifier()
    layout = [(v.path.split("/")[-1], v.shape) for v in twin.optimizer.variables]
    config = model.optimizer.get_config()
    model.fit(x, y, batch_size=16, callbacks=[make()], verbose=0)
    assert type(model.optimizer) is type(twin.optimizer)
    assert model.optimizer.get_config() == config
    names = [(v.path.split("/")[-1], v.shape) for v in model.optimizer.variables]
    assert names[: len(layout)] == layout
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(values(loaded.optimizer.variables), values(model.optimizer.variables))


@callbacks
def test_a_plain_fit_afterwards_trains_at_the_optimizers_own_rate(make):
    x, y = data()
    model, twin = (classifier(keras.optimizers.SGD(0.05), dropout=0.0) for _ in range(2))
    model.fit(x, y, batch_size=16, callbacks=[make()], verbose=0)
    before = values(model.trainable_variables)
    twin.set_weights(model.get_weights())
    for each in (model, twin):
        each.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert not same(values(model.trainable_variables), before)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
