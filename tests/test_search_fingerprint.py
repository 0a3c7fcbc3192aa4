"""A record answers the problem that it was made for, and no other one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest
from keras import ops

import keras_lr
from keras_lr.optimizers import LayerwiseLR
from keras_lr.rate_search import fingerprint
from keras_lr.rate_search import study as study_module

pytestmark = pytest.mark.once
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
SCALE = 2.0
# What starts fastest.
BACKEND = "jax" if importlib.util.find_spec("jax") else os.environ["KERAS_BACKEND"]


def net(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, **options)])
    return model


def compiled(model=None, optimizer="sgd", loss="mse", **options):
    model = model if model is not None else net()
    model.compile(optimizer, loss, **options)
    return model


def two_outputs(loss, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    first, second = keras.layers.Dense(1, name="a")(inputs), keras.layers.Dense(1, name="b")(inputs)
    model = keras.Model(inputs, [first, second])
    model.compile("sgd", loss, **options)
    return model


def functional(connect):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    first, second = keras.layers.Dense(3), keras.layers.Dense(3, activation="relu")
    model = keras.Model(inputs, connect(inputs, first, second))
    for layer in (first, second):
        layer.set_weights([np.eye(3), np.zeros(3)])
    model.compile("sgd", "mse")
    return model


def scaled(factor):
    def loss(y, p):
        return factor * ops.mean((y - p) ** 2)

    return loss


def reads_a_global(y, p):
    return SCALE * ops.mean((y - p) ** 2)


def with_default(y, p, power=2):
    return ops.mean(ops.abs(y - p) ** power)


def inner(y, p):
    return ops.mean((y - p) ** 2)


def other_inner(y, p):
    return ops.mean(ops.abs(y - p))


def calls(function):
    return lambda y, p: function(y, p)


class Tenth(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.1 * ops.sum(x)


class Fifth(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.2 * ops.sum(x)


class Weighted(keras.losses.Loss):
    """Without a get_config of its own."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y, p):
        return self.weight * ops.mean((y - p) ** 2, axis=-1)


class Callable:
    """No class of Keras's."""

    def __init__(self, weight):
        self.weight = weight
        self.calls = 0

    def __call__(self, y, p):
        self.calls += 1
        return self.weight * ops.mean((y - p) ** 2, axis=-1)


def stepping(scale):
    class Stepping(keras.Sequential):
        def compute_loss(self, *arguments, **named):
            return scale * super().compute_loss(*arguments, **named)

    keras.utils.set_random_seed(0)
    model = Stepping([keras.Input((3,)), keras.layers.Dense(1)])
    return compiled(model)


class Rows(keras.utils.PyDataset):
    def __init__(self, x, size=8):
        super().__init__()
        self.x, self.size = x, size
        self.order = np.arange(len(x))

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        rows = self.order[index * self.size : (index + 1) * self.size]
        return self.x[rows], self.x[rows].sum(axis=1, keepdims=True)

    def on_epoch_end(self):
        np.random.default_rng().shuffle(self.order)


def begin(storage, model, x=X, y=Y, **options):
    """Begin a study, or take part in it, without training."""
    options = {"low": 0.01, "high": 1.0, "verbose": 0, "timeout": 1e-9, **options}
    with pytest.raises(keras_lr.NoSuggestion, match="timeout expired"):
        keras_lr.search(model, x, y, storage=storage, study="s", **options)


def schedule():
    return keras.optimizers.schedules.CosineDecay(0.1, 100)


def frozen():
    model = net()
    model.layers[0].trainable = False
    model.add(keras.layers.Dense(1))
    return compiled(model)


def thawed():
    model = net()
    model.add(keras.layers.Dense(1))
    return compiled(model)


SGD, Adam, Huber = keras.optimizers.SGD, keras.optimizers.Adam, keras.losses.Huber
Y2 = [Y, 2 * Y]
BATCHES = {"y": None, "validation_data": (X, Y)}
# For each: two problems that differ in one thing, as (make, options), and the part that says so.
DIFFER = {
    "loss, arguments": (
        lambda: compiled(loss=Huber(1.0)), lambda: compiled(loss=Huber(0.01)), "loss",
    ),
    "loss, code": (lambda: compiled(loss=inner), lambda: compiled(loss=other_inner), "loss"),
    "loss, closure": (
        lambda: compiled(loss=scaled(1.0)), lambda: compiled(loss=scaled(3.0)), "loss",
    ),
    "loss, function called": (
        lambda: compiled(loss=calls(inner)), lambda: compiled(loss=calls(other_inner)), "loss",
    ),
    "loss, attribute": (
        lambda: compiled(loss=Weighted(1.0)), lambda: compiled(loss=Weighted(2.0)), "loss",
    ),
    "loss, object": (
        lambda: compiled(loss=Callable(1.0)), lambda: compiled(loss=Callable(2.0)), "loss",
    ),
    "losses of outputs": (
        lambda: two_outputs({"a": "mse", "b": "mae"}),
        lambda: two_outputs({"a": "mae", "b": "mse"}), "loss", {"y": {"a": Y, "b": 2 * Y}},
    ),
    "losses in a list": (
        lambda: two_outputs(["mse", Huber(1.0)]), lambda: two_outputs(["mse", Huber(2.0)]),
        "loss", {"y": Y2},
    ),
    "loss_weights": (
        lambda: two_outputs(["mse", "mse"], loss_weights=[1.0, 1.0]),
        lambda: two_outputs(["mse", "mse"], loss_weights=[1.0, 5.0]), "loss_weights", {"y": Y2},
    ),
    "own step": (lambda: stepping(1.0), lambda: stepping(2.0), "code"),
    "clipping": (
        lambda: compiled(optimizer=SGD(0.1, clipnorm=1.0)),
        lambda: compiled(optimizer=SGD(0.1, clipnorm=2.0)), "optimizer",
    ),
    "averages": (
        lambda: compiled(optimizer=SGD(0.1)),
        lambda: compiled(optimizer=SGD(0.1, use_ema=True)), "optimizer",
    ),
    "inner optimizer": (
        lambda: compiled(optimizer=keras.optimizers.LossScaleOptimizer(Adam(beta_1=0.9))),
        lambda: compiled(optimizer=keras.optimizers.LossScaleOptimizer(Adam(beta_1=0.5))),
        "optimizer",
    ),
    "multipliers": (
        lambda: compiled(optimizer=LayerwiseLR(SGD(), {".*": 0.5})),
        lambda: compiled(optimizer=LayerwiseLR(SGD(), {".*": 0.1})), "optimizer",
    ),
    "dtype policy": (
        lambda: compiled(net(dtype="float32")), lambda: compiled(net(dtype="mixed_bfloat16")),
        "layers",
    ),
    "regularizer": (
        lambda: compiled(net(kernel_regularizer=keras.regularizers.L2(0.1))),
        lambda: compiled(net(kernel_regularizer=keras.regularizers.L2(0.2))), "layers",
    ),
    "own regularizer": (
        lambda: compiled(net(kernel_regularizer=Tenth())),
        lambda: compiled(net(kernel_regularizer=Fifth())), "layers",
    ),
    "activation of one's own": (
        lambda: compiled(net(activation=lambda v: ops.relu(v))),
        lambda: compiled(net(activation=lambda v: ops.tanh(v))), "layers",
    ),
    "trainable": (thawed, frozen, "layers"),
    "connections": (
        lambda: functional(lambda x, a, b: a(b(x))), lambda: functional(lambda x, a, b: b(a(x))),
        "(layers|connections)",
    ),
    "constant of an operation": (
        lambda: functional(lambda x, a, b: b(a(x)) * 0.5),
        lambda: functional(lambda x, a, b: b(a(x)) * 2.0), "connections",
    ),
    "function that makes the model": (
        lambda: lambda: compiled(net(kernel_initializer=keras.initializers.Constant(0.5))),
        lambda: lambda: compiled(net(kernel_initializer=keras.initializers.Constant(0.25))),
        "layers",
    ),
    "class_weight": (compiled, compiled, "class_weight", {"class_weight": {0: 1.0, 1: 2.0}}),
    "shuffle": (compiled, compiled, "shuffle", {"shuffle": False}),
    "callbacks": (
        compiled, compiled, "callbacks", {"callbacks": lambda: [keras.callbacks.Callback()]},
    ),
    "metric": (
        lambda: compiled(metrics=[keras.metrics.BinaryAccuracy("m", threshold=0.5)]),
        lambda: compiled(metrics=[keras.metrics.BinaryAccuracy("m", threshold=0.7)]),
        "metrics", {"objective": "val_m"}, {"objective": "val_m"},
    ),
    "data set, rows": (
        compiled, compiled, "content",
        {"x": Rows(X), **BATCHES}, {"x": Rows(X + 1), **BATCHES},
    ),
    "data set, steps": (
        compiled, compiled, "steps_per_epoch",
        {"x": Rows(X), **BATCHES, "steps_per_epoch": 2},
        {"x": Rows(X), **BATCHES, "steps_per_epoch": 3},
    ),
    "validation data set": (
        compiled, compiled, "judged by",
        {"validation_data": Rows(X)}, {"validation_data": Rows(X, 4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFER)
def test_a_record_of_another_problem_is_refused_with_the_part_that_differs(name):
    first, second, part, *options = DIFFER[name]
    before, after = options if len(options) == 2 else ({}, options[0]) if options else ({}, {})
    if first is not second and options:  # one for both
        before = after if len(options) == 1 else before
    storage = optuna.storages.InMemoryStorage()
    begin(storage, first(), **before)
    begin(storage, first(), **before)
    with pytest.raises(ValueError, match=rf"[:;] {part} .* and not ") as caught:
        begin(storage, second(), **after)
    message = str(caught.value)
    assert message.startswith("The study 's' in InMemoryStorage ") and "\n" not in message
    assert "another name for this search" in message


def test_a_global_that_a_loss_reads_is_a_part_of_it(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    begin(storage, compiled(loss=reads_a_global))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    with pytest.raises(ValueError, match="loss reads_a_global .* and not reads_a_global"):
        begin(storage, compiled(loss=reads_a_global))


@pytest.mark.parametrize(
    "change",
    [
        lambda: compiled(optimizer=SGD(0.5)),  # the rate, which is searched for
        lambda: compiled(optimizer=SGD(schedule())),
        lambda: compiled(metrics=["mae"]),  # none of which is the objective
        lambda: compiled(run_eagerly=True),
        lambda: compiled(jit_compile=False),
    ],
)
def test_what_changes_no_run_is_not_compared(change):
    storage = optuna.storages.InMemoryStorage()
    begin(storage, compiled(optimizer=SGD(0.1)))
    begin(storage, change())


def test_y_and_weights_of_the_same_content_are_told_apart():
    assert fingerprint.of_data((X, Y, None), None) != fingerprint.of_data((X, None, Y), None)
    assert fingerprint.of_data(({"a": X, "b": Y}, Y), None) == fingerprint.of_data(
        ({"b": Y, "a": X}, Y), None
    )
    assert fingerprint.of_data(({"a": X}, Y), None) != fingerprint.of_data(({"b": X}, Y), None)


def test_every_row_of_a_large_array_counts():
    x = np.zeros((2**20, 20), "float32")  # 80 MB
    before = fingerprint.of_data((x,), None)
    x[12345, 7] = 1.0
    assert fingerprint.of_data((x,), None) != before


def test_a_data_set_that_shuffles_itself_is_the_same_afterwards():
    storage, rows = optuna.storages.InMemoryStorage(), Rows(X)
    begin(storage, compiled(), rows, **BATCHES)
    rows.on_epoch_end()
    begin(storage, compiled(), rows, **BATCHES)


def test_a_loss_that_counts_its_calls_is_the_same_afterwards():
    storage, loss = optuna.storages.InMemoryStorage(), Callable(1.0)
    begin(storage, compiled(loss=loss))
    loss.calls += 7
    begin(storage, compiled(loss=loss))


def test_a_loss_without_a_configuration_or_code_is_refused_where_there_is_a_record():
    class Opaque:
        def __reduce_ex__(self, protocol):
            raise TypeError("cannot be pickled")

        def __call__(self, y, p):
            return ops.mean((y - p) ** 2)

    begin(None, compiled(loss=Opaque()))
    with pytest.raises(ValueError, match="In a search with a record the loss must have a config"):
        begin(optuna.storages.InMemoryStorage(), compiled(loss=Opaque()))


def test_a_record_of_before_is_refused_in_a_sentence(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "FORMAT", 1)
        begin(storage, compiled())
    with pytest.raises(
        ValueError, match=r"has format 1, of another version of keras-lr; this version reads"
    ):
        begin(storage, compiled())


SCRIPT = """
import functools, json, os, sys
for package in {"tensorflow", "jax", "torch", "sklearn", "pandas"} - {os.environ["KERAS_BACKEND"]}:
    sys.modules[package] = None  # the import is faster without
import keras, numpy as np
from keras import ops
from keras_lr.rate_search import fingerprint
ALPHA = {"a": 0.5, "b": {1, 2, 3}, "c": frozenset("xyz")}

class Block(keras.layers.Layer):
    def __init__(self, units, act):
        super().__init__()
        self.act, self.inner = act, keras.layers.Dense(units)
        self.drop = keras.layers.Dropout(0.1)
        self.seeds = keras.random.SeedGenerator()
    def build(self, shape):
        self.bias = self.add_weight(shape=(4,))
    def call(self, x):
        return self.drop(self.act(self.inner(x))) + self.bias

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.last = Block(4, lambda v: ops.relu(v)), keras.layers.Dense(1)
    def call(self, x):
        return self.last(self.block(x))
    def compute_loss(self, x=None, y=None, y_pred=None, **named):
        return super().compute_loss(x, y, y_pred, **named) + ALPHA["a"]

def loss(power, y, p):
    return ops.mean(ops.abs(y - p) ** power) if "x" in ALPHA["c"] else 0.0

class Rows(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.order = np.random.permutation(4)
        self.x = np.ones((4, 3), "float32")
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return self.x[:2], self.x[:2, :1]

def made():
    keras.utils.set_random_seed(0)
    net = Net()
    net.compile(keras.optimizers.Adam(clipnorm=1.0), functools.partial(loss, 2), metrics=["mae"])
    net(np.zeros((2, 3), "float32"))
    net.optimizer.build(net.trainable_variables)
    inputs = keras.Input((3,))
    hidden = keras.layers.RandomCrop(2, 2)(keras.layers.Reshape((3, 1, 1))(inputs))
    model = keras.Model(inputs, keras.layers.Lambda(lambda v: v * 2)(keras.ops.sum(hidden, 1)))
    return net, model

def parts():
    net, model = made()
    model.compile("sgd", "mse")
    return [
        fingerprint.of_model(net, made, "val_mae"), fingerprint.of_model(net, None, "val_loss"),
        fingerprint.of_model(model, None, "val_loss"),
        fingerprint.of_data((Rows(), None, None), None),
        fingerprint.of_fit({"class_weight": {1: 2}}, lambda: [keras.callbacks.Callback()]),
    ]

print(json.dumps([parts(), parts()]))
"""


def test_two_processes_and_two_models_of_one_script_are_told_the_same(tmp_path):
    """Names that Keras counts up, addresses and the order of sets are no part of it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[1])
    told = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=False,
            env={
                **os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root, "KERAS_BACKEND": BACKEND,
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told += json.loads(done.stdout.splitlines()[-1])
    assert told[0] == told[1] == told[2] == told[3]
