"""The help of the command, and the modules that it may load for it."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from keras_lr_cli import main
from keras_lr_cli.find_options import METHODS

pytestmark = pytest.mark.long_elsewhere(
    "the command line calls the library, which other tests run on each backend"
)

ROOT = Path(__file__).parent.parent
# Options that belong to the command, not to `lr_find`.
OF_THE_COMMAND = set(
    "model data target features drop validation optimizer loss metric multipliers imports "
    "trust plot save report compare as_json quiet backend cache traceback method distribute "
    "warmup".split()
)


@pytest.mark.once
@pytest.mark.parametrize(
    "argument",
    [
        "--help",
        "--version",
        "diagnose --help",
        "find --help",
        "layers --help",
        "preview --help",
        "preview one-cycle --help",
        "search --help",
    ],
)
def test_help_loads_nothing_heavy(argument):
    code = f"""
import sys
from keras_lr_cli import main
try:
    main({argument.split()!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = "keras keras_lr numpy matplotlib tensorflow jax torch rich pandas optuna".split()
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "times"), reason="needs the times of child processes")
def test_help_takes_less_than_three_tenths_of_a_second():
    """Of the processor, so that other programs do not count."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "keras_lr_cli", "--help"], capture_output=True)
        after = os.times()
        spent.append(after.children_user + after.children_system)
        spent[-1] -= before.children_user + before.children_system
    assert min(spent) < 0.3, spent


@pytest.mark.once
def test_python_m_runs_the_same_command():
    command = [sys.executable, "-m", "keras_lr_cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("keras-lr ")


@pytest.mark.once
@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in main.commands)])
def test_help_fits_80_columns(arguments):
    text = CliRunner().invoke(main, arguments, terminal_width=80).stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.startswith("Usage: ")


@pytest.mark.once
@pytest.mark.parametrize("name", main.commands)
def test_command_has_one_line_of_help_an_example_and_a_place_in_the_readme(name):
    command = main.commands[name]
    assert command.short_help and len(command.short_help) <= 60
    assert command.epilog.count("Example: keras-lr") == 1
    assert f"keras-lr {name}" in (ROOT / "README.md").read_text()
    for option in command.params:
        assert isinstance(option, click.Argument) or option.help, option.name


@pytest.mark.once
@pytest.mark.parametrize("path", [("find",), ("preview", "step")])
def test_a_command_used_alone_has_the_help_options_of_the_group(path):
    command = main
    for name in path:
        command = command.get_command(click.Context(command), name)
    command.make_context(path[-1], [], resilient_parsing=True)  # Click keeps the help option of it
    assert "-h, --help" in CliRunner().invoke(main, [*path, "--help"]).stdout


def test_defaults_equal_those_of_lr_find():
    import keras_lr

    expected = inspect.signature(keras_lr.lr_find).parameters
    options = main.commands["find"].make_context("find", ["model.keras"]).params
    assert options.pop("optimizer_name") == expected["optimizer"].default
    shared = set(options) - OF_THE_COMMAND
    assert shared >= {"start_lr", "end_lr", "steps", "ramp", "repeats", "stop_factor", "confirm"}
    for name in shared:
        assert options[name] == expected[name].default, name


def test_methods_are_those_of_the_library():
    import keras_lr
    from keras_lr.range_test import rules

    assert set(METHODS) >= set(rules.METHODS)
    assert METHODS[0] == inspect.signature(keras_lr.RangeTest.suggest).parameters["method"].default
    for method in METHODS:
        try:
            rules.suggest([1e-3, 1e-2, 1e-1], [2.0, 1.0, 3.0], method)
        except keras_lr.NoSuggestion:
            pass
