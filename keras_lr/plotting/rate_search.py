"""The plots of a search: the objective of each rate, and the curves of its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lr.plotting._axes import axes_for, labelled_once, save
from keras_lr.plotting._search_curves import Curves
from keras_lr.plotting._search_rates import draw_rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.rate_search.result import Search

__all__ = [
    "curve_panels",
    "plot_search",
    "plot_search_curves",
    "plot_search_rates",
    "save_search_plot",
]

_HINT = "There is a second metric only if the logs have one."


def plot_search(
    search: Search,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    round: str | None = None,
    metric: str | None = None,
) -> Axes | tuple[Axes, ...]:
    """Draw a search: the objective against the rate, and below it the curves of one round.

    Args:
        search: The `Search` to draw.
        ax: Where to draw. `None` makes a new pyplot figure. One `Axes` gets the objective only;
            a sequence of `Axes` gets the panels in the order objective, training loss,
            validation loss, training and validation of the second metric.
        round: The round whose curves to draw; by default the first, where rates differ most.
        metric: The second metric, without `val_`; by default that of the objective, otherwise
            the first accuracy, otherwise the first metric.

    Returns:
        The axes drawn in: one `Axes`, or a tuple of several.

    Raises:
        ValueError: If `ax` is empty or has more axes than there are panels; or if the search has
            no such round or metric.

    >>> from keras_lr.rate_search import Answer, Search, Setting
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> axes = plot_search(Search(answer, [], "val_loss", False))
    >>> [panel.get_title(loc="left") for panel in axes]
    ['Learning-rate search: 1.0e-2', 'Training loss', 'Validation loss']
    """
    curves = Curves(search, round, metric)
    targets = axes_for(ax, ["objective", *curves.panels], _HINT, _in_rows)
    draw_rates(search, targets[0])
    curves.draw(targets[1:])
    return targets if len(targets) > 1 else targets[0]


def plot_search_rates(search: Search, ax: Axes | None = None) -> Axes:
    """Draw the objective against the learning rate, over all rounds.

    The round of the answer is drawn in colour, with mean and standard deviation over the seeds
    and a mark for each seed. The other rounds, which may have used less data, are grey. The
    answer, its interval and the suggestion of the range test are marked. Rates that diverged, or
    whose objective is far worse than usual, are marked at the edge.

    Args:
        search: The `Search` to draw.
        ax: Where to draw. `None` makes a new pyplot figure.

    Returns:
        The axes drawn in.

    >>> from keras_lr.rate_search import Answer, Search, Setting
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> plot_search_rates(Search(answer, [], "val_loss", False)).get_ylabel()
    'Validation loss'
    """
    (target,) = axes_for(ax, ["objective"], "", _in_rows)
    draw_rates(search, target)
    return target


def plot_search_curves(
    search: Search,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    round: str | None = None,
    metric: str | None = None,
) -> Axes | tuple[Axes, ...]:
    """Draw the curves of all runs of a round, coloured by their learning rate.

    The best rate of the round is thick. A run that diverged ends in a cross, a run that was
    stopped early in an open square. Accuracies are drawn as errors. Training and validation have
    the same vertical axis.

    Args:
        search: The `Search` to draw.
        ax: Where to draw. `None` makes a new pyplot figure. One `Axes` gets the training loss
            only; a sequence of `Axes` gets the panels in the order training loss, validation
            loss, training and validation of the second metric.
        round: The round; by default the first, where rates differ most.
        metric: The second metric, as in `plot_search`.

    Returns:
        The axes drawn in: one `Axes`, or a tuple of several.

    Raises:
        ValueError: If `ax` is empty or has more axes than there are panels; or if the search has
            no such round or metric.

    >>> from keras_lr.rate_search import Answer, Search, Setting
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> axes = plot_search_curves(Search(answer, [], "val_loss", False))
    >>> [panel.get_ylabel() for panel in axes]
    ['Loss', 'Loss']
    """
    curves = Curves(search, round, metric)
    targets = axes_for(ax, curves.panels, _HINT, _in_rows)
    curves.draw(targets)
    return labelled_once(targets)


def save_search_plot(
    search: Search, path: str | os.PathLike[str], *, dpi: int = 120, **options: Any
) -> Path:
    """Write the plot of `plot_search` to a file, whole or not at all, without pyplot.

    Args:
        search: The `Search` to draw.
        path: The file; its extension chooses the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        options: As in `plot_search`, without `ax`.

    Returns:
        `path`, as a `Path`.

    Raises:
        ValueError: If matplotlib cannot write that format; or as in `plot_search`.
        OSError: If the file cannot be written.
    """
    panels = Curves(search, options.get("round"), options.get("metric")).panels
    draw: Callable[[Any], Any] = lambda axes: plot_search(search, axes, **options)  # noqa: E731
    return save(path, dpi, ["objective", *panels], draw, _in_rows)


def curve_panels(search: Search) -> list[str]:
    """The panels that `plot_search_curves` draws."""
    return Curves(search, None, None).panels


def _in_rows(figure: Figure, panels: Sequence[str]) -> tuple[Axes, ...]:
    """The objective over the full width; below it training left, validation right."""
    wide = [panel for panel in panels if panel == "objective"]
    pairs = [panel for panel in panels if panel != "objective"]
    rows = len(wide) + len(pairs) // 2
    figure.set_size_inches(9.6 if pairs else 7.0, 4.4 * len(wide) + 1.6 * len(pairs))
    grid = figure.add_gridspec(rows, 2, height_ratios=[1.3] * len(wide) + [1.0] * (len(pairs) // 2))
    axes = [figure.add_subplot(grid[0, :]) for _ in wide]
    for place in range(len(pairs)):
        axes.append(figure.add_subplot(grid[len(wide) + place // 2, place % 2]))
    return tuple(axes)
