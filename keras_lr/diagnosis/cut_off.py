"""A log that a killed run left: its last number may be cut off."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["is_cut_off"]

_PARTS = re.compile(r"[-+]?\d[\d,]*(?:[.,](\d*))?(?:e([-+]?\d*))?", re.IGNORECASE)


def is_cut_off(text: str, cells: Sequence[str]) -> bool:
    """Whether the last cell of a column, with which the text of a log ends, may be cut off.

    Such a text has no line end. The cell has fewer decimals, or fewer digits in its exponent, than
    each of the others; or it is the only 0; or it lacks the exponent of the one before, and is far
    larger.

    >>> is_cut_off("...", ["0.5123", "0.4118", "0.41"]), is_cut_off("...", ["0.51", "0.41"])
    (True, False)
    >>> is_cut_off("...", ["6.1e-06", "5.8e-06", "5.82"])
    True
    """
    if text.endswith(("\n", "\r")):
        return False
    parts = [_PARTS.fullmatch(cell.strip().rstrip("%")) for cell in cells]
    if not parts or parts[-1] is None:
        return bool(re.fullmatch(r"[-+.]|i|in|n|na", cells[-1].strip()[-4:])) if cells else False
    *others, last = [each for each in parts if each]
    if len(others) < 2:
        return False
    decimals = [_length(each.group(1)) for each in others]
    exponents = [_length(each.group(2)) for each in others if each.group(2) is not None]
    if _length(last.group(1)) < min(decimals):
        return True
    if _value(last.group()) == 0 and all(_value(each.group()) for each in others):
        return True
    if last.group(2) is not None:
        return _length(last.group(2)) < min(exponents, default=1)
    before, now = (_value(each) for each in (others[-1].group(), last.group()))
    return others[-1].group(2) is not None and abs(now) > 100 * abs(before)


def _length(digits: str | None) -> int:
    return -1 if digits is None else len(digits)


def _value(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return 0.0
