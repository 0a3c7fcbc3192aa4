"""A part of `benchmarks/faults/fuzz.py`, and each file that once went wrong there.

`test_cli_fuzz.py` does the same for models and their data through the command.
"""

import json
import random
import sqlite3

import fuzz
import keras
import numpy as np
import pytest
import readers
from mutations import INSIDE, damaged

import keras_lr
from keras_lr_cli import startup

pytestmark = pytest.mark.once

TRIALS = {
    "range test, JSON": 60,
    "data, .npy": 30,
    "multipliers, JSON": 30,
    "log, CSV": 50,
    "log, JSON of a History": 50,
    "log, JSON in lines": 50,
    "log, TensorBoard": 30,
    "CSV of `LRLogger`, going on": 15,
    "search, journal": 8,
}
READERS = {reader.name: reader for reader in readers.READERS}


@pytest.mark.parametrize("name", TRIALS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence_that_names_it(name, tmp_path):
    reader = READERS[name]
    good = reader.make(tmp_path)
    content = good.read_bytes()
    assert fuzz.attempt(reader, good, content, tmp_path) == ("read", "")
    good.write_bytes(content)
    outcomes = []
    for trial in range(TRIALS[name]):
        made = fuzz.damage(content, reader, trial)
        outcome, told = fuzz.attempt(reader, good, made, tmp_path)
        assert outcome in ("read", "refused"), f"file {trial}: {told}"
        outcomes.append(outcome)
    assert "refused" in outcomes  # the damage was real


def test_damage_is_the_same_each_time_and_of_every_kind_it_says():
    content = json.dumps({"format": [1.0, 2.0, {"a": "b"}]}).encode()
    for kind in ("", "json", "lines", "csv"):
        twice = [
            [damaged(content, kind, random.Random(seed)) for seed in range(40)] for _ in range(2)
        ]
        assert twice[0] == twice[1]
        assert len(set(twice[0])) > 20
    assert {reader.kind for reader in readers.READERS} - {""} <= set(INSIDE)


def saved(tmp_path, **changes):
    """A range test whose file was changed after it was saved."""
    rates = np.geomspace(1e-5, 1.0, 20)
    probes = keras_lr.Probes([1e-3, 1e-2], [0.5, 0.7], [40, 40], 2.0, 100, 80, -2.5)
    validation = {"learning_rates": rates[::5], "loss": np.ones(4)}
    test = keras_lr.RangeTest(rates, np.linspace(2, 1, 20), validation=validation, probes=probes)
    path = tmp_path / "curve.json"
    test.save(path)
    content = json.loads(path.read_text())
    for place, value in changes.items():
        *way, last = place.split("__")
        owner = content
        for name in way:
            owner = owner[name]
        owner[last] = value
    path.write_text(json.dumps(content))
    return path


def test_a_range_test_that_is_not_damaged_is_loaded(tmp_path):
    assert keras_lr.RangeTest.load(saved(tmp_path)).probes.steps == [40, 40]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation": {"learning_rates": [0.1]}}, "validation must have loss"),
        ({"validation": {"loss": [0.1]}}, "validation must have learning_rates"),
        ({"validation__loss": [1.0] * 3}, "loss of validation"),
        ({"validation__learning_rates": [1.0, 0.1, 0.01, 0.001]}, "increasing"),
        ({"losses": [1.0, [2.0]]}, "inhomogeneous"),
        ({"losses": [1.0]}, "losses must have shape"),
        ({"training_steps": 1e999}, "damaged"),
        ({"version": []}, "not a range test"),
        ({"version": 3}, "later keras-lr"),
        ({"probes__steps": [40, None]}, "is not a number"),
        ({"probes__steps": [40]}, "differ in length"),
        ({"probes__cost": "x"}, "is not a number"),
        ({"probes__learning_rates": [0.0, 0.1]}, "is not above 0"),
    ],
)
def test_a_damaged_range_test_is_refused_and_named(tmp_path, changes, words):
    path = saved(tmp_path, **changes)
    with pytest.raises(ValueError, match=words) as refusal:
        keras_lr.RangeTest.load(path)
    assert str(path) in str(refusal.value)


def trained(path, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.ones((8, 2), "float32")
    logger = keras_lr.LRLogger(path, **options)
    model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, callbacks=[logger])


@pytest.mark.parametrize(
    "content",
    [
        b"name,grade\r\nAda,1\r\n",
        b"epoch,step,learning_rate\r\n0,x,0.1\r\n",
        b"epoch,step,learning_rate\r\n-1,0,0.1\r\n",
        b"epoch,step,learning_rate\r\n0,0,fast\r\n",
        "epoch,step,learning_rate\r\n0,0,0.1\r\n".encode("utf-16"),
    ],
)
def test_lr_logger_adds_nothing_to_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "marks.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"marks\.csv must be a file that LRLogger wrote"):
        trained(path, append=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("torn", ["1,2,0.", "1,2,1e-", "1,", "1"])
def test_lr_logger_drops_the_row_that_a_killed_run_was_writing(tmp_path, torn):
    path = tmp_path / "rates.csv"
    path.write_text("epoch,step,learning_rate\r\n0,0,0.1\r\n" + torn, newline="")
    trained(path, append=True)
    steps = [line.split(",")[:2] for line in path.read_text().splitlines()[1:]]
    assert steps == [["0", "0"], ["0", "0"], ["0", "1"], ["1", "2"], ["1", "3"]]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The SQLite file of a finished search."""
    return READERS["search, SQLite"].make(tmp_path_factory.mktemp("search")).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        "delete from trial_user_attributes where key = 'setting'",
        "update trial_user_attributes set value_json = '{' where key = 'job'",
        "update trial_user_attributes set value_json = '\"x\"' where key = 'ended'",
        "update trial_user_attributes set value_json = '2' where key = 'seed'",
        "update trial_values set value_type = 'FINIT'",
        "update study_directions set direction = 'UP'",
        "update study_user_attributes set value_json = '[]'",
        "insert into alembic_version values ('x')",
    ],
)
def test_a_damaged_record_of_a_search_is_refused_and_named(tmp_path, change, record):
    reader = READERS["search, SQLite"]
    path = tmp_path / "search.sqlite3"
    path.write_bytes(record)
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    with pytest.raises(readers.Refused, match=r"search\.sqlite3 (is damaged|cannot be used)"):
        reader.read(path, tmp_path)


def test_a_record_with_endless_settings_is_refused_in_a_short_sentence(tmp_path, record):
    reader = READERS["search, SQLite"]
    path = tmp_path / "search.sqlite3"
    path.write_bytes(record)
    database = sqlite3.connect(path)
    ((mark,),) = database.execute(
        "select value_json from study_user_attributes where key = 'keras_lr'"
    )
    changed = json.loads(mark)
    changed["settings"] |= {"a" * 9000: 1, "points": "b" * 9000}
    database.execute(
        "update study_user_attributes set value_json = ? where key = 'keras_lr'",
        [json.dumps(changed)],
    )
    database.commit()
    database.close()
    with pytest.raises(readers.Refused, match="was begun with other settings: .*aaa"):
        reader.read(path, tmp_path)


def test_settings_of_keras_that_are_nested_too_deep_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text("[" * 100_000)
    assert startup._backend_of_settings() == "tensorflow"
