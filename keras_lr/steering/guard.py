"""Knows when a `fit` ends, also after an exception.

Keras calls `on_train_end` only if a `fit` ends normally: not after Ctrl-C, nor after an exception
in the data, in the training step or in another callback. So this module wraps `fit` once, in the
Keras class that defines it, and undoes the changes of our callbacks to the model when `fit` returns
or raises. A `fit` inside another one (in a callback) suspends the outer steering meanwhile.
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
    """Wrap `keras.Model.fit`; a second call has no effect.

    Args:
        unwinding: Returns a context manager for a model, which is entered before each `fit` and
            left when this `fit` returns or raises.
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
    """How many fits of a model are running; more than one if they are nested."""
    return vars(model).get(_DEPTH, 0)
