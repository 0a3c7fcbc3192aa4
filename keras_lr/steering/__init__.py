"""The one place that puts a learning rate or a momentum into an optimizer and takes it out.

`optimizers` knows Keras's optimizers: which of them a model holds, where they keep the rate and
the momentum. `rule` says what the rate is: the composition rule. `fit` is one steered `fit` on
behalf of all callbacks of ours, `steered_optimizer` one optimizer in it, `binding` joins an
optimizer to its curves, and `backends` is how each backend follows them. `guard` knows when a
`fit` ends, and `backup` what a killed run leaves to the next.
"""

from keras_lr.steering.fit import SteeredFit
from keras_lr.steering.optimizers import (
    BorrowedRate,
    all_optimizers,
    choose_optimizer,
    current_rate,
    driven_optimizers,
    held_optimizers,
    own_optimizers,
    updates_every,
)
from keras_lr.steering.rule import Claims, Length, Plan
from keras_lr.steering.steered_optimizer import Change, SteeredOptimizer, UsedRates

__all__ = [
    "BorrowedRate",
    "Change",
    "Claims",
    "Length",
    "Plan",
    "SteeredFit",
    "SteeredOptimizer",
    "UsedRates",
    "all_optimizers",
    "choose_optimizer",
    "current_rate",
    "driven_optimizers",
    "held_optimizers",
    "own_optimizers",
    "updates_every",
]
