"""Scale a learning rate to another batch size."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_lr._keras.optimizers import innermost_optimizers
from keras_lr._util import checks

_RULES = {"linear": 1.0, "sqrt": 0.5}

# The rule of an optimizer and of its subclasses. The sources cover these; for others (Adagrad,
# Ftrl, Adadelta, Adafactor, Lion, Muon, ...) there is no common rule.
_RULES_OF = {
    "SGD": "linear",
    "Adam": "sqrt",
    "AdamW": "sqrt",
    "Adamax": "sqrt",
    "Nadam": "sqrt",
    "RMSprop": "sqrt",
    "Lamb": "sqrt",
}


def scale_lr(
    lr: float,
    batch_size: int,
    base_batch_size: int = 256,
    rule: str | None = None,
    *,
    optimizer: Any = None,
    noise_scale: Any = None,
) -> float:
    """Scale a learning rate that was chosen for one batch size to another batch size.

    Pass the optimizer, or the rule if you know better; without both the rule is "linear".

    Args:
        lr: Learning rate chosen for `base_batch_size`; above 0.
        batch_size: Examples in one update, over all devices and accumulated batches; at least 1.
        base_batch_size: Examples in one update that `lr` was chosen for; at least 1.
        rule: "linear", for SGD, scales the rate in proportion to the batch size (Goyal et al.
            2017, arXiv 1706.02677, section 2.1, with a warm-up of 5 epochs). "sqrt" is for Adam
            and other optimizers that normalize the gradient (Krizhevsky 2014, arXiv 1404.5997,
            section 5; Malladi et al. 2022, arXiv 2205.10287).
        optimizer: An optimizer of Keras, also within wrappers, or its name as in `compile`:
            "linear" for SGD, "sqrt" for Adam, AdamW, Adamax, Nadam, RMSprop and Lamb (You et al.
            2019, arXiv 1904.00962, section 4). Others have no common rule.
        noise_scale: The result of `keras_lr.noise_scale`, or examples, above 0; None if unknown.
            Both rules hold for batches below it (McCandlish et al. 2018, arXiv 1812.06162). If
            `batch_size` is larger, there is a warning; the rate is the same.

    Returns:
        The learning rate for `batch_size`.

    Raises:
        ValueError: If an argument is out of range, `rule` and `optimizer` are both given, or the
            optimizer has no common rule.
        TypeError: If an argument has the wrong type.

    >>> scale_lr(0.1, batch_size=1024)
    0.4
    >>> scale_lr(0.1, batch_size=1024, optimizer="adam")
    0.2
    """
    lr = checks.number("lr", lr, above=0)
    ratio = checks.count("batch_size", batch_size) / checks.count(
        "base_batch_size", base_batch_size
    )
    if rule is not None and optimizer is not None:
        raise ValueError(
            f"Only one of rule and optimizer can be given; got rule={rule!r} and an optimizer."
        )
    if noise_scale is not None:
        _check_noise(noise_scale, batch_size)
    if rule is None:
        rule = "linear" if optimizer is None else _rule_of(optimizer)
    return lr * ratio ** _RULES[checks.choice("rule", rule, _RULES)]


def _check_noise(noise_scale: Any, batch_size: int) -> None:
    """Warn if a batch is larger than the noise scale."""
    scale = getattr(noise_scale, "examples", noise_scale)
    if scale != float("inf"):  # the gradient cannot be told from its noise
        scale = checks.number("noise_scale", scale, above=0)
    if batch_size > scale:
        warnings.warn(
            f"The batch should be at most as large as the noise scale; got batch_size={batch_size} "
            f"and a noise scale of {scale:.3g} examples. A larger rate hardly pays beyond it, and "
            "may diverge.",
            UserWarning,
            stacklevel=3,
        )


def _rule_of(optimizer: Any) -> str:
    """The rule of an optimizer, the same for all groups of a `MultiOptimizer`."""
    if isinstance(optimizer, str):
        try:
            optimizer = keras.optimizers.get(optimizer)
        except ValueError as error:
            raise ValueError(
                f"optimizer must be an optimizer of Keras or its name; got {optimizer!r}."
            ) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(f"optimizer must be an optimizer of Keras or its name; got {optimizer!r}.")
    rule = usual_rule(optimizer)
    if rule is None:
        parts = innermost_optimizers(optimizer)
        names = " and ".join(dict.fromkeys(type(each).__name__ for each in parts))
        raise ValueError(
            f"optimizer must have a known rule, the same for all groups; got {names}. Pass "
            "rule='linear' or rule='sqrt'."
        )
    return rule


def usual_rule(optimizer: keras.optimizers.Optimizer) -> str | None:
    """The rule of an optimizer; None if it has none, or if its groups have different ones."""
    rules = {_rule_of_kind(type(each)) for each in innermost_optimizers(optimizer)}
    return rules.pop() if len(rules) == 1 else None


def _rule_of_kind(kind: type) -> str | None:
    for each in kind.__mro__:
        if getattr(keras.optimizers, each.__name__, None) is each:
            return _RULES_OF.get(each.__name__)
    return None
