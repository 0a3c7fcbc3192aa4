"""A diagnosis as HTML, for notebooks and as a file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_lr.diagnosis.result import Diagnosis

__all__ = ["fragment", "page"]

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Diagnosis of training runs</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }
pre { white-space: pre-wrap; } img { max-width: 100%; }
</style>
</head>
<body>
"""


def fragment(diagnosis: Diagnosis) -> str:
    """The picture, if matplotlib is installed, and the text of a diagnosis."""
    from keras_lr.plotting.diagnosis import diagnosis_png

    parts = []
    for run in (*diagnosis.earlier, diagnosis.alone()):
        try:
            image = "" if run.log is None else base64.b64encode(diagnosis_png(run)).decode()
        except ModuleNotFoundError:
            image = ""
        if image:
            named = html.escape(", ".join(run.names) or "no problems found")
            parts.append(f'<img alt="Losses: {named}" src="data:image/png;base64,{image}">')
    parts.append(f"<pre>{html.escape(diagnosis.to_text())}</pre>")
    return "\n".join(parts)


def page(diagnoses: Sequence[Diagnosis]) -> str:
    """An HTML file with each diagnosis under the name of its log; it needs no other file."""
    parts = [f"<h2>{html.escape(each.source)}</h2>\n{fragment(each)}\n" for each in diagnoses]
    return _HEAD + "".join(parts) + "</body>\n</html>\n"
