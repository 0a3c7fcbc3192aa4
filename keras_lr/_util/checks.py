"""Checks of arguments: each returns the value, or raises an error with the rule and the value."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NUMBERS = (int, float, np.integer, np.floating)


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    way_out: str = "",
) -> float:
    """Check a finite number and return it as a float: Keras computes in integers if given one.

    The bounds `above` and `below` are exclusive, `least` and `most` inclusive.

    Args:
        way_out: A sentence for the message that tells what to do instead.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite, or out of bounds.
    """
    is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
    is_finite = is_number and math.isfinite(value)
    if (
        is_finite
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
        and (most is None or value <= most)
    ):
        return float(value)
    rule = _range(above, least, below, most)
    if not is_finite:
        rule = f"a finite number {rule.replace('at least', 'of at least')}".rstrip()
    message = f"{name} must be {rule}; got {value!r}. {way_out}".rstrip()
    raise (ValueError if is_number else TypeError)(message)


def _range(above: Any, least: Any, below: Any, most: Any) -> str:
    """The bounds in words: 'above 0', 'at least 0', 'in (0, 1]'; '' without bounds.

    >>> _range(0, None, None, 1)
    'in (0, 1]'
    """
    if (above is None and least is None) or (below is None and most is None):
        limits = {"above": above, "at least": least, "below": below, "at most": most}
        return "".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
    low = f"[{least:g}" if above is None else f"({above:g}"
    high = f"{most:g}]" if below is None else f"{below:g})"
    return f"in {low}, {high}"


def count(name: str, value: Any, least: int = 1) -> int:
    """Check an integer of at least `least` and return it.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it has a fraction, is a float, or is below `least`.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return int(value)
    is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
    message = f"{name} must be an integer of at least {least}; got {value!r}."
    raise (ValueError if is_number else TypeError)(message)


def ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuse a lower bound above the upper one.

    Raises:
        ValueError: If `low` is above `high`.
    """
    if low > high:
        raise ValueError(
            f"{low_name} must not be above {high_name}; got {low_name}={low!r} and "
            f"{high_name}={high!r}."
        )


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """Return the option that equals `value`, so that np.str_("cos") becomes "cos".

    Raises:
        ValueError: If no option does.
    """
    options = list(options)
    if isinstance(value, str) and value in options:
        return options[options.index(value)]
    *others, last = [repr(option) for option in options]
    known = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"{name} must be {known}; got {value!r}.")


def flag(name: str, value: Any) -> bool:
    """Check a bool of Python or NumPy and return Python's.

    Raises:
        TypeError: If it is anything else, as 0, 1 and "no" are.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def file_path(name: str, value: Any) -> Path:
    """Check the path of a file or a folder and return it.

    Raises:
        TypeError: If it is not a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path; got {value!r}.")
    return Path(value)


def log_entry(name: str, value: Any) -> str:
    """Check the name of an entry of a fit's logs and return it.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it is empty.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a log entry; got {value!r}.")
    if not value:
        raise ValueError(f"{name} must be the name of a log entry; got ''.")
    return str(value)


def verbosity(value: Any, *, auto: bool = False) -> Any:
    """Check `verbose` and return it: 0, or 1 or Keras's 2, or "auto" where the terminal decides.

    Raises:
        ValueError: If it is anything else.
    """
    numbers = isinstance(value, (int, np.integer)) and value in (0, 1, 2)
    if numbers or (auto and isinstance(value, str) and value == "auto"):
        return value
    options = "'auto', 0 or 1" if auto else "0 or 1"
    raise ValueError(f"verbose must be {options}; got {value!r}.")


def shortened(text: str, most: int) -> str:
    """Shorten a text for a message to at most `most` characters: a file may hold any number."""
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def class_weights(name: str, value: Any) -> None:
    """Check the weights of classes, as `fit` takes them: None, or numbers by class.

    Raises:
        TypeError: If they are of another kind.
    """
    if value is None:
        return
    numbers = value.items() if isinstance(value, Mapping) else [(None, None)]
    if not all(isinstance(each, _NUMBERS) for pair in numbers for each in pair):
        raise TypeError(
            f"{name} must map each class, an integer, to its weight; got {value!r}. Pass "
            "{0: 1.0, 1: 5.0}, for instance."
        )
