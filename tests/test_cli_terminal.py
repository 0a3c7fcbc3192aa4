"""Terminals of any width, completion in the shell, and messages during long work."""

import io
import math
import re
import sys
from pathlib import Path

import click
import command_line
import pytest
from click.testing import CliRunner
from searches import searched, trained

import keras_lr
from keras_lr.rate_search.jobs import Outcome, Setting
from keras_lr_cli import main, startup
from keras_lr_cli.search import _text

pytestmark = pytest.mark.long_elsewhere(
    "the command line calls the library, which other tests run on each backend"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    command_line.write_files(folder)
    return folder


def widest(text):
    """The longest line that is not Python to paste."""
    text = re.sub(r"In Python:\n(  .*\n?)+", "", text)
    return max(len(line) for line in text.splitlines())


COMMANDS = [[], *([name] for name in main.commands), ["preview", "one-cycle"]]


@pytest.mark.once
@pytest.mark.parametrize("columns", [40, 50, 60, 80, 100, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal(monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = CliRunner().invoke(main, [*command, "--help"]).stdout
    assert widest(text) <= min(columns, 80)
    assert "…" not in text and " ".join(text.split()).count("Show this message and exit.") == 1


@pytest.mark.parametrize("columns", [40, 50, 200])
def test_answers_fit_the_terminal(files, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    (tmp_path / "log.csv").write_text("epoch,loss\n0,1\n1,0.5\n2,nan\n")
    answers = [
        ("layers", files / "model.keras", "--preset", "decay:0.75"),
        ("preview", "one-cycle", "--max-lr", 0.1),
        ("preview", "cyclic", "--base-lr", 0.01, "--max-lr", 0.1, "--step-size", 99),
        ("diagnose", tmp_path / "log.csv"),
        ("find", files / "model.keras", "--steps", 40, "--seed", 0, "--compare"),
    ]
    for arguments in answers:
        result = command_line.run(*arguments)
        assert result.exit_code == 0, result.stderr
        assert widest(result.stdout) <= columns, result.stdout
        assert "…" not in result.stdout  # where rich cuts a cell off
    assert "torch_lr_finder" in result.stdout and "Rule " in result.stdout


LONG = "val_sparse_categorical_accuracy"
ALSO = {"momentum": [0.8, 0.9], "batch_size": [32, 64], "policy": ["constant", "one-cycle"]}


def with_long_name(job):
    done = trained(job)
    history = {**done.history, LONG: done.history["val_accuracy"]}
    return Outcome(job, done.ended, done.value, history, done.seconds)


@pytest.mark.once
@pytest.mark.parametrize("columns", [50, 60, 80])
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(
    "also",
    [{}, {"policy": ["constant", "one-cycle"]}, ALSO, {**ALSO, "warmup": [0.0, 0.1]}],
    ids=len,
)
@pytest.mark.parametrize("objective", ["val_loss", LONG])
def test_the_table_of_a_search_fits_and_shows_every_value(
    monkeypatch, columns, unicode, also, objective
):
    monkeypatch.setenv("COLUMNS", str(columns))
    base = Setting(1e-3, 0.9, 32)
    found = searched(with_long_name, objective=objective, also=also, base=base)
    text = click.unstyle(_text(found, {}, 1.0, unicode))
    assert widest(text) <= columns and "…" not in text
    table = text.split("\n\n")[1]
    words = set(re.split(r"[\s,|]+", table))
    for row in found.rows():
        value = "-" if math.isnan(row["value"]) else f"{row['value']:.4g}"
        assert {value, f"{row['learning_rate']:.2g}"} <= words
        assert {f"{row[name]:g}" for name in also if name in ("momentum", "batch_size")} <= words
        assert {row[name] for name in also if name == "policy"} <= words
    assert "best" in words


@pytest.mark.once
@pytest.mark.parametrize(
    "words",
    ["find mod", "layers mod", "search mod", "diagnose mod", "find model.keras --data mod"]
    + ["find m.keras --validation mod", "find m.keras --multipliers mod", "find m.keras --plot mod"]
    + ["search m.keras --report mod", "preview one-cycle --csv mod"],
)
def test_shell_completes_files(words):
    answers = {"bash": "file,mod\n", "zsh": "file\nmod\n_\n", "fish": "file,mod\n"}
    for shell, answer in answers.items():
        cursor = words.split()[-1] if shell == "fish" else str(len(words.split()))
        result = completed(shell, f"keras-lr {words}", cursor)
        assert result.stdout.rstrip("\n") == answer.rstrip("\n"), shell


def completed(shell, words, cursor):
    environment = {
        "_KERAS_LR_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": cursor,
    }
    return CliRunner().invoke(main, [], prog_name="keras-lr", env=environment)


@pytest.mark.once
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completes_commands_options_and_policies(shell):
    for words, found in (("fi", "find"), ("find m.keras --re", "--report")):
        cursor = words.split()[-1] if shell == "fish" else str(len(words.split()))
        assert found in completed(shell, f"keras-lr {words}", cursor).stdout
    script = CliRunner().invoke(
        main, [], prog_name="keras-lr", env={"_KERAS_LR_COMPLETE": f"{shell}_source"}
    )
    assert f"_KERAS_LR_COMPLETE={shell}_complete" in script.stdout
    page = (Path(__file__).parents[1] / "docs/reference/command_line.md").read_text("utf-8")
    assert f"_KERAS_LR_COMPLETE={shell}_source keras-lr" in page


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.once
def test_terminal_shows_that_keras_is_loaded_and_nothing_afterwards(monkeypatch):
    for stream, expected in ((Terminal(), "Loading Keras ..."), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        with startup._announced("Loading Keras ..."):
            assert stream.getvalue() == expected
        assert stream.getvalue() == expected + (f"\r{' ' * 17}\r" if expected else "")


def test_progress_shows_no_loss_before_there_is_one(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    x, y = command_line.arrays()
    keras_lr.lr_find(command_line.compiled(), x, y, steps=12, budget=12)
    shown = stream.getvalue()
    assert "12/12" in shown and "loss" in shown
    assert "nan" not in shown


def test_progress_is_a_line_that_writes_over_itself_in_a_notebook(monkeypatch):
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", stream)
    x, y = command_line.arrays()
    ramp = {"start_lr": 1e-7, "end_lr": 10.0, "steps": 12, "budget": 12}
    keras_lr.lr_find(command_line.compiled(), x, y, **ramp)
    lines = stream.getvalue().split("\r")
    assert lines[1].startswith("Range test ─") and "0/12" in lines[1]
    assert "12/12 lr 1.00e+01  loss" in lines[-3]
    assert lines[-2].strip() == "" and "\x1b" not in stream.getvalue()
    before = len(stream.getvalue())
    keras_lr.lr_find(command_line.compiled(), x, y, steps=12, verbose=0)
    assert len(stream.getvalue()) == before


def test_a_search_tells_its_runs_in_a_notebook_too(monkeypatch):
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", stream)
    x, y = command_line.arrays()
    options = {"low": 0.01, "high": 1.0, "epochs": 1, "fine_rounds": 0, "final_seeds": 1}
    keras_lr.search(command_line.compiled(), x, y, **options)
    assert " lr 0.1 " in stream.getvalue()
