"""The measurements on a GPU: a dry run without one, and the tables of a result."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "accelerator" / "run.py"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("accelerator_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("figures", None)


def run(*options):
    line = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ})


@pytest.mark.once
def test_without_a_gpu_nothing_is_measured(tmp_path):
    out = tmp_path / "result.json"
    done = run("--backend", "torch", "--out", out)
    assert done.returncode == 0
    assert done.stderr == "No GPU is visible to torch: nothing is measured.\n"
    assert not out.exists()
    assert done.stdout.startswith("<!-- begin accelerator -->\n")


@pytest.mark.once
@pytest.mark.long("processes that train on every path of the benchmark")
def test_a_dry_run_runs_every_part(tmp_path):
    out, backend = tmp_path / "result.json", keras.backend.backend()
    if backend not in ("jax", "torch"):
        pytest.skip("The measurement is of JAX and torch.")
    done = run("--backend", backend, "--dry-run", "--out", out, "--minutes", 5)
    result = json.loads(out.read_text())
    assert done.returncode == 0, (result["failures"], done.stderr)
    assert result["failures"] == result["skipped"] == []
    rows = {(row["table"], row["row"], row["column"]): row for row in result["rows"]}
    checks = [row for (table, _, _), row in rows.items() if table == "checks"]
    assert len(checks) == 5
    assert all(len(row["values"]) == 3 and max(row["values"]) <= row["mark"] for row in checks)
    for model in ("MLP", "transformer", "ResNet50"):
        assert len(rows["speed", "OneCycle, rate and momentum / plain fit", model]["values"]) == 2
        assert rows["speed", "lr_find / plain fit, 3 steps", model]["values"]
    for table in ("transfers", "first call, s", *(["candidates"] if backend == "jax" else [])):
        assert any(found == table for found, _, _ in rows), table
    assert "| losses of lr_find against NumPy, relative |" in done.stdout


def row(table, name, column, values, backend="jax", **more):
    made = {"table": table, "backend": backend, "row": name, "column": column, "values": values}
    return made | {"mark": None, "text": ""} | more


@pytest.mark.once
def test_the_tables_of_a_result(script):
    mb = {"table": "peak, MB", "column": "MLP"}
    result = {
        "device": "a GPU", "driver": "1", "versions": {"keras": "3"}, "date": "2026-01-01",
        "commit": "abc", "failures": [{"process": "p", "error": "e"}], "skipped": ["s"],
        "rows": [
            row("checks", "losses", "largest of 3 seeds", [0.0, 3e-5, 1e-5], mark=1e-4),
            row("checks", "tests", "", [], text="3 passed, 0 failed"),
            row("speed", "OneCycle", "MLP", [1.0, 1.5, 1.2], mark=1.02),
            row("speed", "OneCycle", "MLP", [1.0, 1.03, 1.01, 1.01], "torch", mark=1.02),
            row("transfers", "OneCycle, more", "MLP", [0.0], mark=0.0),
            *(row(column="MLP", table="first call, s", name=name, values=[value])
              for name, value in (("fit", 2.0), ("lr_find", 3.0))),
            *(row(**mb, name=name, values=[value])
              for name, value in (("fit", 100), ("lr_find", 110))),
            row("state, MB", "fit", "MLP", [40.0]),
        ],
    }  # fmt: skip
    assert script.tables(result).splitlines() == [
        "a GPU, driver 1; keras 3; 2026-01-01, abc.",
        "",
        "| on the device | JAX |",
        "| --- | --- |",
        "| losses | 3.0e-05, mark 1.0e-04 |",
        "| tests | 3 passed, 0 failed |",
        "",
        "| time, warm | JAX, MLP | torch, MLP |",
        "| --- | --- | --- |",
        "| OneCycle | **1.20** (1-1.50), mark 1.02 | 1.01 (1-1.03), mark 1.02 |",
        "",
        "| transfers | JAX, MLP |",
        "| --- | --- |",
        "| OneCycle, more | 0, mark 0 |",
        "",
        "| one process each | JAX, MLP |",
        "| --- | --- |",
        "| lr_find / fit, first call | 1.50 |",
        "| lr_find, memory above fit's peak | +10 MB of 100, +0.25 of weights and slots |",
        "",
        "Failures: p (e).",
        "",
        "Skipped: s.",
    ]


@pytest.mark.once
def test_a_job_that_does_not_fit_is_left_out_and_one_that_hangs_is_stopped(script, tmp_path):
    import argparse

    def hang(process):
        code = 'import time; print(\'{"table": "t", "n": 1}\', flush=True); time.sleep(60)'
        return [sys.executable, "-c", code]

    script.command = hang
    process = script.Process("torch", ("hang",))
    options = argparse.Namespace(minutes=0.3, out=tmp_path / "out.json", logs=None)
    result = {"rows": [], "failures": [], "skipped": [], "done": ["torch-earlier"]}
    earlier = script.Process("torch", ("earlier",))
    todo = [script.Job([each], 4) for each in (earlier, process, process)]
    script.measured(todo, result, options)
    assert json.loads(options.out.read_text()) == {
        "rows": [{"table": "t", "n": 1}],
        "failures": [{"process": "torch-hang", "error": "stopped after 4 s"}],
        "skipped": ["torch-hang"],
        "done": ["torch-earlier"],
    }
