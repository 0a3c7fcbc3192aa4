"""Draw a `Preview`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.plotting._axes import (
    BLUE,
    STEP_LABEL,
    VERMILION,
    axes_for,
    draw_grid,
    drawn,
    labelled_once,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.schedule_preview import Preview

__all__ = ["plot_preview", "preview_figure", "save_preview_plot"]

_POINTS = 2000  # stretches of a long run; of each, the lowest and the highest value is drawn
_MARKS = 24


def plot_preview(
    preview: Preview, ax: Axes | Sequence[Axes] | None = None, *, log: bool | None = None
) -> Axes | tuple[Axes, ...]:
    """Draw the learning rate against the step and, below it, the momentum.

    Args:
        preview: The `Preview` to draw.
        ax: Where to draw. `None` creates a new pyplot figure. A single `Axes` shows the rate
            only; a sequence of axes shows the rate, then the momentum.
        log: Draw the rate on a logarithmic axis; by default only for a ramp as in a range test.

    Returns:
        The axes: a single `Axes` if there is one panel, otherwise a tuple.

    Raises:
        ValueError: If `ax` is an empty sequence or has more axes than there are panels.
        TypeError: If `log` is neither None nor a bool.

    >>> import keras_lr
    >>> axes = plot_preview(keras_lr.preview(keras_lr.OneCycle(max_lr=0.1), steps=100))
    >>> [panel.get_ylabel() for panel in axes]
    ['Learning rate', 'Momentum']
    """
    panels = _preview_panels(preview)
    axes = axes_for(ax, panels, "A panel for the momentum needs a preview with momentum.")
    marked = [point.step for point in preview.key_points()]
    marked = marked if len(marked) <= _MARKS else []
    curves = [preview.learning_rates, preview.momenta]
    names, colours = ["Learning rate", "Momentum"], [BLUE, VERMILION]
    for target, values, name, colour in zip(axes, curves, names, colours, strict=False):
        assert values is not None  # noqa: S101
        steps = _drawn_steps(values, marked)
        target.plot(steps, values[steps], color=colour, lw=1.8, zorder=4)
        target.plot(
            marked, values[marked], "o", color=colour, ms=5, mec="white", clip_on=False, zorder=5
        )
        target.set_ylabel(name)
        target.set_xlabel(STEP_LABEL)
        target.margins(x=0.01)
        target.ticklabel_format(axis="x", style="plain")
        target.locator_params(axis="x", integer=True)
        draw_grid(target)
    axes[0].set_title(
        f"{preview.steps} updates, highest learning rate {preview.learning_rates.max():.3g}",
        loc="left",
        fontsize=11,
    )
    if preview.logarithmic(log):
        axes[0].set_yscale("log")
        axes[0].set_ylabel("Learning rate\n(log scale)")
    else:
        axes[0].set_ylim(bottom=0.0)
    return labelled_once(axes)


def save_preview_plot(
    preview: Preview, path: str | os.PathLike[str], *, dpi: int = 120, log: bool | None = None
) -> Path:
    """Write the figure of `plot_preview` to a file, without using pyplot.

    The file is written completely or not at all.

    Args:
        preview: The `Preview` to draw.
        path: The file; its suffix selects the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        log: As in `plot_preview`.

    Returns:
        `path`, as a `Path`.

    Raises:
        ValueError: If matplotlib cannot write the format.
        OSError: If the file cannot be written.
    """
    panels = _preview_panels(preview)
    return save(path, dpi, panels, lambda axes: plot_preview(preview, axes, log=log))


def preview_figure(preview: Preview) -> Figure:
    """The figure of `plot_preview`, without pyplot."""
    return drawn(_preview_panels(preview), lambda axes: plot_preview(preview, axes))


def _preview_panels(preview: Preview) -> list[str]:
    return ["rate"] if preview.momenta is None else ["rate", "momentum"]


def _drawn_steps(values: np.ndarray, marked: list[int]) -> np.ndarray:
    """The steps to draw: all of a short run, the extremes of equal stretches of a long run.

    Matplotlib is slow with more points than pixels, and cannot draw a million oscillations.
    """
    if len(values) <= 2 * _POINTS:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), _POINTS + 1).astype(int)
    stretches = [(first, values[first:end]) for first, end in zip(edges, edges[1:], strict=False)]
    lows = [first + int(part.argmin()) for first, part in stretches]
    highs = [first + int(part.argmax()) for first, part in stretches]
    return np.unique([0, len(values) - 1, *lows, *highs, *marked])
