"""Pieces of HTML for reports and notebooks: one file without network access and without scripts."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "capital",
    "code",
    "escape",
    "facts",
    "number",
    "page",
    "pairs",
    "picture",
    "plain",
    "png",
    "section",
    "svg",
    "table",
    "warning_list",
]

NOTHING = "–"


def page(title: str, body: str) -> str:
    """A whole HTML file: light and dark, on paper and on a phone."""
    return _PAGE.substitute(title=escape(title), body=body)


def section(title: str, body: str) -> str:
    """A part of a page under a heading; "" without a body."""
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def png(figure: Figure, about: str, dpi: int = 90) -> str:
    """A plot as a bitmap: small, even with thousands of points, and shown by every notebook."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return _image(file.getvalue(), "png", about)


def svg(figure: Figure, about: str) -> str:
    """A plot as an image of its own, so that identifiers inside do not collide."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "keras-lr", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _image(file.getvalue(), "svg+xml", about)


def picture(draw: Callable[[], str]) -> str:
    """What `draw` returns; "" if matplotlib is not installed, so that a notebook shows the text."""
    try:
        return draw()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return ""


def _image(data: bytes, kind: str, about: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(capital(about))}" src="data:image/{kind};base64,{encoded}">'


def table(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table that scrolls on a narrow screen.

    Args:
        title: What it shows, above it.
        heads: The names of the columns.
        rows: The class of each row, "" for none, and its cells.
    """
    lines = []
    for kind, cells in rows:
        first, *others = (escape(cell) for cell in cells)
        data = "".join(f"<td>{cell}</td>" for cell in others)
        named = f' class="{escape(kind)}"' if kind else ""
        lines.append(f'<tr{named}><th scope="row">{first}</th>{data}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        f"<h3>{escape(title)}</h3>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{chr(10).join(lines)}</tbody></table></div>"
    )


def warning_list(warnings: Sequence[str]) -> str:
    """Warnings, set off from the text; "" if there are none."""
    items = "".join(f"<li><b>Warning:</b> {escape(each)}</li>" for each in warnings)
    return f'<ul class="warnings" aria-label="Warnings">{items}</ul>' if items else ""


def facts(title: str, values: Mapping[str, Any]) -> str:
    """A section with the values of settings by their names; "" if there are none."""
    shown = {str(name).replace("_", " "): plain(value) for name, value in values.items()}
    return section(title, pairs(shown)) if shown else ""


def pairs(values: Mapping[str, str]) -> str:
    """Names and values below each other."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f"<dl>{''.join(rows)}</dl>"


def code(title: str, text: str) -> str:
    """Lines to copy."""
    return f'<p>{escape(title)}</p><pre tabindex="0"><code>{escape(text)}</code></pre>'


def plain(value: Any) -> str:
    """A value of the settings as text, without quotes and braces."""
    if value is None or value == "":
        return NOTHING if value is None else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(each)}" for name, each in value.items()) or NOTHING
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return ", ".join(plain(each) for each in value) or NOTHING
    return value if isinstance(value, str) else json.dumps(value, default=str).strip('"')


def number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else NOTHING


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def escape(text: Any) -> str:
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
$body
</main>
</body>
</html>
""")
