"""What README.md says of the package agrees with its files."""

import re

import pytest
from pages import README, ROOT

pytestmark = pytest.mark.once

TEXT = README.read_text("utf-8")


def test_it_is_short():
    assert 7_500 <= len(TEXT.encode()) <= 10_500


def test_it_names_the_versions_that_the_suite_is_pinned_to():
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
        assert re.search(rf"{title}\s+{re.escape(pins[name])}", TEXT), title


def test_the_badges_are_true():
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    (python,) = re.findall(r"python_requires = >=([\d.]+)", setup)
    (keras,) = re.findall(r"^    keras>=([\d.]+)$", setup, re.MULTILINE)
    assert f"/badge/python-{python}%2B-" in TEXT
    assert f"/badge/keras-{keras}%2B-" in TEXT
    assert "license = Apache-2.0\n" in setup and "/badge/license-Apache%202.0-" in TEXT
    for backend in ("TensorFlow", "JAX", "PyTorch"):
        assert backend in re.findall(r"/badge/backends-(\S+)-", TEXT)[0]
