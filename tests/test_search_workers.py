"""Searches by real processes that train, of which some are killed or interrupted."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import command_line
import pytest

from keras_lr.rate_search import storage as places

pytestmark = pytest.mark.once

# A data set takes its time, and what only slows the start of a process is left out.
CODE = """
import os, time
import keras
from command_line import Batches

def meet():
    "Wait for the other processes: else one that starts late may find nothing left to do."
    place, _, count = os.environ["MEET"].rpartition(":")
    with open(os.path.join(place, str(os.getpid())), "w"):
        deadline = time.monotonic() + 60
    while len(os.listdir(place)) < int(count) and time.monotonic() < deadline:
        time.sleep(0.02)

def hold():
    "Stay between two batches, and say so, for as long as the test looks at the record."
    place = os.environ["MEET"].rpartition(":")[0] + ".hold"
    mark = os.path.join(place, str(os.getpid()))
    while os.path.exists(os.path.join(place, "all")):
        with open(mark, "w"):
            time.sleep(0.02)
    if os.path.exists(mark):
        os.unlink(mark)

class Slow(Batches):
    met = False

    def __getitem__(self, index):
        if index == 2 and not Slow.met:  # in a run: a command looks at the first before all
            Slow.met = True
            meet()
        time.sleep(float(os.environ.get("SLOW", 0)))
        hold()
        return super().__getitem__(index)

def data():
    return Slow()
"""
SITE = """
import os, sys
for package in {"tensorflow", "jax", "torch", "sklearn", "pandas", "matplotlib"}:
    if package != os.environ["KERAS_BACKEND"]:
        sys.modules[package] = None
"""
COMMAND = (
    "search model.keras --data slow_data:data --validation slow_data:data --json --heartbeat 1 "
    "--low 1e-3 --high 1 --fine-rounds 1 --points 3 --final-seeds 1 --epochs 2 --also none"
).split()
# What starts fastest, for every process starts a backend of its own.
BACKEND = "jax" if importlib.util.find_spec("jax") else os.environ["KERAS_BACKEND"]
DONE = ("COMPLETE", "PRUNED")  # the latter for a run that diverged
PATIENCE = 240  # seconds after which a test gives up


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "slow_data.py").write_text(CODE)
    (folder / "sitecustomize.py").write_text(SITE)
    command_line.write_files(folder)
    return folder


def started_in(folder, storage, *arguments, slow, meet):
    paths = [str(folder), os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "keras_lr_cli", *COMMAND, "--storage", storage, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "KERAS_BACKEND": BACKEND,
            "PYTHONPATH": os.pathsep.join(paths),
            "SLOW": str(slow),
            "MEET": meet,
        },
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def gate(tmp_path):
    """Where processes that are held say so."""
    place = tmp_path / "met.hold"
    place.mkdir()
    return place


@pytest.fixture
def start(folder, tmp_path, gate):
    """Start `keras-lr search` in a group of its own; what still runs afterwards is killed.

    Of `together` processes none trains before all have come.
    """
    started, place = [], tmp_path / "met"
    place.mkdir()

    def begin(storage, *arguments, slow=0.06, together=1):
        meet = f"{place}:{together}"
        started.append(started_in(folder, storage, *arguments, slow=slow, meet=meet))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").database()
    return str(tmp_path / "search.sqlite3")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(places, "LOCKED", 2.0)


@pytest.fixture
def database(tmp_path):
    return str(tmp_path / "search.sqlite3")


def ended(process, code=0):
    """The answer and the lines on stderr."""
    answer, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return answer, errors.splitlines()


def trials(storage):
    """All trials of the one study there, as they are now."""
    with places.problems(storage, local=True):
        opened = places.opened(storage, 1, storage)
        try:
            return [t for s in opened.get_all_studies() for t in opened.get_all_trials(s._study_id)]
        finally:
            places.close(opened)


def states(storage):
    return Counter(trial.state.name for trial in trials(storage))


@contextlib.contextmanager
def mid_run(storage, process, place, of=None):
    """A process that stays in the middle of a run, when one is done and one epoch of the next.

    The search is held between two batches whenever the record is read, however long that takes.

    Args:
        of: The process meant; by default any but `process`.
    """
    gate = place / "all"
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                pytest.fail(f"ended too early: {process.communicate()}")
            gate.touch()
            time.sleep(0.1)
            held = {path.name for path in place.iterdir()}
            known = trials(storage)
            if any(trial.state.name in DONE for trial in known):
                for trial in known:
                    worker = trial.user_attrs.get("worker", ":").split(":")[-1]
                    meant = worker == str(of) if of else worker != str(process.pid)
                    running = trial.state.name == "RUNNING" and trial.intermediate_values
                    if running and meant and worker in held:
                        yield int(worker)
                        return
            gate.unlink()
            time.sleep(0.1)
        pytest.fail(f"nobody came to the middle of a run: {states(storage)}")
    finally:
        gate.unlink(missing_ok=True)


def kill_in_mid_run(storage, process, place, of=None):
    with mid_run(storage, process, place, of) as worker:
        os.kill(worker, signal.SIGKILL)
    return worker


def check(storage, answer, undisturbed):
    """Every job was done once, nothing is left, and the answer is that of a search in peace."""
    known = trials(storage)
    assert set(states(storage)) <= {*DONE, "FAIL"}
    done = [trial for trial in known if trial.state.name in DONE]
    jobs = Counter(trial.user_attrs["job"] for trial in done)
    assert len(jobs) == len(undisturbed["runs"]) and set(jobs.values()) == {1}
    found = json.loads(answer)
    assert found["finished"] and found["learning_rate"] == undisturbed["learning_rate"]
    assert {run["number"] for run in found["runs"]} == {trial.number for trial in done}
    for mine, theirs in zip(found["runs"], undisturbed["runs"], strict=True):
        assert mine["history"]["val_loss"] == [
            pytest.approx(value, rel=1e-5) for value in theirs["history"]["val_loss"]
        ]
        for part in ("round", "learning_rate", "seed", "fraction", "ended"):
            assert mine[part] == theirs[part]


def deaths(storage):
    return [
        trial
        for trial in trials(storage)
        if trial.state.name == "FAIL" and "given_back" not in trial.user_attrs
    ]


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The answer of one process that nobody disturbs."""
    meet = f"{folder}:0"
    return json.loads(ended(started_in(folder, "undisturbed.sqlite3", slow=0.0, meet=meet))[0])


def test_of_two_processes_one_is_killed_and_the_other_does_its_run(
    start, gate, shared, undisturbed
):
    first, second = start(shared, together=2), start(shared, together=2)
    assert kill_in_mid_run(shared, first, gate) == second.pid
    answer, lines = ended(first)
    check(shared, answer, undisturbed)
    (dead,) = deaths(shared)
    assert dead.user_attrs["worker"].endswith(f":{second.pid}")
    assert any(line.startswith("Waiting for 1 run") for line in lines)


@pytest.mark.long("processes that start a backend and train")
def test_workers_of_one_command_share_its_work_and_a_killed_one_is_missed_by_none(
    start, gate, database, undisturbed
):
    command = start(database, "--workers", "2", "--no-resume", together=2)
    kill_in_mid_run(database, command, gate)
    answer, lines = ended(command)
    check(database, answer, undisturbed)
    assert len(deaths(database)) == 1
    assert lines[-1] == "Warning: A worker ended early, with exit code -9."
    again = start(database, "--workers", "2", "--no-resume")
    assert "must not exist" in ended(again, 2)[1][-1]


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
@pytest.mark.long("processes that start a backend and train")
def test_an_interrupted_search_goes_on_at_once(start, gate, database, undisturbed, how):
    """Ctrl-C reaches all processes of a command, SIGTERM the first alone."""
    command = start(database, "--workers", "2", together=2)
    with mid_run(database, command, gate):
        if how == "SIGTERM":
            command.terminate()
        else:
            os.killpg(command.pid, signal.SIGINT)
    answer, lines = ended(command, 130)
    assert answer == ""
    assert lines[-1].startswith("Interrupted; the same command continues from here.")
    assert sum("nterrupted" in line for line in lines) == 1
    assert "RUNNING" not in states(database) and not deaths(database)
    with pytest.raises(ProcessLookupError):
        os.killpg(command.pid, 0)
    done = sum(states(database)[state] for state in DONE)
    again = start(database, "--workers", "2", slow=0.0)
    answer, lines = ended(again)
    check(database, answer, undisturbed)
    with pytest.raises(ProcessLookupError):
        os.killpg(again.pid, 0)
    assert not any(line.startswith("Warning") for line in lines)
    assert lines[0] == (f"Continuing the study 'model' in {database}; {done} runs are done.")


@pytest.mark.long("processes that start a backend and train")
def test_a_search_that_was_killed_goes_on_after_the_grace_period(
    start, gate, tmp_path, undisturbed
):
    journal = f"journal:{tmp_path / 'search.log'}"
    command = start(journal)
    kill_in_mid_run(journal, command, gate, of=command.pid)
    left = states(journal)
    assert left["RUNNING"] == 1
    done = sum(left[state] for state in DONE)
    answer, lines = ended(start(journal, slow=0.0))
    check(journal, answer, undisturbed)
    assert f"{done} runs are done." in lines[0]
    assert len(deaths(journal)) == 1


SAME = (
    *("learning_rate", "low", "high", "setting", "tried", "value", "spread", "regret"),
    *("sensitivity", "lr_sensitivity", "warnings", "rounds"),
)


@pytest.mark.long("processes that start a backend and train")
def test_one_two_and_eight_workers_give_the_same_answer_bit_for_bit(start, tmp_path):
    rounds = ["--fine-rounds", "2", "--final-seeds", "3", "--max-runs", "8"]

    def answer(workers, met):
        storage = str(tmp_path / f"{workers}.sqlite3")
        command = start(storage, "--workers", str(workers), *rounds, together=met)
        found = json.loads(ended(command)[0])
        runs = [
            {name: run[name] for name in run if name not in ("number", "seconds")}
            for run in found["runs"]
        ]
        done = [trial for trial in trials(storage) if trial.state.name in DONE]
        trained = {trial.user_attrs["worker"] for trial in done}
        return {**{name: found[name] for name in SAME}, "runs": runs}, len(trained)

    alone, count = answer(1, 1)
    assert count == 1 and len(alone["runs"]) > 8
    # In the second and third search two processes train at the same time, at least.
    for workers, met in ((2, 3), (8, 5)):
        found, count = answer(workers, met)
        assert count > 1
        assert found == alone
