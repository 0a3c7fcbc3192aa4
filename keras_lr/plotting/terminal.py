"""The picture of a range test as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.plotting.range_test import if_enough
from keras_lr.range_test.smoothing import median_of_repeats, smooth

if TYPE_CHECKING:
    from keras_lr.range_test.result import RangeTest
    from keras_lr.range_test.suggestion import Suggestion

__all__ = ["draw_curve", "draw_range_test"]

MARGIN = 9  # columns for the numbers of the loss axis, and the axis


@dataclass(frozen=True)
class Marks:
    """The characters that draw the picture; the plain ones work in any encoding."""

    axis: str
    corner: str
    line: str
    tick: str
    rate: str
    left: str
    right: str
    between: str
    raw: str
    smooth: str


UNICODE = Marks("┤", "└", "─", "┬", "▲", "├", "┤", "─", "·", "")
PLAIN = Marks("|", "+", "-", "+", "^", "<", ">", "-", ".", "*")
# Bits of the dots in a braille cell, by row and column.
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw_range_test(
    test: RangeTest, suggestion: Suggestion | None = None, *, width: int = 78, unicode: bool = True
) -> list[str]:
    """Draw the losses of a range test, smoothed as in `plot_range_test`, with the suggestion.

    Args:
        test: The `RangeTest` to draw.
        suggestion: The rate and the interval to mark under the axis.
        width: Columns of the picture.
        unicode: Draw with braille and box characters; otherwise with ASCII alone.

    Returns:
        The lines, without line ends; none if there are no two finite losses.
    """
    losses = np.atleast_2d(test.losses)
    seen = np.isfinite(losses).any(axis=0)
    rates, losses = test.learning_rates[seen], losses[:, seen]
    if not len(rates):
        return []
    found = suggestion
    return draw_curve(
        rates.tolist(),
        median_of_repeats(losses).tolist(),
        median_of_repeats([if_enough(smooth, rates, row) for row in losses]).tolist(),
        suggestion=(found.low, found.learning_rate, found.high) if found else None,
        width=width,
        unicode=unicode,
    )


def draw_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    suggestion: tuple[float, float, float] | None = None,
    width: int = 78,
    height: int = 12,
    unicode: bool = True,
) -> list[str]:
    """Draw loss against learning rate on a log axis.

    Args:
        rates: Learning rates, increasing.
        losses: Loss of each step, drawn as points; those that are not finite are left out.
        smoothed: The smoothed loss of each step; drawn as a line.
        suggestion: Low end, rate and high end to mark under the axis.
        width: Columns of the picture, the numbers at the left included.
        height: Lines of the curve itself.
        unicode: Draw with braille and box characters; otherwise with ASCII alone.

    Returns:
        The lines, without line ends; none if there are no two finite points.
    """
    marks = UNICODE if unicode else PLAIN
    curve = [(math.log10(r), v) for r, v in zip(rates, smoothed, strict=True) if math.isfinite(v)]
    points = [(math.log10(r), v) for r, v in zip(rates, losses, strict=True) if math.isfinite(v)]
    if len(curve) < 2:
        return []
    left, right = math.log10(rates[0]), math.log10(rates[-1])
    low, high = _view([v for _, v in points], [v for _, v in curve])
    columns = width - MARGIN
    canvas = _Canvas(columns, height, (left, right), (low, high), unicode)
    for x, y in points:
        canvas.point(x, y, marks.raw)
    for start, end in zip(curve, curve[1:], strict=False):
        canvas.segment(start, end, marks.smooth)
    lines = []
    for row, text in enumerate(canvas.lines()):
        label = ""
        if row in (0, height // 2, height - 1):
            label = f"{high - (high - low) * row / (height - 1):.3g}"
        edge = marks.axis if label else ("│" if unicode else "|")
        lines.append(f"{label:>{MARGIN - 2}} {edge}{text}".rstrip())
    lines += _rate_axis(left, right, columns, marks)
    if suggestion is not None:
        lines.append(" " * MARGIN + _interval(suggestion, left, right, columns, marks))
    return lines


class _Canvas:
    """Cells of text; a braille cell holds 2 x 4 dots, a plain one a single character."""

    def __init__(
        self,
        columns: int,
        rows: int,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        unicode: bool,
    ) -> None:
        self.cells = [[" "] * columns for _ in range(rows)]
        self.bits = [[0] * columns for _ in range(rows)]
        self.x_range, self.y_range = x_range, y_range
        self.fine = (2, 4) if unicode else (1, 1)
        self.size = (columns * self.fine[0], rows * self.fine[1])

    def place(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (low, high) = self.x_range, self.y_range
        across = (x - left) / ((right - left) or 1.0) * (self.size[0] - 1)
        down = (high - y) / ((high - low) or 1.0) * (self.size[1] - 1)
        return across, down

    def point(self, x: float, y: float, mark: str) -> None:
        across, down = self.place(x, y)
        if -0.5 <= down <= self.size[1] - 0.5:
            column = min(round(across) // self.fine[0], len(self.cells[0]) - 1)
            self.cells[min(round(down) // self.fine[1], len(self.cells) - 1)][column] = mark

    def segment(self, start: tuple[float, float], end: tuple[float, float], mark: str) -> None:
        (x0, y0), (x1, y1) = self.place(*start), self.place(*end)
        steps = min(int(max(abs(x1 - x0), abs(y1 - y0))) + 1, 4 * max(self.size))
        for step in range(steps + 1):
            column = round(x0 + (x1 - x0) * step / steps)
            row = round(y0 + (y1 - y0) * step / steps)
            if 0 <= row < self.size[1] and 0 <= column < self.size[0]:
                cell_row, cell_column = row // self.fine[1], column // self.fine[0]
                if mark:
                    self.cells[cell_row][cell_column] = mark
                else:
                    dot = BRAILLE[row % 4][column % 2]
                    self.bits[cell_row][cell_column] |= dot

    def lines(self) -> list[str]:
        return [
            "".join(chr(0x2800 + bit) if bit else cell for cell, bit in zip(*row, strict=True))
            for row in zip(self.cells, self.bits, strict=True)
        ]


def _view(losses: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest loss to show: the fall, and half as much above the start."""
    start, best = smoothed[0], min(smoothed)
    fall = max(start - best, 0.05 * abs(start), 1e-12)
    before = [v for v in losses if v <= start + fall / 2]
    low = min([best, *before])
    high = min(max([*smoothed, *before]), start + fall / 2)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _rate_axis(left: float, right: float, columns: int, marks: Marks) -> list[str]:
    line, labels = [marks.line] * columns, [" "] * (columns + 2)
    every = max(1, math.ceil((right - left) * 8 / columns))
    free = 0
    for exponent in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        column = _column(exponent, left, right, columns)
        line[column] = marks.tick
        label = f"1e{exponent}"
        start = min(max(column - len(label) // 2, 0), columns + 2 - len(label))
        if exponent % every == 0 and start >= free:
            labels[start : start + len(label)] = label
            free = start + len(label) + 1
    axis = " " * (MARGIN - 1) + marks.corner + "".join(line)
    return [axis, (" " * MARGIN + "".join(labels)).rstrip()]


def _interval(
    suggestion: tuple[float, float, float], left: float, right: float, columns: int, marks: Marks
) -> str:
    low, rate, high = (
        _column(math.log10(max(value, 1e-300)), left, right, columns) for value in suggestion
    )
    line = [" "] * columns
    if high > low:
        line[low : high + 1] = [marks.left, *[marks.between] * (high - low - 1), marks.right]
    line[rate] = marks.rate
    text = "".join(line).rstrip()
    label = " suggested"
    return text + label if len(text) + len(label) <= columns else text


def _column(exponent: float, left: float, right: float, columns: int) -> int:
    share = (exponent - left) / ((right - left) or 1.0)
    return min(max(round(share * (columns - 1)), 0), columns - 1)
