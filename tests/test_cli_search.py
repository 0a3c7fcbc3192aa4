"""`keras-lr search`: what it prints, writes, passes on to its workers, and refuses."""

import inspect
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import click
import keras
import numpy as np
import pytest
from command_line import Batches, arrays, compiled, refused, run, write_files

import keras_lr
from keras_lr.rate_search.options import Options
from keras_lr_cli import main
from keras_lr_cli.workers import arguments

pytestmark = pytest.mark.once
QUICK = ("--epochs", 1, "--fine-rounds", 1, "--points", 3, "--final-seeds", 2, "--high", 1)
POLICIES = (*QUICK, "--low", 0.01)
QUICK = (*POLICIES, "--also", "none")
# Options that belong to the command, not to the library's search.
OF_THE_COMMAND = set(
    "model data target features drop imports validation optimizer loss metric multipliers trust "
    "plot report save as_json quiet backend cache traceback workers storage study".split()
)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("search")
    write_files(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        yield place


@pytest.fixture(scope="module")
def first(folder):
    """A search that has ended, with everything that it can write."""
    files = ("--save", "all.json", "--plot", "picture.png", "--report", "report.html")
    return run("search", "model.keras", *QUICK, *files)


def saved():
    return json.loads(Path("all.json").read_text())


def make():
    """A model and data for `module:function`."""
    return compiled()


def data():
    return arrays()


def batches():
    return Batches()


# What it says


def test_answer_goes_to_stdout_and_the_runs_to_stderr(first):
    assert first.exit_code == 0
    assert re.match(r"Learning rate  \d\.\d\de-0\d   \(between .* and .*\)\n", first.stdout)
    assert re.search(r"^Objective      val_loss \d\.\d+ \+- \S+ over 2 seeds$", first.stdout, re.M)
    assert re.search(r"^Sensitivity    \S+( worse)? at a third of the rate, ", first.stdout, re.M)
    assert re.search(r"^Interval       \S+( worse)? at its lower end, ", first.stdout, re.M)
    assert "Record         model.search.sqlite3, study model" in first.stdout
    assert "Saved          all.json, picture.png, report.html" in first.stdout
    assert "  model.optimizer.learning_rate = " in first.stdout
    assert first.stdout.count("the best tried") == 1
    runs = [line for line in first.stderr.splitlines() if " lr " in line]
    assert len(runs) == len(saved()["runs"])
    assert max(map(len, first.output.splitlines())) <= 80


def test_model_file_is_only_read(folder):
    before = (folder / "model.keras").read_bytes()
    run("search", "model.keras", *QUICK, "--study", "other")
    assert (folder / "model.keras").read_bytes() == before


def test_files_hold_the_search(first, folder):
    content = saved()
    assert content["format"] == "keras-lr search"
    assert (folder / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert "<h1>Learning-rate search: model.keras</h1>" in (folder / "report.html").read_text()
    assert "keras-lr search model.keras" in (folder / "report.html").read_text()
    assert content["settings"]["command"].startswith("keras-lr search model.keras --")
    assert content["low"] <= content["learning_rate"] <= content["high"]


def test_the_same_command_goes_on_and_says_so(first):
    again = run("search", "model.keras", *QUICK)
    assert "Continuing the study 'model' in model.search.sqlite3; " in again.stderr
    assert " lr " not in again.stderr  # nothing was left to run
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]


def test_json_is_one_object(first):
    shown = run("search", "model.keras", *QUICK, "--json")
    content = json.loads(shown.stdout)
    assert content["learning_rate"] == saved()["learning_rate"]
    assert content["written"] == {}


def test_quiet_is_the_rate(first):
    shown = run("search", "model.keras", *QUICK, "--quiet")
    assert float(shown.stdout) == saved()["learning_rate"]
    assert all(line.startswith("Warning: ") for line in shown.stderr.splitlines())


def test_search_of_more_than_the_rate():
    also = ("--also", "policy=constant,one-cycle", "--also", "batch-size=16,32")
    shown = run("search", "model.keras", *POLICIES, "--study", "more", *also, "--json")
    content = json.loads(shown.stdout)
    tried = {(row["policy"], row["batch_size"]) for row in content["table"]}
    assert {("constant", 32), ("one-cycle", 32)} <= tried
    assert any(size == 16 for _, size in tried)
    text = run("search", "model.keras", *POLICIES, "--study", "more", *also).stdout
    assert re.search(r"^With           batch size \d\d, policy \S+$", text, re.M)
    assert max(map(len, text.splitlines())) <= 80


def test_a_function_makes_a_model_for_each_run():
    spec = f"{__name__}:make"
    shown = run("search", spec, "--data", f"{__name__}:data", *QUICK, "--json")
    content = json.loads(shown.stdout)
    assert content["storage"] == f"{__name__}_make.search.sqlite3"
    assert content["finished"]


NAMES = ["acc[/all]", "a\x1b[31mb", "[link=x]\\[", "\u202eabc", "a\n$\\frac{$"]


def named():
    keras.utils.set_random_seed(0)
    model = compiled()
    measures = [keras.metrics.SparseCategoricalAccuracy(name) for name in NAMES]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=measures)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_of_any_name_loses_no_answer(name):
    spec = ("search", f"{__name__}:named", "--data", f"{__name__}:data", *QUICK, "--final-seeds", 1)
    spec += ("--objective", f"val_{name}", "--mode", "max", "--study", name, "--fine-rounds", 0)
    shown = run(*spec, "--plot", "any.png")
    assert shown.exit_code == 0 and shown.stdout.startswith("Learning rate")
    runs = [line for line in shown.stderr.splitlines() if " lr " in line]
    assert runs and all(line.isprintable() for line in runs)
    lines = shown.stdout.splitlines()
    if name.isprintable():
        assert any(line.startswith("Round") and f"val_{name}" in line for line in lines)


def test_a_picture_that_cannot_be_drawn_loses_no_answer(first, monkeypatch):
    import keras_lr.plotting

    def fails(*_):
        raise ValueError("Expected end of text, found '$'")

    monkeypatch.setattr(keras_lr.plotting, "save_search_plot", fails)
    shown = run("search", "model.keras", *QUICK, "--plot", "never.png")
    assert shown.exit_code == 1 and shown.stdout.startswith("Learning rate")
    assert "never.png could not be written: ValueError: Expected end of text" in shown.stderr


def test_the_code_of_a_function_that_makes_the_model_is_a_part_of_the_record(monkeypatch):
    spec = ("search", f"{__name__}:make", "--data", f"{__name__}:data", *QUICK)
    quick = ("--study", "code", "--timeout", 1e-6)  # no run is begun
    refused(*spec, *quick, exit_code=1)
    monkeypatch.setitem(globals(), "make", lambda: (compiled(), compiled())[1])
    assert "belongs to another model: code " in refused(*spec, *quick)


def test_a_data_set_needs_held_out_data():
    spec = ("search", "model.keras", "--data", f"{__name__}:batches", *QUICK, "--study", "set")
    assert "validation_data must be given" in refused(*spec)
    assert run(*spec, "--validation", "model.npz", "--quiet").exit_code == 0


def test_multipliers_and_compilation_are_taken():
    names = [layer.name for layer in keras.models.load_model("model.keras").layers]
    Path("factors.json").write_text(json.dumps(dict.fromkeys(names, 0.5)))
    options = ("--multipliers", "factors.json", "--study", "factors")
    assert run("search", "model.keras", *QUICK, *options, "--quiet").exit_code == 0
    compile_with = ("--optimizer", "sgd", "--loss", "sparse_categorical_crossentropy")
    options = ("--data", "model.npz", *compile_with, "--quiet")
    assert run("search", "bare.keras", *QUICK, *options).exit_code == 0


# What it passes on


def test_defaults_equal_those_of_the_library():
    expected = inspect.signature(keras_lr.search).parameters
    options = main.commands["search"].make_context("search", ["model.keras"]).params
    shared = set(options) - OF_THE_COMMAND
    assert shared >= {
        "epochs",
        "points",
        "final_seeds",
        "pruner",
        "fraction",
        "heartbeat",
        "resume",
    }
    for name in shared:
        default = expected[name].default
        assert options[name] == default, name


def test_every_option_of_the_library_is_an_option_of_the_command_and_recorded(first):
    names = {each.name for each in fields(Options)}
    options = main.commands["search"].make_context("search", ["model.keras"]).params
    assert names - set(options) == {"verbose"}
    assert names - set(saved()["settings"]) == {"verbose", "timeout", "heartbeat"}


@pytest.mark.parametrize(
    "typed",
    [
        ["model.keras"],
        ["model.keras", "--low", "0.1", "--high", "1.0", "--also", "momentum", "--also", "policy"],
        ["model.keras", "--no-shuffle", "--no-resume", "--trust", "--metric", "a b"],
        ["m.keras", "--data", "a b.npz", "--workers", "3", "--quiet", "--storage", "x:y"],
    ],
)
def test_a_worker_gets_what_was_typed(typed):
    command = main.commands["search"]
    context = command.make_context("search", list(typed))
    with context.scope():
        passed = arguments(without=("workers", "quiet"))
    assert passed[0] == "search"
    again = command.make_context("search", passed[1:])
    for name, value in context.params.items():
        default = {"workers": 1, "quiet": False}.get(name, value)
        assert again.params[name] == default, name


def test_no_password_is_written_down(monkeypatch):
    url = "postgresql://me:secret@127.0.0.1:1/search"
    line = refused("search", "model.keras", *QUICK, "--storage", url, exit_code=1)
    assert "secret" not in line and "me:***@127.0.0.1:1/search" in line


# What it refuses


@pytest.mark.parametrize(
    "options, error",
    [
        (("--low", 1), "Error: --low must be below --high; got --low 1.0 and --high 1.0."),
        (("--epochs", 0), "Error: --epochs must be an integer of at least 1; got 0"),
        (("--points", 2), "points must be an integer of at least 3; got 2"),
        (
            ("--also", "rate"),
            "--also must be one of momentum, beta-2, batch-size, weight-decay, warmup, policy, or "
            "none alone; got",
        ),
        (("--also", "momentum=high"), "--also momentum= takes numbers separated by commas"),
        (("--also", "batch-size=0"), "batch_size must be an integer of at least 1; got 0"),
        (("--objective", "val_f1"), "--objective must be in the logs of this model; got 'val_f1'"),
        (
            ("--also", "weight-decay"),
            "--also weight-decay needs an optimizer with a weight decay above 0; got Adam with "
            "weight_decay=None. Compile it with weight_decay=0.004, for instance, or leave "
            "weight_decay out of --also.",
        ),
        (("--mode", "best"), "mode must be 'auto', 'min' or 'max'; got 'best'"),
        (("--pruner", "asha"), "pruner must be 'median', 'halving' or 'none'; got 'asha'"),
        (("--report", "report.pdf"), "--report report.pdf must end in .html"),
        (("--report", "model.html", "--save", "model.html"), "--report and --save name the same"),
        (("--plot", "model.keras"), "--plot model.keras must end in .png, .svg"),
        (("--save", "model.keras"), "--save model.keras would overwrite an input"),
        (("--storage", "s.db", "--save", "s.db"), "--save s.db would overwrite the record"),
        (("--save", "model.search.sqlite3"), "would overwrite the record; name another file"),
        (("--storage", "journal:s.html", "--report", "s.html"), "would overwrite the record"),
        (("--storage", "none/search.sqlite3"), "The folder of none/search.sqlite3 must exist"),
        (
            ("--storage", "oracle://me@host/x"),
            "needs a driver that is not installed, or its kind is",
        ),
        (("--storage", "model.npz"), "model.npz is not a SQLite database, or it is damaged"),
        (("--no-resume",), "With --no-resume the study 'model' must not exist"),
        (("--seed", 1, "--also", "none"), "was begun with other settings: seed 0 and not 1"),
        (("--data", "no.npz"), "--data no.npz does not exist"),
        (("--workers", 0), "Invalid value for '--workers': 0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_refused_in_one_line(first, options, error):
    code = 1 if "damaged" in error else 2
    assert error in refused("search", "model.keras", *POLICIES, *options, exit_code=code)


def test_a_study_of_another_model_or_other_data_is_refused(first, folder):
    model = compiled()
    model.layers[0].set_weights([value + 1 for value in model.layers[0].get_weights()])
    (folder / "changed").mkdir(exist_ok=True)
    model.save("changed/model.keras")
    there = ("--storage", "model.search.sqlite3")
    line = refused("search", "changed/model.keras", "--data", "model.npz", *QUICK, *there)
    assert "belongs to another model" in line
    x, y = arrays()
    np.savez("other.npz", x=x + 1, y=y)
    line = refused("search", "model.keras", "--data", "other.npz", *QUICK, *there)
    assert "belongs to other data" in line


def test_nothing_is_lost_by_what_is_refused(first):
    with closing(sqlite3.connect("model.search.sqlite3")) as base:
        before = base.execute("select count(*) from trials").fetchone()
    refused("search", "model.keras", *QUICK, "--seed", 2)
    with closing(sqlite3.connect("model.search.sqlite3")) as base:
        assert base.execute("select count(*) from trials").fetchone() == before


def test_a_search_without_an_answer_exits_with_1():
    line = refused(
        "search", "model.keras", *QUICK, "--study", "short", "--timeout", 1e-6, exit_code=1
    )
    assert "The timeout expired before a run finished" in line


def test_without_optuna_it_says_what_to_install(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "optuna" else find(name)
    )
    assert "pip install optuna" in refused("search", "model.keras")


def test_interrupt_says_how_to_go_on(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_lr, "search", stop)
    shown = run("search", "model.keras", *QUICK, "--study", "stopped")
    assert shown.exit_code == 130
    assert "the same command continues from here" in shown.stderr
    assert isinstance(main, click.Group)
