"""Damaged files: whatever the bytes, an exit code and no traceback."""

import random

import command_line
import numpy as np
import pytest

import keras_lr

TRIALS = {"model.keras": 80, "model.h5": 80, "model.npz": 80, "model.csv": 60, "layers.json": 60}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    command_line.write_files(folder)
    layers = command_line.run("layers", folder / "model.keras", "--json")
    (folder / "layers.json").write_text(layers.stdout)
    return folder


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut short, or with some bytes flipped, or both."""
    content = bytearray(content)
    if chance.random() < 0.35:
        del content[chance.randrange(len(content)) :]
    if content and chance.random() < 0.8:
        for _ in range(chance.choice([1, 1, 3, 20])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


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
    for trial in range(TRIALS[name]):
        broken = files / f"broken{trial}.{name.rpartition('.')[2]}"
        broken.write_bytes(damaged(content, chance))
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
    assert codes.count(2) >= TRIALS[name] // 4  # the damage was real
