"""A search as one HTML file without network access and without scripts."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lr._util import html
from keras_lr._util.files import atomic_write, check_writable
from keras_lr._util.rates import short
from keras_lr.rate_search.words import (
    ENDINGS,
    describe_regret,
    describe_round,
    describe_seconds,
    describe_sensitivity,
    describe_setting,
    name_of,
    objective_label,
    value_of,
    varied_in,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_lr.rate_search.result import Search
    from keras_lr.rate_search.rounds import Round

__all__ = ["fragment", "write_report"]

_RATES_SIZE, _CURVES_SIZE = (5.8, 4.6), (5.2, 3.3)  # inches, so that a phone can show them
_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)


def write_report(search: Search, path: str | os.PathLike[str]) -> Path:
    """Write a search as one HTML file, whole or not at all.

    The file has the answer with its warnings, the plots of `keras_lr.plotting`, a table of every
    setting tried, how to repeat the search, its arguments, and the location of its record. Names
    from outside, such as that of the model, are escaped.

    Args:
        search: The `Search`.
        path: The file to write.

    Returns:
        `path`, as a `Path`.

    Raises:
        OSError: If it cannot be written.
    """
    check_writable(path)
    name = html.plain(search.provenance.get("file") or search.provenance.get("model", ""))
    title = "Learning-rate search" + (f": {name}" if name else "")
    parts = [
        _answer(search),
        html.section("Plots", _pictures(search)),
        html.section(
            "All settings tried", "\n".join(_table(search, each) for each in search.rounds)
        ),
        html.section("Next steps", _again(search)),
        html.facts("Settings", _without(search.settings, "command")),
        html.facts("Environment", search.provenance),
    ]
    return atomic_write(path, html.page(title, "\n".join(part for part in parts if part)))


def fragment(search: Search) -> str:
    """The picture, if matplotlib is installed, and the answer, for a notebook."""
    return html.picture(lambda: html.png(_rates_figure(search), _rates_title(search))) + _answer(
        search
    )


def _answer(search: Search) -> str:
    answer = search.answer
    beside = describe_setting(search.setting, varied_in(search))
    kind = "Learning rate" if search.setting.policy == "constant" else "Largest learning rate"
    value = html.number(answer.mean)
    if math.isfinite(answer.spread):
        value += f" ± {html.number(answer.spread, 2)} over the seeds"
    tried = answer.tried or answer.setting
    if tried != answer.setting:
        value += f", at the best rate tried, {short(tried.learning_rate)}"
    facts = {
        "Interval": f"{short(search.low)} to {short(search.high)}",
        _objective(search): value,
        "Round": answer.round + ("" if answer.finished else ", not finished"),
        "Runs": _effort(search),
    }
    if describe_regret(answer):
        facts["Interval"] += f" ({describe_regret(answer)})"
    if describe_sensitivity(answer):
        facts["Sensitivity"] = describe_sensitivity(answer)
    suggestion = (search.range_test or {}).get("suggestion")
    if search.range_test is not None:
        facts["Range test"] = (
            "no suggestion" if suggestion is None else f"suggested {short(float(suggestion))}"
        )
    return (
        f'<p class="answer">{kind} <strong>{short(search.learning_rate)}</strong>'
        + (f'<br><span class="beside">{html.escape(beside)}</span>' if beside else "")
        + "</p>"
        + html.pairs(facts)
        + html.warning_list(search.warnings)
    )


def _objective(search: Search) -> str:
    return objective_label(search).replace("\n", " ")


def _effort(search: Search) -> str:
    ended = search.outcomes
    count = {name: sum(o.ended == name for o in ended) for name in ("behind", "diverged")}
    rounds = sum(bool(each.outcomes) for each in search.rounds)
    parts = [f"{len(ended)} in {rounds} round{'s' * (rounds != 1)}"]
    parts += [f"{number} {ENDINGS[name]}" for name, number in count.items() if number]
    return ", ".join([*parts, describe_seconds(sum(o.seconds for o in ended))])


def _rates_title(search: Search) -> str:
    return f"{_objective(search)} against the learning rate"


def _rates_figure(search: Search) -> Figure:
    from matplotlib.figure import Figure

    from keras_lr.plotting import plot_search_rates

    figure = Figure(figsize=_RATES_SIZE, layout="constrained")
    plot_search_rates(search, figure.subplots())
    return figure


def _pictures(search: Search) -> str:
    from matplotlib.figure import Figure

    from keras_lr.plotting import plot_search_curves
    from keras_lr.plotting.rate_search import curve_panels

    rates = html.svg(_rates_figure(search), _rates_title(search))
    parts = [f'<div class="wide">{rates}</div>']
    for each in search.rounds:
        if not each.outcomes:
            continue
        names = curve_panels(search)
        figures = [Figure(figsize=_CURVES_SIZE, layout="constrained") for _ in names]
        plot_search_curves(search, [one.subplots() for one in figures], round=each.name)
        title = html.escape(html.capital(f"{describe_round(each)}: curves"))
        images = [
            html.svg(one, f"{name} per epoch, {each.name} round")
            for name, one in zip(names, figures, strict=True)
        ]
        parts.append(f'<h3>{title}</h3>\n<div class="pairs">{"".join(images)}</div>')
    return "\n".join(parts)


def _table(search: Search, each: Round) -> str:
    fields = varied_in(search)
    heads = [
        "Learning rate",
        *(html.capital(name_of(name)) for name in fields),
        search.objective,
        *("Spread", "Runs", "Ended", "Epochs", "Time"),
    ]
    rows = []
    for row in search.rows():
        if row["round"] != each.name:
            continue
        diverged = row["ended"] == "diverged"
        cells = [
            short(row["learning_rate"]) + " ★ best" * row["best"],
            *(value_of(name, row[name]) for name in fields),
            "diverged" if diverged else html.number(row["value"]),
            html.number(row["spread"], 2),
            str(row["runs"]),
            ENDINGS[row["ended"]],
            str(row["epochs"]),
            describe_seconds(row["seconds"]),
        ]
        rows.append(("best" if row["best"] else row["ended"], cells))
    done = f"{len(each.outcomes)} of {len(each.jobs)} runs have ended"
    title = html.capital(f"{describe_round(each)}: {done}")
    return html.table(title, heads, rows)


def _again(search: Search) -> str:
    parts = []
    command = search.settings.get("command")
    if command:
        parts.append(html.code("Repeat the search:", _command_line(command)))
    parts.append(html.code("Train with the answer:", search.python()))
    if search.study:
        parts.append(html.pairs({"Study": search.study, "Storage": search.storage or html.NOTHING}))
    url = _storage_url(search.storage)
    if url is not None:
        lines = f"pip install optuna-dashboard\noptuna-dashboard {shlex.quote(url)}"
        hidden = " (replace *** with the password)" if "***" in url else ""
        parts.append(html.code(f"See all runs in Optuna's dashboard{hidden}:", lines))
    return "\n".join(parts)


def _command_line(command: str | Sequence[Any]) -> str:
    """A command for the shell, with one option on each line.

    >>> print(_command_line(["keras-lr", "search", "a b.keras", "--seed", 0]))
    keras-lr search 'a b.keras' \\
        --seed 0
    """
    line = command if isinstance(command, str) else shlex.join(str(part) for part in command)
    with contextlib.suppress(ValueError):  # an unclosed quote
        words = shlex.split(line)
        if shlex.join(words) == line:  # otherwise it has shell syntax and stays unchanged
            rest = ((" \\\n    " if word.startswith("--") else " ", word) for word in words[1:])
            return shlex.quote(words[0]) + "".join(gap + shlex.quote(word) for gap, word in rest)
    return line


def _storage_url(storage: str) -> str | None:
    """The argument of Optuna's dashboard for a storage; None if it cannot open it.

    >>> _storage_url("runs/study.db"), _storage_url("journal:study.log")
    ('sqlite:///runs/study.db', 'study.log')
    >>> _storage_url("this process's memory"), _storage_url("JournalStorage")
    (None, None)
    """
    if storage.startswith("journal:"):
        return storage.removeprefix("journal:")
    if _URL.match(storage):
        return storage
    is_file = "." in storage or os.sep in storage
    return f"sqlite:///{storage}" if is_file else None


def _without(pairs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in pairs.items() if name not in names}
