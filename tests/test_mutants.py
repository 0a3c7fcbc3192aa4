"""The mutants still fit the sources. `make mutants` runs them."""

import re
from pathlib import Path

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
