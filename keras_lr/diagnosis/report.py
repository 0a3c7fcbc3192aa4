"""A diagnosis as HTML, for notebooks and as a file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_lr._util import html

if TYPE_CHECKING:
    from keras_lr.diagnosis.result import Diagnosis

__all__ = ["fragment", "page"]


def fragment(diagnosis: Diagnosis) -> str:
    """The picture, if matplotlib is installed, and the text of a diagnosis."""
    runs = (*diagnosis.earlier, diagnosis.alone())
    images = [html.picture(functools.partial(_image, run)) for run in runs if run.log is not None]
    text = f"<pre>{html.escape(diagnosis.to_text())}</pre>"
    return "\n".join([*filter(None, images), text])


def _image(run: Diagnosis) -> str:
    from keras_lr.plotting.diagnosis import diagnosis_figure

    return html.png(diagnosis_figure(run), f"Losses: {', '.join(run.names) or 'no problems found'}")


def page(diagnoses: Sequence[Diagnosis]) -> str:
    """An HTML file with each diagnosis under the name of its log; it needs no other file."""
    parts = [html.section(each.source, fragment(each)) for each in diagnoses]
    return html.page("Diagnosis of training runs", "\n".join(parts))
