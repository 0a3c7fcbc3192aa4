"""Numbers in text: whether a comma in them is a decimal comma or separates thousands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

__all__ = ["Comma", "comma_of", "meaning", "plain"]

Comma = Literal["decimal", "thousands"]
_NUMBER = re.compile(r"[-+]?(\d*)((?:,\d+)+)(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)


def meaning(text: str) -> Comma | Literal["either"] | None:
    """What the commas in a number stand for; None if it is not a number with commas.

    >>> meaning("0,52"), meaning("1,234.5"), meaning("1,234"), meaning("1,2,3"), meaning("0.5")
    ('decimal', 'thousands', 'either', None, None)
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    whole, groups, fraction, exponent = found.groups()
    single = groups.count(",") == 1 and fraction is None
    if re.fullmatch(r"[1-9]\d{0,2}", whole) and re.fullmatch(r"(,\d{3})+", groups) and not exponent:
        return "either" if single else "thousands"
    return "decimal" if single else None


def comma_of(columns: Iterable[Iterable[str]]) -> Comma | None:
    """What a comma stands for in the numbers of a file; None if they do not tell.

    A number that can be read in one way only tells it, and so does a decimal point. Otherwise
    whole numbers below 1000 do, in a column that also has numbers such as 1,234.

    >>> comma_of([["1,234", "0,951"]]), comma_of([["1,234", "951"]]), comma_of([["1,234"]])
    ('decimal', 'thousands', None)
    """
    told: set[Comma] = set()
    small = False
    for column in columns:
        cells = set(column)
        meanings = {meaning(cell) for cell in cells}
        told |= {each for each in meanings if each == "decimal" or each == "thousands"}
        if any(re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", cell, re.IGNORECASE) for cell in cells):
            told.add("thousands")
        small |= "either" in meanings and any(re.fullmatch(r"[-+]?\d{1,3}", cell) for cell in cells)
    if small and not told:
        return "thousands"
    return told.pop() if len(told) == 1 else None


def plain(text: str, comma: Comma | None) -> str:
    """A number with a decimal point and no other separator; unchanged if it has no comma.

    Args:
        text: The number.
        comma: What a comma stands for in a number such as 1,234; None leaves that one unchanged.
    """
    found = meaning(text)
    if found == "either":
        found = comma
    if found is None:
        return text
    return text.replace(",", "." if found == "decimal" else "")
