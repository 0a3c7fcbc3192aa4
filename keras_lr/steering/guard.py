"""Knows when a `fit` ends, however it ends.

Keras tells callbacks that a `fit` has ended only if it ends well. After Ctrl-C, or an exception in
the data, in the training step or in another callback, nobody is told. So `fit` itself is wrapped,
once, in the class of Keras that defines it: what a callback of ours did to a model is undone when
`fit` unwinds. A `fit` inside another one (in a callback) sets the outer steering aside meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_lr._util.patching import replaced

_DEPTH = "_keras_lr_fits"
_MARK = "_keras_lr_guarded"


def guard_fit(unwinding: Callable[[Any], Any]) -> None:
    """Wrap `keras.Model.fit`; once, also if it is called again.

    Args:
        unwinding: Given the model, a context manager that is entered before each `fit` and left
            when that `fit` returns or raises.
    """
    owner = next(each for each in keras.Model.__mro__ if "fit" in vars(each))
    original = vars(owner)["fit"]
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        with unwinding(self), replaced(self, _DEPTH, fits_running(self) + 1):
            return original(self, *args, **kwargs)

    setattr(fit, _MARK, True)
    owner.fit = fit


def fits_running(model: Any) -> int:
    """How many fits of a model are under way: one, or more where one runs inside another."""
    return vars(model).get(_DEPTH, 0)
