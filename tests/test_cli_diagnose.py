"""`keras-lr diagnose`: logs in, findings out, errors in one line."""

import bz2
import gzip
import json
import lzma
import math
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from command_line import refused, run

from keras_lr.diagnosis import NAMES, diagnose

pytestmark = pytest.mark.once

LEARNING = 0.1 + 2.0 * np.exp(-np.arange(30) / 5)
HEALTHY = {"loss": LEARNING, "val_loss": LEARNING, "learning_rate": [0.1] * 30}
DIVERGED = {"loss": [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0], "learning_rate": [0.5] * 8}
ENDED = {
    "loss": np.where(np.arange(30) < 10, LEARNING, LEARNING[10]),
    "learning_rate": np.maximum(0.0, 0.1 - 0.01 * np.arange(30)),
}


@pytest.fixture
def csv(tmp_path):
    """Write columns as CSVLogger does."""

    def write(columns, name="training.csv"):
        rows = zip(*columns.values(), strict=True)
        lines = [["epoch", *columns], *([epoch, *row] for epoch, row in enumerate(rows))]
        (tmp_path / name).write_text("".join(",".join(map(str, row)) + "\r\n" for row in lines))
        return tmp_path / name

    return write


def test_a_finding_has_its_evidence_and_one_thing_to_do(csv):
    path = csv(DIVERGED)
    before = path.read_bytes()
    result = run("diagnose", path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Error", "diverged"]
    assert lines[1].startswith(
        "Evidence       The loss rose from 0.4 in epoch 3 to 300 in epoch 7;"
    )
    assert lines[3].startswith("Advice         Train at a tenth of the rate, 0.05,")
    assert any(line.startswith("Not judged     Over- and underfitting") for line in lines)
    assert max(map(len, lines)) <= 80
    assert result.stdout.isascii()
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_run_without_problems(csv):
    result = run("diagnose", csv(HEALTHY), "--batch-size", 32)
    assert (result.exit_code, result.stdout) == (
        0,
        f"No problems found in 30 epochs.\nBest val_loss: {LEARNING[29]:.4g} in epoch 29.\n",
    )
    result = run("diagnose", csv(HEALTHY), "--quiet", "--strict")
    assert (result.exit_code, result.stdout) == (0, "")


def test_json_is_what_the_library_says(csv):
    path = csv(DIVERGED)
    result = run("diagnose", path, "--json")
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    content = json.loads(result.stdout)
    assert content.pop("schema") == "urn:keras-lr:diagnose:1"
    assert content == json.loads(json.dumps(diagnose(path).to_dict()))
    assert content["source"] == str(path)
    assert {"name", "severity", "evidence", "advice", "first", "last"} == set(
        content["findings"][0]
    )


def test_quiet_prints_names_and_strict_is_the_exit_code(csv):
    path = csv({**ENDED, "batch_size": [32] * 15 + [8] * 15})
    result = run("diagnose", path, "--quiet")
    assert (result.exit_code, result.stdout) == (0, "schedule-ended-early\nbatch-size-changed\n")
    assert set(result.stdout.split()) <= set(NAMES)
    assert run("diagnose", path, "--quiet", "--strict").exit_code == 1
    assert run("diagnose", path, "--json", "--strict").exit_code == 1
    hint = csv({"loss": LEARNING, "batch_size": [32] * 15 + [8] * 15})
    assert run("diagnose", hint, "--quiet").stdout == "batch-size-changed\n"
    assert run("diagnose", hint, "--quiet", "--strict").exit_code == 0


def test_options_reach_the_library(csv):
    path = csv(HEALTHY)
    sizes = run("diagnose", path, "--batch-size", "0:32,12:128")
    assert "from 32 to 128 in epoch 12" in sizes.stdout
    jump = csv({"loss": np.where(np.arange(30) < 20, LEARNING, LEARNING + 0.5)})
    assert "spikes-after-restart" in run("diagnose", jump, "--restart", 20).stdout
    slow = csv({**HEALTHY, "learning_rate": 0.1 - 0.001 * np.arange(30)})
    assert "never-decayed" in run("diagnose", slow).stdout
    assert "never-decayed" not in run("diagnose", slow, "--epochs", 300).stdout
    high = csv({"loss": [9.0, *LEARNING[1:]]})
    assert "rate-too-high" in run("diagnose", high, "--untrained-loss", 2.3).stdout


def test_json_and_folders_of_tensorboard(tmp_path):
    (tmp_path / "history.json").write_text(json.dumps({"loss": [2.0, 1.0, math.nan]}))
    assert run("diagnose", tmp_path / "history.json", "--quiet").stdout == "not-a-number\n"
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "logs")) as writer:
        for step, value in enumerate(DIVERGED["loss"]):
            writer.add_scalar("Loss/train", value, step)
    result = run("diagnose", tmp_path / "logs")
    assert "The loss rose from 0.4 in step 3 to 300 in step 7" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("epoch,loss\n", "is empty: it has only a header"),
        ("epoch,accuracy\n0,0.5\n", "has no training loss column"),
        ("epoch,loss\n0,abc\n", "line 2: loss must be a number"),
        ("{", "is not valid JSON"),
        ("\0\1\2", "is not a text file"),
    ],
)
def test_a_file_that_is_not_a_log_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "training.csv"
    path.write_text(content)
    assert words in refused("diagnose", path)
    assert words in refused("diagnose", path, "--json")
    assert path.read_text() == content


def test_bad_paths_and_options_are_refused_in_one_line(csv, tmp_path):
    path = csv(HEALTHY)
    assert "does not exist" in refused("diagnose", tmp_path / "missing.csv")
    (tmp_path / "empty").mkdir()
    assert "empty contains no log" in refused("diagnose", tmp_path / "empty")
    for sizes in ("many", "3,4", "0:", "1.5", ":"):
        assert "--batch-size must be an integer, or a list" in refused(
            "diagnose", path, "--batch-size", sizes
        )
    assert "at least 1; got 0." in refused("diagnose", path, "--batch-size", 0)
    assert "ends with epoch 29; got 99." in refused("diagnose", path, "--restart", 99)
    assert "finite number" in refused("diagnose", path, "--untrained-loss", "nan")
    assert "x>=1" in refused("diagnose", path, "--epochs", 0)
    assert "Missing argument" in refused("diagnose")


def test_several_logs_give_a_line_each_worst_first(csv):
    good, bad = csv(HEALTHY, "good.csv"), csv(DIVERGED, "bad.csv")
    result = run("diagnose", good, bad)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first == (f"error       {bad}: diverged; best loss 0.4 in epoch 3; rate 0.5; 8 rows")
    assert second.startswith(f"healthy     {good}: no problems found; best val_loss")
    lines = run("diagnose", good, bad, "--json").stdout.splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["error", "healthy"]
    assert run("diagnose", good, bad, "--quiet").stdout == f"{bad}: diverged\n"


def test_logs_in_a_folder_may_be_compressed_or_have_names_in_capitals(csv, tmp_path):
    (tmp_path / "runs").mkdir()
    text = (csv(HEALTHY)).read_bytes()
    for name, packed in {
        "A.CSV": bytes,
        "b.csv.gz": gzip.compress,
        "c.Log.BZ2": bz2.compress,
    }.items():
        (tmp_path / "runs" / name).write_bytes(packed(text))
    history = lzma.compress(json.dumps({"loss": list(LEARNING)}).encode())
    (tmp_path / "runs" / "D.JSON.xz").write_bytes(history)
    with zipfile.ZipFile(tmp_path / "runs" / "e.csv.zip", "w") as archive:
        archive.writestr("e.csv", text)
    shown = run("diagnose", tmp_path / "runs").stdout
    names = ("A.CSV", "b.csv.gz", "c.Log.BZ2", "D.JSON.xz", "e.csv.zip")
    assert all(name in shown for name in names)


def test_what_is_no_log_is_refused_by_its_kind(csv, tmp_path):
    (tmp_path / "none").mkdir()
    assert "none contains no log: no .csv, .tsv, .json" in refused("diagnose", tmp_path / "none")
    np.savez(tmp_path / "data.npz", x=[1.0], y=[2.0])
    message = refused("diagnose", tmp_path / "data.npz")
    assert "is an archive of 2 files (x.npy, y.npy), not a file of text." in message
    (tmp_path / "hello.txt").write_text("hello\n")
    assert "is not a log: it has one line, which" in refused("diagnose", tmp_path / "hello.txt")
    message = refused("diagnose", csv(HEALTHY), "--restart", 1000)
    assert "Error: --restart must be epochs of the log" in message


def test_a_folder_stands_for_its_logs(csv, tmp_path):
    (tmp_path / "runs" / "a" / "checkpoint-9").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "checkpoint-30").mkdir()
    csv(HEALTHY, "runs/good.csv"), csv(DIVERGED, "runs/bad.csv")
    half = {name: values[:15] for name, values in HEALTHY.items()}
    csv({**half, "learning_rate": [0.05] * 15}, "runs/half.csv")
    (tmp_path / "runs" / "config.json").write_text('{"layers": 3}')
    for step, rows in ((9, 3), (30, 30)):
        state = {"log_history": [{"epoch": n, "loss": LEARNING[n]} for n in range(rows)]}
        path = tmp_path / "runs" / "a" / f"checkpoint-{step}" / "trainer_state.json"
        path.write_text(json.dumps(state))
    result = run("diagnose", tmp_path / "runs")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    names = [os.path.relpath(line.split()[1].rstrip(":"), tmp_path / "runs") for line in lines[:4]]
    assert names[0] == "bad.csv"
    assert set(names) == {"bad.csv", "good.csv", "half.csv", "a/checkpoint-30/trainer_state.json"}
    assert lines[4:] == [
        "",
        "Each run with an error or a warning has a learning rate of at least 0.5; the others, at "
        "most 0.1.",
    ]
    assert (
        "Skipped: " in result.stderr and "config.json must hold lists of values by" in result.stderr
    )
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text("{}")
    assert "contains no log that can be read" in refused("diagnose", tmp_path / "none")


def test_tensorboard_runs_and_appended_runs_give_a_line_each(csv, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for name in ("one/train", "one/validation", "two/train"):
        with SummaryWriter(str(tmp_path / "logs" / name)) as writer:
            for step, value in enumerate(LEARNING):
                writer.add_scalar("loss", value, step)
    result = run("diagnose", tmp_path / "logs")
    logs = tmp_path / "logs"
    named = [line.split()[1] for line in result.stdout.splitlines()]
    assert named == [f"{logs / 'one'}:", f"{logs / 'two'}:"]
    loss = [*DIVERGED["loss"], *LEARNING]
    csv({"epoch": [*range(8), *range(30)], "loss": loss}, "twice.csv")
    text = (tmp_path / "twice.csv").read_text().replace("epoch,epoch", "row,epoch")
    (tmp_path / "twice.csv").write_text(text)
    lines = run("diagnose", tmp_path / "twice.csv", csv(HEALTHY)).stdout.splitlines()
    assert lines[0].startswith(f"error       {tmp_path / 'twice.csv'}, run 1 of 2: diverged")
    assert lines[1].startswith(f"hint        {tmp_path / 'twice.csv'}, run 2 of 2: appended-runs")
    assert run("diagnose", tmp_path / "twice.csv", "--strict").exit_code == 1


def test_pictures_and_a_report(csv, tmp_path):
    bad, good = csv(DIVERGED, "bad.csv"), csv(HEALTHY, "good.csv")
    picture, report = tmp_path / "run.png", tmp_path / "runs.html"
    result = run("diagnose", bad, "--draw", "--plot", picture, "--report", report)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[0].split()[0] == "300"
    assert any(line.split() == ["Error", "diverged"] for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert report.read_text().count("<img ") == 1
    assert run("diagnose", bad, good, "--report", report).exit_code == 0
    assert report.read_text().count("<img ") == report.read_text().count("<h2>") == 2
    assert "--plot draws one log; got 2." in refused("diagnose", bad, good, "--plot", picture)
    assert "must end in .png" in refused("diagnose", bad, "--plot", tmp_path / "run.xyz")
    assert "would overwrite an input" in refused("diagnose", bad, "--report", bad)
    assert "would overwrite an input" in refused("diagnose", tmp_path, "--report", bad)
    assert bad.read_text().startswith("epoch")
    assert run("diagnose", tmp_path, "--report", report).exit_code == 0  # its own, of before


def test_fail_on_and_ignore(csv):
    bad = csv(DIVERGED)
    assert run("diagnose", bad, "--fail-on", "error").exit_code == 1
    assert run("diagnose", bad, "--fail-on", "error", "--ignore", "diverged").exit_code == 0
    warned = csv(ENDED, "ended.csv")
    assert run("diagnose", warned, "--fail-on", "error").exit_code == 0
    assert run("diagnose", warned, "--fail-on", "warning").exit_code == 1
    assert "--ignore must be one of not-a-number" in refused("diagnose", bad, "--ignore", "x")
    in_folder = refused("diagnose", bad.parent, "--ignore", "x")
    assert "--ignore must be one of not-a-number" in in_folder and "no log" not in in_folder


def test_columns_by_name_and_standard_input(csv):
    path = csv({"a": [2.0, 1.0], "b": [1.0, 1.0], "held": [4.0, 3.5], "eta": [0.1, 0.1]})
    named = ("--loss", "a+b", "--val-loss", "held", "--lr", "eta")
    told = run("diagnose", path, *named).stdout
    assert "Best val_loss: 3.5 in epoch 1." in told and "no learning rate" not in told
    assert "no learning rate" in run("diagnose", path, *named[:4]).stdout
    assert "no column 'c' for loss" in refused("diagnose", path, "--loss", "c")
    code = "from keras_lr_cli import main; main(['diagnose', '-', '--json', '--loss', 'a+b'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=path.read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert (content["source"], content["best"]) == ("standard input", 2.0)


def test_a_csv_file_is_read_without_a_backend_or_pandas(csv):
    path = csv(HEALTHY)
    code = f"""
import sys
from keras_lr_cli import main
try:
    main(["diagnose", {str(path)!r}])
except SystemExit as end:
    assert not end.code, end.code
heavy = ("tensorflow", "torch", "matplotlib", "pandas", "tensorboard", "optuna")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""
    clean = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No problems found")
    assert done.stderr == ""
