"""`LRLogger(tracker=...)`: an object of the user's, Weights & Biases, MLflow."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from field_models.generative import gan, pictures
from test_steering import STEPS, fit, groups, network, one_cycle

import keras_lr

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)


def sgd():
    return keras.optimizers.SGD(0.01, momentum=0.9)


class Entries:
    """A tracker that keeps what it gets."""

    def __init__(self):
        self.entries = []

    def log(self, metrics, step):
        self.entries.append((step, metrics))

    def column(self, key):
        return [metrics[key] for _, metrics in self.entries]


def test_tracker_gets_the_rate_and_the_momentum_of_each_update():
    tracker = Entries()
    fit(network(sgd()), keras_lr.OneCycle(0.05), keras_lr.LRLogger(tracker=tracker))
    rates, momenta = one_cycle()
    assert [step for step, _ in tracker.entries] == list(range(3 * STEPS))
    np.testing.assert_allclose(tracker.column("learning_rate"), rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(tracker.column("momentum"), momenta, rtol=1e-5, atol=0)
    assert all(type(value) is float for _, entry in tracker.entries for value in entry.values())


def test_tracker_gets_the_rate_of_each_group():
    tracker = Entries()
    model = network(groups())
    fit(model, keras_lr.OneCycle(0.05), keras_lr.LRLogger(tracker=tracker))
    names = {f"learning_rate/{each.name}" for each in model.optimizer.optimizers}
    assert len(names) > 1
    assert set(tracker.entries[0][1]) == {"learning_rate", "momentum", *names}
    np.testing.assert_allclose(tracker.column("learning_rate"), one_cycle()[0], rtol=1e-5, atol=0)
    largest = np.max([tracker.column(name) for name in names], axis=0)
    np.testing.assert_allclose(tracker.column("learning_rate"), largest, rtol=1e-6, atol=0)


def test_loggers_of_two_optimizers_have_keys_of_their_own():
    """The two loggers of a GAN write to one run, where equal keys would mix their values."""
    tracker, model = Entries(), gan()
    loggers = [
        keras_lr.LRLogger(optimizer=f"{each}_optimizer", tracker=tracker) for each in ("d", "g")
    ]
    model.fit(pictures()[0], batch_size=20, verbose=0, callbacks=loggers)
    assert [step for step, _ in tracker.entries] == [0, 1, 0, 1]
    for (_, metrics), each, rate in zip(
        tracker.entries, "ddgg", (0.01, 0.01, 0.003, 0.003), strict=True
    ):
        assert set(metrics) == {f"{key}/{each}_optimizer" for key in ("learning_rate", "momentum")}
        np.testing.assert_allclose(metrics[f"learning_rate/{each}_optimizer"], rate, rtol=1e-5)


@pytest.mark.once
def test_tracker_gets_one_entry_for_an_update_of_several_batches():
    tracker = Entries()
    logger = keras_lr.LRLogger(tracker=tracker)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    fit(network(optimizer), keras_lr.WarmUp(steps=5), logger)
    assert len(logger.history["step"]) == 3 * STEPS
    assert [step for step, _ in tracker.entries] == list(range(3 * STEPS // 2))
    expected = 0.1 * np.minimum(np.arange(3 * STEPS // 2) / 5, 1)
    np.testing.assert_allclose(tracker.column("learning_rate"), expected, rtol=1e-5, atol=0)


@pytest.mark.once
def test_tracker_that_fails_does_not_end_the_run():
    class Failing(Entries):
        def log(self, metrics, step):
            if step == STEPS:  # the first of the second epoch
                raise ConnectionError("no route to host")
            super().log(metrics, step)

    tracker = Failing()
    logger = keras_lr.LRLogger(tracker=tracker)
    with pytest.warns(UserWarning, match="log epoch 1 .* ConnectionError: no route to host"):
        fit(network(sgd()), logger)
    assert len(logger.history["step"]) == 3 * STEPS
    assert [step for step, _ in tracker.entries] == [*range(STEPS), *range(2 * STEPS, 3 * STEPS)]


@pytest.mark.once
@pytest.mark.parametrize(
    ("tracker", "error", "message"),
    [
        ("neptune", ValueError, "tracker must be 'wandb' or 'mlflow'; got 'neptune'"),
        (3, TypeError, r"an object with a method log\(metrics, step\).*; got 3"),
        (Entries, TypeError, r"an object with a method log\(metrics, step\)"),
    ],
)
def test_other_trackers_are_refused(tracker, error, message):
    with pytest.raises(error, match=message):
        keras_lr.LRLogger(tracker=tracker)


@pytest.mark.once
def test_what_is_not_a_path_is_refused_at_once():
    with pytest.raises(TypeError, match="csv must be a path; got .*. Pass a tracker as tracker=."):
        keras_lr.LRLogger(Entries())
    for name in ("csv", "tensorboard"):
        with pytest.raises(TypeError, match=f"{name} must be a path; got 3"):
            keras_lr.LRLogger(**{name: 3})


@pytest.mark.once
@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_missing_package_is_named(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}.*pip install"):
        keras_lr.LRLogger(tracker=package)


@pytest.mark.once
@pytest.mark.parametrize(
    ("package", "make"), [("wandb", "run = None"), ("mlflow", "active_run = lambda: None")]
)
def test_run_must_be_active_when_fit_begins(package, make, monkeypatch, tmp_path):
    (tmp_path / f"{package}.py").write_text(f"{make}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package, raising=False)
    logger = keras_lr.LRLogger(tracker=package)
    with pytest.raises(ValueError, match=f"tracker='{package}' needs an active run"):
        fit(network(sgd()), logger)
    monkeypatch.delitem(sys.modules, package, raising=False)


# The real packages, each in a process of its own, without a network

START = """
import sys
import keras, numpy as np
import keras_lr
assert not {"wandb", "mlflow"} & set(sys.modules), "imported before it is used"
x = np.zeros((64, 4), "float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")

def fit(tracker):
    callbacks = [keras_lr.WarmUp(steps=8), keras_lr.LRLogger(tracker=tracker)]
    model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
"""

WANDB = """
import json, pathlib
import wandb
with wandb.init(project="test", mode="offline", dir=sys.argv[1]) as run:
    run.log({"other": 1.0}, step=100)  # our steps are below
    fit("wandb")
wandb.teardown()  # the process that writes the file ends

from wandb.proto.wandb_internal_pb2 import Record

def records(data, block=32768):
    # A log of LevelDB, after a head of 7 bytes.
    at, whole = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # the rest of a block
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield Record.FromString(whole)
            whole = b""

(path,) = pathlib.Path(sys.argv[1]).rglob("*.wandb")
found, axes = [], {}
for record in records(path.read_bytes()):
    items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
    if "learning_rate" in items:
        found.append((items["update"], items["learning_rate"], items["momentum"]))
    if record.WhichOneof("record_type") == "metric":
        axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
assert axes["learning_rate"] == axes["momentum"] == axes["learning_rate/*"] == "update", axes
print(json.dumps(found))
"""

MLFLOW = """
import json, pathlib
import mlflow
mlflow.set_tracking_uri(pathlib.Path(sys.argv[1], "store").as_uri())
with mlflow.start_run() as run:
    fit("mlflow")
client = mlflow.MlflowClient()
rates, momenta = (
    [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
    for name in ("learning_rate", "momentum")
)
assert [step for step, _ in rates] == [step for step, _ in momenta]
print(json.dumps([[*rate, momentum] for rate, (_, momentum) in zip(rates, momenta)]))
"""


@pytest.mark.once
@pytest.mark.parametrize(("package", "code"), [("wandb", WANDB), ("mlflow", MLFLOW)])
@pytest.mark.long("a start of another package's process")
def test_real_package_records_each_update(package, code, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    for name, value in {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", START + code, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps, rates, momenta = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
    assert list(steps) == list(range(12))
    np.testing.assert_allclose(rates, 0.1 * np.minimum(np.arange(12) / 8, 1), rtol=1e-6, atol=0)
    np.testing.assert_allclose(momenta, 0.9, rtol=1e-6)
