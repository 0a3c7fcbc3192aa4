"""The optimizers that `ScheduleFree` can wrap."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._keras.optimizers import batch_counter, number, stored_rate
from keras_lr._util import checks
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.optimizers.rectification import LEAST
from keras_lr.optimizers.wrapper import check_optimizer

__all__ = ["check_constant", "check_inner", "check_rectified"]


def check_inner(optimizer: Any) -> None:
    """Raise unless `ScheduleFree` has the update rule of an optimizer."""
    check_optimizer("ScheduleFree", optimizer)
    inner = optimizer
    if isinstance(optimizer, LayerwiseLR):
        check_constant(optimizer._rules)
        inner = optimizer._unwrapped()
    kind = type(inner)  # on torch, a class of Keras's backend with the same name
    if kind.__name__ not in ("SGD", "Adam", "AdamW") or kind.__module__.split(".")[0] != "keras":
        raise ValueError(
            "ScheduleFree needs an SGD, Adam or AdamW of Keras, not a subclass; got "
            f"{kind.__name__}. Use keras.optimizers.AdamW."
        )
    if not isinstance(stored_rate(optimizer), keras.Variable):
        raise ValueError(
            "ScheduleFree needs a number as the learning rate; got "
            f"{type(stored_rate(optimizer)).__name__}. For a warm-up, pass warmup_steps to "
            "ScheduleFree."
        )
    for name in ("nesterov", "amsgrad", "use_ema"):
        if getattr(optimizer, name, False):
            raise ValueError(
                f"ScheduleFree needs an optimizer without {name}; got {name}=True. ScheduleFree "
                "averages the weights itself."
            )
    name = "momentum" if isinstance(optimizer, keras.optimizers.SGD) else "beta_1"
    checks.number(
        f"{name} of ScheduleFree's optimizer",
        getattr(optimizer, name),
        above=0,
        below=1,
        way_out="0.9 is usual.",
    )
    if number(batch_counter(optimizer)):
        raise ValueError(
            "ScheduleFree needs an optimizer that has not trained yet; got one after "
            f"{int(number(batch_counter(optimizer)))} batches. Pass a new optimizer."
        )


def check_rectified(optimizer: Any, warmup_steps: int) -> None:
    """Raise unless the rectification has a meaning."""
    if warmup_steps:
        raise ValueError(
            "rectify takes the place of a warm-up; got rectify=True and "
            f"warmup_steps={warmup_steps}. Use one of the two."
        )
    if isinstance(optimizer, keras.optimizers.SGD):
        raise ValueError(
            "rectify needs Adam or AdamW, whose mean square it corrects; got SGD. Pass "
            "warmup_steps instead."
        )
    checks.number(
        "beta_2 with rectify", optimizer.beta_2, above=LEAST, below=1, way_out="0.999 is usual."
    )


def check_constant(rules: Any) -> None:
    """Raise if a multiplier of `LayerwiseLR` changes during a run."""
    for rule in rules:
        if not rule.is_number:
            raise ValueError(
                "ScheduleFree needs multipliers that are numbers; got "
                f"{type(rule.value).__name__} for {rule.key!r}. The average replaces a schedule."
            )
