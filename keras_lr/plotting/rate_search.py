"""The pictures of a search: what each rate came to, and how it got there."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._util.terminal import visible
from keras_lr.plotting._axes import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RATE_LABEL,
    VERMILION,
    axes_for,
    labelled_once,
    legend_above,
    no_formula,
    save,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_lr.rate_search.plan import Outcome, Round, Score, Setting
    from keras_lr.rate_search.result import Search

__all__ = [
    "curve_panels",
    "described_round",
    "described_variant",
    "objective_label",
    "plot_search",
    "plot_search_curves",
    "plot_search_rates",
    "save_search_plot",
    "varied",
]

_NO_METRICS = {"loss", "learning_rate", "lr", "momentum"}
_COLOURS = (BLUE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")  # of the variants of a round
_MARKERS = "osD^vP"
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
_LIGHTEST = 0.8  # of viridis: what is lighter cannot be seen on white
_LOG_FROM = 10**1.5  # a range of losses is drawn on a logarithmic axis above this ratio
_EDGE = 0.965  # of the height: where marks of what has no place in the picture stand
_WORDS = {"batch_size": "batch size", "warmup": "warm-up"}
_HINT = "A second metric is drawn where the logs have one."


def plot_search(
    search: Search,
    axes: Axes | Sequence[Axes] | None = None,
    *,
    round: str | None = None,
    metric: str | None = None,
) -> Axes | tuple[Axes, ...]:
    """Draw a search: the objective against the rate, and the curves of one round under it.

    Args:
        search: The `Search` to draw.
        axes: Where to draw. `None` makes a new pyplot figure. One `Axes` takes the objective
            alone; a sequence takes the panels in the order objective, training loss, validation
            loss, and training and validation of the second metric, as many as it has.
        round: The round whose curves are drawn; by default the first, where rates differ most.
        metric: The second metric, without `val_`; by default that of the objective, or else
            the first that is an accuracy, or the first.

    Returns:
        The axes drawn in: the one `Axes` if there is one, a tuple of them otherwise.

    Raises:
        ValueError: If `axes` is a sequence of more axes than there are panels, or of none; or if
            the search has no such round or metric.

    >>> from keras_lr.rate_search.plan import Answer, Setting
    >>> from keras_lr.rate_search.result import Search
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> axes = plot_search(Search(answer, [], "val_loss", False))
    >>> [panel.get_title(loc="left") for panel in axes]
    ['Learning-rate search: 1.0e-2', 'Training loss', 'Validation loss']
    """
    curves = _Curves(search, round, metric)
    targets = axes_for(axes, ["objective", *curves.panels], _HINT, _in_rows)
    _draw_rates(search, targets[0])
    curves.draw(targets[1:])
    return targets if len(targets) > 1 else targets[0]


def plot_search_rates(search: Search, ax: Axes | None = None) -> Axes:
    """Draw what each rate came to: the objective against the rate, over all rounds.

    The round that gave the answer is drawn in colour, with the mean and the standard deviation
    over the seeds and a point for each seed; the others, which may have trained on less of the
    data, in grey. Rates that diverged stand at the edge. The answer and its interval are marked,
    and so is what the range test had suggested.

    The view holds what the rates of a round usually come to; the few that are far worse are
    marked at the edge.

    Args:
        search: The `Search` to draw.
        ax: Where to draw. `None` makes a new pyplot figure.

    Returns:
        The axes drawn in.

    >>> from keras_lr.rate_search.plan import Answer, Setting
    >>> from keras_lr.rate_search.result import Search
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> plot_search_rates(Search(answer, [], "val_loss", False)).get_ylabel()
    'Validation loss'
    """
    (target,) = axes_for(ax, ["objective"], "", _in_rows)
    _draw_rates(search, target)
    return target


def plot_search_curves(
    search: Search,
    axes: Axes | Sequence[Axes] | None = None,
    *,
    round: str | None = None,
    metric: str | None = None,
) -> Axes | tuple[Axes, ...]:
    """Draw the epochs of every run of a round over each other, coloured by their rate.

    The best rate of the round is drawn thick. A run that diverged ends in a cross, one that was
    stopped because others were better in an open square. Accuracies are drawn as the error they
    leave. Training and validation have the same vertical axis.

    Args:
        search: The `Search` to draw.
        axes: Where to draw. `None` makes a new pyplot figure. One `Axes` takes the training
            loss alone; a sequence takes the panels in the order training loss, validation loss,
            and training and validation of the second metric, as many as it has.
        round: The round; by default the first, where rates differ most.
        metric: The second metric, as in `plot_search`.

    Returns:
        The axes drawn in: the one `Axes` if there is one, a tuple of them otherwise.

    Raises:
        ValueError: If `axes` is a sequence of more axes than there are panels, or of none; or if
            the search has no such round or metric.

    >>> from keras_lr.rate_search.plan import Answer, Setting
    >>> from keras_lr.rate_search.result import Search
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> axes = plot_search_curves(Search(answer, [], "val_loss", False))
    >>> [panel.get_ylabel() for panel in axes]
    ['Loss', 'Loss']
    """
    curves = _Curves(search, round, metric)
    targets = axes_for(axes, curves.panels, _HINT, _in_rows)
    curves.draw(targets)
    return labelled_once(targets)


def save_search_plot(
    search: Search, path: str | os.PathLike[str], *, dpi: int = 120, **options: Any
) -> None:
    """Write the picture of `plot_search` to a file, without touching pyplot.

    The file appears whole or not at all.

    Args:
        search: The `Search` to draw.
        path: The file; its ending names the format (`.png`, `.svg`, `.pdf`, ...).
        dpi: Pixels per inch of a bitmap.
        options: As in `plot_search`, without `axes`.

    Raises:
        ValueError: If matplotlib cannot write a format of that name; or as in `plot_search`.
        OSError: If the folder cannot be written.
    """
    panels = _Curves(search, options.get("round"), options.get("metric")).panels
    draw: Callable[[Any], Any] = lambda axes: plot_search(search, axes, **options)  # noqa: E731
    save(path, dpi, ["objective", *panels], draw, _in_rows)


def curve_panels(search: Search) -> list[str]:
    """The panels that `plot_search_curves` draws of any round."""
    return _Curves(search, None, None).panels


def described_round(each: Round) -> str:
    """Its name, and how much of the data it trained on.

    >>> from keras_lr.rate_search.plan import Round
    >>> described_round(Round("fine 1", 0.5, 10.0, [], [], False))
    'fine 1 (50 % of data)'
    """
    return f"{_WORDS.get(each.name, each.name)} ({_share(each.fraction)})"


def described_variant(setting: Setting, fields: Iterable[str]) -> str:
    """These fields of a setting, for people.

    >>> from keras_lr.rate_search.plan import Setting
    >>> described_variant(Setting(0.1, 0.9, warmup=0.05), ["momentum", "warmup", "policy"])
    'momentum 0.9, warm-up 5 %, constant'
    """
    told = {
        "momentum": "momentum as compiled"
        if setting.momentum is None
        else f"momentum {setting.momentum:g}",
        "batch_size": f"batch size {setting.batch_size or 'of the data'}",
        "warmup": f"warm-up {100 * setting.warmup:g} %" if setting.warmup else "no warm-up",
        "policy": setting.policy,
    }
    return ", ".join(told[name] for name in fields)


def varied(settings: Iterable[Setting]) -> list[str]:
    """The fields besides the rate in which settings differ."""
    different = list(settings)
    names = ("momentum", "batch_size", "warmup", "policy")
    return [name for name in names if len({getattr(each, name) for each in different}) > 1]


def objective_label(search: Search) -> str:
    """The objective for people, and which way is better if that is up."""
    name = visible(search.objective)
    kind = "Validation" if name.startswith("val_") else "Training"
    label = f"{kind} {name.removeprefix('val_').replace('_', ' ')}"
    return label + "\n(higher is better)" * search.maximize


def _in_rows(figure: Figure, panels: Sequence[str]) -> tuple[Axes, ...]:
    """The objective over the whole width; training left of validation under it."""
    wide = [panel for panel in panels if panel == "objective"]
    pairs = [panel for panel in panels if panel != "objective"]
    rows = len(wide) + len(pairs) // 2
    figure.set_size_inches(9.6 if pairs else 7.0, 4.4 * len(wide) + 1.6 * len(pairs))
    grid = figure.add_gridspec(rows, 2, height_ratios=[1.3] * len(wide) + [1.0] * (len(pairs) // 2))
    axes = [figure.add_subplot(grid[0, :]) for _ in wide]
    for place in range(len(pairs)):
        axes.append(figure.add_subplot(grid[len(wide) + place // 2, place % 2]))
    return tuple(axes)


@dataclass(frozen=True)
class _View:
    """What of the vertical axis is shown."""

    low: float
    high: float
    logarithmic: bool

    @staticmethod
    def of(
        groups: Iterable[Iterable[float]], wanted: Iterable[float] = (), reach: float = 3.0
    ) -> _View:
        """From the lowest value up to what is usual.

        `reach` times as far up as the middle of a group is still shown; of what lies above, only
        what is `wanted`.
        """
        finite = [[v for v in group if math.isfinite(v)] for group in groups]
        wanted = [value for value in wanted if math.isfinite(value)]
        everything = [value for group in finite for value in group] + wanted
        if not everything:
            return _View(0.0, 1.0, False)
        low, high = min(everything), max(everything)
        middles = [float(np.median(group)) for group in finite if group]
        usual = low + reach * (max(middles, default=low) - low)
        if usual > low:
            high = min(high, max(usual, *wanted, low))
        logarithmic = low > 0 and high / low > _LOG_FROM
        if high == low:
            return _View(low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10, False)
        return _View(low, high, logarithmic)

    def show(self, ax: Axes, flipped: bool = False) -> None:
        if self.logarithmic:
            ax.set_yscale("log")
            room = (self.high / self.low) ** 0.06
            ax.set_ylim(self.low / room, self.high * room)
        else:
            room = 0.07 * (self.high - self.low)
            ends = (self.low - room, self.high + room)
            ax.set_ylim(*(-end for end in reversed(ends)) if flipped else ends)


def _draw_rates(search: Search, ax: Axes) -> None:
    focus = _named(search, search.answer.round)
    settings = [job.setting for each in search.rounds for job in each.jobs]
    fields = varied([search.setting, *settings])
    sign = -1.0 if search.maximize else 1.0
    view = _view_of_rates(search, focus, sign)
    beyond: list[float] = []
    for place, each in enumerate(search.rounds):
        if each is not focus:
            beyond += _draw_round(ax, each, None, place, view, sign)
    if focus is not None:
        beyond += _draw_round(ax, focus, _COLOURS, 0, view, sign)
    _mark_edge(ax, beyond, "v" if search.maximize else "^", GREY, "beyond the picture", sign)
    _mark_stopped(ax, search, focus, view, sign)
    _mark_answer(ax, search)
    _rate_axis(ax, [setting.learning_rate for setting in settings], search)
    label = no_formula(objective_label(search))
    ax.set_ylabel(label)
    view.show(ax, flipped=search.maximize)
    if view.logarithmic:
        ax.set_ylabel(f"{label}\n(log scale)")
    found = [short(search.learning_rate)]
    if fields:
        found.append(described_variant(search.setting, fields))
    unsure = "" if search.answer.finished else " (not finished)"
    rounds = [described_round(focus)] if focus is not None else []
    legend_above(
        ax,
        f"Learning-rate search: {', '.join(found)}{unsure}",
        first=["answer", "interval", "range test", *rounds, "each seed"],
        last=["stopped early", "diverged", "beyond the picture"],
    )


def _view_of_rates(search: Search, focus: Round | None, sign: float) -> _View:
    groups = [
        [sign * s.mean for s in each.scores if s.ended == "finished"] for each in search.rounds
    ]
    wanted = []
    if focus is not None:
        wanted = [sign * o.value for o in focus.outcomes if o.ended == "finished"]
        for score in focus.scores:
            if score.ended == "finished" and math.isfinite(score.spread):
                wanted += [sign * score.mean - score.spread, sign * score.mean + score.spread]
    view = _View.of(groups, wanted)
    return view if sign > 0 else _View(view.low, view.high, False)


def _draw_round(
    ax: Axes,
    each: Round,
    colours: Sequence[str] | None,
    place: int,
    view: _View,
    sign: float,
) -> list[float]:
    """The means of a round, a line for each variant; gives back the rates beyond the view."""
    variants = list(dict.fromkeys(job.setting.variant for job in each.jobs))
    name = described_round(each)
    beyond: list[float] = []
    for index, variant in enumerate(variants):
        colour = GREY if colours is None else colours[index % len(colours)]
        look: dict[str, Any] = {
            "color": colour,
            "marker": _MARKERS[(place + index) % len(_MARKERS)],
            "ls": _STYLES[index % len(_STYLES)],
            "ms": 4 if colours is None else 6,
            "lw": 1.0 if colours is None else 1.8,
            "alpha": 0.6 if colours is None else 1.0,
            "zorder": 2.5 if colours is None else 4,
        }
        label = name
        if len(variants) > 1:
            label = described_variant(variant, varied(variants))
            topic = _WORDS.get(each.name, each.name)
            label = label if topic in label else f"{topic}: {label}"
        scores = [s for s in each.scores if s.setting.variant == variant and s.ended == "finished"]
        scores.sort(key=lambda score: score.setting.learning_rate)
        shown = [score for score in scores if sign * score.mean <= view.high]
        beyond += [score.setting.learning_rate for score in scores if score not in shown]
        if scores:
            _draw_means(ax, scores, label, look, seeds=colours is not None)
        runs = [o for o in each.outcomes if o.job.setting.variant == variant]
        if colours is not None and any(job.seed != each.jobs[0].seed for job in each.jobs):
            points = [o for o in runs if o.ended == "finished"]
            ax.plot(
                [o.job.setting.learning_rate for o in points],
                [o.value for o in points],
                ls="",
                marker="_",
                ms=9,
                color=colour,
                alpha=0.7,
                label="each seed" if index == 0 else None,
                zorder=3.5,
            )
        diverged = {o.job.setting.learning_rate for o in runs if o.ended == "diverged"}
        _mark_edge(ax, sorted(diverged), "X", colour, "diverged", sign)
    return beyond


def _draw_means(
    ax: Axes, scores: list[Score], label: str, look: dict[str, Any], seeds: bool
) -> None:
    rates = [score.setting.learning_rate for score in scores]
    means = [score.mean for score in scores]
    if not (seeds and any(math.isfinite(score.spread) for score in scores)):
        ax.plot(rates, means, label=label, **look)
        return
    spreads = [score.spread if math.isfinite(score.spread) else 0.0 for score in scores]
    label += ", mean and spread"
    ax.errorbar(rates, means, yerr=spreads, capsize=4, elinewidth=1.4, label=label, **look)


def _mark_edge(
    ax: Axes, rates: Sequence[float], marker: str, colour: str, name: str, sign: float
) -> None:
    """At the worse end of the axis stands what has no value, or one far away."""
    if not rates:
        return
    known = name in ax.get_legend_handles_labels()[1]
    ax.plot(
        rates,
        [_EDGE if sign > 0 else 1 - _EDGE] * len(rates),
        ls="",
        marker=marker,
        ms=8,
        mfc=colour,
        mec="black",
        mew=0.7,
        label=None if known else name,
        transform=ax.get_xaxis_transform(),
        clip_on=False,
        zorder=6,
    )


def _mark_stopped(ax: Axes, search: Search, focus: Round | None, view: _View, sign: float) -> None:
    """Runs that were stopped, at the value they had then, or at the edge if that is far away."""
    name: str | None = "stopped early"
    for each in search.rounds:
        stopped = [o for o in each.outcomes if o.ended == "behind" and math.isfinite(o.value)]
        if stopped:
            ax.plot(
                [o.job.setting.learning_rate for o in stopped],
                [sign * min(sign * o.value, view.high) for o in stopped],
                ls="",
                marker="s",
                ms=6,
                mfc="white",
                mec=BLUE if each is focus else GREY,
                mew=1.4,
                label=name,
                zorder=3,
            )
            name = None


def _mark_answer(ax: Axes, search: Search) -> None:
    if search.high > search.low:
        ax.axvspan(
            search.low,
            search.high,
            color=VERMILION,
            alpha=0.15,
            lw=0,
            label=f"interval {short(search.low)} to {short(search.high)}",
            zorder=1,
        )
    ax.axvline(
        search.learning_rate,
        color=VERMILION,
        lw=1.8,
        label=f"answer {short(search.learning_rate)}",
        zorder=2,
    )
    suggestion = _suggested(search)
    if suggestion is not None:
        ax.axvline(
            suggestion,
            color="black",
            ls=(0, (4, 3)),
            lw=1.4,
            label=f"range test suggests {short(suggestion)}",
            zorder=2,
        )


def _rate_axis(ax: Axes, rates: list[float], search: Search) -> None:
    marked = [search.low, search.high, search.learning_rate]
    suggestion = _suggested(search)
    everything = [*rates, *marked, *([] if suggestion is None else [suggestion])]
    low, high = min(everything), max(everything)
    margin = (high / low) ** 0.04 if high > low else 2.0
    ax.set_xscale("log")
    ax.set_xlim(low / margin, high * margin)
    ax.set_xlabel(RATE_LABEL)
    _grid(ax)


def _suggested(search: Search) -> float | None:
    found = (search.range_test or {}).get("suggestion")
    return None if found is None else float(found)


class _Curves:
    """The panels of one round, and what they share."""

    def __init__(self, search: Search, name: str | None, metric: str | None) -> None:
        if name is None:
            self.round = search.rounds[0] if search.rounds else None
        else:
            self.round = _named(search, name)
            if self.round is None:
                names = ", ".join(each.name for each in search.rounds) or "none"
                raise ValueError(
                    f"round must be a round of the search; got {name!r}. They are: {names}."
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
        self.styles = {each: _STYLES[i % len(_STYLES)] for i, each in enumerate(variants)}

    def draw(self, axes: Sequence[Axes]) -> None:
        keys = [(q, prefix) for q in self.quantities for prefix in ("", "val_")]
        for ax, name, (quantity, prefix) in zip(axes, self.panels, keys, strict=False):
            self._draw_panel(ax, name, quantity, prefix)
        legends = {}
        for ax in axes[:2]:  # beside validation, where that stands beside training
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
                zorder=2.5 if best else 3,  # thick, so it goes under its neighbours
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
        _grid(ax)

    def _mark_end(
        self,
        ax: Axes,
        run: Outcome,
        values: np.ndarray,
        view: _View,
        ends: dict[tuple[float, float], int],
    ) -> None:
        """Where a run ended that did not finish; beside those that ended there before it."""
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

    def _view(self, quantity: _Quantity) -> _View:
        """The same for training and validation: what the runs that did not diverge go through.

        The first epochs may begin above it, so that the last ones can be told apart; every run
        that finished ends within it.
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
        return _View.of([seen], ends, reach=5.0)

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
                label = described_variant(variant, self.fields)
                handles.append(Line2D([], [], color="black", ls=style, lw=1.3, label=label))
        ends = {run.ended for run in self.runs}
        cross: dict[str, Any] = {"marker": "X", "ms": 8, "mfc": GREY, "mec": "black", "mew": 0.7}
        square: dict[str, Any] = {"marker": "s", "ms": 6, "mfc": "white", "mec": GREY, "mew": 1.4}
        if "diverged" in ends:
            handles.append(Line2D([], [], ls="", label="diverged", **cross))
        if "behind" in ends:
            handles.append(Line2D([], [], ls="", label="stopped early", **square))
        share = _share(self.round.fraction)
        legend = ax.legend(
            handles=handles,
            title=f"Round: {_WORDS.get(self.round.name, self.round.name)}\n{share}\nLearning rate:",
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
    """An entry of the logs as it is drawn: an accuracy as the error it leaves."""

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
    """The metric that is drawn beside the loss, or None where the logs have no other."""
    logged = [key for outcome in search.outcomes for key in outcome.history]
    names = list(dict.fromkeys(key.removeprefix("val_") for key in logged))
    names = [name for name in names if name not in _NO_METRICS]
    if metric is not None:
        if metric not in names:
            raise ValueError(
                f"metric must be in the logs beside the loss; got {metric!r}. They have: "
                f"{', '.join(names) or 'none'}."
            )
        return metric
    wanted = [name for name in names if name == search.objective.removeprefix("val_")]
    accuracies = [name for name in names if "acc" in name]
    return next(iter([*wanted, *accuracies, *names]), None)


def _is_share(search: Search, name: str) -> bool:
    """Whether a metric is an accuracy: called so, and never outside 0 to 1."""
    keys = (name, f"val_{name}")
    values = [v for o in search.outcomes for key in keys for v in o.history.get(key, [])]
    return "acc" in name and all(0 <= v <= 1 for v in values if math.isfinite(v))


def _ordered_colours(count: int) -> list[Any]:
    import matplotlib

    steps = [_LIGHTEST / 2] if count == 1 else np.linspace(0.0, _LIGHTEST, count)
    return [matplotlib.colormaps["viridis"](step) for step in steps]


def _named(search: Search, name: str) -> Round | None:
    return next((each for each in search.rounds if each.name == name), None)


def _share(fraction: float) -> str:
    return "all data" if fraction >= 1 else f"{100 * fraction:.2g} % of data"


def _grid(ax: Axes) -> None:
    ax.grid(True, color="#DDDDDD", lw=0.6, zorder=0.5)
    ax.set_axisbelow(True)
