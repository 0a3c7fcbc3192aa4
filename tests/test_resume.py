"""A run that is killed and started again ends as the run that was never killed.

The kills are real: SIGKILL to a process of its own. A start takes seconds, so that one process
ends the run that was killed last and goes on to where the next is killed.
"""

import csv
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import resume_job
from models import same, sampled, values
from resume_job import BATCH_SIZE, BATCHES, EPOCHS

import keras_lr
from keras_lr.schedules import OneCycleSchedule

BACKEND = keras.backend.backend()
JOB = Path(resume_job.__file__)
MOMENTS = [*range(BATCHES), "before backup", "after backup"]
POINTS = [(epoch, moment) for epoch in range(EPOCHS) for moment in MOMENTS]


def drawn(stack, backup):
    """A point to be killed at, not in the first epoch, and with something left to do."""
    return random.Random(f"{stack}, {backup}, {BACKEND}").choice(POINTS[len(MOMENTS) : -1])


def runs_of(half):
    """Every stack once a backend, the backup before it or after it in the list by turns."""
    turn = ["jax", "tensorflow", "torch"].index(BACKEND)
    runs = []
    for index, stack in list(enumerate(resume_job.stacks()))[half::2]:
        order, other = ("first", "last") if (index + turn) % 2 else ("last", "first")
        runs.append((stack, order, [drawn(stack, order)]))
        if stack == "cyclic":
            runs.append((stack, other, [(0, 2 + turn), (EPOCHS - 1, "after backup")]))
        if stack == "warm-up and plateau over a schedule":
            # At the end of epoch 1 it goes back to its best weights. A start before needs them
            # from the backup, and one after it what going back to them has left.
            del runs[-1]
            runs.append((stack, "first", [(1, 1 + turn), (2, 4 - turn)]))
            runs.append((stack, "last", [drawn(stack, "last")]))
    return runs


def run_until_done(folder, runs):
    """Start the job, again and again until it is done, and count that it was killed as planned."""
    stacks = dict.fromkeys(stack for stack, _, _ in runs)
    everything = [(stack, "none", []) for stack in stacks] + runs
    command = [sys.executable, str(JOB), str(folder), json.dumps(everything)]
    for _ in range(sum(len(planned) for _, _, planned in runs)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Outcome:
    """What a run left in its folder."""

    def __init__(self, folder):
        self.report = json.loads((folder / "report.json").read_text())
        with np.load(folder / "arrays.npz") as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        with (folder / "rates.csv").open(newline="") as file:
            self.rows = list(csv.DictReader(file))

    def column(self, name):
        return np.array([float(row[name]) for row in self.rows])


def check_equal(killed, reference, first_epoch):
    """Compare a run whose last process began with `first_epoch` with the one never killed."""
    assert list(killed.column("epoch")) == list(np.repeat(np.arange(EPOCHS), BATCHES))
    assert list(killed.column("step")) == list(reference.column("step"))
    for name in ("learning_rate", "momentum"):
        assert (name in killed.rows[0]) == (name in reference.rows[0])
        if name in reference.rows[0]:
            ours, theirs = killed.column(name), reference.column(name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)

    nothing_to_do = first_epoch == EPOCHS  # nobody asks the rule then
    for name, array in reference.arrays.items():
        if not (nothing_to_do and name.startswith("best")):
            assert killed.arrays[name].tobytes() == array.tobytes(), name
    if nothing_to_do:
        assert killed.report["history"] == {}
        return
    assert killed.report.get("rule") == reference.report.get("rule")
    for kind in ("history", "batches"):
        expected = {name: list[first_epoch:] for name, list in reference.report[kind].items()}
        assert killed.report[kind] == expected
    events = reference.report.get("events", [])
    late = [event for event in events if event["epoch"] >= first_epoch]
    assert killed.report.get("events", []) == late


@pytest.mark.parametrize(
    "half", sampled({"0": 0, "1": 1}, "0", why="more stacks alike", mark="long")
)
def test_a_killed_run_ends_as_the_run_that_was_never_killed(half, tmp_path):
    runs = runs_of(half)
    run_until_done(tmp_path, runs)
    for stack, backup, planned in runs:
        print(f"\n{stack}, the backup {backup}, killed at {planned}")  # seen if it fails
        epoch, moment = planned[-1]
        first_epoch = epoch + (moment == "after backup")
        reference = Outcome(tmp_path / stack / "none")
        check_equal(Outcome(tmp_path / stack / backup), reference, first_epoch)


@pytest.mark.parametrize("half", [0, 1])
def test_the_stacks_and_the_orders_are_all_killed_on_some_backend(half, monkeypatch):
    covered = set()
    for backend in ("jax", "tensorflow", "torch"):
        monkeypatch.setattr(sys.modules[__name__], "BACKEND", backend)
        covered |= {(stack, backup) for stack, backup, _ in runs_of(half)}
    stacks = list(resume_job.stacks())[half::2]
    assert covered == {(stack, backup) for stack in stacks for backup in ("first", "last")}


PLATEAUS = {
    "warm-up and plateau over a schedule": ["reduce", "reduce"],
    "plateau over a number": ["reduce", "reduce"],
    "schedule and plateau with growth": ["grow", "reduce", "grow", "grow", "reduce", "reduce"],
    "plateau over windows": ["reduce", "reduce"],
    "warm-up, accumulating": ["reduce", "reduce"],
}


def fit(model, callbacks, epochs=EPOCHS, **options):
    (x, y), validation_data = resume_job.data()
    model.fit(
        x, y, batch_size=BATCH_SIZE, shuffle=False, epochs=epochs, verbose=0,
        validation_data=validation_data, callbacks=callbacks, **options,
    )  # fmt: skip


class Killed(Exception):
    pass


class At(keras.callbacks.Callback):
    """Does something after so many batches."""

    def __init__(self, batches, action):
        super().__init__()
        self.left, self.action = batches, action

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.action(self.model)


@pytest.mark.parametrize("stack", PLATEAUS)
def test_the_stacks_of_the_killed_runs_change_the_rate(stack):
    """What the killed runs prove depends on it."""
    optimizer, ours = resume_job.stacks()[stack]()
    fit(resume_job.classifier(optimizer), ours)
    assert [event.action for event in ours[-1].events] == PLATEAUS[stack]


def test_a_backup_within_an_epoch_goes_on_with_the_rates_of_its_updates(tmp_path):
    def kill(model):
        raise Killed

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)
        return [backup, keras_lr.OneCycle(0.05), keras_lr.LRLogger(tmp_path / "rates.csv"), *more]

    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    with pytest.raises(Killed):
        fit(resume_job.classifier(optimizer), callbacks(At(13, kill)))
    assert json.loads((tmp_path / "backup" / "training_metadata.json").read_text())["epoch"] == 2

    # 12 updates are saved; Keras begins the epoch that they end in once more.
    resumed = callbacks()
    fit(resume_job.classifier(keras.optimizers.SGD(1.0, momentum=0.9)), resumed)
    history = resumed[2].history
    schedule = OneCycleSchedule(0.05, EPOCHS * BATCHES)
    assert history["step"] == list(range(12, 12 + 4 * BATCHES))
    expected = [float(schedule(step)) for step in history["step"]]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5, atol=0)
    with (tmp_path / "rates.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [*range(10), *range(12, 12 + 4 * BATCHES)]  # the epoch without end: not logged


@pytest.mark.parametrize("append", [False, True])
def test_a_checkpoint_and_initial_epoch_continue_the_cycle(append, tmp_path):
    def callbacks(*more):
        logger = keras_lr.LRLogger(tmp_path / "rates.csv", append=append)
        return [keras_lr.OneCycle(0.05), logger, *more]

    def rows():
        with (tmp_path / "rates.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    # 5 batches make 2 updates and a half: the third epoch ends in the middle of one.
    whole = resume_job.classifier(keras.optimizers.Adam(1.0, gradient_accumulation_steps=2))
    fit(whole, callbacks(), epochs=4)
    before = rows()
    whole = resume_job.classifier(keras.optimizers.Adam(1.0, gradient_accumulation_steps=2))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(whole, callbacks(checkpoint))
    expected = rows()
    assert len(expected) == EPOCHS * BATCHES + append * len(before)

    loaded = keras.saving.load_model(tmp_path / "3.keras")
    resumed = callbacks()
    fit(loaded, resumed, initial_epoch=3)
    batches = range(3 * BATCHES, EPOCHS * BATCHES)
    assert resumed[1].history["step"] == [batch // 2 for batch in batches]
    assert rows() == expected
    assert same(values(loaded.variables), values(whole.variables))
    assert same(values(loaded.optimizer.variables), values(whole.optimizer.variables))


PLAIN = """
import os, sys
for package in ("tensorflow", "sklearn"):
    if package != os.environ["KERAS_BACKEND"]:
        sys.modules[package] = None
import keras, numpy as np

def check(model, name):
    with np.load(f"{name}.npz") as state:
        variables = model.variables + model.optimizer.variables
        assert len(variables) == len(state.files), (len(variables), len(state.files))
        for number, variable in enumerate(variables):
            value = keras.ops.convert_to_numpy(variable.value)
            assert value.tobytes() == state[f"arr_{number}"].tobytes(), (name, variable.path)

data = np.load("data.npz")
for name in sys.argv[1:]:
    model = keras.saving.load_model(f"{name}.keras")
    check(model, name)
    fresh = keras.saving.load_model(f"{name}.keras")
    for variable in fresh.variables + fresh.optimizer.variables:
        variable.assign(keras.ops.ones(variable.shape, variable.dtype))
    fresh.load_weights(f"{name}.weights.h5")
    check(fresh, name)
    updates = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    history = model.fit(data["x"], data["y"], batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    accumulates = model.optimizer.gradient_accumulation_steps or 1
    assert after - updates == 10 // accumulates, (updates, after)
    print(name, rate, sep=",")
assert "keras_lr" not in sys.modules
"""


def test_what_is_saved_during_a_fit_serves_a_program_without_keras_lr(tmp_path):
    adam, sgd = keras.optimizers.Adam, keras.optimizers.SGD
    plateau = {"monitor": "loss", "factor": 0.25, "patience": 1, "min_delta": 100.0}
    cosine = keras.optimizers.schedules.CosineDecay(0.4, 40)
    # The rate that plain Keras has after loading: the optimizer's own.
    stacks = {
        "cycle": (adam(0.004), [keras_lr.OneCycle(0.05)], 0.004),
        "momentum": (
            sgd(0.02, momentum=0.9),
            [keras_lr.CyclicLR(0.01, 0.2, 4, cycle_momentum=True)],
            0.02,
        ),
        "plateau": (
            adam(0.02),
            [keras_lr.WarmUp(4), keras_lr.ReduceLROnPlateau(**plateau)],
            0.02 / 4,
        ),
        "scaled": (
            adam(cosine),
            [keras_lr.ReduceLROnPlateau(restore_best_weights=True, **plateau)],
            0.4 * (1 + np.cos(np.pi * 13 / 40)) / 2,
        ),
        "accumulating": (
            adam(0.02, gradient_accumulation_steps=2),
            [keras_lr.ReduceLROnPlateau(**plateau), keras_lr.LRLogger()],
            0.02 / 4,
        ),
    }
    (x, y), _ = resume_job.data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    for name, (optimizer, ours, _) in stacks.items():
        model = resume_job.classifier(optimizer)

        def note(model, path=tmp_path / f"{name}.npz"):
            np.savez(path, *values(model.variables), *values(model.optimizer.variables))

        checkpoints = [
            keras.callbacks.ModelCheckpoint(
                tmp_path / f"{name}{kind}", save_freq=13, save_weights_only="h5" in kind
            )
            for kind in (".keras", ".weights.h5")
        ]
        fit(model, [*ours, *checkpoints, At(13, note)], epochs=3)
    code = [sys.executable, "-W", "error::UserWarning", "-c", PLAIN, *stacks]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rates = dict(line.split(",") for line in done.stdout.split())
    for name, (_, _, rate) in stacks.items():
        np.testing.assert_allclose(float(rates[name]), rate, rtol=1e-5, atol=0)
