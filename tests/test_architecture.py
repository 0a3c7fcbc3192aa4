"""The tree is what docs/ARCHITECTURE.md says, and its imports run one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
PACKAGES = {"keras_lr": ROOT / "keras_lr", "keras_lr_cli": ROOT / "cli"}
LONGEST = 450  # lines of a file; a longer one gives its reason in its docstring

pytestmark = pytest.mark.once


def modules():
    """Path of each module, by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def module_level(tree):
    """The imports that run when a module is imported: not those in functions or for types only."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]


def targets(name, node):
    """The modules of ours that an import of the module `name` loads."""
    if isinstance(node, ast.Import):
        return [each.name for each in node.names if each.name in MODULES]
    base = node.module or ""
    if node.level:
        is_package = MODULES[name].name == "__init__.py"
        above = name.split(".")[: len(name.split(".")) - node.level + is_package]
        base = ".".join([*above, *([node.module] if node.module else [])])
    if base not in MODULES:
        return []
    inner = [f"{base}.{each.name}" for each in node.names]
    found = [each for each in inner if each in MODULES]
    return found if len(found) == len(inner) else [base, *found]


def imports():
    found = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text("utf-8"))
        found[name] = {each for node in module_level(tree) for each in targets(name, node)} - {name}
    return found


def test_no_module_imports_itself_through_others():
    graph = imports()
    done, path = set(), []

    def visit(name):
        if name in path:
            pytest.fail(f"Import circle: {' -> '.join([*path[path.index(name) :], name])}")
        if name in done:
            return
        path.append(name)
        for each in sorted(graph[name]):
            visit(each)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)
    assert len(done) == len(MODULES) > 150


def test_the_library_imports_neither_its_root_nor_the_command_line():
    for name, path in MODULES.items():
        if name == "keras_lr" or not name.startswith("keras_lr."):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
                assert not {"keras_lr", "keras_lr_cli"} & set(names), f"{path}: {names}"
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module != "keras_lr", f"{path}, line {node.lineno}"
                assert not node.module.startswith("keras_lr_cli"), f"{path}, line {node.lineno}"


def test_no_module_of_the_library_has_the_name_of_a_public_function():
    import keras_lr

    functions = {name for name in keras_lr.__all__ if re.fullmatch("[a-z_]+", name)}
    functions -= {"optimizers", "plotting", "rate_search", "schedules"}
    named = {name for name in MODULES if name.startswith("keras_lr.")}
    assert not [name for name in named if name.rpartition(".")[2] in functions]


def test_a_package_defines_no_class():
    for name, path in MODULES.items():
        if path.name != "__init__.py" or name in ("keras_lr", "keras_lr.diagnosis.rules"):
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            assert not isinstance(node, ast.ClassDef), f"{path} defines {node.name}"


def test_a_long_file_gives_its_reason():
    for path in MODULES.values():
        text = path.read_text("utf-8")
        if len(text.splitlines()) > LONGEST:
            assert "lines" in (ast.get_docstring(ast.parse(text)) or ""), path


def test_every_file_and_package_on_the_page_is_there():
    named = re.findall(r"`((?:[\w]+/)+(?:\w+\.py)?)(?:: \w+)?`", PAGE)
    assert len(named) > 40
    for each in named:
        places = [ROOT / each, ROOT / "keras_lr" / each]
        assert any(place.exists() for place in places), each


def test_every_package_is_on_the_page():
    tree = PAGE.partition("\n## ")[0]
    for path in (ROOT / "keras_lr").iterdir():
        if (path / "__init__.py").exists():
            assert f"      {path.name}/ " in tree, path.name


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_still_changes_the_file_that_it_names(mutant):
    text = (ROOT / mutant.file).read_text("utf-8")
    assert mutant.faulty(text) != text
