"""The picture of a range test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr.plotting._axes import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RATE_LABEL,
    SHADE,
    STEP_LABEL,
    VERMILION,
    axes_for,
    draw_grid,
    drawn,
    labelled_once,
    legend_above,
    log_rates,
    save,
    shade_interval,
    short,
)
from keras_lr.plotting._range_curve import DrawnCurve
from keras_lr.range_test.smoothing import BANDWIDTH
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion, SuggestionWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.range_test.planned_run import PlannedRun
    from keras_lr.range_test.result import RangeTest

__all__ = ["planned_run_figure", "plot_range_test", "range_test_figure", "save_range_test_plot"]

_LANDMARKS = ("halfway down", "lowest", "halfway up")  # as in `Suggestion.landmarks`


def plot_range_test(
    test: RangeTest,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    suggestion: bool = True,
    method: str = "auto",
    policy: Any = None,
    total_steps: int | None = None,
    slope: bool = True,
    ramp: bool = False,
    raw: bool = True,
) -> Axes | tuple[Axes, ...]:
    """Draw a range test: the loss against the learning rate, and its slope below.

    The line follows the batch losses, apart before and after the divergence: each of its values
    is a mean of running medians. The rules read a wider curve (`RangeTest.suggest`); the three
    rates that the reason of the suggestion names are circles on the line.

    Each short run at a constant rate is a point at its held-out loss; a thin line shows that
    loss before training. A cross at the top is a short run that was cut off, or whose loss lies
    further above the start than the lowest loss lies below it.

    The vertical range comes from the part of the curve that did not diverge: it ends half the
    fall of the loss above the loss at the start. Higher batch losses leave the picture, so that
    a divergence to 1e8 does not flatten the valley.

    Args:
        test: The `RangeTest` to draw.
        ax: Where to draw. None makes a new pyplot figure; one `Axes` gets the loss alone; a
            sequence gets the panels in the order loss, slope, ramp, as many as it has.
        suggestion: Mark the suggested rate and its interval. The title says if the curve supports
            none.
        method: The rule that suggests, as in `RangeTest.suggest`.
        policy: The planned run, as in `RangeTest.suggest`; by default that of the test.
        total_steps: Its length in updates, likewise.
        slope: Add the panel with the derivative of the line in ln(learning rate).
        ramp: Add the panel with the learning rate of each step.
        raw: Draw the loss of each batch as a point.

    Returns:
        The axes drawn in: the one `Axes` if there is one panel, a tuple of them otherwise. A test
        of short runs alone has one panel.

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
    curve = DrawnCurve(test)
    panels = _panels(curve, slope, ramp)
    axes = axes_for(ax, panels, "Turn on slope or ramp for more panels.")
    found, refused = None, False
    if suggestion:
        with warnings.catch_warnings():
            # The caller of `suggest` gets these warnings; a picture does not repeat them.
            warnings.simplefilter("ignore", SuggestionWarning)
            try:
                found = test.suggest(method, policy=policy, total_steps=total_steps)
            except NoSuggestion:
                refused = True
    _draw_panels(curve, panels, axes, found, refused, raw)
    return labelled_once(axes)


def range_test_figure(test: RangeTest, found: Suggestion | None, *, slope: bool = True) -> Figure:
    """The figure of a test and a suggestion that is known, or known to be missing."""
    curve = DrawnCurve(test)
    panels = _panels(curve, slope, False)

    def draw(axes: tuple[Axes, ...]) -> None:
        _draw_panels(curve, panels, axes, found, found is None, True)
        labelled_once(axes)

    return drawn(panels, draw)


def planned_run_figure(planned: PlannedRun, learning_rate: float) -> Figure:
    """The rate of each update of a planned run, whose policy is known, at its highest rate."""
    from matplotlib.figure import Figure

    assert planned.shape is not None  # noqa: S101
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    axes = figure.subplots()
    steps, label = planned.total_steps, STEP_LABEL
    if steps is None:
        steps, label = 100, "Percent of the run"
    axes.plot(
        np.linspace(0, steps, len(planned.shape)), planned.shape * learning_rate, color=VERMILION
    )
    axes.set(xlabel=label, ylabel="Learning rate", ylim=(0, 1.05 * learning_rate))
    axes.margins(x=0.01)
    draw_grid(axes)
    return figure


def _draw_panels(
    curve: DrawnCurve,
    panels: Sequence[str],
    axes: Sequence[Axes],
    found: Suggestion | None,
    refused: bool,
    raw: bool,
) -> None:
    for panel, target in zip(panels, axes, strict=False):
        if panel == "loss":
            _draw_loss(target, curve, found, raw)
            _write_title(target, found, refused)
        elif panel == "slope":
            _draw_slope(target, curve, found)
        else:
            _draw_ramp(target, curve, found)


def save_range_test_plot(
    test: RangeTest, path: str | os.PathLike[str], *, dpi: int = 120, **options: Any
) -> Path:
    """Write the picture of `plot_range_test` to a file, without pyplot.

    The file appears whole or not at all.

    Args:
        test: The `RangeTest` to draw.
        path: The file; its ending names the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        options: As in `plot_range_test`, without `ax`.

    Returns:
        `path`, as a `Path`.

    Raises:
        ValueError: If matplotlib cannot write a format of that name.
        OSError: If the folder cannot be written.
    """
    panels = _panels(DrawnCurve(test), options.get("slope", True), options.get("ramp", False))
    return save(path, dpi, panels, lambda axes: plot_range_test(test, axes, **options))


def _panels(curve: DrawnCurve, slope: bool, ramp: bool) -> list[str]:
    if curve.probes and not len(curve.rates):
        return ["loss"]
    return ["loss"] + ["slope"] * slope + ["ramp"] * ramp


def _draw_loss(ax: Axes, curve: DrawnCurve, found: Suggestion | None, raw: bool) -> None:
    if len(curve.rates) or not curve.probes:
        _draw_line(ax, curve, raw)
    if points := curve.validation():
        ax.plot(
            *zip(*points, strict=True),
            color=GREEN,
            ls="--",
            lw=1.6,
            marker="s",
            ms=3.5,
            label="validation loss",
            zorder=4,
        )
    ax.set_ylim(*curve.frame)
    _rate_axis(ax, curve, found)
    if found is not None and (points := curve.on_average(found.landmarks)):
        ax.plot(
            curve.rates,
            curve.average,
            color=BLUE,
            lw=1.2,
            ls="--",
            label=f"average over {BANDWIDTH:g} decades to each side",
            zorder=3,
        )
        ax.plot(
            *zip(*points, strict=True),
            ls="",
            marker="o",
            ms=7,
            mfc="white",
            mec=BLUE,
            mew=1.6,
            label=", ".join(_LANDMARKS[: len(points)]),
            zorder=6,
        )
    _draw_probes(ax, curve)
    _mark_suggestion(ax, curve, found, named=True)
    ax.set_ylabel("Loss" if curve.probes else "Batch loss")


def _draw_line(ax: Axes, curve: DrawnCurve, raw: bool) -> None:
    one = len(curve.losses) == 1
    if raw:
        for row, losses in enumerate(curve.losses):
            name = "batch loss" if row == 0 else None
            ax.plot(
                curve.rates, losses, ".", color=GREY, ms=6, alpha=0.6, mew=0, label=name, zorder=2
            )
    if not one:
        for row, line in enumerate(curve.lines):
            name = "each repeat, smoothed" if row == 0 else None
            ax.plot(curve.rates, line, color=BLUE, lw=0.9, alpha=0.4, label=name, zorder=3)
    label = "smoothed" if one else f"median of {len(curve.losses)} repeats"
    ax.plot(curve.rates, curve.line, color=BLUE, lw=2.2, label=label, zorder=4)


def _draw_probes(ax: Axes, curve: DrawnCurve) -> None:
    """The short runs: the longest ones filled, the shorter ones hollow, cut-off ones on top."""
    runs = curve.measured()
    for steps in sorted({run.steps for run in runs}, reverse=True):
        longest = steps == max(run.steps for run in runs)
        same = [run for run in runs if run.steps == steps]
        ax.plot(
            [run.rate for run in same],
            [run.loss for run in same],
            ls="",
            marker="D",
            ms=7,
            mfc=PURPLE if longest else "white",
            mec="black" if longest else PURPLE,
            mew=0.7 if longest else 1.6,
            label=f"held-out loss, {steps} steps",
            zorder=7,
        )
    if curve.probe_start is not None:
        ax.axhline(
            curve.probe_start,
            color=PURPLE,
            lw=1.0,
            ls=":",
            label="held-out loss at the start",
            zorder=1.5,
        )
    if rates := curve.cut_off():
        ax.plot(
            rates,
            [0.97] * len(rates),
            ls="",
            marker="X",
            ms=8,
            mfc=PURPLE,
            mec="black",
            mew=0.7,
            label="diverged",
            transform=ax.get_xaxis_transform(),
            zorder=7,
        )


def _write_title(ax: Axes, found: Suggestion | None, refused: bool) -> None:
    outcome = ""
    if found is not None:
        outcome = f": {short(found.learning_rate)} "
        outcome += f"for {found.run}" if found.run else "suggested"
    elif refused:
        outcome = ": the curve supports no suggestion"
    legend_above(ax, "Learning-rate range test" + outcome)


def _draw_slope(ax: Axes, curve: DrawnCurve, found: Suggestion | None) -> None:
    slope = curve.slope
    ax.axhline(0, color=GREY, lw=0.8)
    ax.plot(curve.rates, slope, color=BLUE, lw=1.8, zorder=4)
    seen = slope[np.isfinite(slope)]
    if seen.size:
        low = min(float(seen.min()), 0.0)
        high = max(min(float(seen.max()), -low if low else np.inf), -0.35 * low)
        pad = 0.08 * (high - low) or 1.0
        ax.set_ylim(low - pad, high + pad)
    _rate_axis(ax, curve, found)
    _mark_suggestion(ax, curve, found, named=False)
    ax.set_ylabel("Slope\n(loss per ln rate)")


def _draw_ramp(ax: Axes, curve: DrawnCurve, found: Suggestion | None) -> None:
    ax.plot(np.arange(len(curve.rates)), curve.rates, color=BLUE, lw=1.8, zorder=4)
    ratios = curve.rates[1:] / curve.rates[:-1]
    if ratios.size and np.allclose(ratios, ratios[0], rtol=1e-3):
        ax.set_yscale("log")
    if found is not None:
        ax.axhspan(found.low, found.high, color=VERMILION, alpha=0.15, lw=0)
        ax.axhline(found.learning_rate, color=VERMILION, lw=1.6)
    ax.margins(x=0.01)
    draw_grid(ax)
    ax.set_xlabel(STEP_LABEL)
    ax.set_ylabel("Learning rate" + ("\n(log scale)" if ax.get_yscale() == "log" else ""))


def _rate_axis(ax: Axes, curve: DrawnCurve, found: Suggestion | None) -> None:
    """The logarithmic axis that two panels share, with the diverging part shaded."""
    log_rates(ax)
    if curve.rate_range is None:
        ax.set_xlim(1e-7, 10.0)
        ax.text(
            *(0.5, 0.5, "no finite loss was recorded"),
            transform=ax.transAxes,
            ha="center",
            va="center",
        )
    else:
        ends = [*curve.rate_range, *((found.low, found.high) if found else ())]
        low, high = min(ends), max(ends)
        margin = (high / low) ** 0.02 if high > low else 2.0
        ax.set_xlim(low / margin, high * margin)
    if curve.diverges_at is not None:
        ax.axvspan(
            curve.diverges_at,
            ax.get_xlim()[1],
            facecolor=SHADE,
            edgecolor="#C8C8C8",
            hatch="//",
            lw=0,
            label="diverges",
            zorder=0,
        )
    draw_grid(ax)
    ax.set_xlabel(RATE_LABEL)


def _mark_suggestion(ax: Axes, curve: DrawnCurve, found: Suggestion | None, named: bool) -> None:
    if found is None:
        return
    shade_interval(ax, found.low, found.high)
    ax.axvline(found.learning_rate, color=VERMILION, lw=1.8, zorder=5)
    if not named:
        return
    left, right = np.log(ax.get_xlim())
    where = (np.log(found.learning_rate) - left) / (right - left)
    ax.annotate(
        f"{short(found.learning_rate)} ({found.method})",
        (found.learning_rate, 1.0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-5 if where > 0.4 else 5, -16 if curve.cut_off() else -4),  # below the crosses
        textcoords="offset points",
        ha="right" if where > 0.4 else "left",
        va="top",
        color="#A64800",
        fontweight="bold",
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0},
        zorder=7,
    )
