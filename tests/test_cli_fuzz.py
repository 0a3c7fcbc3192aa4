"""Damaged files: whatever the bytes, an exit code and no traceback."""

import random

import command_line
import numpy as np
import pytest
from mutations import damaged

import keras_lr

pytestmark = pytest.mark.long_elsewhere(
    "the command line calls the library, which other tests run on each backend"
)

# Files of each, and the kind of damage from benchmarks/faults/mutations.py.
TRIALS = {
    "model.keras": (80, "zip"),
    "model.h5": (80, "h5"),
    "model.npz": (80, "zip"),
    "model.csv": (60, "csv"),
    "layers.json": (60, "json"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    command_line.write_files(folder)
    layers = command_line.run("layers", folder / "model.keras", "--json")
    (folder / "layers.json").write_text(layers.stdout)
    return folder


MODELS = ("model.keras", "model.h5")  # which each backend reads in its own way


@pytest.mark.parametrize(
    "name", [*MODELS, *(pytest.param(e, marks=pytest.mark.once) for e in TRIALS if e not in MODELS)]
)
def test_no_damage_to_a_file_shows_a_traceback(files, name, monkeypatch):
    def quick(model, *args, **options):
        return keras_lr.RangeTest(np.geomspace(1e-5, 1, 20), np.linspace(2, 1, 20))

    monkeypatch.setattr(keras_lr, "lr_find", quick)  # reading is what is tested, not training
    content = (files / name).read_bytes()
    chance = random.Random(name)
    codes = []
    trials, kind = TRIALS[name]
    for trial in range(trials):
        broken = files / f"broken{trial}.{name.rpartition('.')[2]}"
        broken.write_bytes(damaged(content, kind, chance))
        if name in ("model.keras", "model.h5"):
            arguments = [broken, "--data", files / "model.npz"]
        elif name == "layers.json":
            arguments = [files / "model.keras", "--multipliers", broken]
        else:
            arguments = [files / "model.keras", "--data", broken, "--target", "label"]
        result = command_line.run("find", *arguments, "--quiet")
        assert result.exit_code in (0, 1, 2)
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == (result.exit_code != 0), result.stderr
        codes.append(result.exit_code)
        broken.unlink()
    assert codes.count(2) >= trials // 4  # the damage was real
