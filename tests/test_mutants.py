"""The mutants still fit the sources, and the marks of the suite have reasons."""

import re
from pathlib import Path

import conftest
import mutants
import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.once


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.name)
def test_a_mutant_changes_one_place_and_names_tests(mutant):
    text = (ROOT / mutant.file).read_text("utf-8")
    faulty = mutant.faulty(text)
    assert faulty != text
    compile(faulty, mutant.file, "exec")
    assert all((ROOT / f"tests/test_{name}.py").exists() for name in mutant.tests.split())


def test_a_mutant_whose_text_is_gone_is_refused():
    with pytest.raises(ValueError, match="has once; it has it 0 times"):
        mutants.MUTANTS[0].faulty("")


def test_the_marks_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^FIRST := (.*)$", makefile, re.MULTILINE)[1] == mutants.FIRST
    assert re.search(r"^OTHERS := (.*)$", makefile, re.MULTILINE)[1] == mutants.OTHERS


class Item:
    nodeid = "test_some.py::test_some"

    def __init__(self, mark):
        self.mark = mark.mark

    def iter_markers(self, name):
        return [self.mark] if self.mark.name == name else []


@pytest.mark.parametrize("mark", [pytest.mark.long, pytest.mark.long_elsewhere, pytest.mark.once])
def test_a_test_that_is_left_out_has_a_reason(mark):
    conftest.pytest_collection_modifyitems([Item(mark("seconds of training"))])
    if mark.name == "once":
        conftest.pytest_collection_modifyitems([Item(mark)])
        return
    for bare in (mark, mark(), mark(""), mark("two", "reasons")):
        with pytest.raises(pytest.UsageError, match=f"The mark {mark.name} must have a reason"):
            conftest.pytest_collection_modifyitems([Item(bare)])
