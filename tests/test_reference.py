"""The site of `make docs`: it builds strictly, and has every public name with its arguments."""

import html
import importlib
import importlib.util
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
def site(tmp_path_factory):
    """The folder of the site, built with the command of the Makefile."""
    folder = tmp_path_factory.mktemp("site")
    (command,) = re.findall(r"python -m (mkdocs .*)", (ROOT / "Makefile").read_text())
    run = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr
    return folder


@pytest.fixture(scope="module")
def reference(site):
    """The text of each page of the reference, by its name."""
    return {path.stem: path.read_text("utf-8") for path in (site / "reference").glob("*.html")}


def public_names(module):
    names = importlib.import_module(module).__all__
    objects = {name: getattr(importlib.import_module(module), name) for name in names}
    return [name for name, each in objects.items() if not inspect.ismodule(each)]


def test_each_public_name_is_on_one_page_and_no_other_name_is():
    listed = []
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        listed += re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    public = {f"{module}.{name}" for module in MODULES for name in public_names(module)}
    public.discard("keras_lr.schedules.scale_lr")  # also a name of keras_lr, as which it is listed
    assert sorted(listed) == sorted(public)


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_the_arguments_of_every_public_name(reference, module):
    whole = "".join(reference.values())
    parts = re.split(r'<h2 id="([\w.]+)"\s+class="doc doc-heading"', whole)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name in public_names(module):
        if (module, name) == ("keras_lr.schedules", "scale_lr"):
            continue
        section = sections[f"{module}.{name}"]
        entries = re.findall(r"<code>(.*?)</code>", section, re.DOTALL)
        shown = {html.unescape(re.sub(r"<[^>]+>", "", each)).strip(" ()\n") for each in entries}
        documented = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
        for each in documented_names(documented):
            assert each in shown or set(each.split(", ")) <= shown, (name, each)


def documented_names(docstring):
    """The entries of the sections of a docstring that list arguments, errors and attributes."""
    titles = ("Args", "Raises", "Attributes")
    for title, body in re.findall(r"^(\w+):\n((?:    .*\n?|\n)+)", docstring, re.M):
        if title in titles:
            yield from re.findall(r"^    (\w[\w, ]*):", body, re.M)


def test_docstrings_become_the_markdown_that_griffe_reads():
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/griffe_docstrings.py")
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    text = "One.\n\n>>> for i in range(2):\n...     i\n0\n1\n\nTwo.\n"
    code = text.partition("\n\n")[2].partition("\n\nTwo")[0]
    assert docstrings.with_fences(text) == f"One.\n\n```pycon\n{code}\n```\n\nTwo.\n"
    assert docstrings.split("Attributes:\n    a, b: The\n        ends.\n    c: No.\n") == (
        "Attributes:\n    a: The\n        ends.\n    b: The\n        ends.\n    c: No.\n"
    )
    (verbose,) = [each for each in docstrings.range_test_options() if each.name == "verbose"]
    assert verbose.default == "'auto'" and verbose.description.startswith("Progress bar")


def test_an_example_is_a_block_of_code(reference):
    page = reference["finding"]
    assert "&gt;&gt;&gt; " not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert page.count('<span class="gp">&gt;&gt;&gt; </span>') > 10


def test_pages_of_other_folders_are_on_the_site_with_links_that_hold(site):
    measurements = (site / "measurements.html").read_text("utf-8")
    assert measurements.count("<table>") > 20
    assert 'href="security.html"' in (site / "troubleshooting.html").read_text("utf-8")
    answer = (site / "explanation" / "answer.html").read_text("utf-8")
    assert 'href="../measurements.html#the-rate-for-a-planned-run"' in answer


def test_no_page_asks_another_server_for_anything(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), (page.name, tag)
