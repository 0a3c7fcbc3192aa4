"""The usual learning rate of an optimizer's family, known before any test."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr.optimizers import Prodigy, ScheduleFree
from keras_lr.steering import innermost_optimizers

# log10 of the constant rate that is usually best in a run of 500 updates. The first four are
# measured. Adadelta and Prodigy estimate the size of their steps: their papers use the factor 1.
# Schedule-free rates are in the middle (in decades) of what its authors advise (arXiv 2405.15682):
# 10 to 50 times the rate of SGD with a momentum, 1 to 10 times that of Adam, with a schedule.
USUAL_RATES = {
    "SGD": -1.0,
    "momentum": -1.75,
    "Adam": -2.25,
    "Lion": -3.25,
    "Adadelta": 0.0,
    "schedule-free SGD": -0.25,
    "schedule-free Adam": -1.6,
}
# Those that take no schedule.
SCHEDULE_FREE_FAMILIES = ("schedule-free SGD", "schedule-free Adam")
UNKNOWN, UNKNOWN_RATE = "unknown", -2.0  # the rate: a first guess, between the measured ones

# A velocity makes steps up to 1 / (1 - momentum) times as large. "momentum" was measured at 0.9; in
# decades of the step size, a momentum below about 0.7 is nearer to none.
_LEAST_MOMENTUM = 0.7

# The families of optimizers by their update rules. Steps of Adam, and of all here with it, have an
# element-wise size of about the rate: RMSprop and Nadam divide by the same root mean square, Adamax
# by a maximum of about twice its size, Muon scales its matrices to this size (arXiv 2502.16982).
# Missing, so unknown, are those whose rates mean something else:
#   Adagrad, Ftrl      the step falls like 1 / sqrt(updates), so the rate grows with the run
#   Lamb, Adafactor    the rate is relative to the norm of the weights
#   ScheduleFreeAdamW  Keras's differs from the paper, and a range test refuses it
_FAMILIES = {
    "SGD": "SGD",
    "Adam": "Adam",
    "AdamW": "Adam",
    "Adamax": "Adam",
    "Nadam": "Adam",
    "RMSprop": "Adam",
    "Muon": "Adam",
    "Lion": "Lion",
    "Adadelta": "Adadelta",
    "Prodigy": "Adadelta",
}


def usual_rate(optimizer: Any) -> tuple[float | None, str]:
    """The usual rate of an optimizer's family, as log10, and the name of the family.

    Returns:
        log10 of the constant rate that is usually best in 500 updates, None if the family is
        unknown; and the family: a key of `USUAL_RATES`, or "unknown".

    Args:
        optimizer: An optimizer, also one that wraps others; the name of a family or of an
            optimizer's class, as a saved test has it; or None. The name "SGD" means SGD without
            momentum, "momentum" means SGD with one.

    >>> usual_rate(keras.optimizers.SGD(0.1, momentum=0.9))
    (-1.75, 'momentum')
    >>> usual_rate("RMSprop")
    (-2.25, 'Adam')
    >>> usual_rate(keras.optimizers.Lamb())
    (None, 'unknown')
    """
    if optimizer is None or isinstance(optimizer, str):
        family = _family_of_name(optimizer or UNKNOWN)
    else:
        families = {_family(each) for each in innermost_optimizers(optimizer)}
        family = families.pop() if len(families) == 1 else UNKNOWN
    return USUAL_RATES.get(family), family


def _family(optimizer: Any) -> str:
    if isinstance(optimizer, ScheduleFree):
        return SCHEDULE_FREE_FAMILIES[not isinstance(optimizer, keras.optimizers.SGD)]
    for kind in type(optimizer).__mro__:
        if kind is Prodigy or getattr(keras.optimizers, kind.__name__, None) is kind:
            family = _FAMILIES.get(kind.__name__, UNKNOWN)
            if kind.__name__ in ("SGD", "RMSprop") and _momentum(optimizer) >= _LEAST_MOMENTUM:
                return "momentum" if family == "SGD" else UNKNOWN
            if kind.__name__ == "Muon" and getattr(optimizer, "rms_rate", None) is None:
                return UNKNOWN  # the size of its steps then depends on the shape of the matrix
            return family
    return UNKNOWN


def _momentum(optimizer: Any) -> float:
    """The momentum now; a variable while a callback steers it."""
    return float(keras.ops.convert_to_numpy(optimizer.momentum))


def _family_of_name(name: str) -> str:
    """The family of a name, such as "Adam", "adamw", "momentum" or "LayerwiseLR[Adam]"."""
    inner = name.rpartition("[")[2].rstrip("]").lower()
    if name.startswith(f"{ScheduleFree.__name__}["):
        return SCHEDULE_FREE_FAMILIES[inner != "sgd"]
    families = {**_FAMILIES, **{family: family for family in USUAL_RATES}}
    return {key.lower(): family for key, family in families.items()}.get(inner, UNKNOWN)
