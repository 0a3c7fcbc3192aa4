"""The curve as text."""

import math

import numpy as np
import pytest
from range_tests import REAL, probes

from keras_lr.plotting.terminal import draw_range_test
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import Suggestion

pytestmark = pytest.mark.once

RATES = [10 ** (-6 + 6 * step / 60) for step in range(61)]
VALLEY = [2 - math.exp(-((step - 40) ** 2) / 200) for step in range(61)]


def draw(losses=VALLEY, suggestion=None, rates=RATES, runs=None, **options):
    test = RangeTest(rates[: len(losses)], losses)
    if runs is not None:
        test.probes = runs
    return draw_range_test(test, suggestion, **options)


def suggested(low, rate, high, landmarks=()):
    return Suggestion(rate, low, high, "curve", "", landmarks=landmarks)


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("steps", [3, 4, 61])
@pytest.mark.parametrize("width", [38, 58, 78])
def test_picture_stays_within_its_width(unicode, steps, width):
    found = suggested(1e-5, 1e-4, 1e-3, (1e-6, 1.1e-6, 1.2e-6))
    options = {"width": width, "unicode": unicode}
    lines = draw(VALLEY[:steps], found, **options)
    assert 15 <= len(lines) <= 18
    assert max(map(len, lines)) <= width + 2
    lines = draw(VALLEY[:steps], found, runs=probes(), **options)
    assert 17 <= len(lines) <= 22
    assert max(map(len, lines)) <= width + 2


@pytest.mark.parametrize("scale", [1e-12, 1.0, 467123.0, 3.33e17, -1.27e5, -4.67e-5])
def test_the_axis_is_straight_at_any_scale_of_the_loss(scale):
    lines = draw([scale * value for value in VALLEY])
    assert {line.index(mark) for line in lines for mark in "┤│└" if mark in line} == {8}
    if scale > 0:  # otherwise the end of the curve diverges and is cut off
        assert float(lines[0].split()[0]) == pytest.approx(scale * max(VALLEY), rel=0.05)
        assert float(lines[11].split()[0]) == pytest.approx(scale * min(VALLEY), rel=0.05)


def test_plain_picture_is_ascii_alone():
    found = suggested(1e-5, 1e-4, 1e-3, (1e-4, 1e-3, 1e-2))
    text = "\n".join(draw(VALLEY, found, runs=probes(), unicode=False))
    assert text.isascii()
    for mark in "*^123ox-":
        assert mark in text


def test_mark_stands_under_its_decade():
    axis, labels, marks = draw(suggestion=suggested(1e-3, 1e-2, 1e-1))[-3:]
    column = marks.index("▲")
    assert axis[column] == "┬"
    assert labels[column - 2 : column + 2] == "1e-2"


def test_axis_spans_the_picture_from_the_first_rate_to_the_last():
    axis, labels = draw(width=78)[-2:]
    assert (len(axis), axis[8:10], axis[-1]) == (78, "└┬", "┬")
    assert labels.split() == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e0"]


def test_axis_reaches_to_short_runs_and_interval_beyond_the_ramp():
    _, labels, marks = draw(suggestion=suggested(1e-3, 1e-2, 100.0))[-3:]
    assert labels.split()[-1] == "1e2" and "┤" in marks
    lines = draw(runs=probes(losses=[0.9, 2.9, 1.0, 0.4, 0.35]))  # one at 30
    assert "1e1" in lines[13]


def test_valley_is_lowest_where_the_loss_is():
    lines = draw(unicode=False, width=70)
    lowest = [column for column, mark in enumerate(lines[11]) if mark == "*"]
    share = (sum(lowest) / len(lowest) - 9) / 60
    assert share == pytest.approx(40 / 60, abs=0.05)


def test_blow_up_does_not_flatten_the_valley():
    lines = draw([*VALLEY[:55], *[10.0**power for power in range(3, 9)]])
    assert float(lines[0].split()[0]) < 3
    assert float(lines[11].split()[0]) == pytest.approx(1, abs=0.01)


def loss_of(lines, row):
    """The loss at the height of a row, from the numbers at the first and the last one."""
    high, low = (float(lines[at].split()[0]) for at in (0, 11))
    return high - (high - low) * row / 11


def places(lines, mark):
    return [(row, line.index(mark)) for row, line in enumerate(lines[:12]) if mark in line[9:]]


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
@pytest.mark.parametrize("name", REAL)
def test_line_stays_within_the_neighbouring_losses_up_to_the_divergence(name):
    test = RangeTest(**REAL[name])
    lines = draw_range_test(test, unicode=False, width=9 + len(test.losses))  # a step a column
    row_height = (loss_of(lines, 0) - loss_of(lines, 11)) / 11
    steps = range(len(test.losses))
    lowest = int(np.argmin([np.median(test.losses[max(0, i - 1) : i + 2]) for i in steps]))
    for step in range(lowest + 1):
        near = test.losses[max(0, step - 3) : step + 4]
        for row in range(12):
            if lines[row].ljust(200)[9 + step] == "*":
                loss = loss_of(lines, row)
                assert near.min() - row_height <= loss <= near.max() + row_height, step


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_landmarks_of_the_reason_are_numbered_on_the_line():
    test = RangeTest(**REAL["Adam, digits with batch normalization"])
    found = test.suggest("curve")
    assert len(found.landmarks) == 3
    lines = draw_range_test(test, found, width=9 + 81)
    for mark, rate in zip("123", found.landmarks, strict=True):
        ((_, column),) = places(lines, mark)
        left, right = math.log10(test.learning_rates[0]), math.log10(test.learning_rates[-1])
        share = (math.log10(rate) - left) / (right - left)
        assert column - 9 == pytest.approx(80 * share, abs=1)
    assert "1 halfway down   2 near lowest   3 halfway up of the average" in lines[-1]
    assert not any("halfway" in line for line in draw_range_test(test))


def test_short_runs_stand_at_their_held_out_loss():
    losses = [0.9, 2.5, math.inf, 0.4, 0.2]
    lines = draw(runs=probes(losses=losses, learning_rates=[1e-3, 1e-2, 1.0, 1e-5, 1e-4]))
    found = [loss_of(lines, row) for row, line in enumerate(lines[:12]) for m in line if m == "◆"]
    assert sorted(found) == pytest.approx(sorted(losses)[:4], abs=0.25)
    ((top, column),) = places(lines, "✕")
    assert top == 0 and column > 70
    (start,) = [row for row, line in enumerate(lines[:12]) if "╌╌╌" in line]
    assert loss_of(lines, start) == pytest.approx(2.2, abs=0.25)
    text = " ".join(lines[-2:])
    assert "◆ held-out loss after 100 to 200 steps" in text and "✕ diverged" in text
    assert "╌ held-out loss at the start" in text


def test_short_runs_are_drawn_without_a_ramp():
    lines = draw([], rates=[], runs=probes())
    assert sum(line.count("◆") for line in lines[:12]) == 4


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_curve_without_finite_points_is_no_picture(nothing):
    assert draw([nothing] * 3) == []
    assert draw([]) == []


def test_flat_curve_is_a_picture():
    assert draw([1.0] * 61)
