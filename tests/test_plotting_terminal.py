"""The curve as text."""

import math

import pytest

from keras_lr.plotting.terminal import draw_curve

pytestmark = pytest.mark.once

RATES = [10 ** (-6 + 6 * step / 60) for step in range(61)]
VALLEY = [2 - math.exp(-((step - 40) ** 2) / 200) for step in range(61)]


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("steps", [2, 3, 61])
@pytest.mark.parametrize("width", [40, 78])
def test_picture_stays_within_its_width(unicode, steps, width):
    lines = draw_curve(
        RATES[:steps],
        VALLEY[:steps],
        VALLEY[:steps],
        suggestion=(1e-5, 1e-4, 1e-3),
        width=width,
        unicode=unicode,
    )
    assert 13 <= len(lines) <= 15
    assert max(map(len, lines)) <= width + 2


def test_plain_picture_is_ascii_alone():
    text = "\n".join(
        draw_curve(RATES, VALLEY, VALLEY, suggestion=(1e-5, 1e-4, 1e-3), unicode=False)
    )
    assert text.isascii()
    assert "*" in text and "^" in text


def test_mark_stands_under_its_decade():
    lines = draw_curve(RATES, VALLEY, VALLEY, suggestion=(1e-3, 1e-2, 1e-1))
    axis, labels, marks = lines[-3:]
    column = marks.index("▲")
    assert axis[column] == "┬"
    assert labels[column - 2 : column + 2] == "1e-2"


def test_axis_spans_the_picture_from_the_first_rate_to_the_last():
    axis, labels = draw_curve(RATES, VALLEY, VALLEY, width=78)[-2:]
    assert (len(axis), axis[8:10], axis[-1]) == (78, "└┬", "┬")
    assert labels.split() == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e0"]


def test_valley_is_lowest_where_the_loss_is():
    lines = draw_curve(RATES, VALLEY, VALLEY, unicode=False, width=70, height=10)
    lowest = [column for column, mark in enumerate(lines[9]) if mark == "*"]
    share = (sum(lowest) / len(lowest) - 9) / 60
    assert share == pytest.approx(40 / 60, abs=0.05)


def test_blow_up_does_not_flatten_the_valley():
    losses = [*VALLEY[:55], *[10.0**power for power in range(3, 9)]]
    lines = draw_curve(RATES, losses, losses)
    assert float(lines[0].split()[0]) < 3
    assert float(lines[11].split()[0]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_curve_without_finite_points_is_no_picture(nothing):
    assert draw_curve(RATES[:3], [nothing] * 3, [nothing] * 3) == []


def test_gaps_are_left_out():
    losses = [math.nan if step % 7 == 0 else loss for step, loss in enumerate(VALLEY)]
    assert draw_curve(RATES, losses, losses)


def test_flat_curve_is_a_picture():
    assert draw_curve(RATES, [1.0] * 61, [1.0] * 61)
