"""A curve as a few lines of text: bars of block characters, or of plain ones."""

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
    """Draw values as bars, side by side, with their top and their base at the left.

    Args:
        values: Finite numbers; several of them share a column when there are more than columns,
            and the largest is drawn.
        size: Columns, the numbers at the left included, and lines.
        base: The value where bars begin. At 0 there is no bar, and at another base the smallest.
        log: Scale the bars by the logarithm; `base` is above 0 then.
        unicode: Draw with block characters; otherwise with ASCII alone.
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
