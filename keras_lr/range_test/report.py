"""A range test and its suggestion as HTML, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_lr._util import html

if TYPE_CHECKING:
    from keras_lr.range_test.result import RangeTest
    from keras_lr.range_test.suggestion import Suggestion

__all__ = ["fragment"]


def fragment(test: RangeTest | None, found: Suggestion | None, refusal: str = "") -> str:
    """The picture, if matplotlib is installed, and the suggestion or the reason for none.

    Args:
        test: The test to draw; None for a suggestion that was made by hand.
        found: Its suggestion.
        refusal: The reason if there is no suggestion.
    """
    image = "" if test is None else html.picture(lambda: _image(test, found))
    if found is None:
        said = f"<strong>No learning rate can be suggested.</strong> {html.escape(refusal)}"
        return f"{image}<p>{said}</p>"
    said = f"<strong>{html.escape(found.answer())}</strong> {html.escape(found.reason)}"
    return f"{image}<p>{said}</p>{html.warning_list(found.warnings)}"


def _image(test: RangeTest, found: Suggestion | None) -> str:
    from keras_lr.plotting.range_test import range_test_figure

    about = "Loss against the learning rate"
    return html.png(range_test_figure(test, found, slope=False), about)
