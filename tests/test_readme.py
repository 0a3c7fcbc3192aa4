"""The Python code of the README runs on each backend; its commands run once, as written."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_lr

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with digits.keras and digits.npz, as from `make demo`, and a log."""
    folder = tmp_path_factory.mktemp("demo")
    script = ROOT / "examples" / "digits_model.py"
    subprocess.run([sys.executable, str(script), "digits.keras"], cwd=folder, check=True)
    runs = json.loads((ROOT / "tests" / "data" / "training_logs.json").read_text())
    log = next(run["log"] for run in runs if run["way"] == "rate-too-high")
    with open(folder / "training.csv", "w", newline="") as file:
        csv.writer(file).writerows([log, *zip(*log.values(), strict=True)])
    return folder


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_readme_python_runs_as_it_stands(demo, tmp_path, monkeypatch):
    for file in demo.glob("digits.*"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    names = {}
    keras.utils.set_random_seed(0)  # the result on a trained model depends on chance
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "range_test.json").stat().st_size > 1000
    assert 1e-5 < names["found"].learning_rate < 1.0


@pytest.mark.once
@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command_runs_as_it_stands(command, demo):
    program, *arguments = shlex.split(command)
    assert program == "keras-lr"
    before = (demo / "digits.keras").read_bytes()
    beside = Path(sys.executable).with_name(program)
    run = subprocess.run(
        [str(beside), *arguments], cwd=demo, capture_output=True, text=True, env=os.environ
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert (demo / "digits.keras").read_bytes() == before
    for option, file in zip(arguments, arguments[1:], strict=False):
        if option in ("--plot", "--save", "--report"):
            assert (demo / file).stat().st_size > 1000


@pytest.mark.once
def test_every_name_in_the_readme_is_there_after_importing_keras_lr():
    names = set(re.findall(r"keras_lr\.([A-Za-z_]\w*)(?:\.(\w+))?", README))
    assert ("plotting", "save_range_test_plot") in names
    for name, inner in names:
        assert name in keras_lr.__all__, name
        assert not inner or hasattr(getattr(keras_lr, name), inner), f"{name}.{inner}"


@pytest.mark.once
def test_readme_points_only_to_files_that_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.once
def test_readme_names_the_versions_that_the_suite_is_pinned_to():
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements" / "test.txt").read_text().split()
        if "==" in line
    )
    for name, title in (
        ("keras", "Keras"),
        ("tensorflow", "TensorFlow"),
        ("jax", "JAX"),
        ("torch", "PyTorch"),
    ):
        assert re.search(rf"{title}\s+{re.escape(pins[name])}", README), title
