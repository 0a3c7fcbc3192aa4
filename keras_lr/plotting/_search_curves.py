"""The panels of a search that show the runs of one round, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._util.terminal import visible
from keras_lr.plotting._axes import GREY, draw_grid, no_formula, short
from keras_lr.plotting._search_axes import STYLES, View, round_named
from keras_lr.rate_search.words import (
    ENDINGS,
    describe_setting,
    describe_share,
    name_of,
    varied,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_lr.rate_search.jobs import Outcome
    from keras_lr.rate_search.result import Search

__all__ = ["Curves"]

_NO_METRICS = {"loss", "learning_rate", "lr", "momentum"}
_LIGHTEST = 0.8  # of viridis; lighter colours are hard to see on white


class Curves:
    """The panels of one round."""

    def __init__(self, search: Search, name: str | None, metric: str | None) -> None:
        if name is None:
            self.round = search.rounds[0] if search.rounds else None
        else:
            self.round = round_named(search, name)
            if self.round is None:
                names = ", ".join(each.name for each in search.rounds) or "none"
                raise ValueError(
                    f"round must be a round of the search; got {name!r}. The rounds are: {names}."
                )
        self.runs: list[Outcome] = self.round.outcomes if self.round else []
        best = self.round.best() if self.round else None
        self.best = best.setting if best is not None and best.ended != "diverged" else None
        self.quantities = [_Quantity("loss", False)]
        second = _second(search, metric)
        if second is not None:
            self.quantities.append(_Quantity(second, _is_share(search, second)))
        self.panels = [
            f"{kind} {quantity.short}"
            for quantity in self.quantities
            for kind in ("training", "validation")
        ]
        rates = sorted({run.job.setting.learning_rate for run in self.runs})
        self.colours = dict(zip(rates, _ordered_colours(len(rates)), strict=True))
        jobs = self.round.jobs if self.round else []
        variants = list(dict.fromkeys(job.setting.variant for job in jobs))
        self.fields = varied(variants)
        self.styles = {each: STYLES[i % len(STYLES)] for i, each in enumerate(variants)}

    def draw(self, axes: Sequence[Axes]) -> None:
        keys = [(q, prefix) for q in self.quantities for prefix in ("", "val_")]
        for ax, name, (quantity, prefix) in zip(axes, self.panels, keys, strict=False):
            self._draw_panel(ax, name, quantity, prefix)
        legends = {}
        for ax in axes[:2]:  # on the right of validation, which is on the right of training
            legends[ax.figure] = ax
        for ax in axes[2:]:
            legends.setdefault(ax.figure, ax)
        for ax in legends.values():
            self._legend(ax)

    def _draw_panel(self, ax: Axes, name: str, quantity: _Quantity, prefix: str) -> None:
        from matplotlib.ticker import MaxNLocator

        view = self._view(quantity)
        longest = max([run.job.epochs for run in self.runs], default=1)
        ends: dict[tuple[float, float], int] = {}
        for run in self.runs:
            values = quantity.of(run.history.get(prefix + quantity.name, []))
            setting = run.job.setting
            colour, best = self.colours[setting.learning_rate], setting == self.best
            longest = max(longest, len(values))
            ax.plot(
                np.arange(1, len(values) + 1),
                values,
                color=colour,
                ls=self.styles[setting.variant],
                lw=3.6 if best else 1.3,
                marker="." if len(values) <= 20 and not best or len(values) == 1 else "",
                ms=9 if best else 4,
                zorder=2.5 if best else 3,  # thick, so it is below its neighbours
            )
            if run.ended != "finished":
                self._mark_end(ax, run, values, view, ends)
        if not self.runs:
            ax.text(
                *(0.5, 0.5, "no run has ended"), transform=ax.transAxes, ha="center", va="center"
            )
        view.show(ax)
        ax.set_title(no_formula(name.capitalize()), loc="left", fontsize=11)
        ax.set_ylabel(no_formula(quantity.label) + ("\n(log scale)" if view.logarithmic else ""))
        ax.set_xlabel("Epoch")
        room = 0.03 * longest if longest > 1 else 0.5
        ax.set_xlim(1 - room, longest + room)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        draw_grid(ax)

    def _mark_end(
        self,
        ax: Axes,
        run: Outcome,
        values: np.ndarray,
        view: View,
        ends: dict[tuple[float, float], int],
    ) -> None:
        """Mark the end of a run that did not finish; side by side if several end there."""
        from matplotlib.transforms import ScaledTranslation

        last = float(values[-1]) if len(values) else math.nan
        place = max(len(values), 1), min(last, view.high) if math.isfinite(last) else view.high
        before = ends[place] = ends.get(place, -1) + 1
        points = 7 * before / 72
        colour, diverged = self.colours[run.job.setting.learning_rate], run.ended == "diverged"
        ax.plot(
            *([each] for each in place),
            ls="",
            marker="X" if diverged else "s",
            ms=8 if diverged else 6,
            mfc=colour if diverged else "white",
            mec="black" if diverged else colour,
            mew=0.7 if diverged else 1.4,
            transform=ax.transData + ScaledTranslation(points, 0, ax.figure.dpi_scale_trans),
            clip_on=False,
            zorder=6,
        )

    def _view(self, quantity: _Quantity) -> View:
        """The same range for training and validation: the values of runs that did not diverge.

        First epochs may be above the range, so that the last ones can be distinguished. The last
        value of each finished run is inside.
        """
        calm = [run for run in self.runs if run.ended != "diverged"] or self.runs
        seen: list[float] = []
        ends: list[float] = []
        for run in calm:
            for key in (quantity.name, f"val_{quantity.name}"):
                values = quantity.of(run.history.get(key, []))
                values = values[np.isfinite(values)]
                seen += values.tolist()
                if run.ended == "finished":
                    ends += values[-1:].tolist()
        return View.of([seen], ends, extent=5.0)

    def _legend(self, ax: Axes) -> None:
        from matplotlib.lines import Line2D

        if not self.runs or self.round is None:
            return
        ended: dict[float, list[str]] = {}
        for run in self.runs:
            ended.setdefault(run.job.setting.learning_rate, []).append(run.ended)
        handles = []
        for rate, colour in self.colours.items():
            best = self.best is not None and rate == self.best.learning_rate
            label = short(rate) + " (best)" * best
            if set(ended[rate]) == {"diverged"}:
                label += " diverged"
            handles.append(Line2D([], [], color=colour, lw=3.6 if best else 1.6, label=label))
        if len(self.styles) > 1:
            for variant, style in self.styles.items():
                label = describe_setting(variant, self.fields)
                handles.append(Line2D([], [], color="black", ls=style, lw=1.3, label=label))
        ends = {run.ended for run in self.runs}
        cross: dict[str, Any] = {"marker": "X", "ms": 8, "mfc": GREY, "mec": "black", "mew": 0.7}
        square: dict[str, Any] = {"marker": "s", "ms": 6, "mfc": "white", "mec": GREY, "mew": 1.4}
        if "diverged" in ends:
            handles.append(Line2D([], [], ls="", label=ENDINGS["diverged"], **cross))
        if "behind" in ends:
            handles.append(Line2D([], [], ls="", label=ENDINGS["behind"], **square))
        share = describe_share(self.round.fraction)
        legend = ax.legend(
            handles=handles,
            title=f"Round: {name_of(self.round.name)}\n{share}\nLearning rate:",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.02),
            frameon=False,
            fontsize=9,
            title_fontsize=9,
            alignment="left",
            borderaxespad=0.2,
            handlelength=1.8,
            labelspacing=0.3,
        )
        for text in legend.get_texts():
            if "(best)" in text.get_text():
                text.set_fontweight("bold")


@dataclass(frozen=True)
class _Quantity:
    """A log entry as it is drawn: an accuracy becomes an error."""

    name: str
    error: bool

    @property
    def short(self) -> str:
        return "error" if self.error else visible(self.name).replace("_", " ")

    @property
    def label(self) -> str:
        if self.error:
            return f"Classification error\n(1 − {visible(self.name)})"
        return visible(self.name).replace("_", " ").capitalize()

    def of(self, values: Sequence[float]) -> np.ndarray:
        taken = np.asarray(values, dtype=float)
        return 1.0 - taken if self.error else taken


def _second(search: Search, metric: str | None) -> str | None:
    """The metric to draw in addition to the loss; None if the logs have none."""
    logged = [key for outcome in search.outcomes for key in outcome.history]
    names = list(dict.fromkeys(key.removeprefix("val_") for key in logged))
    names = [name for name in names if name not in _NO_METRICS]
    if metric is not None:
        if metric not in names:
            raise ValueError(
                f"metric must be in the logs, besides the loss; got {metric!r}. The logs have: "
                f"{', '.join(names) or 'none'}."
            )
        return metric
    wanted = [name for name in names if name == search.objective.removeprefix("val_")]
    accuracies = [name for name in names if "acc" in name]
    return next(iter([*wanted, *accuracies, *names]), None)


def _is_share(search: Search, name: str) -> bool:
    """Whether a metric is an accuracy: by its name, with all values in [0, 1]."""
    keys = (name, f"val_{name}")
    values = [v for o in search.outcomes for key in keys for v in o.history.get(key, [])]
    return "acc" in name and all(0 <= v <= 1 for v in values if math.isfinite(v))


def _ordered_colours(count: int) -> list[Any]:
    import matplotlib

    steps = [_LIGHTEST / 2] if count == 1 else np.linspace(0.0, _LIGHTEST, count)
    return [matplotlib.colormaps["viridis"](step) for step in steps]
