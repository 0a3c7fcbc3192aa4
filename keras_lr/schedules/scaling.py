"""Scale a learning rate to another batch size."""

from __future__ import annotations

from keras_lr._util import checks

_RULES = {"linear": 1.0, "sqrt": 0.5}


def scale_lr(lr: float, batch_size: int, base_batch_size: int = 256, rule: str = "linear") -> float:
    """Scale a learning rate that was chosen for one batch size to another batch size.

    Args:
        lr: Learning rate chosen for `base_batch_size`; above 0.
        batch_size: Examples in one update, over all devices and accumulated batches; at least 1.
        base_batch_size: Examples in one update that `lr` was chosen for; at least 1.
        rule: "linear", for SGD, scales the rate in proportion to the batch size (Goyal et al.
            2017, arXiv 1706.02677, section 2.1, with a warm-up of 5 epochs). "sqrt" is for Adam
            and other optimizers that normalize the gradient (Krizhevsky 2014, arXiv 1404.5997,
            section 5; Malladi et al. 2022, arXiv 2205.10287).

    Returns:
        The learning rate for `batch_size`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> scale_lr(0.1, batch_size=1024)
    0.4
    >>> scale_lr(0.1, batch_size=1024, rule="sqrt")
    0.2
    """
    lr = checks.number("lr", lr, above=0)
    ratio = checks.count("batch_size", batch_size) / checks.count(
        "base_batch_size", base_batch_size
    )
    return lr * ratio ** _RULES[checks.choice("rule", rule, _RULES)]
