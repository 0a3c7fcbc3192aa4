"""The examples that the README does not run, started as a reader would, but shorter."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.once
@pytest.mark.long("an example trains for seconds; its parts have tests")
def test_fine_tuning_example_compares_every_method_with_one_rate(tmp_path):
    short = ["--networks", "2", "--rates", "0.01"]
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "fine_tune_digits.py"), *short],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r" points \(.* to .*\)$", run.stdout, flags=re.MULTILINE)) == 6
    assert re.search(r"^one rate +18 +0\.01\* +[6-9]\d\.\d", run.stdout, re.MULTILINE)
    assert re.search(r"^Compared with one tuned rate, multipliers gained", run.stdout, re.MULTILINE)
    assert not any(tmp_path.iterdir())


def example(script, *arguments, cwd):
    """Output of an example in a new process."""
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.once
@pytest.mark.long("an example trains for seconds; its parts have tests")
def test_large_batch_example_judges_each_claim(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # the fastest to start
    said = example("large_batch.py", "--networks", "2", "--rates", "0.1", cwd=tmp_path)
    verdict = (
        r": (reproduced|did not reproduce|not shown by so few networks), [+-]\d+\.\d points \("
    )
    assert len(re.findall(verdict, said)) == 3
    accuracies = [float(row) for row in re.findall(r"^batches.*?(\d\d\.\d) +\d+\.\d$", said, re.M)]
    assert len(accuracies) == 4
    assert min(accuracies) > 60
    assert not any(tmp_path.iterdir())


@pytest.mark.once
@pytest.mark.long("an example trains for seconds; its parts have tests")
def test_schedule_free_example_compares_every_length(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    said = example("schedule_free.py", "--networks", "2", "--rates", "0.1", cwd=tmp_path)
    for name in ("one cycle", "cosine", "schedule-free"):
        rows = re.findall(rf"^{name} +(\d) .*?(\d+\.\d) +\d+\.\d$", said, re.MULTILINE)
        assert [int(epochs) for epochs, _ in rows] == [1, 2, 4]
        assert float(rows[-1][1]) > 60
    assert len(re.findall("^Schedule-Free better than .*points", said, re.MULTILINE)) == 6
    assert not any(tmp_path.iterdir())


@pytest.mark.once
def test_networks_side_by_side_are_independent(monkeypatch):
    """Other images for one network change only the weights of this network."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from side_by_side import Networks

    networks = Networks(judged=2)
    networks.x, networks.y = networks.x[:128].copy(), networks.y[:128]

    def kernel():
        networks.train(0.1, epochs=1)
        return np.array(networks.model.layers[0].kernel)

    kernel()  # Keras draws random numbers in the first
    before = kernel()
    networks.x[:, 3] = 0.5
    changed = np.any(before != kernel(), axis=(1, 2))
    assert changed.tolist() == [False, False, False, True, False, False]


@pytest.mark.once
@pytest.mark.parametrize(
    ("shift", "at_least", "verdict"),
    [
        (2.0, 0.0, ": reproduced, +2.0 points (+1.5 to +2.5)."),
        (-2.0, 0.0, ": did not reproduce, -2.0 points (-2.5 to -1.5)."),
        (0.2, 0.0, ": not shown by so few networks, +0.2 points (-0.3 to +0.7)."),
        (-0.2, -1.0, ": reproduced, -0.2 points (-0.7 to +0.3)."),
    ],
)
def test_a_claim_is_judged_by_the_interval_over_networks(monkeypatch, shift, at_least, verdict):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from side_by_side import judged

    # Ten differences with standard deviation 0.69: 2.262 * 0.69 / sqrt(10) = 0.5.
    other = np.linspace(80.0, 90.0, 10)
    one = other + shift + 0.69 * np.sqrt(0.9) * np.tile([1.0, -1.0], 5)
    assert judged("Better", one, other, at_least) == f"Better{verdict}"


@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long("an example trains for seconds; its parts have tests")
def test_notebook_runs_and_its_stored_outputs_are_those_of_its_cells(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    import make_tour
    import nbformat

    stored = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert (EXAMPLES / "tour.ipynb").stat().st_size < 400_000
    assert make_tour.shape(make_tour.execute(make_tour.notebook())) == make_tour.shape(stored)
    pictures = [out for _, outs in make_tour.shape(stored) for out in outs if "image/png" in out]
    assert len(pictures) == 4


@pytest.mark.long("a notebook trains for minutes; its parts have tests")
@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["find_and_train", "fine_tune", "gan"])
def test_a_notebook_for_colab_runs_alone_and_its_outputs_are_those_of_its_cells(
    monkeypatch, tmp_path, name
):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    import make_notebooks
    import make_tour
    import nbformat

    assert set(make_notebooks.NOTEBOOKS) == {"find_and_train", "fine_tune", "gan"}
    stored = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert (EXAMPLES / f"{name}.ipynb").stat().st_size < 400_000
    monkeypatch.setattr(make_tour, "HERE", tmp_path)  # no file of the folder is needed
    made = make_tour.execute(make_tour.notebook(make_notebooks.NOTEBOOKS[name]), timeout=600)
    assert make_tour.shape(made) == make_tour.shape(stored)
    code = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
    assert "%pip install -q keras-lr" in code
    kinds = [kind for _, outs in make_tour.shape(stored) for kind in outs]
    assert any("text/html" in each for each in kinds)  # a result shows its picture
