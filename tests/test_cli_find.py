"""`keras-lr find`: the answer, where it goes, and how it ends."""

import json
import os
import subprocess
import sys
import textwrap

import command_line
import keras
import numpy as np
import pytest
from command_line import refused, run
from range_tests import FALLS, RATES, probes

import keras_lr
from keras_lr.range_test.planned_run import planned_run
from keras_lr_cli.find_options import POLICIES
from keras_lr_cli.report import RULES
from keras_lr_cli.text import can_draw

pytestmark = [
    pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning"),
    pytest.mark.long_elsewhere(
        "the command line calls the library, which other tests run on each backend"
    ),
]
BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("find")
    command_line.write_files(folder)
    return folder


@pytest.fixture
def recorded(monkeypatch):
    """Replace the run by a recorded curve, and keep what the library was called with."""
    calls = []

    def lr_find(model, *arguments, **options):
        calls.append((model, arguments, options))
        planned = planned_run(options.get("policy"), options.get("total_steps"))
        return keras_lr.RangeTest(
            RATES, FALLS, stop_reason="completed", training_steps=100, planned=planned
        )

    monkeypatch.setattr(keras_lr, "lr_find", lr_find)
    return calls


@pytest.fixture
def flat(monkeypatch):
    """Replace the run by a curve that supports no answer."""
    test = keras_lr.RangeTest(np.geomspace(1e-7, 10, 100), np.ones(100), training_steps=100)
    with pytest.raises(keras_lr.NoSuggestion):
        test.suggest()
    monkeypatch.setattr(keras_lr, "lr_find", lambda *arguments, **options: test)


def test_real_run_answers_and_leaves_the_model_file_alone(files, tmp_path):
    model = files / "model.keras"
    before = model.read_bytes(), model.stat().st_mtime_ns
    result = run("find", model, "--plot", tmp_path / "p.png", "--save", tmp_path / "s.json")
    assert result.exit_code == 0, result.stderr
    assert (model.read_bytes(), model.stat().st_mtime_ns) == before
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    saved = keras_lr.RangeTest.load(tmp_path / "s.json")
    rate = saved.suggest().learning_rate
    assert f"{rate:.3g}" in result.stdout.splitlines()[0]
    assert f"model.optimizer.learning_rate = {rate:.3g}" in result.stdout
    assert "Warning" not in result.stderr and "Error" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "s.json"]


@pytest.mark.parametrize("model", ["model.h5", "bare.keras"])
def test_real_run_on_other_models(files, model):
    compile_options = ["--loss", "sparse_categorical_crossentropy", "--optimizer", "adam"]
    options = compile_options if model == "bare.keras" else []
    result = run("find", files / model, "--data", files / "model.npz", *options, "--steps", 40)
    assert result.exit_code == 0, result.stderr
    if options:
        assert "keras.optimizers.Adam(learning_rate=" in result.stdout


def test_text_names_rate_interval_bounds_rules_and_cost(files, recorded):
    result = run("find", files / "model.keras", "--compare")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Learning rate  ")
    assert lines[1].startswith("Interval       best between ")
    assert lines[1].endswith(" in about 85% of cases")
    words = ["Why ", "For CyclicLR   base_lr=", ", max_lr=", "In Python:"]
    words += [
        "By policy      constant: x 0.7, decaying: x 1.4",
        "Evidence       A ramp of 100 steps.",
    ]
    for each in [*words, "Cost           100 training steps"]:
        assert each in result.stdout
    for rule in ("auto", *RULES):
        assert any(line.startswith(f"{rule} ") for line in lines), rule
    assert result.stderr == ""


def python_of(text):
    """The block to paste of an answer."""
    return textwrap.dedent(text.partition("In Python:\n")[2].partition("\n\n")[0])


@pytest.mark.once
def test_rules_of_other_libraries_are_shown_only_with_compare(files, recorded):
    text = run("find", files / "model.keras").stdout
    assert not any(rule in text for rule in RULES)
    assert text.splitlines()[3] == "In Python:"  # what to do with the rate comes first


def suggested(rate):
    return keras_lr.Suggestion(rate, rate, rate, "curve", "")


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_paste_line_runs(files, recorded):
    result = run("find", files / "model.keras")
    model = command_line.compiled()
    (line,) = python_of(result.stdout).splitlines()
    exec(line, {"model": model, "keras": keras})
    found = keras_lr.lr_find(model).suggest().learning_rate
    assert float(model.optimizer.learning_rate) == pytest.approx(found, rel=5e-3)


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        (lambda: keras.optimizers.Adam(1.0), [0.02]),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)), [0.02]),
        (
            lambda: keras.optimizers.MultiOptimizer(
                keras.optimizers.OptimizerMap(
                    keras.optimizers.SGD(0.1), {".*kernel": keras.optimizers.SGD(0.01)}
                )
            ),
            [0.002, 0.02],
        ),
    ],
)
def test_paste_line_reaches_the_optimizer_that_counts(optimizer, rates):
    try:
        made = optimizer()
    except AttributeError:
        pytest.skip("this Keras has no MultiOptimizer")
    model = command_line.dense()
    model.compile(made, "mse")
    exec(suggested(0.02).python(model), {"model": model, "keras": keras})
    parts = getattr(made, "optimizers", None) or [getattr(made, "inner_optimizer", made)]
    assert [float(part.learning_rate) for part in parts] == pytest.approx(rates)


def test_paste_line_replaces_a_schedule():
    model = command_line.dense()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)), "mse")
    scope = {"keras": keras}
    exec(suggested(0.02).python(model), scope)
    assert float(scope["optimizer"].learning_rate) == pytest.approx(0.02)


def test_options_reach_the_library(files, recorded):
    arguments = (
        "--start-lr 1e-5 --end-lr 2 --steps 30 --ramp linear --repeats 2 --stop-factor 3 --seed 7 "
        "--budget 300 --no-shuffle --batch-size 16 --policy cosine --epochs 9"
    ).split()
    run("find", files / "model.keras", "--validation", files / "model.npz", *arguments)
    options = recorded[0][2]
    expected = {
        "start_lr": 1e-5,
        "end_lr": 2.0,
        "steps": 30,
        "ramp": "linear",
        "repeats": 2,
        "stop_factor": 3.0,
        "seed": 7,
        "policy": "cosine",
        "epochs": 9,
        "total_steps": None,
        "budget": 300,
        "shuffle": False,
        "batch_size": 16,
    }
    assert {name: options[name] for name in expected} == expected
    assert options["validation_data"][0].shape == (command_line.ROWS, command_line.FEATURES)


def test_policies_are_those_of_the_library():
    from keras_lr.range_test import planned_run

    assert set(POLICIES) == set(planned_run.POLICIES)


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        (["--confirm"], "--budget 500"),
        (["--no-confirm"], "--steps 100 --budget 100"),
        (["--no-confirm", "--steps", 60, "--repeats", 2], "--steps 60 --budget 120"),
    ],
)
def test_confirm_is_a_deprecated_name_that_help_hides(files, recorded, options, instead):
    result = run("find", files / "model.keras", *options)
    assert recorded[0][2]["confirm"] is (options[0] == "--confirm")  # the library reads it
    assert result.stderr == f"Warning: {options[0]} is deprecated; write {instead}.\n"
    assert "confirm" not in run("find", "--help").stdout


def planned_lines(files, *arguments):
    """The lines of an answer for a planned run, and what its block to paste defines."""
    result = run("find", files / "model.keras", *arguments)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    scope = {"keras": keras, "keras_lr": keras_lr, "model": command_line.compiled()}
    exec(python_of(result.stdout), {**scope, "epochs": 50, "steps_per_epoch": 20}, scope)
    return lines, scope


def rate_for(policy, total_steps):
    return keras_lr.lr_find(None).suggest(policy=policy, total_steps=total_steps).learning_rate


def rates_of(callback, updates):
    """The rates that a callback gives a fit of this many updates."""
    model = command_line.compiled()
    x, y = command_line.arrays()
    used = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            used.append(float(self.model.optimizer.learning_rate))

    model.fit(x[:updates], y[:updates], batch_size=1, verbose=0, callbacks=[callback, Record()])
    return used


def test_one_cycle_is_answered_with_its_callback(files, recorded):
    lines, scope = planned_lines(files, "--policy", "one-cycle", "--total-steps", 2000)
    rate = rate_for("one-cycle", 2000)
    assert lines[0] == f"Learning rate  {rate:.3g}   for one-cycle, 2,000 updates"
    (callback,) = scope["callbacks"]
    assert isinstance(callback, keras_lr.OneCycle)
    assert max(rates_of(callback, 20)) == pytest.approx(rate, rel=0.05)
    assert any(
        line.startswith("Cost           100 training steps (5% of the run)") for line in lines
    )
    assert not any(line.startswith(("By policy", "For CyclicLR")) for line in lines)


def test_one_cycle_leaves_the_momentum_of_an_optimizer_without_one(files, recorded):
    options = ["--optimizer", "sgd", "--loss", "sparse_categorical_crossentropy"]
    lines, scope = planned_lines(files, "--policy", "one-cycle", *options)
    assert not scope["callbacks"][0].cycle_momentum
    assert isinstance(scope["optimizer"], keras.optimizers.SGD)


@pytest.mark.parametrize("length", [("--total-steps", 1000), ()])
@pytest.mark.parametrize("policy", ["cosine", "wsd"])
def test_schedule_to_paste_warms_up_over_a_twentieth_and_ends_at_zero(
    files, recorded, policy, length
):
    lines, scope = planned_lines(files, "--policy", policy, *length)
    rate = float(f"{rate_for(policy, 1000 if length else None):.3g}")
    schedule = scope["schedule"]
    at = [float(schedule(step)) for step in range(1000)]
    np.testing.assert_allclose(at[25], rate / 2, rtol=0.05)
    assert max(at) == pytest.approx(rate, rel=1e-3)
    share = np.arange(950) / 950
    if policy == "cosine":
        expected = rate * (1 + np.cos(np.pi * share)) / 2
        np.testing.assert_allclose(at[50:], expected, rtol=1e-3, atol=1e-5 * rate)
    else:
        assert at[750] == pytest.approx(rate) and at[900] == pytest.approx(rate / 2, rel=0.02)
    assert at[-1] < 0.02 * rate
    assert isinstance(scope["callbacks"][0], keras_lr.ScheduleLR)


def test_constant_policy_is_answered_with_a_line_that_sets_the_rate(files, recorded):
    lines, scope = planned_lines(files, "--policy", "constant", "--total-steps", 1000)
    rate = rate_for("constant", 1000)
    assert float(scope["model"].optimizer.learning_rate) == pytest.approx(rate, rel=5e-3)


def test_short_runs_are_the_evidence_that_the_answer_lists(files, monkeypatch):
    test = keras_lr.RangeTest(
        np.geomspace(1e-7, 10, 100), np.linspace(2.0, 1.0, 100), probes=probes(), training_steps=700
    )
    monkeypatch.setattr(keras_lr, "lr_find", lambda *arguments, **options: test)
    result = run("find", files / "model.keras")
    text = " ".join(result.stdout.split())
    assert (
        "Evidence A ramp of 100 steps and 5 short runs of 100 to 200 steps at constant rates, "
        "judged by the loss of 300 held-out examples." in text
    )
    assert (
        "Held-out loss 0.9 at 0.01, 0.4 at 0.05, 0.35 at 0.15, 2.9 at 1, diverged at 30; "
        "2.2 before training." in text
    )
    content = json.loads(run("find", files / "model.keras", "--json").stdout)
    assert content["probes"]["losses"][:2] == [0.9, 2.9]
    assert (content["policy"], content["total_steps"], content["run"]) == (None, None, "")
    assert content["interval"] == [content["low"], content["high"]]
    assert list(content["policy_factors"]) == ["constant", "decaying"]


def test_json_tells_the_planned_run(files, recorded):
    arguments = ["--policy", "wsd", "--total-steps", 4000, "--json"]
    content = json.loads(run("find", files / "model.keras", *arguments).stdout)
    assert (content["policy"], content["total_steps"]) == ("wsd", 4000)
    assert content["run"] == "wsd, 4,000 updates"
    assert content["policy_factors"] == {} and content["probes"] is None
    low, high = content["interval"]
    assert low < content["learning_rate"] < high


def test_another_rule_claims_no_coverage(files, recorded):
    text = run("find", files / "model.keras", "--method", "valley").stdout
    assert "85%" not in text and "By policy" not in text
    assert text.splitlines()[1].startswith("Interval       between ")


def test_infinite_stop_factor_runs_to_the_end(files, recorded):
    run("find", files / "model.keras", "--stop-factor", "inf")
    assert recorded[0][2]["stop_factor"] is None


def test_json_is_one_object_and_nothing_else(files, recorded, tmp_path):
    result = run("find", files / "model.keras", "--json", "--save", tmp_path / "s.json")
    content = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert content["low"] <= content["learning_rate"] <= content["high"]
    assert content["bounds"]["base_lr"] < content["bounds"]["max_lr"]
    assert set(content["rules"]) == {"auto", *RULES}
    assert len(content["losses"]) == len(content["learning_rates"]) == 100
    assert content["written"] == {"save": str(tmp_path / "s.json")}
    assert content["backend"] == BACKEND
    assert result.stderr == ""


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_quiet_prints_the_rate_and_on_stderr_what_makes_it_less_sure(files, recorded):
    result = run("find", files / "model.keras", "--quiet")
    found = keras_lr.lr_find(None).suggest()
    assert float(result.stdout) == pytest.approx(found.learning_rate, rel=1e-2)
    assert result.stderr.splitlines() == [f"Warning: {warning}" for warning in found.warnings]


def test_method_answers_by_its_name(files, recorded):
    result = run("find", files / "model.keras", "--method", "ktrain", "--quiet")
    rate = keras_lr.lr_find(None).suggest("ktrain").learning_rate
    assert float(result.stdout) == pytest.approx(rate, rel=1e-2)


def test_multipliers_are_used_told_and_saved(files, tmp_path):
    multipliers = tmp_path / "multipliers.json"
    names = [layer.name for layer in keras.saving.load_model(files / "model.keras").layers]
    factors = {names[0]: 0.0, names[1]: 1.0}
    multipliers.write_text(json.dumps(factors))
    arguments = ["find", files / "model.keras", "--multipliers", multipliers, "--seed", 0]
    result = run(*arguments, "--save", tmp_path / "s.json")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80 + len(str(multipliers))
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Multipliers ")]
    assert "0 to 1, for 2 keys" in line
    assert "with LayerwiseLR[Adam] on" in result.stdout
    saved = keras_lr.RangeTest.load(tmp_path / "s.json")
    assert saved.provenance["multipliers"] == factors
    scope = {"keras": keras, "keras_lr": keras_lr}
    exec(python_of(result.stdout), scope)
    assert scope["optimizer"].multipliers == factors
    found = saved.suggest().learning_rate
    assert float(scope["optimizer"].learning_rate) == pytest.approx(found, rel=5e-3)
    plain = run("find", files / "model.keras", "--seed", 0, "--json")
    ours = run(*arguments, "--json")
    content, other = json.loads(ours.stdout), json.loads(plain.stdout)
    assert (content["multipliers"], other["multipliers"]) == (factors, None)
    assert content["losses"] != other["losses"]  # half of the model stood still


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_multipliers_reach_the_optimizer(files, recorded, tmp_path):
    multipliers = tmp_path / "multipliers.json"
    multipliers.write_text('{"dense.*": 0.5}')
    run("find", files / "model.keras", "--multipliers", multipliers)
    ((model, _, _),) = recorded
    assert isinstance(model.optimizer, keras_lr.optimizers.LayerwiseLR)
    assert model.optimizer.multipliers == {"dense.*": 0.5}
    assert run("find", files / "model.keras").exit_code == 0
    assert not isinstance(recorded[1][0].optimizer, keras_lr.optimizers.LayerwiseLR)


def test_multipliers_file_is_not_overwritten(files, tmp_path):
    path = tmp_path / "multipliers.json"
    path.write_text('{"dense.*": 0.5}')
    message = refused("find", files / "model.keras", "--multipliers", path, "--save", path)
    assert "would overwrite an input" in message
    assert json.loads(path.read_text()) == {"dense.*": 0.5}


def test_what_user_code_prints_stays_off_stdout(tmp_path, monkeypatch, recorded):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy_code.py").write_text(
        "import command_line\n"
        "def model():\n    print('a model')\n    return command_line.compiled()\n"
        "def data():\n    print('some data')\n    return command_line.arrays()\n"
    )
    result = run("find", "noisy_code:model", "--data", "noisy_code:data", "--json")
    json.loads(result.stdout)
    assert "a model" in result.stderr and "some data" in result.stderr


@pytest.mark.parametrize("form", [[], ["--quiet"], ["--json"]])
def test_no_suggestion_exits_1_and_still_writes_curve_and_picture(files, flat, tmp_path, form):
    plot, save = tmp_path / "p.png", tmp_path / "s.json"
    result = run("find", files / "model.keras", "--plot", plot, "--save", save, *form)
    assert result.exit_code == 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(keras_lr.RangeTest.load(save).losses) == 100
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: No learning rate can be suggested. ")
    if form == ["--json"]:
        assert json.loads(result.stdout)["learning_rate"] is None
    elif form == ["--quiet"]:
        assert result.stdout == ""


def test_nan_from_the_start_exits_1(tmp_path):
    model = command_line.compiled()
    model.layers[0].kernel.assign(np.full(model.layers[0].kernel.shape, np.nan))
    model.save(tmp_path / "nan.keras")
    x, y = command_line.arrays()
    np.savez(tmp_path / "nan.npz", x=x, y=y)
    result = run("find", tmp_path / "nan.keras", "--save", tmp_path / "s.json")
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert (tmp_path / "s.json").exists()


def test_interrupt_ends_with_one_line(files, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_lr, "lr_find", interrupted)
    result = run("find", files / "model.keras")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr == "Interrupted; the model file was not touched.\n"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(ValueError("bad"), 2), (TypeError("bad"), 2), (RuntimeError("bad"), 1), (OSError("bad"), 1)],
)
def test_error_of_the_run_is_one_line(files, monkeypatch, error, exit_code):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(keras_lr, "lr_find", failing)
    assert "bad" in refused("find", files / "model.keras", exit_code=exit_code)
    result = command_line.CliRunner().invoke(
        command_line.main, ["find", str(files / "model.keras"), "--traceback"]
    )
    assert "Traceback" in result.stderr and "in failing" in result.stderr


def test_warning_is_one_line_on_stderr(files, recorded, monkeypatch):
    import warnings

    plain = keras_lr.lr_find

    def warning(*arguments, **options):
        warnings.warn("careful\nwith that", UserWarning, stacklevel=1)
        return plain(*arguments, **options)

    monkeypatch.setattr(keras_lr, "lr_find", warning)
    result = run("find", files / "model.keras", "--json")
    assert result.stderr == "Warning: careful with that\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--start-lr", "1", "--end-lr", "0.1"],
            "--start-lr must be below --end-lr; got 1 and 0.1",
        ),
        (["--epochs", "3", "--total-steps", "100"], "pass one of them"),
        (["--epochs", "0"], "--epochs"),
        (["--total-steps", "0"], "--total-steps"),
        (["--budget", "0"], "--budget"),
        (["--budget", "20", "--steps", "50"], "budget"),
        (["--confirm", "--budget", "300"], "--confirm means --budget 500"),
        (["--policy", "step"], "'one-cycle'"),
        (["--start-lr", "0"], "--start-lr"),
        (["--steps", "2"], "--steps"),
        (["--batch-size", "0"], "--batch-size"),
        (["--repeats", "0"], "--repeats"),
        (["--stop-factor", "1"], "--stop-factor"),
        (["--stop-factor", "nan"], "Pass inf to run the ramp to its end"),
        (["--end-lr", "inf"], "--end-lr"),
        (["--method", "best"], "'auto'"),
        (["--ramp", "cosine"], "'exponential'"),
        (["--plot", "/no/such/folder/p.png"], "does not exist"),
        (["--save", "/no/such/folder/s.json"], "does not exist"),
        (["--plot", "p.doc"], ".png"),
        (["--save", "."], "is a folder"),
        (["--plot", "same.png", "--save", "same.png"], "same file"),
        (["--backend", "mxnet"], "mxnet"),
        (["--data", "no.npz"], "no.npz does not exist"),
        (["--validation", "no.npz"], "--validation no.npz does not exist"),
        (["--colour"], "--colour"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(files, arguments, words):
    assert words in refused("find", files / "model.keras", *arguments)


@pytest.mark.parametrize("option", ["--plot", "--save"])
def test_what_is_read_is_not_overwritten(files, tmp_path, option):
    (tmp_path / "link.png").symlink_to(files / "model.keras")
    content = (files / "model.keras").read_bytes()
    assert "overwrite" in refused("find", files / "model.keras", option, tmp_path / "link.png")
    assert (files / "model.keras").read_bytes() == content


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_output_in_a_closed_folder_is_refused_before_the_run(files, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    message = refused("find", files / "model.keras", "--save", tmp_path / "closed" / "s.json")
    assert "cannot be written" in message


def test_output_that_cannot_be_made_is_refused_before_the_run(files, tmp_path, monkeypatch):
    """Permissions say yes to root, and on a full or read-only disk; making a file says no."""

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_lr, "lr_find", None)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    message = refused("find", files / "model.keras", "--save", tmp_path / "s.json")
    assert "No space left on device" in message


def test_damaged_image_in_the_middle_of_the_run_is_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((6, 6, 3), number, dtype="uint8")
            image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    layers = [keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "pets.keras")
    order = np.random.default_rng(0).permutation(16)
    last = ("cat", "dog")[order[-1] // 8], order[-1] % 8
    arguments = ["find", tmp_path / "pets.keras", "--data", tmp_path / "pets", "--batch-size", 4]
    result = run(*arguments, "--steps", 12)
    assert result.exit_code in (0, 1) and "Cost" in result.stdout, result.stderr
    (tmp_path / "pets" / last[0] / f"{last[1]}.png").write_bytes(b"no picture")
    result = run(*arguments)
    classes, message = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert classes.endswith("pets: images of cat=0 (8), dog=1 (8)")
    assert f"{last[0]}/{last[1]}.png is not a readable image" in message


def test_another_backend_comes_too_late_in_this_process(files):
    other = "jax" if BACKEND != "jax" else "torch"
    assert BACKEND in refused("find", files / "model.keras", "--backend", other)


@pytest.mark.parametrize(("encoding", "can"), [("utf-8", True), ("latin-1", False), ("x", False)])
def test_picture_is_plain_where_the_terminal_is(encoding, can):
    assert can_draw(encoding) is can


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_whole_process_keeps_stderr_clean(files, encoding):
    """The only run in a process of its own: start-up chatter, encoding, exit code."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment.update(PYTHONIOENCODING=encoding, KERAS_BACKEND=BACKEND, PYTHONWARNINGS="default")
    command = [sys.executable, "-m", "keras_lr_cli", "find", str(files / "model.keras")]
    command += ["--no-cache", "--steps", "30"] if encoding == "utf-8" else ["--steps", "2"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if encoding == "ascii":
        assert done.returncode == 2 and done.stderr.isascii()
        return
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert "Learning rate" in done.stdout.decode(encoding)


@pytest.mark.once
@pytest.mark.long("processes that start a backend and train")
def test_a_seed_repeats_in_fresh_processes_with_a_model_that_has_dropout(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    np.savez(tmp_path / "model.npz", x=x, y=x.sum(axis=1))
    command = [sys.executable, "-m", "keras_lr_cli", "find", str(tmp_path / "model.keras")]
    losses = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--seed", "5", "--steps", "20", "--json"], capture_output=True, text=True
        )
        losses.append(json.loads(done.stdout)["losses"])
    assert len(losses[0]) > 5 and losses[0] == losses[1]


def test_warm_up_is_searched_at_the_suggested_rate(files, recorded, monkeypatch):
    calls = []

    def find_warmup(model, **options):
        calls.append(options)
        trials = [keras_lr.WarmUpTrial(0, False, float("inf"), 12)]
        trials.append(keras_lr.WarmUpTrial(10, True, 0.5, 110))
        return keras_lr.WarmUpSearch(options["max_lr"], 10, tuple(trials), 2.0, None)

    monkeypatch.setattr(keras_lr, "find_warmup", find_warmup)
    options = ("--warmup", "--total-steps", 2000, "--policy", "one-cycle", "--seed", 4)
    result = run("find", files / "model.keras", *options)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "Warm-up A warm-up of 10 updates survives the rate" in text
    assert "(122 training steps)" in text
    answer = json.loads(run("find", files / "model.keras", *options, "--json").stdout)
    assert answer["warm_up"]["warmup_steps"] == 10
    assert answer["warm_up"]["trials"][0]["loss"] is None  # JSON has no infinity
    for call in calls:
        assert call["max_lr"] == answer["learning_rate"]
        assert call["total_steps"] == 2000
        assert (call["seed"], call["monitor"], call["stop_factor"]) == (4, "loss", 4.0)
        assert len(call["x"]) == len(call["y"])
    assert json.loads(run("find", files / "model.keras", "--json").stdout)["warm_up"] is None


def test_warm_up_of_a_real_run(files):
    result = run("find", files / "model.keras", "--warmup", "--steps", 40, "--seed", 1)
    assert result.exit_code == 0, result.stderr
    assert "No warm-up is needed" in result.stdout


def test_warm_up_has_no_place_in_quiet_output(files):
    assert "--quiet prints the rate only" in refused(
        "find", files / "model.keras", "--warmup", "--quiet"
    )
