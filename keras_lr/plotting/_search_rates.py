"""The panel of a search that shows the objective against the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_lr.plotting._axes import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RATE_LABEL,
    VERMILION,
    draw_grid,
    legend_above,
    log_rates,
    no_formula,
    shade_interval,
    short,
)
from keras_lr.plotting._search_axes import STYLES, View, round_named
from keras_lr.rate_search.words import (
    ENDINGS,
    describe_round,
    describe_setting,
    objective_label,
    varied,
    varied_in,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_lr.rate_search.result import Search
    from keras_lr.rate_search.rounds import Round, Score

__all__ = ["draw_rates"]

_COLOURS = (BLUE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")  # of the variants of a round
_MARKERS = "osD^vP"
_EDGE = 0.965  # height of the marks at the edge


def draw_rates(search: Search, ax: Axes) -> None:
    """Draw the objective of all rates and rounds, the answer and its interval."""
    focus = round_named(search, search.answer.round)
    tried = [job.setting.learning_rate for each in search.rounds for job in each.jobs]
    fields = varied_in(search)
    sign = -1.0 if search.maximize else 1.0
    view = _view_of_rates(search, focus, sign)
    beyond: list[float] = []
    for place, each in enumerate(search.rounds):
        if each is not focus:
            beyond += _draw_round(ax, each, None, place, view, sign)
    if focus is not None:
        beyond += _draw_round(ax, focus, _COLOURS, 0, view, sign)
    _mark_edge(ax, beyond, "v" if search.maximize else "^", GREY, "outside the plot", sign)
    _mark_stopped(ax, search, focus, view, sign)
    _mark_answer(ax, search)
    _rate_axis(ax, tried, search)
    label = no_formula(objective_label(search))
    ax.set_ylabel(label)
    view.show(ax, flipped=search.maximize)
    if view.logarithmic:
        ax.set_ylabel(f"{label}\n(log scale)")
    found = [short(search.learning_rate)]
    if fields:
        found.append(describe_setting(search.setting, fields))
    unsure = "" if search.answer.finished else " (not finished)"
    rounds = [describe_round(focus)] if focus is not None else []
    legend_above(
        ax,
        f"Learning-rate search: {', '.join(found)}{unsure}",
        first=["answer", "interval", "range test", *rounds, "each seed"],
        last=[ENDINGS["behind"], ENDINGS["diverged"], "outside the plot"],
    )


def _view_of_rates(search: Search, focus: Round | None, sign: float) -> View:
    groups = [
        [sign * s.mean for s in each.scores if s.ended == "finished"] for each in search.rounds
    ]
    wanted = []
    if focus is not None:
        wanted = [sign * o.value for o in focus.outcomes if o.ended == "finished"]
        for score in focus.scores:
            if score.ended == "finished" and math.isfinite(score.spread):
                below, above = _whiskers(score)
                wanted += sorted((sign * (score.mean - below), sign * (score.mean + above)))
    view = View.of(groups, wanted)
    return view if sign > 0 else View(view.low, view.high, False)


def _draw_round(
    ax: Axes,
    each: Round,
    colours: Sequence[str] | None,
    place: int,
    view: View,
    sign: float,
) -> list[float]:
    """Draw the means of a round, a line for each variant; return the rates outside the view."""
    variants = list(dict.fromkeys(job.setting.variant for job in each.jobs))
    name = describe_round(each)
    beyond: list[float] = []
    for index, variant in enumerate(variants):
        colour = GREY if colours is None else colours[index % len(colours)]
        look: dict[str, Any] = {
            "color": colour,
            "marker": _MARKERS[(place + index) % len(_MARKERS)],
            "ls": STYLES[index % len(STYLES)],
            "ms": 4 if colours is None else 6,
            "lw": 1.0 if colours is None else 1.8,
            "alpha": 0.6 if colours is None else 1.0,
            "zorder": 2.5 if colours is None else 4,
        }
        label = name
        if len(variants) > 1:
            label = describe_setting(variant, varied(variants))
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
    spreads = list(zip(*map(_whiskers, scores), strict=True))
    label += ", mean and spread"
    ax.errorbar(rates, means, yerr=spreads, capsize=4, elinewidth=1.4, label=label, **look)


def _whiskers(score: Score) -> tuple[float, float]:
    """Lengths of the whiskers below and above the mean; one of a positive mean ends at 0."""
    spread = score.spread if math.isfinite(score.spread) else 0.0
    return min(spread, score.mean) if score.mean > 0 else spread, spread


def _mark_edge(
    ax: Axes, rates: Sequence[float], marker: str, colour: str, name: str, sign: float
) -> None:
    """Mark rates at the worse end of the axis: diverged ones, or ones far outside the view."""
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


def _mark_stopped(ax: Axes, search: Search, focus: Round | None, view: View, sign: float) -> None:
    """Mark runs that were stopped early, at their last value or at the edge of the view."""
    name: str | None = ENDINGS["behind"]
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
        shade_interval(ax, search.low, search.high)
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
    log_rates(ax)
    ax.set_xlim(low / margin, high * margin)
    ax.set_xlabel(RATE_LABEL)
    draw_grid(ax)


def _suggested(search: Search) -> float | None:
    found = (search.range_test or {}).get("suggestion")
    return None if found is None else float(found)
