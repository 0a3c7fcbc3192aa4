"""The one place that puts a learning rate or a momentum into an optimizer and takes it out.

`optimizers` knows Keras's optimizers: which of them hold a rate, what their momentum is called,
how a value is put there. `rule` says what the rate is: the composition rule. `fit` applies the
rule to one `fit` on behalf of all callbacks of ours, and `backends` is how each backend does it.
"""

from keras_lr.steering.fit import Change, Passage, SteeredFit
from keras_lr.steering.optimizers import (
    BorrowedRate,
    all_optimizers,
    choose_optimizer,
    current_rate,
    driven_optimizers,
    held_optimizers,
    updates_every,
)
from keras_lr.steering.rule import Claims, Length, Plan

__all__ = [
    "BorrowedRate",
    "Change",
    "Claims",
    "Length",
    "Passage",
    "Plan",
    "SteeredFit",
    "all_optimizers",
    "choose_optimizer",
    "current_rate",
    "driven_optimizers",
    "held_optimizers",
    "updates_every",
]
