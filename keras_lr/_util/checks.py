"""Checks of arguments: each gives the value back, or says the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


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
    """A finite number within the bounds, as a float: Keras computes in integers if given one.

    Args:
        way_out: A sentence that tells what to do instead.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite, or out of bounds.
    """
    bounds = {"above": above, "of at least": least, "below": below, "of at most": most}
    rule = f"{name} must be a finite number"
    limits = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    rule = " ".join([rule, " and ".join(limits)]) if limits else rule
    message = f"{rule}; got {value!r}. {way_out}".rstrip()
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(message)
    if (
        not math.isfinite(value)
        or (above is not None and not value > above)
        or (least is not None and not value >= least)
        or (below is not None and not value < below)
        or (most is not None and not value <= most)
    ):
        raise ValueError(message)
    return float(value)


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not whole, or too small.
    """
    rule = f"{name} must be an integer of at least {least}; got {value!r}."
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(rule)
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(rule)
    return int(value)


def ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuse a lower bound above the upper one.

    Raises:
        ValueError: If it is above.
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
    """True or False.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, for a message: a file may hold any number."""
    return text if len(text) <= most else f"{text[: most - 4]} ..."
