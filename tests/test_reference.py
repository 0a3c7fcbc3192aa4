"""The API reference of `make docs`: it contains every public name with its arguments."""

import html
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["keras_lr", "keras_lr.optimizers", "keras_lr.plotting", "keras_lr.schedules"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The page of each module, built with the command of the Makefile."""
    folder = tmp_path_factory.mktemp("reference")
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"python -m (pdoc .*)", makefile)
    command = command.replace("build/docs", str(folder))
    run = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "PDOC_ALLOW_EXEC": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "Warn:" not in run.stderr
    pages = folder.rglob("*.html")
    pages = {".".join(page.relative_to(folder).with_suffix("").parts): page for page in pages}
    return {name: page.read_text() for name, page in pages.items() if name != "index"}


def test_reference_has_the_public_modules_and_no_other(reference):
    assert sorted(reference) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_reference_has_every_public_name_with_its_arguments(reference, module):
    page, public = reference[module], importlib.import_module(module)
    names = [name for name in public.__all__ if not inspect.ismodule(getattr(public, name))]
    assert names
    assert set(re.findall(r'<section id="(\w+)"', page)) == set(names)
    for name in names:
        section = page.split(f'<section id="{name}"')[1].split("</section>")[0]
        text = html.unescape(re.sub(r"<[^>]+>", "", section))
        for title, documented in documented_names(inspect.getdoc(getattr(public, name)) or ""):
            assert f"{title}:" in text, (name, title)
            for each in documented:
                assert f"<strong>{each}:</strong>" in section, (name, each)


def documented_names(docstring):
    """The sections of a docstring: the title that pdoc gives them, and the names listed in them."""
    titles = {"Args": "Arguments", "Raises": "Raises", "Attributes": "Attributes"}
    for title, body in re.findall(r"^(\w+):\n((?:    .*\n?|\n)+)", docstring, re.M):
        if title in titles:
            yield titles[title], re.findall(r"^    (\w[\w, ]*):", body, re.M)
