"""What a notebook shows for one expression: a picture and a sentence."""

import base64
import html as stdlib_html
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from range_tests import REAL, probes
from searches import searched

import keras_lr
from keras_lr import RangeTest, Suggestion
from keras_lr.plotting import range_test as drawing

pytestmark = pytest.mark.once

PNG = b"\x89PNG\r\n"
RATES = np.geomspace(1e-6, 1.0, 100)
VALLEY = 1 / (1 + RATES / 1e-3) + 50 * RATES**2


def pictures(html):
    """The pictures inside, by their alternative text."""
    found = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', html)
    return {about: base64.b64decode(data)[:6] for about, data in found}


def words(html):
    return " ".join(stdlib_html.unescape(re.sub(r"<[^>]+>", " ", html)).split())


def suggested(test, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return test.suggest(**options)


@pytest.mark.parametrize("name", [*REAL][::3])
def test_a_range_test_shows_its_curve_and_its_suggestion(name):
    test = RangeTest(**REAL[name])
    html, found = test._repr_html_(), suggested(test)
    assert pictures(html) == {"Loss against the learning rate": PNG}
    for sentence in (f"Learning rate {found.learning_rate:.3g}", found.reason, *found.warnings):
        assert sentence in words(html)
    assert (
        words(html)
        == words(found._repr_html_())
        == " ".join(
            [found.answer(), found.reason, *(f"Warning: {each}" for each in found.warnings)]
        )
    )


def test_a_suggestion_shows_the_run_that_it_is_for():
    test = RangeTest(RATES, VALLEY, provenance={"family": "adam", "hints": ["Scale <x>."]})
    found = suggested(test, policy="one-cycle", total_steps=2_000)
    text = words(found._repr_html_())
    assert f"Learning rate {found.learning_rate:.3g} for {found.run}; best between" in text
    assert f"{found.low:.3g} and {found.high:.3g} in about 85% of cases." in text
    assert "Scale &lt;x&gt;." in found._repr_html_()
    assert str(found) == f"{found.answer()} {found.reason}\nWarning: Scale <x>."
    assert "85%" not in suggested(test, method="valley").answer()


def test_the_picture_is_of_the_suggestion_that_is_shown(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        drawing, "_mark_suggestion", lambda ax, curve, found, named: drawn.append(found)
    )
    test = RangeTest(RATES, VALLEY)
    for found in (test.suggest("valley"), suggested(test, policy="cosine", total_steps=50_000)):
        found._repr_html_()
        assert drawn.pop() is found and not drawn


def test_no_suggestion_shows_the_reason():
    html = RangeTest(RATES, np.full(100, np.nan), stop_reason="non_finite")._repr_html_()
    assert pictures(html) == {"Loss against the learning rate": PNG}
    with pytest.raises(keras_lr.NoSuggestion) as refused:
        RangeTest(RATES, np.full(100, np.nan), stop_reason="non_finite").suggest()
    assert words(html) == f"No learning rate can be suggested. {refused.value}"
    assert "No learning rate" in RangeTest([], [])._repr_html_()


def test_short_runs_alone_have_a_picture():
    html = RangeTest([], [], probes=probes())._repr_html_()
    assert pictures(html) and "Learning rate 0.1" in words(html)


def test_a_suggestion_made_by_hand_has_no_picture():
    made = Suggestion(0.01, 0.003, 0.03, "auto", "By hand.")
    assert made._repr_html_() == (
        "<p><strong>Learning rate 0.01; best between 0.003 and 0.03 in about 85% of cases."
        "</strong> By hand.</p>"
    )
    assert made == Suggestion(0.01, 0.003, 0.03, "auto", "By hand.", test=RangeTest([1.0], [1.0]))


def test_a_suggestion_keeps_no_states_of_short_runs():
    test = RangeTest(RATES, VALLEY)
    test._continue = lambda steps: None  # the real one refers to the model and its states
    found = suggested(test)
    assert found.test._continue is None and test._continue is not None
    again = pickle.loads(pickle.dumps(found))
    assert again == found and again._repr_html_() == found._repr_html_()


def test_a_search_shows_its_valley_and_its_answer():
    search = searched()
    html, text = search._repr_html_(), words(search._repr_html_())
    assert pictures(html) == {"Validation loss against the learning rate": PNG}
    rates = [f"{rate:.1e}".replace("e-0", "e-") for rate in (search.learning_rate, search.low)]
    assert text.startswith(f"Learning rate {rates[0]}") and f"Interval {rates[1]} to" in text
    for warning in search.warnings:
        assert warning in text


def test_a_preview_shows_its_curve_and_its_key_points():
    made = keras_lr.preview(keras_lr.OneCycle(max_lr=0.1), steps=100)
    html = made._repr_html_()
    assert pictures(html) == {"Learning rate of 100 updates": PNG}
    assert words(html).split()[:3] == ["Step", "Learning", "rate"]
    assert "0.1 0.85 highest" in words(html)


@pytest.mark.parametrize("installed", [True, False])
def test_a_picture_needs_neither_pyplot_nor_a_display_nor_matplotlib(installed):
    """Without matplotlib the package is imported and the sentence alone is shown."""
    code = f"""
import sys
sys.modules["matplotlib"] = None  # Keras imports it if it can
import numpy as np, keras_lr
if {installed}: del sys.modules["matplotlib"]
rates = np.geomspace(1e-6, 1.0, 100)
shown = keras_lr.RangeTest(rates, 1 / (1 + rates / 1e-3) + 50 * rates**2)._repr_html_()
assert "Learning rate" in shown
assert ("<img" in shown) == {installed}
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_without_display())


def test_another_missing_module_is_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise ModuleNotFoundError("No module named 'ours'", name="ours")

    monkeypatch.setattr(drawing, "range_test_figure", fail)
    with pytest.raises(ModuleNotFoundError, match="ours"):
        RangeTest(RATES, VALLEY)._repr_html_()


def _without_display():
    import os

    return {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
