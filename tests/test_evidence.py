"""How prior, curve and short runs make one answer, by arithmetic in decades."""

import numpy as np
import pytest

from keras_lr.range_test.evidence import weigh
from keras_lr.range_test.probes import Probes
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

pytestmark = pytest.mark.once


def curve():
    return Suggestion(1e-3, 9e-4, 2e-3, "curve", "By the curve.")


def decades(found):
    return np.log10([found.low, found.learning_rate, found.high])


def test_a_curve_counts_30_percent_beside_the_usual_rate_and_is_raised():
    found = weigh(curve, None, -2.5, "Adam", None)
    middle = 0.3 * -3.0 + 0.7 * -2.5 + 0.375
    np.testing.assert_allclose(decades(found), middle + np.array([-1.0, 0.0, 1.0]), rtol=1e-6)
    assert "this rate (30%) and 0.0032, the usual rate of Adam (70%), times 2.4" in found.reason


def test_a_curve_decides_alone_where_the_family_is_unknown():
    found = weigh(curve, None, None, "unknown", None)
    np.testing.assert_allclose(decades(found), [-4.3, -3.0, -1.7], rtol=1e-6)


def test_the_interval_of_a_curve_is_at_least_its_own():
    def wide():
        return Suggestion(1e-3, 1e-6, 1e-1, "curve", "")

    found = weigh(wide, None, -3.0, "Lion", None)
    np.testing.assert_allclose(decades(found), [-6.0, -3 + 0.375, -1.0], rtol=1e-6)


def test_short_runs_decide_whatever_the_curve_says():
    runs = Probes([1e-2, 1e-1], [1.0, 2.0], [100, 100], 3.0, 500, 200, -2.0)
    for read in (curve, no_curve):
        found = weigh(read, runs, -2.0, "Adam", None)
        np.testing.assert_allclose(decades(found), [-2.6, -2.0, -1.4], rtol=1e-6)


def test_without_an_answer_of_the_curve_there_is_none():
    with pytest.raises(NoSuggestion, match="no ramp"):
        weigh(no_curve, None, -2.0, "Adam", None)


def no_curve():
    raise NoSuggestion("There is no ramp.")
