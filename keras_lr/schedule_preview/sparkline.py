"""Draw a curve as a few lines of text, in block characters or ASCII."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["sparkline"]

_MARGIN = 9  # columns for the numbers at the left, and the axis
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = " .:#"


def sparkline(
    values: np.ndarray,
    size: tuple[int, int],
    *,
    base: float,
    log: bool = False,
    unicode: bool = True,
) -> list[str]:
    """Draw values as bars, with the largest value and the base at the left.

    Args:
        values: Finite numbers. If there are more values than columns, each column shows the
            largest of its values.
        size: Columns, including the numbers at the left, and lines.
        base: The value at which bars begin. A value equal to `base` has no bar if `base` is 0,
            and the smallest bar otherwise.
        log: Scale the bars logarithmically; `base` must be above 0.
        unicode: Draw with block characters instead of ASCII.
    """
    width, height = size
    room = width - _MARGIN
    starts = np.arange(room) * len(values) // room
    bars = np.maximum.reduceat(values, starts) if len(values) > room else values[starts]
    top = float(values.max())
    marks = _BLOCKS if unicode else _PLAIN
    fine = len(marks) - 1
    scale = _logarithm if log else np.asarray
    share = (scale(bars) - scale(base)) / ((scale(top) - scale(base)) or 1.0)
    levels = np.ceil(np.clip(share, 0.0, 1.0) * fine * height - 1e-6).astype(int)
    if base > 0.0:
        levels[bars >= base] = np.maximum(levels[bars >= base], 1)
    lines = []
    for row in range(height):
        label = {0: f"{top:.3g}", height - 1: f"{base:.3g}"}.get(row, "")
        cells = np.clip(levels - (height - 1 - row) * fine, 0, fine)
        edge = ("┤" if label else "│") if unicode else "|"
        lines.append(f"{label:>{_MARGIN - 2}} {edge}{''.join(marks[cell] for cell in cells)}")
    return [line.rstrip() for line in lines]


def _logarithm(value: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(value)
