"""Matching of regular expressions in bounded time, also of hostile ones.

The keys of multipliers are regular expressions, and a model file can contain any. Python's `re`
backtracks: it tries the ways through a pattern one after the other, so `(a+)+b` takes years on a
name of forty letters. `Pattern` uses `re` if the number of ways is small. Otherwise it follows all
ways at once, as an automaton does: it keeps the set of positions at which a part of the pattern
can end, and the next part starts from all of them.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from keras_lr._util import checks

if sys.version_info >= (3, 11):
    from re import _parser as parser
else:
    import sre_parse as parser

__all__ = ["Pattern"]

_QUICK = 20_000_000  # steps that `re` may take for one path: a fraction of a second
_MOST_WORK = 20_000_000  # positions that `_Search` may visit for one pattern: seconds
_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda c: c.isalnum() or c == "_",
}


class Pattern:
    """A regular expression that matches whole sections of a path.

    Args:
        text: The expression, in the syntax of `re`.

    Raises:
        ValueError: If it is not a regular expression.

    >>> pattern = Pattern(r"block_\\d+")
    >>> [pattern.covers(path) for path in ("body/block_12/kernel", "block_1b/kernel")]
    [True, False]
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._work = [_MOST_WORK]  # the rest of the budget, shared with each search
        self._ways: dict[int, float] = {}  # by the length of a path
        try:
            self._items: Any = parser.parse(text)
            self._whole = re.compile(rf"(?:^|/)(?:{text})(?:/|$)")
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        except (re.error, OverflowError) as error:
            raise ValueError(str(error)) from error

    def covers(self, path: str) -> bool:
        """Whether whole sections of the path, separated by `/`, match.

        Raises:
            ValueError: If matching would take too long.
        """
        length = len(path)
        if length not in self._ways:
            self._ways[length] = _ways(self._items, length)
        if (length + 1) ** 2 * self._ways[length] <= _QUICK:
            return self._whole.search(path) is not None
        starts = {0, *(place + 1 for place, c in enumerate(path) if c == "/")}
        ends = {len(path), *(place - 1 for place in starts if place)}
        return not ends.isdisjoint(_Search(self.text, path, self._work).ends(self._items, starts))


def _ways(items: Iterable[Any], length: int) -> float:
    """An upper bound of the ways that `re` tries through these items from one position."""
    ways = 1.0
    for kind, value in items:
        name = str(kind)
        if name == "BRANCH":
            ways *= sum(_ways(branch, length) for branch in value[1])
        elif name == "SUBPATTERN":
            ways *= _ways(value[3], length)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = value
            single = len(inner) == 1 and str(inner[0][0]) in _SINGLE
            if single:
                ways *= min(most - least, length) + 1
            else:
                ways *= 1 + _ways(inner, length) if most == 1 else math.inf
        elif name not in _SINGLE and name != "AT":
            return math.inf
    return ways


def _word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and _CATEGORIES["WORD"](text[place])


_PLACES: dict[str, Callable[[str, int], bool]] = {
    "AT_BEGINNING": lambda text, place: place == 0,
    "AT_BEGINNING_STRING": lambda text, place: place == 0,
    "AT_END": lambda text, place: text[place:] in ("", "\n"),
    "AT_END_STRING": lambda text, place: place == len(text),
    "AT_BOUNDARY": lambda text, place: _word(text, place - 1) != _word(text, place),
    "AT_NON_BOUNDARY": lambda text, place: _word(text, place - 1) == _word(text, place),
}


_SINGLE = ("LITERAL", "NOT_LITERAL", "ANY", "IN")  # these match one character


class _Search:
    """The search for one pattern in one text."""

    def __init__(self, pattern: str, text: str, work: list[int]) -> None:
        self.pattern, self.text, self.work = pattern, text, work
        self.folded = False

    def ends(self, items: Iterable[Any], starts: set[int]) -> set[int]:
        """The positions at which these items, one after the other, can end."""
        for kind, value in items:
            self.work[0] -= len(starts) + 1
            if self.work[0] < 0:
                raise self._refusal("takes too long to match")
            starts = self._ends_of(str(kind), value, starts)
            if not starts:
                break
        return starts

    def _refusal(self, why: str) -> ValueError:
        key = checks.shortened(repr(self.pattern), 60)
        return ValueError(f"The key {key} {why}; simplify it.")

    def _ends_of(self, kind: str, value: Any, starts: set[int]) -> set[int]:
        if kind == "BRANCH":
            return set().union(*(self.ends(branch, starts) for branch in value[1]))
        if kind == "SUBPATTERN":
            _, added, removed, inner = value
            if (added | removed) & ~re.IGNORECASE:
                raise self._refusal("has flags beside repeats")
            outer = self.folded
            self.folded = bool((outer or added & re.IGNORECASE) and not removed & re.IGNORECASE)
            found = self.ends(inner, starts)
            self.folded = outer
            return found
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeated(value, starts)
        if kind == "AT":
            return {place for place in starts if _PLACES[str(value)](self.text, place)}
        if kind in ("ASSERT", "ASSERT_NOT"):
            return {place for place in starts if self._holds(value, place) == (kind == "ASSERT")}
        if kind not in _SINGLE:
            raise self._refusal("may take too long to match")
        length = len(self.text)
        return {p + 1 for p in starts if p < length and self._fits(kind, value, self.text[p])}

    def _holds(self, value: Any, place: int) -> bool:
        """Whether a lookaround matches at the position."""
        direction, inner = value
        if direction > 0:
            return bool(self.ends(inner, {place}))
        start = place - inner.getwidth()[0]
        return start >= 0 and place in self.ends(inner, {start})

    def _repeated(self, value: Any, starts: set[int]) -> set[int]:
        least, most, items = value
        for _ in range(least):
            reached = self.ends(items, starts)
            if reached == starts:  # further repeats change nothing
                break
            starts = reached
        found, new = set(starts), starts
        times = least
        while new and times < most:
            new = self.ends(items, new) - found
            found |= new
            times += 1
        return found

    def _fits(self, kind: str, value: Any, c: str) -> bool:
        if kind == "ANY":
            return c != "\n"
        cases = {c, c.lower(), c.upper()} if self.folded else {c}
        if kind == "LITERAL":
            return chr(value) in cases
        if kind == "NOT_LITERAL":
            return chr(value) not in cases
        negated = str(value[0][0]) == "NEGATE"
        return negated != any(_in_class(each, case) for each in value for case in cases)


def _in_class(item: Any, c: str) -> bool:
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return ord(c) == value
    if kind == "RANGE":
        return bool(value[0] <= ord(c) <= value[1])
    if kind == "CATEGORY":
        name = str(value).removeprefix("CATEGORY_")
        wanted = not name.startswith("NOT_")
        return _CATEGORIES[name.removeprefix("NOT_")](c) == wanted
    return False  # NEGATE
