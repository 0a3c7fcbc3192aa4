"""The record of a search: jobs begun and ended once, by any number of processes."""

import contextlib
import json
import math
import os
import signal
import socket
import sqlite3
import tempfile
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import databases
import pytest
from databases import free_port
from study_job import Peer, job, opened, outcome

from keras_lr._util import interrupts
from keras_lr.rate_search import storage as places
from keras_lr.rate_search import study as study_module
from keras_lr.rate_search.shared_storage import _append, requeue
from keras_lr.rate_search.storage import SearchError, display_name
from keras_lr.rate_search.study import RANGE_TEST, check_new
from keras_lr.rate_search.trial import Taken, Trial

pytestmark = pytest.mark.once


@pytest.fixture
def join(monkeypatch):
    """Open studies, whose connections are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(opened(*arguments, **options))


@pytest.fixture(scope="module")
def processes():
    peers = [Peer(), Peer()]
    yield peers
    for peer in peers:
        peer.kill()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.kill()


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(places, "GRACE", 2)


def states(study):
    """For each job, how its trials ended or stand."""
    by_job = {}
    for trial in study.study.get_trials():
        by_job.setdefault(trial.user_attrs["job"], []).append(trial.state.name)
    return by_job


def same(left, right):
    return left == right or (math.isnan(left) and math.isnan(right))


# A job from its beginning to its end


def test_whoever_waits_asks_once_for_all_jobs(storage, join, monkeypatch):
    first, second = join(storage), join(storage)
    jobs = [job(number) for number in range(1, 6)]
    with contextlib.ExitStack() as trials:
        for each in jobs[:4]:
            trials.enter_context(first.begin(each))
        asked, read = [], second.study.get_trials

        def asking(**how):
            asked.append(how)
            return read(**how)

        with monkeypatch.context() as patched:
            patched.setattr(second.study, "get_trials", asking)
            assert second.free(jobs) == jobs[4:]
        assert len(asked) == 1
    assert second.free(jobs) == jobs  # all given back


def test_an_outcome_comes_back_to_the_last_bit(storage, join):
    ends = [("finished", 0.1 + 0.2), ("finished", -math.inf), ("behind", 2 / 3)]
    ends.append(("diverged", math.nan))
    expected = {}
    first = join(storage)
    for number, (how, value) in enumerate(ends, start=1):
        history = {"loss": [1 / 3, 5e-324, math.nan], "val_loss": [math.inf, -math.inf, value]}
        expected[job(number).key] = outcome(job(number), value, how, history)
        with first.begin(job(number)) as trial:
            if how == "behind":
                assert trial.report(1, value) is False
            trial.end(expected[job(number).key])
        assert first.begin(job(number)) is None
    for record in (first, join(storage)):
        found = record.found()
        assert list(found) == list(expected)
        for place, (mine, theirs) in enumerate(zip(found.values(), expected.values(), strict=True)):
            assert (mine.number, mine.seconds) == (place, 1.5)
            assert (mine.job, mine.ended) == (theirs.job, theirs.ended)
            assert same(mine.value, theirs.value)
            assert mine.history.keys() == theirs.history.keys()
            for name, values in theirs.history.items():
                assert all(map(same, mine.history[name], values)), mine.history


def test_a_search_in_memory_needs_no_storage(join):
    record = join(None)
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    assert record.found()[job(1).key].value == 0.5 and not record.resumed
    assert record.where == "this process's memory"


def test_a_storage_of_optuna_is_used_as_it_is(tmp_path, join):
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=9)
    record = join(theirs)
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    record.close()
    assert join(theirs).found()[job(1).key].value == 0.5
    assert record.where == "RDBStorage" and theirs.heartbeat_interval == 9
    theirs.engine.dispose()


def test_the_range_test_is_done_once_and_is_no_outcome(storage, join):
    first, second = join(storage), join(storage)
    assert first.range_test() is None
    with first.begin(RANGE_TEST) as trial:
        assert second.begin(RANGE_TEST) is None
        trial.end_range_test({"low": 1e-5, "losses": [1.0, None]})
    assert second.range_test() == {"low": 1e-5, "losses": [1.0, None]}
    assert second.begin(RANGE_TEST) is None and second.found() == {}


def test_a_study_that_exists_goes_on_and_says_so(storage, join):
    assert not join(storage).resumed
    assert join(storage).resumed
    with pytest.raises(ValueError, match="With resume=False the study 'digits' must not exist"):
        join(storage, resume=False)
    with pytest.raises(ValueError, match="With resume=False the study 'digits' must not exist"):
        check_new(storage, "digits")
    check_new(storage, "another")
    assert not join(storage, "another", resume=False).resumed


def test_a_job_that_was_given_back_is_begun_anew_at_once(storage, join):
    first, second = join(storage), join(storage)
    for error in [KeyboardInterrupt, ValueError] * 2:  # none of which is a death
        with pytest.raises(error), first.begin(job(1)):
            assert second.begin(job(1)) is None
            raise error
    with second.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    assert Counter(states(first)[job(1).key]) == {"FAIL": 4, "COMPLETE": 1}


@pytest.mark.parametrize("moment", ["_take", "_begun"])
def test_an_interrupt_before_the_block_of_a_trial_gives_it_back(storage, join, monkeypatch, moment):
    record = join(storage)
    real = getattr(record, moment)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(record, moment, interrupted)
        record.begin(job(1))
    assert states(record) == {job(1).key: ["FAIL"]}
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))


def test_a_trial_that_its_process_cannot_begin_is_given_back(storage, join, monkeypatch):
    import optuna

    record = join(storage)

    def fails(*_):
        raise OSError("the network is gone")

    with monkeypatch.context() as patched, pytest.raises(SearchError, match="network is gone"):
        patched.setattr(optuna.trial.Trial, "set_user_attr", fails)
        record.begin(job(1))
    assert states(record) == {job(1).key: ["FAIL"]}


# Several processes


def test_of_processes_that_open_an_empty_storage_at_once_all_succeed(
    tmp_path, postgres, processes, join
):
    for _ in range(2):
        for where in (str(tmp_path / f"{time.time()}.db"), postgres.database()):
            at = time.time() + 0.3
            for peer in processes:
                peer.tell("open", where, at)
            resumed = [peer.hear() for peer in processes]
            assert sorted(resumed) == [False, True]
            assert join(where).resumed


def test_of_processes_that_begin_a_job_at_once_one_gets_it(storage, processes, join):
    """And the other none that the first one has ended since."""
    for peer in processes:
        peer.ask("open", storage)
    numbers, spacing = list(range(1, 13)), 0.1
    at = time.time() + 0.5
    for peer in processes:
        peer.tell("race", numbers, at, spacing)
    ours = [peer.hear() for peer in processes]
    assert sorted(ours[0] + ours[1]) == numbers, ours
    at = time.time() + 0.5
    for peer in processes:
        peer.tell("finish", numbers, at, spacing)
    assert [peer.hear() for peer in processes] == [[], []]
    record = join(storage)
    record.tidy()
    assert len(record.found()) == len(numbers)
    for ended in states(record).values():
        assert Counter(ended)["COMPLETE"] == 1 and set(ended) <= {"COMPLETE", "FAIL"}


def test_of_two_that_see_a_trial_waiting_one_takes_it(storage, join, monkeypatch):
    """Each looks at its state, and a while later changes it."""
    from optuna.storages import BaseStorage

    studies = [join(storage), join(storage)]
    studies[0]._add(job(1), job(1).key)
    (waiting,) = studies[0].study.get_trials()
    check = BaseStorage.check_trial_is_updatable

    def slow_check(*arguments):
        check(*arguments)
        time.sleep(0.3)

    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as threads:
        patched.setattr(BaseStorage, "check_trial_is_updatable", slow_check)
        took = list(threads.map(lambda study: study._take(waiting), studies))
    assert sorted(took) == [False, True]


def test_a_trial_whose_process_dies_is_taken_up_once_after_the_grace_period(
    storage, peer, processes, join
):
    grace = 2
    record = join(storage)
    for each in (peer, *processes):
        each.ask("grace", grace)
        each.ask("open", storage)
    assert peer.ask("begin", 1)
    time.sleep(grace + 1.5)  # a long run: it gives signs of life
    assert [each.ask("begin", 1) for each in processes] == [False, False]
    peer.kill()
    died = time.monotonic()
    assert [each.ask("begin", 1) for each in processes] == [False, False]
    took = []
    while not took and time.monotonic() < died + 30:
        for each in processes:
            each.tell("race", [1], 0, 0)
        took = processes[0].hear() + processes[1].hear()
        time.sleep(0.05)
    assert took == [1], "one process takes it up"
    assert time.monotonic() - died > grace - 1.1
    for each in processes:
        each.tell("finish", [1], 0, 0)
    assert [each.hear() for each in processes] == [[], []]
    record.tidy()
    ended = states(record)[job(1).key]
    assert Counter(ended)["COMPLETE"] == 1 and set(ended) == {"COMPLETE", "FAIL"}


def test_what_a_stalled_process_brings_late_is_dropped(storage, join, short_grace, monkeypatch):
    slow, quick = join(storage), join(storage)
    late = slow.begin(job(1))  # whose thread of heartbeats has not begun: it is stopped
    late.report(1, 0.75)
    deadline = time.monotonic() + 30
    while (trial := quick.begin(job(1))) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    with late, pytest.raises(Taken):
        late.report(2, 0.625)
    with late_again(slow, late), pytest.raises(Taken):
        late.end(outcome(job(1), value=9.0))
    with trial:
        trial.end(outcome(job(1), value=0.25))
    with late_again(slow, late), pytest.raises(Taken):
        late.end(outcome(job(1), value=9.0))
    assert quick.found()[job(1).key].value == 0.25
    assert states(quick) == {job(1).key: ["FAIL", "COMPLETE"]}
    assert quick.study.get_trials()[0].value is None


@pytest.mark.parametrize("pruner, ends", [("median", True), ("halving", True), ("none", False)])
def test_a_pruner_stops_a_run_from_half_of_its_epochs_on(join, pruner, ends):
    record = join(None, pruner=pruner)
    for number in (1, 2, 3):
        with record.begin(job(number)) as trial:  # of three epochs
            for epoch in (1, 2, 3):
                trial.report(epoch, 0.1 * number)
            trial.end(outcome(job(number), value=0.1 * number))
    with record.begin(job(4)) as trial:
        assert [trial.report(epoch, 9.0) for epoch in (1, 2)] == [False, ends]
        trial.end(outcome(job(4), value=9.0))


def late_again(owner, trial):
    """The same trial, whose block begins once more."""
    return Trial(owner, trial._trial)


def test_a_job_that_takes_processes_with_it_is_given_up_until_the_next_start(
    storage, join, short_grace
):
    record = join(storage)
    for _ in range(study_module.MOST_DEATHS):
        kill(record, record.begin(job(1)))
    with pytest.raises(SearchError, match="was begun 3 times, and each time its process died"):
        record.begin(job(1))
    with record.begin(job(2)) as trial:
        trial.end(outcome(job(2)))
    again = join(storage)
    with again.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    assert len(again.found()) == 2


def kill(record, trial):
    """As if the process had died, long ago."""
    record._storage.set_trial_state_values(trial._trial._trial_id, state=record._states.FAIL)
    requeue(record.study, record._storage.get_trial(trial._trial._trial_id))


def test_a_job_that_was_written_down_twice_is_tidied_up(storage, join):
    first, second = join(storage), join(storage)
    first._add(job(1), job(1).key)
    second._add(job(1), job(1).key)
    with second.begin(job(1)) as trial:
        assert first.begin(job(1)) is None
        trial.end(outcome(job(1)))
    assert states(first)[job(1).key] == ["COMPLETE", "WAITING"]
    first.tidy()
    second.tidy()
    assert states(first)[job(1).key] == ["COMPLETE", "FAIL"]
    assert first.found()[job(1).key].number == 0


# Studies of something else


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": {"layers": "b"}}, "belongs to another model: layers a and not b. Choose"),
        ({"data": {"rows": "9"}}, "belongs to other data: rows 8 and not 9. Choose another name"),
        ({"fit": {"shuffle": "True"}}, "other arguments of fit: shuffle None and not True. Use"),
        ({"settings": {"epochs": 4, "also": {"momentum": [0.9]}}}, "settings: epochs 3 and not 4."),
        ({"settings": {"epochs": 3, "also": {}}}, r"settings: also .* and not \{\}. Use those"),
    ],
)
def test_a_study_of_something_else_is_refused(storage, join, change, message):
    settings = {"epochs": 3, "also": {"momentum": (0.9,)}}
    join(storage, identity={"settings": settings})
    assert join(storage, identity={"settings": settings, "version": "9"}).resumed
    with pytest.raises(ValueError, match=message):
        join(storage, identity={"settings": settings, **change})


def test_a_study_of_another_version_is_refused(storage, join, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "FORMAT", 7)
        join(storage)
    with pytest.raises(ValueError, match="has format 7, of another version of keras-lr; this"):
        join(storage)


def test_a_study_of_format_2_goes_on_with_repeats_as_final_seeds(storage, join):
    identity = {"settings": {"epochs": 3, "final_seeds": 2, "max_runs": None}}
    record = join(storage, identity=identity)
    known = dict(record.study.user_attrs["keras_lr"])
    known.update(format=2, settings={"epochs": 3, "repeats": 2})
    record.study.set_user_attr("keras_lr", known)
    assert join(storage, identity=identity).resumed
    identity["settings"]["final_seeds"] = 3
    with pytest.raises(ValueError, match="other settings: final_seeds 2 and not 3. Use those"):
        join(storage, identity=identity)


@pytest.mark.parametrize("written", [2, 3])
def test_runs_of_a_study_with_rounds_in_its_keys_are_not_trained_again(storage, join, written):
    """Formats 2 and 3 called a job `ROUND/SETTING/seed=SEED`."""
    record = join(storage)
    known = {**record.study.user_attrs["keras_lr"], "format": written}
    record.study.set_user_attr("keras_lr", known)
    fields = "learning_rate=0.001/momentum=None/batch_size=None/warmup=0.0/policy=constant"
    with record.begin(job(1)) as trial:
        trial._trial.set_user_attr("job", f"coarse/{fields}/seed=0")
        trial.end(outcome(job(1), value=0.25))
    again = join(storage)
    assert again.found()[job(1).key].value == 0.25
    assert again.begin(job(1)) is None
    with again.begin(job(2)) as running:
        running._trial.set_user_attr("job", f"coarse/{fields.replace('0.001', '0.002')}/seed=0")
        assert again.free([job(1), job(2), job(3)]) == [job(1), job(3)]


def test_a_study_that_others_made_is_refused_and_left_alone(storage, join):
    import optuna

    record = join(storage, "ours")
    theirs = optuna.create_study(storage=record._storage, study_name="digits")
    theirs.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(ValueError, match="'digits' .* was not made by keras-lr"):
        join(storage)
    assert len(theirs.trials) == 1 and theirs.user_attrs == {}
    optuna.create_study(storage=record._storage, study_name="upward", direction="maximize")
    with pytest.raises(ValueError, match="'upward' .* was not made by keras-lr"):
        join(storage, "upward")


def test_a_study_whose_maker_died_before_saying_what_it_is_of_goes_on(storage, join, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(study_module.Study, "_identify", die)
        join(storage)
    assert join(storage).resumed
    with pytest.raises(ValueError, match="another model"):
        join(storage, identity={"model": {"layers": "b"}})


def test_a_study_that_gets_its_identity_and_a_trial_while_another_joins_is_joined(
    storage, join, monkeypatch
):
    import optuna

    late = []
    original = study_module.Study._identify

    def identify(study, *arguments):  # the maker, stopped just after it has created the study
        late.append((study, arguments))

    with monkeypatch.context() as patched:
        patched.setattr(study_module.Study, "_identify", identify)
        join(storage)
    get_trials, get_attributes = optuna.Study.get_trials, optuna.Study.user_attrs.fget

    def maker_goes_on():
        while late:
            study, arguments = late.pop()
            original(study, *arguments)
            study.study.add_trial(optuna.create_trial(value=1.0))

    def trials_then_maker(study, *arguments, **options):
        found = get_trials(study, *arguments, **options)
        maker_goes_on()
        return found

    def attributes_then_maker(study):
        found = get_attributes(study)
        maker_goes_on()
        return found

    # The maker goes on between the two looks of the process that joins, whichever comes first.
    monkeypatch.setattr(optuna.Study, "get_trials", trials_then_maker)
    monkeypatch.setattr(optuna.Study, "user_attrs", property(attributes_then_maker))
    assert join(storage).resumed
    assert not late


# Storages that cannot be used


def refused(join, storage, error=SearchError):
    """What is said of a storage, on one line and without the password."""
    with pytest.raises(error) as caught:
        join(storage)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("s3cret", "word/100", quote("word/100", safe="")):
        assert part not in message
    return message


def test_a_server_that_is_not_there_is_told_at_once(postgres, join):
    began = time.monotonic()
    port = free_port()
    message = refused(join, postgres.address("digits").replace(f":{postgres.port}/", f":{port}/"))
    assert f"postgresql://keras:***@127.0.0.1:{port}/digits cannot be used: " in message
    assert "refused" in message and message.endswith("Is the server running and the address right?")
    assert time.monotonic() - began < 5


def test_a_server_that_does_not_answer_is_given_up_in_time(join, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr(places, "REACHED", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        port = silent.getsockname()[1]
        message = refused(join, f"postgresql://keras:s3cret@127.0.0.1:{port}/digits")
    assert "timeout" in message and time.monotonic() - began < 15


def test_a_server_that_comes_back_is_used_again_and_one_that_has_gone_is_told(postgres, join):
    address = postgres.database()
    name = address.rsplit("/", 1)[1]
    record = join(address)
    with record.begin(job(1)) as trial:
        with postgres.connection() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
        trial.end(outcome(job(1)))
    assert len(record.found()) == 1
    with pytest.raises(SearchError) as caught, record.begin(job(2)) as trial:
        with postgres.connection() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        trial.end(outcome(job(2)))
    message = str(caught.value)
    assert f'"{name}" does not exist' in message and "s3cret" not in message


def test_a_wrong_password_or_database_is_told_without_the_password(postgres, join):
    assert "authentication failed" in refused(join, postgres.address("postgres", "s3cret@x"))
    assert '"no_such" does not exist' in refused(join, postgres.address("no_such"))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://keras:s3cret@word/100%@host/name",  # @ and / as they are
        "postgresql://keras:s3cret@host:s3cret/name",
        "postgresql:/keras:s3cret@host://name",
        "://s3cret",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(join, address):
    assert "storage must be a file, journal:FILE or a URL" in refused(join, address, ValueError)
    assert display_name(address) == "the storage"


def test_a_password_in_the_options_of_an_address_is_hidden():
    address = "postgresql://host/name?user=keras&password=s3cret&sslmode=require"
    shown = "postgresql://host/name?password=***&sslmode=require&user=keras"
    assert display_name(address) == shown
    assert display_name("mysql+pymysql://me:s3cret@host/name") == "mysql+pymysql://me:***@host/name"


def test_a_locked_file_is_told_and_not_waited_for_without_end(tmp_path, join, monkeypatch):
    path = tmp_path / "search.sqlite3"
    record = join(str(path))
    monkeypatch.setattr(places, "LOCKED", 0.3)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        message = refused(join, str(path))
        assert message.startswith(f"{path} is locked by another process: database is locked.")
        other.rollback()
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    assert join(str(path)).found()[job(1).key].value == 0.5


def test_a_file_that_is_locked_for_a_moment_is_waited_for(tmp_path, join):
    path = tmp_path / "search.sqlite3"
    record = join(str(path))
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        alarm = threading.Timer(1.0, other.rollback)
        alarm.start()
        with record.begin(job(1)) as trial:
            trial.end(outcome(job(1)))
        alarm.join()
    assert len(record.found()) == 1


@pytest.mark.parametrize("text", ["rate,loss\n", "rate,loss\n0.1,2\n0.2,3\n" * 100])
@pytest.mark.parametrize("kind", ["", "journal:"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, join, kind, text):
    path = tmp_path / "train.csv"
    path.write_text(text)
    message = refused(join, f"{kind}{path}", (SearchError, ValueError))
    assert (
        "is not a SQLite database, or it is damaged" in message
        or "is not a journal of Optuna" in message
    )
    assert path.read_text() == text and os.listdir(tmp_path) == ["train.csv"]


def test_a_damaged_journal_is_refused(tmp_path, join):
    path = tmp_path / "search.log"
    join(f"journal:{path}")
    path.write_text(path.read_text() + "{\n{\n")
    assert "search.log is damaged: " in refused(join, f"journal:{path}")


@pytest.mark.parametrize("lost", [1, 20, 200])
def test_a_journal_whose_last_line_is_half_written_goes_on(tmp_path, join, lost):
    path = tmp_path / "search.log"
    study = join(f"journal:{path}")
    for number in (1, 2):
        with study.begin(job(number)) as trial:
            trial.end(outcome(job(number), 0.5))
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    for _ in range(2):
        again = join(f"journal:{path}")
        again.begin(job(3))
        assert job(1).key in again.found()
    lines = path.read_bytes()
    assert lines.startswith(whole[: whole[:-lost].rfind(b"\n") + 1])
    assert all(json.loads(line) for line in lines.splitlines())


def test_a_journal_on_a_full_disk_keeps_its_whole_lines(tmp_path):
    class Full:
        """A file with room for ten more bytes, of which a write takes four at most."""

        def __init__(self, file):
            self.file, self.room = file, 10

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            count = self.file.write(data[: min(4, self.room)])
            self.room -= count
            return count

    path = tmp_path / "search.log"
    path.write_bytes(b'{"a":1}\n{"a name longer than a line":')
    with open(path, "r+b", buffering=0) as file:
        _append(Full(file), b"123456789\n")
        assert path.read_bytes() == b'{"a":1}\n123456789\n'
        with pytest.raises(OSError, match="No space left"):
            _append(Full(file), b'{"c":3}\n{"d":4}\n')
    assert path.read_bytes() == b'{"a":1}\n123456789\n'


@pytest.mark.parametrize("kind", ["", "journal:", "sqlite:///"])
def test_a_folder_that_does_not_exist_is_told(tmp_path, join, kind):
    message = refused(join, f"{kind}{tmp_path}/runs/search", ValueError)
    assert message.endswith(f"must exist; {tmp_path}/runs does not exist.")
    assert "must be a writable file" in refused(join, f"{kind}{tmp_path}", ValueError)


def test_a_file_that_cannot_be_written_is_told(tmp_path, join, monkeypatch):
    path = tmp_path / "search.sqlite3"
    join(str(path)).close()
    with monkeypatch.context() as patched:  # root may write everywhere
        patched.setattr(os, "access", lambda *_: False)
        assert "must be a writable file" in refused(join, str(path), ValueError)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version")
    readonly = refused(join, f"sqlite:///file:{path}?mode=ro&uri=true", (SearchError, ValueError))
    assert "readonly" in readonly or "must" in readonly


@pytest.mark.parametrize("scheme", ["http", "postgres", "redis", "sqlite+nothing"])
def test_an_unknown_kind_of_storage_is_told(join, scheme):
    message = refused(join, f"{scheme}://keras:s3cret@host/name", ValueError)
    assert message.startswith(f"{scheme}://keras:***@host/name needs a driver that is not")


@pytest.mark.parametrize(
    "scheme, install", [("postgresql", "psycopg[binary]"), ("mysql", "pymysql")]
)
def test_a_missing_driver_is_told(join, installed, scheme, install):
    installed("optuna")
    message = refused(join, f"{scheme}://keras:s3cret@host/name", ValueError)
    assert "needs a driver that is not installed. pip install" in message and install in message


@pytest.mark.parametrize(
    "revision, advice",
    [("v2.6.0.a", "optuna storage upgrade"), ("v9.9.0", "pip install -U optuna")],
)
def test_a_database_of_another_version_of_optuna_is_refused(tmp_path, join, revision, advice):
    path = tmp_path / "search.sqlite3"
    record = join(str(path))
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    record.close()
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    message = refused(join, str(path))
    assert "no longer compatible with the table schema" in message and advice in message
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM trials").fetchone() == (1,)


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?.db", "a#b.db", "{0}.db", "ü&x=1.db"])
def test_a_file_may_have_any_name(tmp_path, join, name):
    record = join(str(tmp_path / name))
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1)))
    assert os.listdir(tmp_path) == [name] and join(str(tmp_path / name)).resumed


# A server that is away for a while


class Away:
    """PostgreSQL of our own, that a test may stop and start."""

    def __init__(self, folder):
        self.folder = folder
        self.process, self.port = databases._started(folder)
        self.database = databases.Server(self.port).database

    def stop(self):
        databases._stopped(self.process)

    def start(self):
        self.process = databases.restarted(self.folder, self.port)


@pytest.fixture(scope="module")
def server():
    why = databases._missing()
    if why:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="keras-lr-postgres-") as place:
        server = Away(Path(place))
        yield server
        server.stop()


def test_a_server_that_restarts_costs_a_search_nothing(server, join):
    record = join(server.database())
    trial = None
    steps = [
        lambda: record.begin(job(1)).__enter__(),
        lambda: trial.report(1, 0.7),
        lambda: trial.end(outcome(job(1), value=0.25)),
        lambda: record.found(),
    ]
    for place, step in enumerate(steps):
        server.stop()
        alarm = threading.Timer(1.0, server.start)
        alarm.start()
        with pytest.warns(UserWarning, match=r"record cannot be reached: .* retries for 6 s"):
            found = step()
        alarm.join()
        trial = found if place == 0 else trial
    assert found[job(1).key].value == 0.25
    assert states(record) == {job(1).key: ["COMPLETE"]}
    trial.__exit__(None, None, None)


@pytest.mark.filterwarnings("ignore:The record cannot be reached")
def test_a_server_that_stays_away_is_told_after_the_grace_period(server, join, short_grace):
    record = join(server.database())
    server.stop()
    try:
        began = time.monotonic()
        with pytest.raises(SearchError, match="Is the server running and the address right"):
            record.found()
        assert 2.0 < time.monotonic() - began < 10.0
        with pytest.raises(KeyboardInterrupt), interrupts.recorded_interrupts():
            threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
            record.found()
    finally:
        server.start()


@pytest.mark.filterwarnings("ignore:The record cannot be reached")
@pytest.mark.parametrize("moment", ["_create_new_trial", "set_trial_state_values"])
def test_what_was_carried_out_before_the_connection_broke_is_not_done_twice(
    postgres, join, monkeypatch, moment
):
    """The server has written it down, and its answer is lost."""
    import optuna
    import sqlalchemy.exc

    real, broken = getattr(optuna.storages.RDBStorage, moment), []

    def breaks(self, *arguments, **named):
        found = real(self, *arguments, **named)
        state = named.get("state", arguments[-1])
        if not broken and (moment == "_create_new_trial" or state.name == "COMPLETE"):
            broken.append(moment)
            raise sqlalchemy.exc.OperationalError("commit", {}, Exception("connection lost"))
        return found

    monkeypatch.setattr(optuna.storages.RDBStorage, moment, breaks)
    record = join(postgres.database())
    with record.begin(job(1)) as trial:
        trial.end(outcome(job(1), value=0.25))
    assert broken and states(record) == {job(1).key: ["COMPLETE"]}
    assert record.found()[job(1).key].value == 0.25
