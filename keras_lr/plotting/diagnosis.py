"""Draw a `Diagnosis`: the losses and the rate, with the epochs of each finding shaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._util.checks import shortened
from keras_lr.plotting._axes import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    axes_for,
    draw_grid,
    drawn,
    labelled_once,
    legend_above,
    no_formula,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.diagnosis import Diagnosis

__all__ = ["diagnosis_figure", "draw_diagnosis", "plot_diagnosis", "save_diagnosis_plot"]

_SHADES = (VERMILION, PURPLE, GREEN, GREY)
_HATCHES = ("", "//", "..", "xx")
_WIDE = 100.0  # losses that differ by more than this factor get a logarithmic axis


def plot_diagnosis(diagnosis: Diagnosis, ax: Axes | Sequence[Axes] | None = None) -> Any:
    """Draw the losses of a run against the epoch and, below them, the learning rate.

    The epochs of each finding are shaded, and a mark shows the best value.

    Args:
        diagnosis: A `Diagnosis` from `keras_lr.diagnose`; of a log with several runs it shows the
            last one.
        ax: Where to draw. `None` creates a new pyplot figure. A single `Axes` shows the losses
            only; a sequence of axes shows the losses, then the rate.

    Returns:
        The axes: a single `Axes` if there is one panel, otherwise a tuple.

    Raises:
        ValueError: If the diagnosis has no log, or if `ax` is an empty sequence or has more axes
            than there are panels.

    >>> import keras_lr
    >>> log = {"loss": [2.3, 1.2, 0.9, 1.7, 5.2, 31.0, 480.0], "learning_rate": [0.5] * 7}
    >>> axes = plot_diagnosis(keras_lr.diagnose(log))
    >>> [panel.get_ylabel() for panel in axes]
    ['Loss (log scale)', 'Learning rate']
    """
    axes = axes_for(ax, _panels(diagnosis), "A panel for the rate needs a log with rates.")
    return _draw(diagnosis, axes)


def save_diagnosis_plot(
    diagnosis: Diagnosis, path: str | os.PathLike[str], *, dpi: int = 120
) -> Path:
    """Write the figure of `plot_diagnosis` to a file, without using pyplot.

    The file is written completely or not at all.

    Args:
        diagnosis: A `Diagnosis` from `keras_lr.diagnose`.
        path: The file; its suffix selects the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.

    Returns:
        `path`, as a `Path`.

    Raises:
        ValueError: If matplotlib cannot write the format, or the diagnosis has no log.
        OSError: If the file cannot be written.
    """
    return save(path, dpi, _panels(diagnosis), lambda axes: _draw(diagnosis, axes))


def diagnosis_figure(diagnosis: Diagnosis) -> Figure:
    """The figure of `plot_diagnosis`, without pyplot."""
    return drawn(_panels(diagnosis), lambda axes: _draw(diagnosis, axes))


def draw_diagnosis(diagnosis: Diagnosis, *, width: int = 78, unicode: bool = True) -> list[str]:
    """Draw the losses as lines of text; below the axis, the epochs of each finding.

    Args:
        diagnosis: A `Diagnosis` from `keras_lr.diagnose`.
        width: Columns of the picture, the numbers at the left included.
        unicode: Draw with braille and box characters; otherwise with ASCII alone.

    Returns:
        The lines, without line ends; none if there are no two finite losses.
    """
    from keras_lr.plotting.terminal import HEIGHT, MARGIN, PLAIN, UNICODE, Canvas

    curves = [(x[ok], y[ok]) for _, x, y in _curves(diagnosis) if (ok := np.isfinite(y)).any()]
    if not curves or len(curves[0][0]) < 2:
        return []
    marks = UNICODE if unicode else PLAIN
    values = np.concatenate([y for _, y in curves])
    wide = _is_wide(values)
    scaled = [(x, np.log10(y) if wide else y) for x, y in curves]
    low, high = (float(edge(np.concatenate([y for _, y in scaled]))) for edge in (np.min, np.max))
    left, right = float(diagnosis.first), float(diagnosis.last)
    columns = width - MARGIN
    canvas = Canvas(columns, HEIGHT, (left, right), (low, high), unicode)
    for place, (x, y) in enumerate(scaled):
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        if place:  # the validation loss is dotted, so that it differs in black and white
            for point in points:
                canvas.point(*point, "o", on_top=True)
        else:
            for start, end in zip(points, points[1:], strict=False):
                canvas.segment(start, end, marks.smooth)
    lines = []
    for row, text in enumerate(canvas.lines()):
        label = ""
        if row in (0, HEIGHT // 2, HEIGHT - 1):
            value = high - (high - low) * row / (HEIGHT - 1)
            label = f"{10**value if wide else value:.3g}"
        lines.append(f"{label:>{MARGIN - 2}} {marks.axis if label else marks.edge}{text}".rstrip())
    lines.append(" " * (MARGIN - 1) + marks.corner + marks.line * columns)
    ends = f"{diagnosis.unit} {left:g}", f"{right:g}"
    lines.append(" " * MARGIN + f"{ends[0]}{ends[1]:>{columns - len(ends[0])}}")
    for finding in diagnosis:
        share = [(at - left) / ((right - left) or 1.0) for at in (finding.first, finding.last)]
        first, last = (min(max(round(each * (columns - 1)), 0), columns - 1) for each in share)
        bar = marks.left + marks.between * (last - first - 1) + marks.right * (last > first)
        lines.append(" " * MARGIN + _named_bar(bar, first, finding.name, columns))
    if curves[1:]:
        lines.append(" " * MARGIN + "o validation loss")
    return lines


def _named_bar(bar: str, first: int, name: str, columns: int) -> str:
    """The bar with its name, right of it if that fits, or else left of it."""
    if first + len(bar) + 1 + len(name) <= columns or first <= len(name):
        return f"{' ' * first}{bar} {name}"
    return f"{name + ' ':>{first}}{bar}"


def _panels(diagnosis: Diagnosis) -> list[str]:
    if diagnosis.log is None:
        raise ValueError("The diagnosis has no log to draw; draw one that keras_lr.diagnose made.")
    return ["loss", "rate"] if diagnosis.learning_rate is not None else ["loss"]


def _curves(diagnosis: Diagnosis) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, positions and values of the training and of the validation loss."""
    log = diagnosis.log
    if log is None:
        return []
    curves = [("training loss", log.positions, log.loss)]
    held_out = log.evaluated or log
    if held_out.val_loss is not None:
        curves.append(("validation loss", held_out.positions, held_out.val_loss))
    return curves


def _is_wide(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > _WIDE * values.min())


def _draw(diagnosis: Diagnosis, axes: tuple[Axes, ...]) -> Axes | tuple[Axes, ...]:
    log = diagnosis.log
    assert log is not None  # noqa: S101
    curves = _curves(diagnosis)
    top = axes[0]
    styles = ((BLUE, "-", "."), (VERMILION, "--", "s"))
    for (name, x, y), (colour, style, mark) in zip(curves, styles, strict=False):
        shown = mark if len(x) <= 60 else ""
        top.plot(
            x, np.where(np.isfinite(y), y, np.nan), style, color=colour, marker=shown, ms=4,
            lw=1.6, label=name, zorder=4,
        )  # fmt: skip
    wide = _is_wide(np.concatenate([y for _, _, y in curves]))
    if wide:
        top.set_yscale("log")
    top.set_ylabel("Loss (log scale)" if wide else "Loss")
    if diagnosis.best is not None and diagnosis.best_at is not None:
        top.plot(
            diagnosis.best_at, diagnosis.best, "*", color=GREEN, ms=12, mec="white", zorder=5,
            label=f"best {diagnosis.best_of}",
        )  # fmt: skip
    for place, finding in enumerate(diagnosis):
        for target in axes:
            target.axvspan(
                finding.first, finding.last, fc=_SHADES[place % 4], alpha=0.15, lw=1.0,
                ec=_SHADES[place % 4], hatch=_HATCHES[place % 4], zorder=1,
                label=finding.name if target is top else None,
            )  # fmt: skip
    if axes[1:] and log.learning_rate is not None:
        axes[1].plot(log.positions, log.learning_rate, color=BLUE, lw=1.6, zorder=4)
        axes[1].set_ylabel("Learning rate")
        if _is_wide(log.learning_rate):
            axes[1].set_yscale("log")
    for target in axes:
        target.set_xlabel(diagnosis.unit.capitalize())
        draw_grid(target)
    title = (
        f"{os.path.basename(diagnosis.source)}: {', '.join(diagnosis.names) or 'no problems found'}"
    )
    legend_above(top, no_formula(shortened(title, 80)))
    return labelled_once(axes)
