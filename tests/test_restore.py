"""`fit` after `lr_find` equals `fit` without it, to the last bit."""

import random
import signal

import keras
import numpy as np
import pytest
from models import classifier, data, same, sampled, values

import keras_lr
from keras_lr._keras import device_memory
from keras_lr._keras.snapshot import Snapshot

BACKEND = keras.backend.backend()


def optimizer(name, **options):
    return lambda: getattr(keras.optimizers, name)(learning_rate=0.01, **options)


def multi():
    groups = {"dense.*": keras.optimizers.Adam(0.001)}
    default = keras.optimizers.SGD(0.01, momentum=0.9)
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, groups))


OPTIMIZERS = {
    name: optimizer(name)
    for name in (
        "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Lamb", "Lion",
        "Muon", "Nadam", "RMSprop", "SGD",
    )
    if hasattr(keras.optimizers, name)
} | {
    "SGD with momentum": optimizer("SGD", momentum=0.9, nesterov=True),
    "RMSprop, centered, with momentum": optimizer("RMSprop", momentum=0.9, centered=True),
    "Adam with amsgrad": optimizer("Adam", amsgrad=True),
    "Adam, accumulating": optimizer("Adam", gradient_accumulation_steps=3),
    "Adam, clipped": optimizer("Adam", clipnorm=1.0),
    "AdamW with a schedule": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5)
    ),
    "Adam with a moving average": optimizer("Adam", use_ema=True, ema_overwrite_frequency=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}  # fmt: skip
if hasattr(keras.optimizers, "MultiOptimizer"):
    OPTIMIZERS["several optimizers"] = multi


def test_every_optimizer_of_keras_has_a_row():
    base = keras.optimizers.Optimizer
    known = {type(make()) for make in OPTIMIZERS.values()}
    public = {
        cls
        for cls in vars(keras.optimizers).values()
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base
    }
    refused = {"ScheduleFreeAdamW", "Ftrl"}  # test_finder_schedule_free.py, test_ftrl.py
    assert {cls.__name__ for cls in public} - refused == {cls.__name__ for cls in known}


def fitted(make, find):
    """State after two fits of an epoch, with a range test before each when `find`.

    One fit on the backends that compile for long. With a moving average, Keras on JAX cannot train
    after `fit` has put the averages in place ("donate the same buffer twice") in any case.
    """
    x, y = data()
    model = classifier(make())
    keras.utils.set_random_seed(7)
    state = []
    for _ in range(2 if BACKEND == "torch" else 1):
        if find:
            keras_lr.lr_find(model, x, y, steps=30, verbose=0)
        history = model.fit(x, y, batch_size=16, verbose=0).history
        state += values(model.variables) + values(model.optimizer.variables)
        state += [np.array(history["loss"]), np.array(history["accuracy"])]
    return state


@pytest.mark.parametrize(
    "make",
    sampled(
        OPTIMIZERS,
        *("SGD with momentum", "Adam", "loss scale", "several optimizers"),
        why="the slots of every optimizer are restored alike",
    ),
)
def test_fit_after_find_equals_fit_without_it(make):
    assert same(fitted(make, find=True), fitted(make, find=False))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow's copies are on the host")
@pytest.mark.parametrize("make", [OPTIMIZERS["SGD"], OPTIMIZERS["Adam"]], ids=["SGD", "Adam"])
def test_fit_after_find_is_the_same_with_copies_on_the_device(monkeypatch, make):
    copied = []

    def copies(values):
        found = copies_on_device(values)
        copied.append(found is not None)
        return found

    copies_on_device = device_memory.copies_on_device
    monkeypatch.setattr(device_memory, "free_memory", lambda values: 2**60)
    monkeypatch.setattr("keras_lr._keras.values.copies_on_device", copies)
    found = fitted(make, find=True)
    assert len(copied) > 2 and all(copied)
    monkeypatch.undo()
    assert same(found, fitted(make, find=False))


def test_copies_go_to_the_host_if_the_device_is_not_large_beside_them(monkeypatch):
    values = [keras.Variable(np.zeros((10, 10), "float32")).value]
    assert device_memory.copies_on_device(values) is None  # the host's own memory
    for free, stays in ((20 * 400, BACKEND != "tensorflow"), (20 * 400 - 1, False)):
        monkeypatch.setattr(device_memory, "free_memory", lambda values, free=free: free)
        assert (device_memory.copies_on_device(values) is not None) is stays


def state_of(model):
    random_state = [np.array(random.getstate()[1]), np.random.get_state()[1]]
    if BACKEND == "torch":
        import torch

        random_state.append(torch.get_rng_state().numpy())
    return (
        values(model.variables)
        + values(model.optimizer.variables)
        + values(model.metrics_variables)
        + random_state
    )


def attributes_of(model):
    return (
        model.optimizer.built,
        len(model.optimizer.variables),
        model._compile_metrics.built,
        model._compile_loss.built,
        model.stop_training,
        model.train_function,
        model.optimizer._learning_rate,
        sorted(vars(model.optimizer)),
    )


@pytest.mark.parametrize("trained", [False, True], ids=["never fitted", "fitted before"])
def test_find_leaves_no_trace_in_state_and_attributes(trained):
    x, y = data()
    model = classifier()
    model.stop_training = True
    if trained:
        model.fit(x, y, verbose=0)
    before, attributes = state_of(model), attributes_of(model)
    keras_lr.lr_find(model, x, y, repeats=2, budget=600, seed=3, verbose=0)
    assert same(state_of(model), before)
    assert attributes_of(model) == attributes


def test_a_run_that_diverges_to_nan_leaves_no_trace():
    x, y = data()
    model = classifier(keras.optimizers.SGD(0.01), loss=lambda y, p: keras.ops.mean(p) * np.nan)
    model.fit(x, y, verbose=0)
    before = state_of(model)
    test = keras_lr.lr_find(model, x, y, steps=30, verbose=0)
    assert test.stop_reason == "non_finite"
    assert len(test.losses) == 0
    assert same(state_of(model), before)


class Breaks(keras.utils.PyDataset):
    """Gives some batches, then does what it was told to do."""

    def __init__(self, action):
        super().__init__()
        self.action, self.given = action, 0

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.given += 1
        if self.given > 40:
            self.action()
        x, y = data()
        return x[:16], y[:16]


def fail():
    raise ZeroDivisionError("from the data")


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("action", [fail, interrupt])
def test_find_leaves_no_trace_when_it_is_broken_off(action):
    x, y = data()
    model = classifier()
    model.fit(x, y, verbose=0)
    before, attributes = state_of(model), attributes_of(model)
    with pytest.raises(BaseException) as caught:
        keras_lr.lr_find(model, Breaks(action), verbose=0)
    assert "from the data" in str(caught.value) or caught.type is KeyboardInterrupt
    assert same(state_of(model), before)
    assert attributes_of(model) == attributes


def test_ctrl_c_during_the_restore_waits_until_it_is_done(monkeypatch):
    x, y = data()
    model = classifier()
    before = state_of(model)
    restore = keras_lr._keras.snapshot.Snapshot.restore

    def interrupted(self):
        interrupt()
        restore(self)

    monkeypatch.setattr(keras_lr._keras.snapshot.Snapshot, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keras_lr.lr_find(model, x, y, steps=5, verbose=0)
    assert same(state_of(model), before)


def test_snapshot_takes_no_more_host_memory_than_weights_and_optimizer_state():
    x, y = data()
    model = classifier()
    model.fit(x, y, verbose=0)
    state = values(model.weights) + values(model.optimizer.variables)
    state_bytes = sum(value.nbytes for value in state)
    test = keras_lr.lr_find(model, x, y, steps=5, verbose=0)
    # Metrics and seeds, a few numbers each, come on top; they do not grow with the model.
    assert state_bytes <= test.provenance["snapshot_bytes"] <= state_bytes + 64


def test_a_layer_can_be_unfrozen_and_compiled_again_after_find():
    x, y = data()
    model = classifier()
    optimizer = model.optimizer
    model.layers[0].trainable = False
    model.compile(optimizer, "sparse_categorical_crossentropy")
    keras_lr.lr_find(model, x, y, steps=5, verbose=0)
    model.layers[0].trainable = True
    model.compile(optimizer, "sparse_categorical_crossentropy")
    before = keras.ops.convert_to_numpy(model.layers[0].kernel).copy()
    model.fit(x, y, verbose=0)
    assert (keras.ops.convert_to_numpy(model.layers[0].kernel) != before).any()


def test_layers_that_are_frozen_meanwhile_train_again():
    model = classifier()
    before = [variable.trainable for variable in model.variables]
    with Snapshot(model).guarding():
        model.layers[0].trainable = False
        assert [variable.trainable for variable in model.variables] != before
    assert [variable.trainable for variable in model.variables] == before
    assert model.layers[0].trainable and model.layers[0].trainable_variables


def test_the_model_saves_and_loads_with_its_optimizer_after_find(tmp_path):
    x, y = data()
    model = classifier("adam")
    model.fit(x, y, verbose=0)
    keras_lr.lr_find(model, x, y, steps=5, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(values(loaded.optimizer.variables), values(model.optimizer.variables))


@pytest.mark.skipif(BACKEND != "torch", reason="plain torch modules exist on torch only")
def test_buffers_of_plain_torch_modules_are_restored():
    import torch

    module = torch.nn.BatchNorm1d(6)
    model = keras.Sequential([keras.Input((6,)), keras.layers.TorchModuleWrapper(module)])
    model.add(keras.layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = data()
    model.fit(x, y, verbose=0)
    before = [buffer.clone() for buffer in module.buffers()]
    keras_lr.lr_find(model, x, y, steps=10, verbose=0)
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


@pytest.mark.skipif(BACKEND != "jax", reason="counts what JAX compiles")
def test_neither_fit_nor_find_is_compiled_again_after_find():
    import jax

    x, y = data()
    model = classifier()
    model.fit(x, y, batch_size=16, verbose=0)
    keras_lr.lr_find(model, x, y, batch_size=16, steps=10, verbose=0)
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    model.fit(x, y, batch_size=16, verbose=0)
    keras_lr.lr_find(model, x, y, batch_size=16, steps=10, verbose=0)
    assert [name for name in events if "backend_compile" in name] == []
