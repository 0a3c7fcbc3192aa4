"""`keras-lr find --distribute`: what it refuses. test_distribution.py has what it does."""

import keras
import pytest
from command_line import refused, write_files

NEEDED = {"mirrored": "tensorflow", "data-parallel": "jax"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distribute")
    write_files(folder)
    return folder / "model.keras"


@pytest.mark.parametrize("name", NEEDED)
def test_distribute_needs_its_backend_and_two_devices(model, name):
    text = refused("find", model, "--distribute", name)
    if NEEDED[name] == keras.backend.backend():
        assert f"--distribute {name} needs at least 2 devices; {NEEDED[name]} sees 1 (" in text
    else:
        assert f"--distribute {name} needs {NEEDED[name]}, and Keras runs on" in text


def test_unknown_way_to_distribute_is_refused(model):
    assert "'mirrored', 'data-parallel'" in refused("find", model, "--distribute", "all")
