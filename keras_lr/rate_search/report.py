"""A search as one HTML file without network access and without scripts."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

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
    from keras_lr.rate_search.result import Search
    from keras_lr.rate_search.rounds import Round

__all__ = ["write_report"]

_NOTHING = "–"
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
    name = _plain(search.provenance.get("file") or search.provenance.get("model", ""))
    page = _PAGE.substitute(
        title=_text("Learning-rate search" + (f": {name}" if name else "")),
        answer=_answer(search),
        pictures=_pictures(search),
        tables="\n".join(_table(search, each) for each in search.rounds),
        settings=_pairs("Settings", _without(search.settings, "command")),
        provenance=_pairs("Environment", search.provenance),
        again=_again(search),
    )
    return atomic_write(path, page)


def _answer(search: Search) -> str:
    answer = search.answer
    beside = describe_setting(search.setting, varied_in(search))
    kind = "Learning rate" if search.setting.policy == "constant" else "Largest learning rate"
    value = _number(answer.mean)
    if math.isfinite(answer.spread):
        value += f" ± {_number(answer.spread, 2)} over the seeds"
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
    warnings = "".join(f"<li>{_text(each)}</li>" for each in search.warnings)
    return (
        f'<p class="answer">{kind} <strong>{short(search.learning_rate)}</strong>'
        + (f'<br><span class="beside">{_text(beside)}</span>' if beside else "")
        + "</p>"
        + _list(facts)
        + (f'<ul class="warnings" aria-label="Warnings">{warnings}</ul>' if warnings else "")
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


def _pictures(search: Search) -> str:
    from matplotlib.figure import Figure

    from keras_lr.plotting import plot_search_curves, plot_search_rates
    from keras_lr.plotting.rate_search import curve_panels

    def figure(size: tuple[float, float]) -> Any:
        return Figure(figsize=size, layout="constrained")

    rates = figure(_RATES_SIZE)
    plot_search_rates(search, rates.subplots())
    about = f"{_objective(search)} against the learning rate"
    parts = [f'<div class="wide">{_image(rates, about)}</div>']
    for each in search.rounds:
        if not each.outcomes:
            continue
        names = curve_panels(search)
        figures = [figure(_CURVES_SIZE) for _ in names]
        plot_search_curves(search, [one.subplots() for one in figures], round=each.name)
        title = f"{describe_round(each)}: curves"
        images = [
            _image(one, f"{name} per epoch, {each.name} round")
            for name, one in zip(names, figures, strict=True)
        ]
        parts.append(
            f'<h3>{_text(_capital(title))}</h3>\n<div class="pairs">{"".join(images)}</div>'
        )
    return "\n".join(parts)


def _image(figure: Any, about: str) -> str:
    """A plot as an image of its own, so that identifiers inside do not collide."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "keras-lr", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{_text(_capital(about))}" src="data:image/svg+xml;base64,{data}">'


def _table(search: Search, each: Round) -> str:
    fields = varied_in(search)
    heads = [
        "Learning rate",
        *(_capital(name_of(name)) for name in fields),
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
            "diverged" if diverged else _number(row["value"]),
            _number(row["spread"], 2),
            str(row["runs"]),
            ENDINGS[row["ended"]],
            str(row["epochs"]),
            describe_seconds(row["seconds"]),
        ]
        kind = ' class="best"' if row["best"] else f' class="{row["ended"]}"'
        first, *others = (_text(cell) for cell in cells)
        data = "".join(f"<td>{cell}</td>" for cell in others)
        rows.append(f'<tr{kind}><th scope="row">{first}</th>{data}</tr>')
    done = f"{len(each.outcomes)} of {len(each.jobs)} runs have ended"
    title = _text(_capital(f"{describe_round(each)}: {done}"))
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    return (
        f"<h3>{title}</h3>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _again(search: Search) -> str:
    parts = []
    command = search.settings.get("command")
    if command:
        parts.append(_code("Repeat the search:", _command_line(command)))
    parts.append(_code("Train with the answer:", search.python()))
    if search.study:
        parts.append(_list({"Study": search.study, "Storage": search.storage or _NOTHING}))
    url = _storage_url(search.storage)
    if url is not None:
        lines = f"pip install optuna-dashboard\noptuna-dashboard {shlex.quote(url)}"
        hidden = " (replace *** with the password)" if "***" in url else ""
        parts.append(_code(f"See all runs in Optuna's dashboard{hidden}:", lines))
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


def _pairs(title: str, pairs: Mapping[str, Any]) -> str:
    if not pairs:
        return ""
    shown = {str(name).replace("_", " "): _plain(value) for name, value in pairs.items()}
    return f"<section><h2>{_text(title)}</h2>{_list(shown)}</section>"


def _list(pairs: Mapping[str, str]) -> str:
    rows = (f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs.items())
    return f"<dl>{''.join(rows)}</dl>"


def _code(title: str, text: str) -> str:
    return f'<p>{_text(title)}</p><pre tabindex="0"><code>{_text(text)}</code></pre>'


def _plain(value: Any) -> str:
    """A value of the settings as text, without quotes and braces."""
    if value is None or value == "":
        return _NOTHING if value is None else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items()) or _NOTHING
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return ", ".join(_plain(each) for each in value) or _NOTHING
    return value if isinstance(value, str) else json.dumps(value, default=str).strip('"')


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else _NOTHING


def _without(pairs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in pairs.items() if name not in names}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(text: str) -> str:
    return html.escape(str(text))


_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="keras-lr">
<title>$title</title>
<style>
:root { color-scheme: light dark;
  --line: #d0d0d0; --soft: #f4f4f4; --best: #fbe6d8; --mute: #5c5c5c; }
@media (prefers-color-scheme: dark) {
  :root { --line: #4a4a4a; --soft: #262626; --best: #4d2f1b; --mute: #b0b0b0; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
.answer { font-size: 1.15rem; margin: .5rem 0; }
.answer strong { font-size: 1.9rem; margin-left: .3rem; }
.beside { color: var(--mute); }
dl { display: grid; grid-template-columns: fit-content(45%) 1fr; gap: .15rem 1rem;
  margin: .5rem 0; }
dt { color: var(--mute); }
dd { margin: 0; }
.warnings { border-left: 4px solid #d55e00; background: var(--best); margin: 1rem 0;
  padding: .6rem 1rem .6rem 2rem; }
img { display: block; width: 100%; height: auto; background: white; border-radius: 6px; }
.wide img { max-width: 42rem; }
.pairs { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.scroll { overflow-x: auto; margin: 0 0 1.4rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .55rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--soft); }
th:first-child { text-align: left; }
tbody th { font-weight: 400; }
tr.best > * { background: var(--best); font-weight: 700; }
tr.behind > *, tr.diverged > * { color: var(--mute); }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto;
  margin: .4rem 0 1rem; }
@media (max-width: 40rem) {
  table { font-size: .8rem; }
  th, td { padding: .3rem .35rem; }
  pre { white-space: pre-wrap; }
}
@media print {
  body { max-width: none; font-size: 11pt; }
  .pairs { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; }
  img, tr, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
$answer
<section><h2>Plots</h2>
$pictures
</section>
<section><h2>All settings tried</h2>
$tables
</section>
<section><h2>Next steps</h2>
$again
</section>
$settings
$provenance
</main>
</body>
</html>
""")
