"""The code of README.md and docs/ runs: each page alone, from top to bottom, in a fresh folder."""

import ast
import csv
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import keras
import pages
import pytest
from pages import PAGES, README, ROOT, SITE

import keras_lr
from keras_lr_cli import main

pytestmark = pytest.mark.long_elsewhere("examples of what other tests check on each backend")

# On these, the other backends run the code as well. `test_recipes.py` runs docs/recipes.md.
ON_EACH_BACKEND = ("README.md", "docs/tutorial.md", "docs/guides/policies.md")
NEEDS = {"docs/guides/several_optimizers.md": "torch"}  # its training step is for this backend
ONCE = (pytest.mark.once, pytest.mark.long("a page trains for seconds; its code is short"))
WITH_CODE = [
    pytest.param(page, marks=() if pages.name(page) in ON_EACH_BACKEND else ONCE)
    for page in (README, *SITE)
    if pages.blocks(page, "python") and page.name != "recipes.md"
]
COMMANDS = list(dict.fromkeys(line for page in PAGES for line in pages.commands(page)))


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
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: pages.name(page))
def test_the_python_of_a_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    backend = NEEDS.get(pages.name(page), keras.backend.backend())
    if backend != keras.backend.backend():
        pytest.skip(f"the page is for {backend}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    keras.utils.set_random_seed(0)  # the result on a trained model depends on chance
    names = {"__name__": "page"}
    exec(compile(pages.source(page), pages.name(page), "exec"), names)
    if page == README:
        assert 1e-5 < names["found"].learning_rate < 1.0
        assert (tmp_path / "range_test.png").stat().st_size > 1000
        accuracy = names["model"].history.history.get("accuracy")
        assert accuracy is None or accuracy[-1] > 0.2
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


@pytest.mark.once
def test_the_quick_start_is_twenty_lines_or_so():
    block = pages.blocks(README, "python")[0]
    assert 10 < len([line for line in block.splitlines() if line.strip()]) <= 20


@pytest.mark.once
@pytest.mark.long("a process that loads a backend for each command; make demo runs one")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_runs_as_it_stands(command, demo):
    program, *arguments = shlex.split(command)
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
def test_a_command_has_options_that_exist():
    shown = [line for page in PAGES for line in pages.commands(page, "")]
    assert len(shown) >= 5 and len(COMMANDS) > 5
    for line in shown + COMMANDS:
        name, *arguments = shlex.split(line)[1:]
        command = main.commands[name]
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), arguments.pop(0))
        options = {each for parameter in command.params for each in parameter.opts}
        used = {each for each in arguments if each.startswith("--")}
        assert used <= options, line


@pytest.mark.once
def test_every_name_on_a_page_is_there_after_importing_keras_lr():
    for page in (README, *SITE):
        text = page.read_text("utf-8")
        for name, inner in set(re.findall(r"keras_lr\.([A-Za-z]\w*)(?:\.(\w+))?", text)):
            if name in ("range_test", "steering") or page.name == "ARCHITECTURE.md":
                continue  # modules, which the reference and the design name
            assert name in keras_lr.__all__, f"{pages.name(page)}: {name}"
            assert not inner or hasattr(getattr(keras_lr, name), inner), f"{name}.{inner}"


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=lambda page: pages.name(page))
def test_a_page_links_to_files_and_headings_that_exist(page):
    for link in pages.links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"https?:|mailto:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            assert anchor in pages.anchors(path), link


@pytest.mark.once
def test_every_page_of_the_site_is_in_its_contents():
    contents = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    for page in SITE:
        assert str(page.relative_to(ROOT / "docs")) in contents, page


def written(folder):
    """The texts in the code of a folder; what a message fills in is "..."."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "..." for p in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.once
def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    page = page.partition("\n## The command line")[0]  # that table describes, it does not quote
    texts = list(written(ROOT / "keras_lr"))
    quoted = [row.split(" | ")[0].strip("| ") for row in page.splitlines() if row.startswith("| ")]
    quoted = [row for row in quoted if row[0].isupper() or row.startswith("...")]
    assert len(quoted) > 25
    for message in quoted:
        message = re.sub(r" \(.*?\)", "", message)
        parts = [part.strip() for part in message.split("...") if part.strip()]
        pattern = ".*".join(map(re.escape, parts))
        assert any(re.search(pattern, text, re.DOTALL) for text in texts), message


@pytest.mark.once
def test_the_page_of_all_options_is_what_help_prints():
    spec = importlib.util.spec_from_file_location("cli_ref", ROOT / "docs" / "cli_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text("utf-8") == script.page(), "run python docs/cli_reference.py"
    for name, command in main.commands.items():
        section = script.page().partition(f"\n## keras-lr {name}\n")[2].partition("\n## ")[0]
        shown = [each for each in command.params if not getattr(each, "hidden", False)]
        for parameter in shown:
            assert all(each in section for each in parameter.opts if each.startswith("--")), name


@pytest.mark.once
def test_the_picture_of_the_readme_has_its_script():
    assert (ROOT / "docs" / "images" / "answer.png").stat().st_size > 10_000
    assert "docs/images/answer.png" in (ROOT / "docs" / "picture.py").read_text("utf-8")
