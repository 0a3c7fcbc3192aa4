"""The picture of a range test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
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
    labelled_once,
    legend_above,
    save,
    shade_interval,
    short,
)
from keras_lr.range_test.smoothing import log_slope, median_of_repeats, smooth
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion, SuggestionWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_lr.range_test.result import RangeTest

__all__ = ["plot_range_test", "save_range_test_plot"]


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
    """Draw a range test: the loss against the learning rate, and its slope below.

    The vertical range comes from the part of the curve that did not diverge: it ends half the
    fall of the loss above the loss at the start. Higher losses leave the picture, so that a
    divergence to 1e8 does not flatten the valley.

    Args:
        test: The `RangeTest` to draw.
        ax: Where to draw. None makes a new pyplot figure; one `Axes` gets the loss alone; a
            sequence gets the panels in the order loss, slope, ramp, as many as it has.
        suggestion: Mark the suggested rate and its interval. The title says if the curve supports
            none.
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
    axes = axes_for(ax, panels, "Turn on slope or ramp for more panels.")
    curve = _Curve(test, method if suggestion else None)
    for panel, target in zip(panels, axes, strict=False):
        _DRAW[panel](target, curve, raw)
    return labelled_once(axes)


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
    panels = ["loss"] + ["slope"] * options.get("slope", True) + ["ramp"] * options.get("ramp", 0)
    return save(path, dpi, panels, lambda axes: plot_range_test(test, axes, **options))


class _Curve:
    """The numbers behind the panels: the smoothed curve, its divergence, the suggestion."""

    def __init__(self, test: RangeTest, method: str | None) -> None:
        self.test = test
        self.rates = np.asarray(test.learning_rates, dtype=float)
        self.losses = np.atleast_2d(np.asarray(test.losses, dtype=float))
        self.smoothed = [if_enough(smooth, self.rates, row) for row in self.losses]
        self.middle = median_of_repeats(self.smoothed)
        self.slope = if_enough(log_slope, self.rates, median_of_repeats(self.losses))
        self.start, self.best = _start_and_best(self.middle)
        self.noise = _noise(self.losses[0])
        self.fall = max(self.start - self.best, 3 * self.noise)
        self.diverges_at = self._divergence()
        self.suggestion: Suggestion | None = None
        self.refused = False
        if method is not None:
            with warnings.catch_warnings():
                # The caller of `suggest` gets these warnings; a picture does not repeat them.
                warnings.simplefilter("ignore", SuggestionWarning)
                try:
                    self.suggestion = test.suggest(method)
                except NoSuggestion:
                    self.refused = True

    def _divergence(self) -> float | None:
        """The rate, after the minimum, from which the loss stays above a quarter of its fall.

        Read from a median of three losses: the smoothed curve begins to climb before they do.
        """
        losses = median_of_repeats(self.losses)
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
        """Lowest and highest loss to show."""
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
                curve.rates, losses, ".", color=GREY, ms=6, alpha=0.6, mew=0, label=name, zorder=2
            )
    if not one:
        for row, smoothed in enumerate(curve.smoothed):
            name = "each repeat, smoothed" if row == 0 else None
            ax.plot(curve.rates, smoothed, color=BLUE, lw=0.9, alpha=0.4, label=name, zorder=3)
    ax.plot(
        curve.rates,
        curve.middle,
        color=BLUE,
        lw=2.2,
        label="smoothed" if one else f"median of {len(curve.losses)} repeats",
        zorder=4,
    )
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
    low, high = curve.view()
    pad = 0.06 * (high - low)
    ax.set_ylim(low - pad, high + 3 * pad)  # the room above is for the name of the suggestion
    if points := curve.candidates():
        ax.plot(
            *zip(*points, strict=True),
            ls="",
            marker="D",
            ms=7,
            mfc=PURPLE,
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
            mfc=PURPLE,
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
        outcome = f": {short(curve.suggestion.learning_rate)} suggested"
    elif curve.refused:
        outcome = ": the curve supports no suggestion"
    legend_above(ax, "Learning-rate range test" + outcome)


def _draw_slope(ax: Axes, curve: _Curve, raw: bool) -> None:
    ax.axhline(0, color=GREY, lw=0.8)
    ax.plot(curve.rates, curve.slope, color=BLUE, lw=1.8, zorder=4)
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
    ax.plot(np.arange(len(curve.rates)), curve.rates, color=BLUE, lw=1.8, zorder=4)
    ratios = curve.rates[1:] / curve.rates[:-1]
    if ratios.size and np.allclose(ratios, ratios[0], rtol=1e-3):
        ax.set_yscale("log")
    if curve.suggestion is not None:
        ax.axhspan(curve.suggestion.low, curve.suggestion.high, color=VERMILION, alpha=0.15, lw=0)
        ax.axhline(curve.suggestion.learning_rate, color=VERMILION, lw=1.6)
    ax.margins(x=0.01)
    ax.grid(True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(STEP_LABEL)
    ax.set_ylabel("Learning rate" + ("\n(log scale)" if ax.get_yscale() == "log" else ""))


_DRAW = {"loss": _draw_loss, "slope": _draw_slope, "ramp": _draw_ramp}


def _rate_axis(ax: Axes, curve: _Curve) -> None:
    """The logarithmic axis that two panels share, with the diverging part shaded."""
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
            facecolor=SHADE,
            edgecolor="#C8C8C8",
            hatch="//",
            lw=0,
            label="diverges",
            zorder=0,
        )
    ax.grid(True, color="#DDDDDD", lw=0.6, zorder=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel(RATE_LABEL)


def _mark_suggestion(ax: Axes, curve: _Curve, named: bool) -> None:
    found = curve.suggestion
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
        xytext=(-5 if where > 0.4 else 5, -4),
        textcoords="offset points",
        ha="right" if where > 0.4 else "left",
        va="top",
        color="#A64800",
        fontweight="bold",
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0},
        zorder=7,
    )


def if_enough(
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray], rates: np.ndarray, losses: np.ndarray
) -> np.ndarray:
    """`rule` of the curve; NaN if there are too few points for it."""
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
