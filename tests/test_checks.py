"""`_util/checks.py`: what is accepted, and the words of a refusal."""

import enum
import inspect
import math

import numpy as np
import pytest
from models import public_callbacks

import keras_lr
from keras_lr._util import checks

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("bounds", "value", "error", "words"),
    [
        ({}, math.inf, ValueError, "x must be a finite number; got inf."),
        ({}, "1", TypeError, "x must be a finite number; got '1'."),
        ({}, True, TypeError, "x must be a finite number; got True."),
        ({"above": 0}, 0.0, ValueError, "x must be above 0; got 0.0."),
        ({"above": 0}, math.nan, ValueError, "x must be a finite number above 0; got nan."),
        ({"least": 0}, -1, ValueError, "x must be at least 0; got -1."),
        ({"least": 0}, None, TypeError, "x must be a finite number of at least 0; got None."),
        ({"below": 1}, 1, ValueError, "x must be below 1; got 1."),
        ({"most": 1}, 2, ValueError, "x must be at most 1; got 2."),
        ({"above": 0, "below": 1}, 1.0, ValueError, "x must be in (0, 1); got 1.0."),
        ({"above": 0, "most": 1}, 2.0, ValueError, "x must be in (0, 1]; got 2.0."),
        ({"least": 0, "below": 1}, -0.5, ValueError, "x must be in [0, 1); got -0.5."),
        ({"least": 0, "most": 0.5}, 0.7, ValueError, "x must be in [0, 0.5]; got 0.7."),
        ({"above": 0, "most": 1}, [], TypeError, "x must be a finite number in (0, 1]; got []."),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_interval(bounds, value, error, words):
    with pytest.raises(error) as caught:
        checks.number("x", value, **bounds)
    assert str(caught.value) == words


@pytest.mark.parametrize("value", [1, 1.0, np.int32(1), np.float32(1)])
def test_a_number_is_returned_as_a_float(value):
    found = checks.number("x", value, above=0, most=1)
    assert type(found) is float and found == 1.0


def test_the_way_out_follows_the_value():
    with pytest.raises(ValueError, match=r"^x must be above 0; got 0\. Pass None\.$"):
        checks.number("x", 0, above=0, way_out="Pass None.")


def test_an_integer_of_numpy_counts_and_a_whole_float_does_not():
    assert type(checks.count("steps", np.int64(3))) is int
    with pytest.raises(ValueError, match=r"steps must be an integer of at least 1; got 3\.0\."):
        checks.count("steps", 3.0)


class Anneal(str, enum.Enum):
    COS = "cos"


@pytest.mark.parametrize("value", ["cos", np.str_("cos"), Anneal.COS])
def test_a_choice_is_compared_by_value_and_returned_as_a_plain_string(value):
    found = checks.choice("anneal", value, ("cos", "linear"))
    assert type(found) is str and found == "cos"


@pytest.mark.parametrize("value", [None, 1, b"cos", ["cos"], np.array("cos"), "Cos"])
def test_a_choice_that_is_not_an_option_is_refused(value):
    with pytest.raises(ValueError) as caught:
        checks.choice("anneal", value, ("cos", "linear"))
    assert str(caught.value) == f"anneal must be 'cos' or 'linear'; got {value!r}."


def test_a_choice_of_one_option_names_it():
    with pytest.raises(ValueError, match=r"also must be 'momentum'; got 'decay'\."):
        checks.choice("also", "decay", ("momentum",))


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array([True])[0]])
def test_a_flag_of_numpy_is_returned_as_a_plain_bool(value):
    assert checks.flag("confirm", value) is True


@pytest.mark.parametrize("value", ["no", "", 0, 1, None])
def test_a_flag_of_another_kind_is_refused(value):
    with pytest.raises(TypeError, match="confirm must be True or False; got "):
        checks.flag("confirm", value)


@pytest.mark.parametrize("value", [0, 1, 2, True, np.int64(1)])
def test_a_verbosity_of_keras_is_returned(value):
    assert checks.verbosity(value) is value


@pytest.mark.parametrize("value", [3, -1, None, "yes", "auto", [1], 0.5])
def test_another_verbosity_is_refused(value):
    with pytest.raises(ValueError) as caught:
        checks.verbosity(value)
    assert str(caught.value) == f"verbose must be 0 or 1; got {value!r}."


ARGUMENTS = {
    keras_lr.GradualUnfreeze: {"groups": [["dense"]]},
    keras_lr.WarmUpStableDecay: {"max_lr": 0.1, "patience": 1},
}


def taking(name):
    """The public callbacks with an argument of this name."""
    every = public_callbacks().values()
    return [each for each in every if name in inspect.signature(each).parameters]


@pytest.mark.parametrize("kind", taking("verbose"))
def test_every_callback_refuses_an_unknown_verbosity_at_once(kind):
    with pytest.raises(ValueError, match="verbose must be .*0 or 1; got 'loud'"):
        kind(**ARGUMENTS.get(kind, {}), verbose="loud")


@pytest.mark.parametrize("kind", taking("monitor"))
def test_every_callback_refuses_a_metric_without_a_name_at_once(kind):
    for value in (3, ["loss"], b"loss"):
        with pytest.raises(TypeError, match="monitor must be the name of a log entry; got "):
            kind(**ARGUMENTS.get(kind, {}), monitor=value)
    with pytest.raises(ValueError, match="monitor must be the name of a log entry; got ''"):
        kind(**ARGUMENTS.get(kind, {}), monitor="")


def test_callbacks_with_both_arguments_are_among_the_tested():
    assert keras_lr.ReduceLROnPlateau in taking("verbose")
    assert keras_lr.WarmUpStableDecay in taking("monitor")
