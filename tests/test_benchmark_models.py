"""The table of real models: its arithmetic, and that each model has a row and an entry."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "models"
pytestmark = pytest.mark.once


def test_a_row_has_medians_and_copies_and_names_what_failed(script, tmp_path):
    run = script("run")
    parts = {
        "first-fit": {"seconds": 4.0, "peak": 500 << 20, "state": 100 << 20},
        "first-OneCycle": {"seconds": 4.4, "peak": 500 << 20, "state": 100 << 20},
        "first-lr_find": {"seconds": 5.0, "peak": 620 << 20, "state": 100 << 20},
        "steady": {"fit": [1.0, 2.0, 4.0], "OneCycle": [1.0, 2.2, 4.0], "lr_find": [1.2, 2.2, 4.0]},
        "works": {"lr_find": "yes", "search": "ValueError: a | b"},
    }
    for part, told in parts.items():
        (tmp_path / f"vit.torch.{part}.json").write_text(json.dumps(told))
    # Nothing is measured again.
    lines = run.table(run.results(tmp_path, ["vit"], ["torch"], small=True))
    assert lines[2] == (
        "| ViT, KerasHub | torch | **1.10** | 1.00 | **1.25** | 1.10 | **1.20** (120 MB) | "
        "search: ValueError: a / b |"
    )
    assert len(lines) == 3


def test_a_part_that_failed_leaves_its_cells_empty(script, tmp_path):
    run = script("run")
    for part in run.PARTS:
        told = {"works": {"lr_find": "yes"}}.get(part, {"failed": "no such model"})
        (tmp_path / f"vit.jax.{part}.json").write_text(json.dumps(told))
    lines = run.table(run.results(tmp_path, ["vit"], ["jax"], small=True))
    assert lines[2] == "| ViT, KerasHub | JAX | - | - | - | - | - | all 1 |"


def test_the_worker_measures_a_toy_model(script):
    found = script("run").measured("transformer", "torch", "first-lr_find", small=True)
    assert found.keys() == {"seconds", "peak", "state"}


def test_every_model_of_the_table_can_be_made(script):
    assert list(script("run").MODELS) == list(script("zoo").ENTRIES)
