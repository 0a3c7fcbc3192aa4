"""Shared by all pictures: colours, axes, labels, and saving.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish; whatever
differs in colour also differs in line style, marker or hatching.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._util.files import atomic_write
from keras_lr._util.rates import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "PURPLE",
    "RATE_LABEL",
    "SHADE",
    "STEP_LABEL",
    "VERMILION",
    "axes_for",
    "draw_grid",
    "drawn",
    "labelled_once",
    "legend_above",
    "log_rates",
    "no_formula",
    "save",
    "shade_interval",
    "short",
    "stacked",
]

LayOut = Callable[["Figure", Sequence[str]], "tuple[Axes, ...]"]

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, SHADE = "#707070", "#EBEBEB"
RATE_LABEL = "Learning rate (log scale)"
STEP_LABEL = "Step (optimizer updates)"
_SHAPES = {"loss": 2.2, "slope": 1.0, "ramp": 1.0, "rate": 1.6, "momentum": 1.0}


def no_formula(text: str) -> str:
    """Text that Matplotlib draws literally: it reads a formula between two dollars."""
    return text.replace("$", r"\$")


def stacked(figure: Figure, panels: Sequence[str]) -> tuple[Axes, ...]:
    """One panel below the other; those over the learning rate share its axis."""
    figure.set_size_inches(7.0, 2.2 + 1.6 * len(panels))
    heights = [_SHAPES[panel] for panel in panels]
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    top = figure.add_subplot(grid[0])
    axes = [top]
    for row, panel in enumerate(panels[1:], start=1):
        share = None if panel == "ramp" else top  # the other panels have the first one's x axis
        axes.append(figure.add_subplot(grid[row], sharex=share))
        if share is not None:
            top.tick_params(labelbottom=False)
    figure.align_ylabels(axes)
    return tuple(axes)


def axes_for(
    ax: Axes | Sequence[Axes] | None,
    panels: Sequence[str],
    hint: str,
    lay_out: LayOut = stacked,
) -> tuple[Axes, ...]:
    """One axes for each panel: the given ones, or new ones."""
    if ax is None:
        import matplotlib.pyplot as plt

        return lay_out(plt.figure(layout="constrained"), panels)
    if not isinstance(ax, (Sequence, np.ndarray)):
        return (ax,)
    axes = tuple(np.ravel(np.asarray(ax, dtype=object)))
    if not 1 <= len(axes) <= len(panels):
        raise ValueError(
            f"ax must hold 1 to {len(panels)} axes, one for each panel ({', '.join(panels)}); "
            f"got {len(axes)}. {hint}"
        )
    return axes


def drawn(
    panels: Sequence[str], draw: Callable[[tuple[Axes, ...]], Any], lay_out: LayOut = stacked
) -> Figure:
    """A new figure, without pyplot, in which the panels are drawn."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    draw(lay_out(figure, panels))
    return figure


def draw_grid(ax: Axes) -> None:
    """Thin grey lines behind everything else."""
    ax.grid(True, color="#DDDDDD", lw=0.6, zorder=0.5)
    ax.set_axisbelow(True)


def save(
    path: str | os.PathLike[str],
    dpi: int,
    panels: Sequence[str],
    draw: Callable[[tuple[Axes, ...]], Any],
    lay_out: LayOut = stacked,
) -> Path:
    """Draw into a new figure and write it in the format of the file's name."""
    from matplotlib.backend_bases import FigureCanvasBase

    path = Path(path)
    formats = FigureCanvasBase.get_supported_filetypes()
    kind = path.suffix[1:].lower()
    if kind not in formats:
        raise ValueError(
            f"The name must end in a format that Matplotlib can write; got {path.name!r}. "
            f"The formats are: {', '.join(sorted(formats))}."
        )
    figure = drawn(panels, draw, lay_out)
    return atomic_write(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))


def log_rates(ax: Axes) -> None:
    """Make the x axis logarithmic, with few labels between powers of 10.

    On 0.6 to 2 decades 2 and 5 are labelled, on less up to five. Matplotlib labels more of them,
    and the labels run into each other.
    """
    from matplotlib.ticker import FuncFormatter

    ax.set_xscale("log")
    usual = ax.xaxis.get_minor_formatter()

    def label(value: float, place: int | None) -> str:
        low, high = sorted(ax.get_xlim())
        if high < 4.0 * low:
            inside = [tick for tick in ax.xaxis.get_minorticklocs() if low <= tick <= high]
            shown = inside[:: -(-len(inside) // 5)]
            usual.set_locs(shown)
            return str(usual(value, place)) if np.isclose(shown, value).any() else ""
        exponent = math.floor(math.log10(value) + 1e-9)
        digit = round(value / 10.0**exponent)
        if high > 100.0 * low or digit not in (2, 5):
            return ""
        return rf"$\mathdefault{{{digit}\times10^{{{exponent}}}}}$"

    ax.xaxis.set_minor_formatter(FuncFormatter(label))


def shade_interval(ax: Axes, low: float, high: float) -> None:
    """Shade the interval of a learning rate, with an entry for the legend."""
    label = f"interval {short(low)} to {short(high)}"
    ax.axvspan(low, high, color=VERMILION, alpha=0.15, lw=0, label=label, zorder=1)


def labelled_once(axes: tuple[Axes, ...]) -> Axes | tuple[Axes, ...]:
    """The axes to return; those with a common x axis are labelled once."""
    for target in axes[:-1]:
        if target.get_shared_x_axes().joined(target, axes[-1]):
            target.set_xlabel("")
    return axes if len(axes) > 1 else axes[0]


def legend_above(ax: Axes, title: str, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
    """Legend and title above the axes, in as many columns as fit, so that no data is covered.

    Entries that begin with one of `first` come first, in that order; those of `last` last.
    """

    def place(entry: tuple[Any, str]) -> int:
        begins = [i for i, start in enumerate(first) if entry[1].startswith(start)]
        ends = [i + 1 for i, start in enumerate(last) if entry[1].startswith(start)]
        return begins[0] - len(first) if begins else sum(ends)

    entries = sorted(zip(*ax.get_legend_handles_labels(), strict=True), key=place)
    handles, labels = [handle for handle, _ in entries], [label for _, label in entries]
    size = 9.0
    # A layout engine sets the width of the axes only when the figure is drawn, which takes half
    # a second; until then they have the default margins, which are wider.
    for columns in range(min(len(labels), 4), 0, -1):
        legend = ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            frameon=False,
            fontsize=size,
            borderaxespad=0.2,
            borderpad=0.2,
            columnspacing=1.4,
            handlelength=1.6,
        )
        if legend.get_window_extent().width <= ax.get_window_extent().width:
            break
    rows = -(-len(labels) // columns)
    ax.set_title(title, loc="left", fontsize=11, pad=8 + rows * size * 1.55)
