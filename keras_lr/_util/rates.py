"""Learning rates as text."""

from __future__ import annotations

__all__ = ["short"]


def short(rate: float) -> str:
    """A learning rate in two digits.

    >>> short(0.314), short(0.003)
    ('0.31', '3.0e-3')
    """
    if 0.1 <= rate < 100:
        return f"{rate:.2g}"
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"
