"""A search that is asked to end: nothing is lost, nobody is left, whatever swallows exceptions."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import optuna
import pytest
from command_line import arrays, compiled, run

import keras_lr
from keras_lr._util import interrupts
from keras_lr.rate_search.study import give_back
from keras_lr_cli import workers

pytestmark = pytest.mark.once
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
QUICK = ("--epochs", 2, "--fine-rounds", 0, "--final-seeds", 1, "--low", 0.01, "--high", 1)
QUICK = (*QUICK, "--also", "none")


class Signals:
    """Sends a signal when it is collected, where Python drops what a handler raises."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)
        for _ in range(100):  # Python runs the handler between two instructions
            pass


class Batches(keras.utils.PyDataset):
    """In its tenth batch a signal comes."""

    signal = signal.SIGINT
    send = Signals
    drawn = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        Batches.drawn += 1
        if Batches.drawn == 10:
            Batches.send(Batches.signal)
        x, y = arrays()
        return x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]


def data():
    return Batches()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_swallowed_still_ends_the_search(
    number, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    compiled().save("model.keras")
    monkeypatch.setattr(Batches, "signal", number)
    monkeypatch.setattr(Batches, "drawn", 0)
    before = [signal.getsignal(each) for each in SIGNALS]
    spec = f"{__name__}:data"
    shown = run("search", "model.keras", "--data", spec, "--validation", spec, *QUICK)
    assert shown.exit_code == 130 and Batches.drawn < 14, shown.output
    assert "the same command continues from here" in shown.stderr
    assert "Exception ignored" not in capfd.readouterr().err
    study = optuna.load_study(study_name="model", storage="sqlite:///model.search.sqlite3")
    (trial,) = study.trials
    assert trial.state.name == "FAIL" and trial.user_attrs["given_back"] == "interrupted"
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
def test_a_signal_ends_a_range_test(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    compiled().save("model.keras")
    monkeypatch.setattr(Batches, "signal", number)
    monkeypatch.setattr(Batches, "send", signal.raise_signal)
    monkeypatch.setattr(Batches, "drawn", 0)
    before = [signal.getsignal(each) for each in SIGNALS]
    shown = run("find", "model.keras", "--data", f"{__name__}:data", "--save", "curve.json")
    assert shown.exit_code == 130 and 10 <= Batches.drawn < 60, shown.output
    assert sorted(os.listdir(tmp_path)) == ["model.keras"]
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("bounds", [{"low": 0.01, "high": 1.0}, {}], ids=["run", "range test"])
def test_ctrl_c_that_is_swallowed_still_ends_a_search_in_python(monkeypatch, bounds):
    monkeypatch.setattr(Batches, "signal", signal.SIGINT)
    monkeypatch.setattr(Batches, "drawn", 0)
    with pytest.raises(KeyboardInterrupt):
        keras_lr.search(
            compiled(), Batches(), validation_data=arrays(), verbose=0, epochs=2, **bounds
        )
    assert Batches.drawn < 60
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupts.is_pending() and not interrupts.is_recording()


def test_runs_of_killed_workers_are_given_back(tmp_path):
    from study_job import job, opened

    path = str(tmp_path / "search.sqlite3")
    with opened(path) as study:
        trials = [study.begin(job(number)) for number in (1, 2)]
        study._storage.set_trial_user_attr(trials[1]._trial._trial_id, "worker", "elsewhere:1")
        give_back(path, "digits", [os.getpid()])
        assert [each.state.name for each in study.study.get_trials()] == ["FAIL", "RUNNING"]
        assert study.begin(job(1)) is not None
    give_back(path, "no such study", [1])


# Workers, of which these tests have some that import no Keras

WORKER = """
import sys, time
from keras_lr_cli import signals, workers
workers._is_worker = True
with signals.stop_signals() as stop:
    workers.end_with_parent(stop)
    print("at work", file=open(f"began.{sys.argv[1]}", "w"))
    try:
        time.sleep(120)
    except KeyboardInterrupt:
        print("given back", file=open(f"ended.{sys.argv[1]}", "w"))
"""
PARENT = """
import sys, time
from keras_lr_cli import signals, workers
count, words = 0, [sys.executable, "-c", sys.argv[1]]
def arguments(without):
    return []
class Worker(workers._Worker):
    def __init__(self, given, stack):
        global count
        count += 1
        super().__init__([*words, str(count)], stack)
workers.arguments, workers._Worker = arguments, Worker
workers.AFTER_STOP = 60.0  # none is killed, however slow the machine
with signals.stop_signals() as stop, workers.worker_processes(3, {"resume": True}, stop):
    time.sleep(120)
"""


@contextlib.contextmanager
def at_work(folder):
    """A process with three workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, WORKER],
        cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(list(folder.glob("began.*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.parametrize("how", ["SIGINT to all", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_workers_end_with_the_command_and_give_back_their_runs(tmp_path, how):
    with at_work(tmp_path) as process:
        began = time.monotonic()
        if how == "SIGINT to all":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(process.pid, getattr(signal, how))
        process.wait(30)
        while time.monotonic() < began + 30:
            if len(list(tmp_path.glob("ended.*"))) == 3 and not left(process.pid):
                break
            time.sleep(0.02)
        seconds = time.monotonic() - began
    assert len(list(tmp_path.glob("ended.*"))) == 3
    assert seconds < 20.0  # 3 on a machine that has time; without the signal, 60 or 120


def left(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_takes_no_module_from_the_current_folder(tmp_path):
    for name in ("click", "keras_lr_cli", "contextlib"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
    done = subprocess.run(
        [*workers.command(), "search", "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.stdout.startswith("Usage: keras-lr search"), done.stderr
    assert not (tmp_path / "ran").exists()


def test_signals_that_the_process_was_started_to_ignore_stay_ignored():
    from keras_lr_cli.signals import stop_signals

    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_second_signal_ends_what_does_not_look():
    from keras_lr_cli.signals import stop_signals

    with stop_signals(), interrupts.recorded_interrupts():
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.is_pending()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_request_that_nobody_has_heard_is_made_once_more(monkeypatch):
    from keras_lr_cli import signals

    monkeypatch.setattr(signals, "REMIND", 0.1)
    with signals.stop_signals(), interrupts.recorded_interrupts():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            np.testing.assert_(time.sleep(20) is None)
