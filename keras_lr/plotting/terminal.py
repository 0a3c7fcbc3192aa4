"""The picture of a range test as lines of text."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.plotting._range_curve import DrawnCurve
from keras_lr.range_test.smoothing import median_of_repeats

if TYPE_CHECKING:
    from keras_lr.range_test.result import RangeTest
    from keras_lr.range_test.suggestion import Suggestion

__all__ = ["draw_range_test"]

MARGIN = 9  # columns for the numbers of the loss axis, and the axis
HEIGHT = 12  # lines of the picture without the axis and the marks below it


@dataclass(frozen=True)
class Marks:
    """The characters that draw the picture; the plain ones work in any encoding."""

    axis: str
    edge: str
    corner: str
    line: str
    tick: str
    rate: str
    left: str
    right: str
    between: str
    raw: str
    smooth: str
    level: str
    probe: str
    cut_off: str


UNICODE = Marks("┤", "│", "└", "─", "┬", "▲", "├", "┤", "─", "·", "", "╌", "◆", "✕")
PLAIN = Marks("|", "|", "+", "-", "+", "^", "<", ">", "-", ".", "*", "-", "o", "x")
LANDMARKS = {"1": "halfway down", "2": "near lowest", "3": "halfway up"}
# Bits of the dots in a braille cell, by row and column.
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw_range_test(
    test: RangeTest, suggestion: Suggestion | None = None, *, width: int = 78, unicode: bool = True
) -> list[str]:
    """Draw the losses of a range test as `plot_range_test` does, with the suggestion.

    The last lines explain the marks that are drawn.

    Args:
        test: The `RangeTest` to draw.
        suggestion: The rate and the interval to mark under the axis, and its landmarks.
        width: Columns of the picture, the numbers at the left included.
        unicode: Draw with braille and box characters; otherwise with ASCII alone.

    Returns:
        The lines, without line ends; none if there are no two finite losses of the ramp and no
        short runs.
    """
    marks = UNICODE if unicode else PLAIN
    curve = DrawnCurve(test)
    seen = np.isfinite(curve.line)
    if curve.rate_range is None or (seen.sum() < 2 and not curve.probes):
        return []
    rates = [*curve.rate_range, *((suggestion.low, suggestion.high) if suggestion else ())]
    left, right = math.log10(min(rates)), math.log10(max(rates))
    columns = width - MARGIN
    canvas = Canvas(columns, HEIGHT, (left, right), (curve.low, curve.high), unicode)
    legend = _draw(canvas, curve, suggestion, marks)
    lines = []
    for row, text in enumerate(canvas.lines()):
        label = ""
        if row in (0, HEIGHT // 2, HEIGHT - 1):
            label = _number(curve.high - (curve.high - curve.low) * row / (HEIGHT - 1))
        lines.append(f"{label:>{MARGIN - 2}} {marks.axis if label else marks.edge}{text}".rstrip())
    lines += _rate_axis(left, right, columns, marks)
    if suggestion is not None:
        lines.append(" " * MARGIN + _interval(suggestion, left, right, columns, marks))
    return lines + _wrapped(legend, width)


def _number(value: float) -> str:
    """The value with three digits, or fewer if it would not fit left of the axis.

    >>> [_number(value) for value in (0.5, 467123.0, -4.67e-5)]
    ['0.5', '4.67e5', '-4.7e-5']
    """
    for digits in (3, 2, 1):
        text = re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}")
        if len(text) <= MARGIN - 2:
            break
    return text


def _draw(
    canvas: Canvas, curve: DrawnCurve, suggestion: Suggestion | None, marks: Marks
) -> list[str]:
    """Fill the canvas; returns what its marks mean."""
    logs = np.log10(curve.rates).tolist()
    if curve.probe_start is not None:
        canvas.level(curve.probe_start, marks.level)
    losses = median_of_repeats(curve.losses).tolist()
    for x, y in zip(logs, losses, strict=True):
        if math.isfinite(y):
            canvas.point(x, y, marks.raw)
    line = [pair for pair in zip(logs, curve.line.tolist(), strict=True) if math.isfinite(pair[1])]
    for start, end in zip(line, line[1:], strict=False):
        canvas.segment(start, end, marks.smooth)
    legend = []
    named = suggestion.landmarks if suggestion else ()
    for (rate, height), (mark, meaning) in zip(
        curve.on_average(named), LANDMARKS.items(), strict=False
    ):
        canvas.point(math.log10(rate), height, mark, on_top=True)
        legend.append(f"{mark} {meaning}")
    if named:
        legend[-1] += " of the average"
    if runs := curve.measured():
        for run in sorted(runs, key=lambda run: run.steps):
            canvas.point(math.log10(run.rate), run.loss, marks.probe, on_top=True)
        lengths = sorted({run.steps for run in runs})
        steps = (
            f"{lengths[0]} steps" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} steps"
        )
        legend.append(f"{marks.probe} held-out loss after {steps}")
    if cut_off := curve.cut_off():
        for rate in cut_off:
            canvas.point(math.log10(rate), curve.high, marks.cut_off, on_top=True)
        legend.append(f"{marks.cut_off} diverged")
    if curve.probe_start is not None:
        legend.append(f"{marks.level} held-out loss at the start")
    return legend


def _wrapped(legend: list[str], width: int) -> list[str]:
    """The meanings of the marks, under the picture, none of them broken if it fits a line."""
    text = "   ".join(entry.replace(" ", "\0") for entry in legend)
    lines = textwrap.wrap(text, width - MARGIN, break_on_hyphens=False)
    return [" " * MARGIN + line.replace("\0", " ").rstrip() for line in lines]


class Canvas:
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

    def point(self, x: float, y: float, mark: str, *, on_top: bool = False) -> None:
        """Put a mark into the cell of a point; on top, it hides a line."""
        across, down = self.place(x, y)
        if -0.5 <= down <= self.size[1] - 0.5:
            column = min(round(across) // self.fine[0], len(self.cells[0]) - 1)
            row = min(round(down) // self.fine[1], len(self.cells) - 1)
            self.cells[row][column] = mark
            if on_top:
                self.bits[row][column] = 0

    def level(self, y: float, mark: str) -> None:
        """Put a mark into all cells of a height."""
        row = round(self.place(0.0, y)[1]) // self.fine[1]
        if 0 <= row < len(self.cells):
            self.cells[row] = [mark] * len(self.cells[row])

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
                    self.bits[cell_row][cell_column] |= BRAILLE[row % 4][column % 2]

    def lines(self) -> list[str]:
        return [
            "".join(chr(0x2800 + bit) if bit else cell for cell, bit in zip(*row, strict=True))
            for row in zip(self.cells, self.bits, strict=True)
        ]


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


def _interval(suggestion: Suggestion, left: float, right: float, columns: int, marks: Marks) -> str:
    low, rate, high = (
        _column(math.log10(max(value, 1e-300)), left, right, columns)
        for value in (suggestion.low, suggestion.learning_rate, suggestion.high)
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
