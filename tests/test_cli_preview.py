"""`keras-lr preview`: options, output and files."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import refused, run

import keras_lr
from keras_lr_cli import main, startup, text
from keras_lr_cli.class_options import arguments_of
from keras_lr_cli.errors import BadInput
from keras_lr_cli.policies import OURS, POLICIES, Policy

pytestmark = pytest.mark.once

COMMON = {"steps", "plot", "csv", "as_json", "log"}
ONE_CYCLE = ("preview", "one-cycle", "--max-lr", 0.1)
names = pytest.mark.parametrize("name", POLICIES)


def class_of(name):
    policy = POLICIES[name]
    homes = {
        "keras_lr": keras_lr,
        "keras_lr.schedules": keras_lr.schedules,
        "keras.optimizers.schedules": keras.optimizers.schedules,
    }
    return getattr(homes[policy.home], policy.name)


def command_of(name):
    preview = main.commands["preview"]
    return preview.get_command(click.Context(preview), name)


def answer(*arguments):
    """What `--json` prints, and nothing on stderr."""
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def evaluated(python):
    """The stack that the answer's Python makes."""
    learning_rate, callbacks = (
        eval(python.get(key, default), {"keras": keras, "keras_lr": keras_lr})
        for key, default in (("learning_rate", "None"), ("callbacks", "[]"))
    )
    return callbacks if learning_rate is None else [learning_rate, *callbacks]


# Options


def test_every_schedule_of_the_library_has_a_command():
    schedules = {each for each in keras_lr.schedules.__all__ if each.endswith("Schedule")}
    shown = {policy.name for policy in POLICIES.values()}
    # Two are behind the callback that cycles the momentum as well; one takes other schedules.
    instead = {"OneCycleSchedule": "OneCycle", "CyclicSchedule": "CyclicLR"}
    assert {instead.get(each, each) for each in schedules - {"SequentialSchedule"}} <= shown


@names
def test_options_are_the_arguments_of_the_class_with_its_defaults(name):
    policy, arguments = POLICIES[name], dict(inspect.signature(class_of(name)).parameters)
    unseen = ("total_steps", "couple_weight_decay", "minutes")
    for skipped in ("name", "scale_fn", "optimizer", *unseen):
        arguments.pop(skipped, None)
    assert {option.name for option in policy.options} == set(arguments)
    context = command_of(name).make_context(name, [], resilient_parsing=True)
    for option in policy.options:
        default = arguments[option.name].default
        given = option.get_default(context)
        if default is inspect.Parameter.empty:
            assert option.required or option.name == policy.length, option.name
        else:
            assert not option.required
            assert (given, type(given)) == (default, type(default)), option.name


@names
def test_choices_are_those_that_the_class_accepts(name):
    policy = POLICIES[name]
    required = {option.name: 0.1 for option in policy.options if option.required}
    required |= {name: 9 for name in required if name.endswith("steps") or name == "step_size"}
    required |= {policy.length: 20} if policy.length else {}
    for option in policy.options:
        if isinstance(option.type, click.Choice):
            *others, last = map(repr, option.type.choices)
            message = f"{option.name} must be {', '.join(others)} or {last}; got 'neither'."
            with pytest.raises(ValueError, match=re.escape(message)):
                class_of(name)(**{**required, option.name: "neither"})


def test_an_argument_added_to_a_class_is_an_option_by_itself(tmp_path, monkeypatch):
    source = Path(inspect.getsourcefile(keras_lr.schedules.StepDecaySchedule)).read_text()
    source = source.replace(
        "gamma: float = 0.1)",
        'gamma: float = 0.1, *, floor: float | None = None, shape: str = "b", skip: bool = False)',
    ).replace(
        "\n    Raises:",
        """        floor: Smallest rate; `gamma` times
            the first by default. More of it.
        shape: Either "a" or "b".
        skip: Skip it.

    Raises:""",
    )
    (tmp_path / "grown").mkdir()
    (tmp_path / "grown" / "__init__.py").write_text("from grown.step import StepDecaySchedule\n")
    (tmp_path / "grown" / "step.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    *_, gamma, floor, shape, skip = Policy("grown", "StepDecaySchedule", "", "").options
    assert (gamma.opts, gamma.default, gamma.help) == (
        ["--gamma"],
        0.1,
        "Factor of each decay, in (0, 1].",
    )
    assert (floor.opts, floor.type.name, floor.required) == (["--floor"], "float", False)
    assert floor.help == "Smallest rate; gamma times the first by default."
    assert (list(shape.type.choices), shape.default) == (["a", "b"], "b")
    assert (skip.opts, skip.is_flag, skip.default) == (["--skip"], True, False)
    assert "grown" not in sys.modules


def test_an_unknown_class_is_a_lookup_error():
    with pytest.raises(LookupError, match=r"keras_lr\.schedules has no class NoSchedule"):
        arguments_of("keras_lr.schedules", "NoSchedule")
    with pytest.raises(LookupError, match="no_package is not installed"):
        arguments_of("no_package", "NoSchedule")


def test_warm_up_has_the_default_of_the_callback():
    expected = inspect.signature(keras_lr.WarmUp).parameters["start_factor"].default
    for name, policy in POLICIES.items():
        options = {option.name: option for option in command_of(name).params}
        if policy.warms_up:
            assert options["start_factor"].default == expected
            assert not options["warmup_steps"].required


@names
def test_help_fits_80_columns_and_has_one_example(name):
    result = CliRunner().invoke(main, ["preview", name, "--help"], terminal_width=80)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].strip() == POLICIES[name].text
    example = result.stdout.partition("Example: ")[2].replace("\\\n", "")
    assert shlex.split(example) == shlex.split(f"keras-lr preview {name} {POLICIES[name].example}")
    for option in command_of(name).params:
        assert option.help and option.help.endswith("."), option.name


@names
def test_help_fits_60_columns(name):
    result = CliRunner().invoke(main, ["preview", name, "--help"], terminal_width=60)
    assert max(map(len, result.stdout.splitlines())) <= 60


@names
def test_example_runs_and_its_python_gives_the_same_rates(name):
    example = shlex.split(POLICIES[name].example)
    result = run("preview", name, *example)
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    shown = answer("preview", name, *example)
    again = keras_lr.preview(evaluated(shown["python"]), shown["steps"])
    assert shown["learning_rates"] == again.to_dict()["learning_rates"]
    assert shown["momenta"] == again.to_dict()["momenta"]
    pasted = result.stdout.split("In Python:\n")[1]
    for argument, value in shown["python"].items():
        assert re.sub(r"\s", "", f"{argument}={value}") in re.sub(r"\s", "", pasted)


# The answer


def test_text_shows_rate_momentum_key_points_and_python():
    result = run(*ONE_CYCLE, "--steps", 1000)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == " Learning rate"
    assert lines[5] == " Momentum"
    assert "      299            0.1      0.85  highest" in lines
    assert lines[-1] == "  callbacks=[keras_lr.OneCycle(max_lr=0.1)]"


def test_the_guide_shows_what_the_command_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).parent.parent / "docs" / "guides" / "policies.md"
    page = guide.read_text(encoding="utf-8")
    command, shown = re.search(r"^\$ keras-lr (preview .*)\n([^$]+?)^```", page, re.M).groups()
    assert run(*command.split()).stdout == shown


def test_json_has_every_step_in_one_object():
    shown = answer(*ONE_CYCLE, "--steps", 20, "--anneal", "linear")
    assert set(shown) == set(
        "schema policy python backend written steps learning_rates momenta key_points".split()
    )
    assert shown["policy"] == "one-cycle"
    assert shown["python"] == {"callbacks": "[keras_lr.OneCycle(max_lr=0.1, anneal='linear')]"}
    assert shown["backend"] == keras.backend.backend()
    assert shown["written"] == {}
    rise = np.linspace(0.004, 0.1, 6)
    fall = np.linspace(0.1, 4e-7, 15)[1:]
    np.testing.assert_allclose(shown["learning_rates"], [*rise, *fall], rtol=1e-5)
    assert [(each["step"], each["what"]) for each in shown["key_points"]] == [
        (0, "start"),
        (5, "highest"),
        (19, "lowest, end"),
    ]


def test_csv_has_a_row_for_each_step(tmp_path):
    path = tmp_path / "rates.csv"
    arguments = ("preview", "step", "--start-lr", 0.1, "--step-size", 2, "--steps", 4)
    result = run(*arguments, "--csv", path)
    assert path.read_text() == "step,learning_rate\n0,0.1\n1,0.1\n2,0.01\n3,0.01\n"
    assert f"Saved {path}" in result.stdout
    assert answer(*arguments, "--csv", path)["written"] == {"csv": str(path)}
    hostile = tmp_path / "a\x1b[2J.csv"
    shown = run(*arguments, "--csv", hostile).stdout
    assert "a\\x1b[2J.csv" in shown and "\x1b" not in shown


def test_plot_writes_a_picture(tmp_path):
    path = tmp_path / "rates.png"
    result = run(*ONE_CYCLE, "--plot", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert plt.imread(path).shape == (648, 840, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["rates.png"]


def test_warm_up_multiplies_the_first_steps():
    step = ("preview", "step", "--start-lr", 0.1, "--step-size", 3, "--steps", 5)
    shown = answer(*step, "--warmup-steps", 2, "--start-factor", 0.5)
    assert shown["learning_rates"] == [0.05, 0.075, 0.1, 0.01, 0.01]
    assert shown["python"]["callbacks"] == "[keras_lr.WarmUp(steps=2, start_factor=0.5)]"


def test_cosine_of_keras_decays_in_the_rest_of_the_run_after_its_warm_up():
    cosine = ("preview", "cosine", "--initial-learning-rate", 0, "--steps", 12)
    shown = answer(*cosine, "--warmup-target", 0.1, "--warmup-steps", 4)
    fall = 0.05 * (1 + np.cos(np.pi * np.arange(8) / 8))
    expected = [0.0, 0.025, 0.05, 0.075, *fall]
    np.testing.assert_allclose(shown["learning_rates"], expected, rtol=1e-5)


def test_warnings_go_to_stderr():
    cyclic = ("preview", "cyclic", "--base-lr", 0.01, "--max-lr", 0.1, "--step-size", 5)
    result = run(*cyclic, "--steps", 20, "--warmup-steps", 30)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: The warm-up should end within the run; got")
    assert len(result.stderr.splitlines()) == 1


def test_log_scale_is_an_option():
    step = ("preview", "step", "--start-lr", 0.1, "--step-size", 20, "--steps", 100)
    assert run(*step).stdout.startswith(" Learning rate\n")
    assert run(*step, "--log").stdout.startswith(" Learning rate (log scale)\n")


def test_text_is_plain_where_the_terminal_is(monkeypatch):
    monkeypatch.setattr(text, "can_draw", lambda: False)
    assert run(*ONE_CYCLE).stdout.isascii()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_block_characters_need_an_encoding_that_has_them(encoding):
    assert not text.can_draw(encoding)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("one-cycle --max-lr -1", "Error: --max-lr must be above 0; got -1.0."),
        ("one-cycle --max-lr 1 --pct-start 2", "--pct-start must be in [0, 1]; got 2.0."),
        ("one-cycle --max-lr 1 --steps 0", "--steps must be an integer of at least 1; got 0."),
        ("one-cycle --max-lr 1 --steps 99999999", "steps must be at most 16777216"),
        ("cyclic --base-lr 1 --max-lr .1 --step-size 9", "--base-lr must not be above --max-lr"),
        (
            "wsd --max-lr 1 --steps 9 --warmup-steps 9",
            "at most --steps; got 9 + 1 and total_steps=9",
        ),
        ("cosine --initial-learning-rate -1", "must be finite and at least 0; got -1 at step 0."),
        ("exponential --initial-learning-rate 1 --decay-rate nan --decay-steps 9", "got nan at"),
        ("cosine --initial-learning-rate 1 --decay-steps 0", "`--decay-steps` must be > 0"),
        ("step --start-lr 1 --step-size 3 --warmup-steps 0", "of at least 1; got 0."),
        ("one-cycle", "Missing option '--max-lr'."),
        ("one-cycle --max-lr fast", "'fast' is not a number."),
        ("one-cycle --max-lr 1 --steps 1.5", "'1.5' is not an integer."),
        ("one-cycle --max-lr 1 --anneal cosine", "'cosine' is not one of 'cos', 'linear'."),
        ("one-cycle --max-lr 1 --step-size 3", "No such option '--step-size'"),
        ("one-cycle --max-lr 1 --warmup-steps 3", "No such option '--warmup-steps'"),
        ("step --start-lr 1 --step-size 3 --base-momentum .8", "No such option '--base-momentum'"),
        (
            "one-cycle --max-lr 1 --no-cycle-momentum --max-momentum .9",
            "--max-momentum requires --cycle-momentum.",
        ),
        (
            "cyclic --base-lr .1 --max-lr 1 --step-size 9 --base-momentum .8",
            "--base-momentum requires --cycle-momentum.",
        ),
        (
            "step --start-lr 1 --step-size 3 --start-factor .1",
            "--start-factor requires --warmup-steps.",
        ),
        (
            "cosine --initial-learning-rate 0 --warmup-steps 9",
            "--warmup-steps requires --warmup-target.",
        ),
        (
            "cosine --initial-learning-rate 0 --warmup-target 9",
            "--warmup-target requires --warmup-steps.",
        ),
        ("two-cycle --max-lr 1", "No such command 'two-cycle'."),
    ],
)
def test_wrong_input_is_refused_in_a_line(arguments, message):
    told = refused("preview", *arguments.split())
    assert message in re.sub(r"option: (--[\w-]+)", r"option '\1'", told)  # as click 8.2 has it


def test_files_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_lr, "preview", lambda *_: pytest.fail("the work began"))
    (tmp_path / "folder.csv").mkdir()
    for option, path, message in (
        ("--plot", tmp_path / "rates.txt", "must end in .png, .svg"),
        ("--plot", tmp_path / "none" / "rates.png", "does not exist"),
        ("--csv", tmp_path / "none" / "rates.csv", "does not exist"),
        ("--csv", tmp_path / "folder.csv", "is a folder"),
    ):
        assert message in refused(*ONE_CYCLE, option, path)
    both = tmp_path / "rates.png"
    assert "name the same file" in refused(*ONE_CYCLE, "--plot", both, "--csv", both)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.csv"]


def test_an_existing_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "rates.csv"
    path.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        message = refused(*ONE_CYCLE, "--csv", path, exit_code=1)
    assert message == "Error: The result could not be written: disk full"
    assert path.read_text() == "old"
    assert run(*ONE_CYCLE, "--csv", path).exit_code == 0
    assert path.read_text().startswith("step,learning_rate,momentum\n0,0.004,0.95\n")
    assert [file.name for file in tmp_path.iterdir()] == ["rates.csv"]


def test_unexpected_errors_show_no_traceback(monkeypatch):
    def broken(*_):
        raise MemoryError("too much")

    monkeypatch.setattr(keras_lr, "preview", broken)
    message = refused(*ONE_CYCLE, exit_code=1)
    assert message == "Error: The preview failed. MemoryError: too much"


# The backend


def test_preview_runs_on_the_backend_that_starts_fastest(installed, monkeypatch):
    installed("tensorflow", "jax", "torch")
    assert startup._choose_to_compute("numpy") == "numpy"
    installed("tensorflow", "torch")
    assert startup._choose_to_compute("numpy") == "tensorflow"
    installed("tensorflow", "jax", "torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert startup._choose_to_compute("numpy") == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    assert startup._choose_to_compute("jax") == "numpy"
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    with pytest.raises(BadInput, match="KERAS_BACKEND must be one of .*; got mxnet"):
        startup._choose_to_compute("numpy")


def test_a_new_process_gives_the_rates_of_the_library():
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-m", "keras_lr_cli", *map(str, ONE_CYCLE), "--steps", "50"]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    shown = json.loads(done.stdout)
    assert shown["backend"] == "numpy"
    expected = keras_lr.preview(keras_lr.OneCycle(0.1), 50)
    np.testing.assert_allclose(shown["learning_rates"], expected.learning_rates, rtol=1e-6)
    np.testing.assert_allclose(shown["momenta"], expected.momenta, rtol=1e-6)


def test_policies_of_keras_lr_itself_are_callbacks():
    for name, policy in POLICIES.items():
        kind = keras.callbacks.Callback if policy.home == OURS else object
        assert issubclass(class_of(name), kind)
