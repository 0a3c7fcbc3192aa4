"""The options that `lr_find` and `LRFinder` share: written once, shown in both."""

import inspect

import keras
import numpy as np
import pytest

import keras_lr
from keras_lr.plotting import save_range_test_plot
from keras_lr.range_test.options import DEFAULTS, checked_options, divided_budget

pytestmark = pytest.mark.once

TAKERS = [keras_lr.lr_find, keras_lr.LRFinder]


@pytest.mark.parametrize("taker", TAKERS)
def test_each_option_is_in_the_signature_and_in_the_docstring(taker):
    parameters = inspect.signature(taker).parameters
    assert inspect.Parameter.VAR_KEYWORD not in {each.kind for each in parameters.values()}
    for name, default in DEFAULTS.items():
        assert parameters[name].default == default
        assert f"\n    {name}: " in inspect.getdoc(taker)


@pytest.mark.parametrize("taker", TAKERS)
def test_an_unknown_option_is_refused_by_its_name(taker):
    with pytest.raises(TypeError, match="unexpected keyword argument 'start_rate'"):
        taker(*([None] if taker is keras_lr.lr_find else []), start_rate=0.1)


def test_save_and_save_range_test_plot_return_the_path(tmp_path):
    test = keras_lr.RangeTest(np.geomspace(1e-5, 1, 20), np.linspace(2, 1, 20))
    assert test.save(str(tmp_path / "test.json")) == tmp_path / "test.json"
    assert save_range_test_plot(test, str(tmp_path / "p.png")) == tmp_path / "p.png"


def test_a_suggestion_gives_the_line_for_an_optimizer_by_its_name():
    found = keras_lr.Suggestion(0.00123456, 1e-3, 2e-3, "curve", "")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert found.python(model) == "model.optimizer.learning_rate = 0.00123"
    assert found.python(model, "d_optimizer") == "model.d_optimizer.learning_rate = 0.00123"
    line = "optimizer = keras.optimizers.SGD(learning_rate=0.00123)"
    assert found.python(model, compiled=False) == line


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"confirm": True}, {"budget": 500}),
        ({"confirm": False}, {"steps": 100, "budget": 100}),
        ({"confirm": False, "steps": 30, "repeats": 2}, {"steps": 30, "budget": 60}),
        ({"confirm": True, "steps": 300, "repeats": 2}, {"budget": 600}),
    ],
)
def test_what_the_warning_of_confirm_advises_means_the_same(options, advice):
    text = ", ".join(f"{name}={value}" for name, value in advice.items())
    with pytest.warns(DeprecationWarning, match=f"is deprecated; pass {text}\\."):
        old = checked_options(options, "lr_find")
    repeats = options.get("repeats", 1)
    new = checked_options({**options, "confirm": None, **advice, "repeats": repeats}, "lr_find")
    assert divided_budget(old, None) == divided_budget(new, None)
