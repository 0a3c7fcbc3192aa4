"""Pictures: axes in, axes out. matplotlib is imported by the function that draws.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; what differs in
colour also differs in line style, marker or hatching.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._files import atomic_write
from keras_lr.range_test import rules

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.preview import Preview
    from keras_lr.range_test.result import RangeTest

__all__ = ["plot_preview", "plot_range_test", "save_preview_plot", "save_range_test_plot"]

_BLUE, _VERMILION, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_GREY, _SHADE = "#707070", "#EBEBEB"
_RATE_LABEL = "Learning rate (log scale)"
_STEP_LABEL = "Step (optimizer updates)"
_SHAPES = {"loss": 2.2, "slope": 1.0, "ramp": 1.0, "rate": 1.6, "momentum": 1.0}
_POINTS = 2000  # drawn of a long run: the lowest and the highest value of so many stretches
_MARKS = 24


def plot_range_test(
    test: RangeTest,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    suggestion: bool = True,
    method: str = "auto",
    slope: bool = True,
    ramp: bool = False,
    raw: bool = True,
) -> Axes | tuple[Axes, ...]:
    """Draw a range test: the loss against the learning rate, and its slope under it.

    The view is set by the part of the curve that did not diverge: upwards it ends half the fall
    of the loss above the level it started from. What lies beyond runs out of the picture, so
    that a blow-up to 1e8 does not flatten the valley.

    Args:
        test: The `RangeTest` to draw.
        ax: Where to draw. `None` makes a new pyplot figure. One `Axes` takes the loss alone; a
            sequence takes the panels in the order loss, slope, ramp, as many as it has.
        suggestion: Mark the suggested rate and its interval. Where the curve supports none, the
            title says so.
        method: The rule that suggests, as in `RangeTest.suggest`.
        slope: Add the panel with the derivative of the smoothed loss in ln(learning rate).
        ramp: Add the panel with the learning rate of each step.
        raw: Draw the loss of each batch as a point.

    Returns:
        The axes drawn in: the one `Axes` if there is one panel, a tuple of them otherwise.

    Raises:
        ValueError: If `ax` is a sequence of more axes than there are panels, or of none.

    >>> import numpy as np
    >>> from keras_lr import RangeTest
    >>> rates = np.geomspace(1e-6, 1.0, 100)
    >>> test = RangeTest(rates, 1 / (1 + rates / 1e-3) + 50 * rates**2)
    >>> axes = plot_range_test(test)
    >>> [panel.get_ylabel() for panel in axes]
    ['Batch loss', 'Slope\\n(loss per ln rate)']
    """
    panels = ["loss"] + ["slope"] * slope + ["ramp"] * ramp
    axes = _axes_for(ax, panels, "Turn on slope or ramp for more panels.")
    curve = _Curve(test, method if suggestion else None)
    for panel, target in zip(panels, axes, strict=False):
        _DRAW[panel](target, curve, raw)
    return _labelled_once(axes)


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
    axes = _axes_for(ax, panels, "The momentum is drawn where it is known.")
    marked = [point.step for point in preview.key_points()]
    marked = marked if len(marked) <= _MARKS else []
    curves = [preview.learning_rates, preview.momenta]
    names, colours = ["Learning rate", "Momentum"], [_BLUE, _VERMILION]
    for target, values, name, colour in zip(axes, curves, names, colours, strict=False):
        assert values is not None  # noqa: S101
        steps = _worth_drawing(values, marked)
        target.plot(steps, values[steps], color=colour, lw=1.8, zorder=4)
        target.plot(
            marked, values[marked], "o", color=colour, ms=5, mec="white", clip_on=False, zorder=5
        )
        target.set_ylabel(name)
        target.set_xlabel(_STEP_LABEL)
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
    return _labelled_once(axes)


def save_range_test_plot(
    test: RangeTest, path: str | os.PathLike[str], *, dpi: int = 120, **options: Any
) -> None:
    """Write the picture of `plot_range_test` to a file, without touching pyplot.

    The file appears whole or not at all.

    Args:
        test: The `RangeTest` to draw.
        path: The file; its ending names the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        **options: As in `plot_range_test`, without `ax`.

    Raises:
        ValueError: If matplotlib cannot write a format of that name.
        OSError: If the folder cannot be written.
    """
    panels = ["loss"] + ["slope"] * options.get("slope", True) + ["ramp"] * options.get("ramp", 0)
    _save(path, dpi, panels, lambda axes: plot_range_test(test, axes, **options))


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
    _save(path, dpi, panels, lambda axes: plot_preview(preview, axes, log=log))


def _save(
    path: str | os.PathLike[str],
    dpi: int,
    panels: list[str],
    draw: Callable[[tuple[Axes, ...]], Any],
) -> None:
    from matplotlib.figure import Figure

    path = Path(path)
    figure = Figure(figsize=_size(panels), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    kind = path.suffix[1:].lower()
    if kind not in formats:
        raise ValueError(
            f"The picture's name must end in a format that can be written; got {path.name!r}. "
            f"The formats are: {', '.join(sorted(formats))}."
        )
    draw(_panels(figure, panels))
    atomic_write(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))


def _axes_for(ax: Axes | Sequence[Axes] | None, panels: list[str], hint: str) -> tuple[Axes, ...]:
    """One axes a panel: those that were given, or new ones."""
    if ax is None:
        import matplotlib.pyplot as plt

        return _panels(plt.figure(figsize=_size(panels), layout="constrained"), panels)
    if not isinstance(ax, (Sequence, np.ndarray)):
        return (ax,)
    axes = tuple(np.ravel(np.asarray(ax, dtype=object)))
    if not 1 <= len(axes) <= len(panels):
        raise ValueError(
            f"ax must hold 1 to {len(panels)} axes, one a panel ({', '.join(panels)}); "
            f"got {len(axes)}. {hint}"
        )
    return axes


def _labelled_once(axes: tuple[Axes, ...]) -> Axes | tuple[Axes, ...]:
    """The axes as they are returned; those with a common x axis name it once."""
    for target in axes[:-1]:
        if target.get_shared_x_axes().joined(target, axes[-1]):
            target.set_xlabel("")
    return axes if len(axes) > 1 else axes[0]


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


class _Curve:
    """What several panels need: the smoothed curve, where it diverges, and the suggestion."""

    def __init__(self, test: RangeTest, method: str | None) -> None:
        self.test = test
        self.rates = np.asarray(test.learning_rates, dtype=float)
        self.losses = np.atleast_2d(np.asarray(test.losses, dtype=float))
        self.smoothed = [_if_enough(rules.smooth, self.rates, row) for row in self.losses]
        self.middle = _middle(self.smoothed)
        self.slope = _if_enough(rules.log_slope, self.rates, _middle(self.losses))
        self.start, self.best = _start_and_best(self.middle)
        self.noise = _noise(self.losses[0])
        self.fall = max(self.start - self.best, 3 * self.noise)
        self.diverges_at = self._divergence()
        self.suggestion: rules.Suggestion | None = None
        self.refused = False
        if method is not None:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", rules.SuggestionWarning
                )  # for who asks, not who draws
                try:
                    self.suggestion = test.suggest(method)
                except rules.NoSuggestion:
                    self.refused = True

    def _divergence(self) -> float | None:
        """The rate behind the minimum from which the loss stays above a quarter of its fall.

        Read from the losses themselves (a median of three), for the smoothed curve begins to
        climb before they do.
        """
        losses = _middle(self.losses)
        losses = losses[np.isfinite(losses)]
        if len(losses) < 3:
            return None
        ended_early = self.test.stop_reason in ("diverged", "non_finite")
        edges = np.concatenate([losses[:1], losses, losses[-1:]])
        medians = np.median([edges[:-2], edges[1:-1], edges[2:]], axis=0)
        calm = np.flatnonzero(medians <= self.best + max(self.fall / 4, 2 * self.noise))
        edge = max(int(calm[-1]), int(medians.argmin())) + 1 if calm.size else len(losses)
        if edge < len(losses):
            return float(self.rates[edge])
        return float(self.rates[len(losses) - 1]) if ended_early else None

    def view(self) -> tuple[float, float]:
        """Lowest and highest loss worth showing."""
        calm = self.rates < (self.diverges_at or np.inf)
        seen = self.losses[:, calm]
        seen = seen[np.isfinite(seen)]
        if not seen.size:
            return 0.0, 1.0
        extra = [value for _, value in (*self.validation(), *self.candidates())]
        low = min([float(seen.min()), *extra])
        ceiling = self.start + self.fall / 2
        high = max(min(value, ceiling) for value in (float(seen.max()), self.start, *extra))
        return low, max(high, low + 1e-9)

    def validation(self) -> list[tuple[float, float]]:
        """The finite held-out losses of the ramp, as (rate, loss)."""
        recorded = self.test.validation
        if not recorded:
            return []
        pairs = zip(recorded["learning_rates"], np.ravel(recorded["loss"]), strict=False)
        return [(float(rate), float(loss)) for rate, loss in pairs if np.isfinite(loss)]

    def candidates(self) -> list[tuple[float, float]]:
        """The finite held-out losses of the confirmation, as (rate, loss)."""
        return [(rate, loss) for rate, loss in self._confirmed() if np.isfinite(loss)]

    def blown_up(self) -> list[float]:
        """The rates that the confirmation tried and that diverged."""
        return [rate for rate, loss in self._confirmed() if not np.isfinite(loss)]

    def _confirmed(self) -> list[tuple[float, float]]:
        tried = self.test.confirmation
        if tried is None:
            return []
        pairs = zip(tried.learning_rates, tried.losses, strict=True)
        return [(float(rate), float(loss)) for rate, loss in pairs]


def _draw_loss(ax: Axes, curve: _Curve, raw: bool) -> None:
    one = len(curve.losses) == 1
    if raw:
        for row, losses in enumerate(curve.losses):
            name = "batch loss" if row == 0 else None
            ax.plot(
                curve.rates, losses, ".", color=_GREY, ms=6, alpha=0.6, mew=0, label=name, zorder=2
            )
    if not one:
        for row, smoothed in enumerate(curve.smoothed):
            name = "each repeat, smoothed" if row == 0 else None
            ax.plot(curve.rates, smoothed, color=_BLUE, lw=0.9, alpha=0.4, label=name, zorder=3)
    ax.plot(
        curve.rates,
        curve.middle,
        color=_BLUE,
        lw=2.2,
        label="smoothed" if one else f"median of {len(curve.losses)} repeats",
        zorder=4,
    )
    if points := curve.validation():
        ax.plot(
            *zip(*points, strict=True),
            color=_GREEN,
            ls="--",
            lw=1.6,
            marker="s",
            ms=3.5,
            label="validation loss",
            zorder=4,
        )
    low, high = curve.view()
    pad = 0.06 * (high - low)
    ax.set_ylim(low - pad, high + 3 * pad)  # the room above is for the name of the suggestion
    if points := curve.candidates():
        ax.plot(
            *zip(*points, strict=True),
            ls="",
            marker="D",
            ms=7,
            mfc=_PURPLE,
            mec="black",
            mew=0.7,
            label="candidate (validation)",
            zorder=6,
        )
    if rates := curve.blown_up():
        ax.plot(
            rates,
            [0.03] * len(rates),
            ls="",
            marker="X",
            ms=8,
            mfc=_PURPLE,
            mec="black",
            mew=0.7,
            label="candidate, diverged",
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=6,
        )
    _rate_axis(ax, curve)
    _mark_suggestion(ax, curve, named=True)
    ax.set_ylabel("Batch loss")
    outcome = ""
    if curve.suggestion is not None:
        outcome = f": {_short(curve.suggestion.learning_rate)} suggested"
    elif curve.refused:
        outcome = ": the curve supports no suggestion"
    _legend_above(ax, "Learning-rate range test" + outcome)


def _draw_slope(ax: Axes, curve: _Curve, raw: bool) -> None:
    ax.axhline(0, color=_GREY, lw=0.8)
    ax.plot(curve.rates, curve.slope, color=_BLUE, lw=1.8, zorder=4)
    calm = curve.slope[(curve.rates < (curve.diverges_at or np.inf)) & np.isfinite(curve.slope)]
    if calm.size:
        low = min(float(calm.min()), 0.0)
        high = max(min(float(calm.max()), -low if low else np.inf), -0.35 * low)
        pad = 0.08 * (high - low) or 1.0
        ax.set_ylim(low - pad, high + pad)
    _rate_axis(ax, curve)
    _mark_suggestion(ax, curve, named=False)
    ax.set_ylabel("Slope\n(loss per ln rate)")


def _draw_ramp(ax: Axes, curve: _Curve, raw: bool) -> None:
    ax.plot(np.arange(len(curve.rates)), curve.rates, color=_BLUE, lw=1.8, zorder=4)
    ratios = curve.rates[1:] / curve.rates[:-1]
    if ratios.size and np.allclose(ratios, ratios[0], rtol=1e-3):
        ax.set_yscale("log")
    if curve.suggestion is not None:
        ax.axhspan(curve.suggestion.low, curve.suggestion.high, color=_VERMILION, alpha=0.15, lw=0)
        ax.axhline(curve.suggestion.learning_rate, color=_VERMILION, lw=1.6)
    ax.margins(x=0.01)
    ax.grid(True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(_STEP_LABEL)
    ax.set_ylabel("Learning rate" + ("\n(log scale)" if ax.get_yscale() == "log" else ""))


_DRAW = {"loss": _draw_loss, "slope": _draw_slope, "ramp": _draw_ramp}


def _rate_axis(ax: Axes, curve: _Curve) -> None:
    """The logarithmic axis of the two panels that share it, with the diverging part shaded."""
    rates = [*curve.rates, *(rate for rate, _ in curve.candidates()), *curve.blown_up()]
    ax.set_xscale("log")
    if not rates:
        ax.set_xlim(1e-7, 10.0)
        ax.text(
            *(0.5, 0.5, "no finite loss was recorded"),
            transform=ax.transAxes,
            ha="center",
            va="center",
        )
    else:
        low, high = min(rates), max(rates)
        margin = (high / low) ** 0.015 if high > low else 2.0
        ax.set_xlim(low / margin, high * margin)
    if curve.diverges_at is not None:
        ax.axvspan(
            curve.diverges_at,
            ax.get_xlim()[1],
            facecolor=_SHADE,
            edgecolor="#C8C8C8",
            hatch="//",
            lw=0,
            label="diverges",
            zorder=0,
        )
    ax.grid(True, color="#DDDDDD", lw=0.6, zorder=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel(_RATE_LABEL)


def _mark_suggestion(ax: Axes, curve: _Curve, named: bool) -> None:
    found = curve.suggestion
    if found is None:
        return
    ax.axvspan(
        found.low,
        found.high,
        color=_VERMILION,
        alpha=0.15,
        lw=0,
        label=f"interval {_short(found.low)} to {_short(found.high)}",
        zorder=1,
    )
    ax.axvline(found.learning_rate, color=_VERMILION, lw=1.8, zorder=5)
    if not named:
        return
    left, right = np.log(ax.get_xlim())
    where = (np.log(found.learning_rate) - left) / (right - left)
    ax.annotate(
        f"{_short(found.learning_rate)} ({found.method})",
        (found.learning_rate, 1.0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-5 if where > 0.4 else 5, -4),
        textcoords="offset points",
        ha="right" if where > 0.4 else "left",
        va="top",
        color="#A64800",
        fontweight="bold",
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0},
        zorder=7,
    )


def _legend_above(ax: Axes, title: str) -> None:
    """Legend and title over the axes, in as many columns as fit, so that no data is covered."""
    handles, labels = ax.get_legend_handles_labels()
    size = 9.0
    # A layout engine settles the width of the axes only when the figure is drawn, and takes
    # half a second for it; until then they have the default margins, which are wider.
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


def _panels(figure: Figure, panels: list[str]) -> tuple[Axes, ...]:
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


def _size(panels: list[str]) -> tuple[float, float]:
    return 7.0, 2.2 + 1.6 * len(panels)


def _middle(rows: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Median over repeats, where one that has ended counts as worse than any that runs."""
    table = np.array(rows, dtype=float)
    table[~np.isfinite(table)] = np.inf
    middle = np.sort(table, axis=0)[[(len(table) - 1) // 2, len(table) // 2]].mean(axis=0)
    return np.where(np.isfinite(middle), middle, np.nan)


def _if_enough(
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray], rates: np.ndarray, losses: np.ndarray
) -> np.ndarray:
    """What the rule says of the curve; NaN where there are too few points to say anything."""
    if np.isfinite(losses[:3]).sum() < 3:
        return np.full(len(losses), np.nan)
    return rule(rates, losses)


def _start_and_best(curve: np.ndarray) -> tuple[float, float]:
    """Level the loss starts from (median of the first tenth) and its lowest value."""
    finite = curve[np.isfinite(curve)]
    if not finite.size:
        return 0.0, 0.0
    return float(np.median(finite[: max(1, len(finite) // 10)])), float(finite.min())


def _noise(losses: np.ndarray) -> float:
    """Standard deviation from step to step, robust against the blow-up at the end."""
    jumps = np.abs(np.diff(losses[np.isfinite(losses)]))
    return float(np.median(jumps)) if jumps.size else 0.0


def _short(rate: float) -> str:
    """A learning rate in two digits: 0.31, 3.0e-3."""
    if 0.1 <= rate < 100:
        return f"{rate:.2g}"
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"
