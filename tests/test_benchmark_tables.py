"""The marks around measurements in the pages, and the code that replaces them."""

import importlib.util
from pathlib import Path

import blocks
import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

pytestmark = pytest.mark.once


def test_a_block_takes_the_place_of_the_one_with_its_name():
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n"
    assert blocks.blocks(page) == {"x": "old\n", "y": ""}
    changed = blocks.replaced(page, {"x": "1\n2 \\1\n"})
    assert blocks.blocks(changed) == {"x": "1\n2 \\1\n", "y": ""}
    assert changed.replace("1\n2 \\1\n", "old\n") == page


def test_the_marks_of_the_pages_are_whole_and_their_names_used_once():
    names = []
    for path in tables.PAGES:
        page = path.read_text("utf-8")
        found = list(blocks.blocks(page))
        assert page.count("<!-- begin ") == page.count("<!-- end ") == len(found)
        names += found
    assert len(names) == len(set(names))


@pytest.mark.parametrize("script", tables.SCRIPTS.values())
def test_a_script_that_makes_tables_is_there(script):
    assert (ROOT / script.split()[0]).is_file()


def test_scripts_write_the_marks_in_one_place():
    scripts = {path for path in (ROOT / "benchmarks").rglob("*.py") if "<!-- " in path.read_text()}
    assert {path.name for path in scripts} == {"blocks.py"}
    assert blocks.block("x", ["1", "2"]) == blocks.block("x", "1\n2\n")
    assert blocks.blocks(blocks.block("x", ["1", "2"])) == {"x": "1\n2\n"}
