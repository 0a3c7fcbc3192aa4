"""Keys of multipliers: they match as `re` matches, in a time that no key and no path blows up."""

import random
import re
import time

import pytest

from keras_lr.optimizers import patterns
from keras_lr.optimizers.patterns import Pattern

pytestmark = pytest.mark.once
LONG = "a" * 60 + "/kernel"


def _random_pattern(rng, depth=0):
    kind = rng.random()
    if depth > 3 or kind < 0.4:
        return rng.choice(["a", "b", "/", ".", "[ab]", "[^a]", r"\d", r"\w", "A", "^", "$", r"\b"])
    inner = _random_pattern(rng, depth + 1)
    if kind < 0.75:
        other = _random_pattern(rng, depth + 1)
        return inner + other if kind < 0.6 else f"(?:{inner}|{other})"
    if kind < 0.85:
        return f"{rng.choice(['(?=', '(?!', '(?i:', '(?<!b1)('])}{inner})"
    return f"({inner}){rng.choice(['*', '+', '?', '{2}', '{1,3}', '*?', '+?', '{2,}'])}"


@pytest.mark.parametrize("always", [True, False])
def test_patterns_match_as_those_of_re(monkeypatch, always):
    """`always` sends each pattern to the search for which `re` would be too slow."""
    if always:
        monkeypatch.setattr(patterns, "_QUICK", -1)
    rng, matches = random.Random(0), 0
    for _ in range(3000):
        text = _random_pattern(rng)
        pattern, reference = Pattern(text), re.compile(rf"(?:^|/)(?:{text})(?:/|$)")
        for _ in range(4):
            path = "".join(rng.choice("ab1/A") for _ in range(rng.randrange(1, 9)))
            expected = reference.search(path) is not None
            assert pattern.covers(path) == expected, (text, path)
            matches += expected
    assert 1000 < matches < 11_000


@pytest.mark.parametrize(
    "key",
    ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*a){20}b", "a*" * 20 + "b", "((a*)*)*b", "(?=(a+)+b)a"]
    + ["(a?){60}b", "(a|a)" * 40 + "b", "(?i:(A+)+b)", "(a{1000}){1000}b", r"(\w+)*\Z/"],
)
def test_no_pattern_takes_long(key):
    start = time.perf_counter()
    pattern = Pattern(key)
    assert not pattern.covers(LONG)
    assert not pattern.covers("a" * 4000)
    assert time.perf_counter() - start < 5


def test_pattern_that_cannot_be_bounded_is_refused(monkeypatch):
    monkeypatch.setattr(patterns, "_MOST_WORK", 100_000)
    with pytest.raises(ValueError, match=r"may take too long to match; simplify it"):
        Pattern(r"(a+)+\1b").covers(LONG)
    with pytest.raises(ValueError, match="takes too long to match"):
        Pattern("(" * 12 + "a+" + ")+" * 12 + "b").covers("a" * 20_000)


@pytest.mark.parametrize("text", ["(a", "a**", "[z-a]", "a{99999999999999999999}", "(" * 4000])
def test_text_that_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError):
        Pattern(text)
