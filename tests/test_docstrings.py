"""The examples in docstrings run as written; other files test those of schedules and presets."""

import doctest
import importlib
import pkgutil

import keras
import pytest

import keras_lr
from keras_lr import callbacks, optimizers, range_test

pytestmark = pytest.mark.long_elsewhere("examples of what other tests check on each backend")

MODULES = [
    "keras_lr.fine_tuning",
    *(
        module.name
        for package in (callbacks, optimizers, range_test)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if not module.name.endswith(("fused", "prodigy"))
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    keras.utils.set_random_seed(0)
    module = importlib.import_module(name)
    names = {"keras": keras, "keras_lr": keras_lr}
    failed, _ = doctest.testmod(module, extraglobs=names)
    assert failed == 0
