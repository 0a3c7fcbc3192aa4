"""The picture of a preview."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.plotting._axes import BLUE, STEP_LABEL, VERMILION, axes_for, labelled_once, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_lr.schedule_preview.simulate import Preview

__all__ = ["plot_preview", "save_preview_plot"]

_POINTS = 2000  # drawn of a long run: the lowest and the highest value of so many stretches
_MARKS = 24


def plot_preview(
    preview: Preview, ax: Axes | Sequence[Axes] | None = None, *, log: bool | None = None
) -> Axes | tuple[Axes, ...]:
    """Draw a preview: the learning rate against the step, and the momentum under it.

    Args:
        preview: The `Preview` to draw.
        ax: Where to draw. `None` makes a new pyplot figure. One `Axes` takes the rate alone; a
            sequence takes the panels in the order rate, momentum, as many as it has.
        log: Draw the rate on a logarithmic axis; by default for a ramp as in a range test.

    Returns:
        The axes drawn in: the one `Axes` if there is one panel, a tuple of them otherwise.

    Raises:
        ValueError: If `ax` is a sequence of more axes than there are panels, or of none.

    >>> import keras_lr
    >>> axes = plot_preview(keras_lr.preview(keras_lr.OneCycle(max_lr=0.1), steps=100))
    >>> [panel.get_ylabel() for panel in axes]
    ['Learning rate', 'Momentum']
    """
    panels = _preview_panels(preview)
    axes = axes_for(ax, panels, "The momentum is drawn where it is known.")
    marked = [point.step for point in preview.key_points()]
    marked = marked if len(marked) <= _MARKS else []
    curves = [preview.learning_rates, preview.momenta]
    names, colours = ["Learning rate", "Momentum"], [BLUE, VERMILION]
    for target, values, name, colour in zip(axes, curves, names, colours, strict=False):
        assert values is not None  # noqa: S101
        steps = _worth_drawing(values, marked)
        target.plot(steps, values[steps], color=colour, lw=1.8, zorder=4)
        target.plot(
            marked, values[marked], "o", color=colour, ms=5, mec="white", clip_on=False, zorder=5
        )
        target.set_ylabel(name)
        target.set_xlabel(STEP_LABEL)
        target.margins(x=0.01)
        target.ticklabel_format(axis="x", style="plain")
        target.locator_params(axis="x", integer=True)
        target.grid(True, color="#DDDDDD", lw=0.6)
        target.set_axisbelow(True)
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
) -> None:
    """Write the picture of `plot_preview` to a file, without touching pyplot.

    The file appears whole or not at all.

    Args:
        preview: The `Preview` to draw.
        path: The file; its ending names the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        log: As in `plot_preview`.

    Raises:
        ValueError: If matplotlib cannot write a format of that name.
        OSError: If the folder cannot be written.
    """
    panels = _preview_panels(preview)
    save(path, dpi, panels, lambda axes: plot_preview(preview, axes, log=log))


def _preview_panels(preview: Preview) -> list[str]:
    return ["rate"] if preview.momenta is None else ["rate", "momentum"]


def _worth_drawing(values: np.ndarray, marked: list[int]) -> np.ndarray:
    """The steps that a picture needs: all of a short run, the extremes of stretches of a long one.

    More points than pixels take long, and matplotlib cannot draw a million swings.
    """
    if len(values) <= 2 * _POINTS:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), _POINTS + 1).astype(int)
    stretches = [(first, values[first:end]) for first, end in zip(edges, edges[1:], strict=False)]
    lows = [first + int(part.argmin()) for first, part in stretches]
    highs = [first + int(part.argmax()) for first, part in stretches]
    return np.unique([0, len(values) - 1, *lows, *highs, *marked])
