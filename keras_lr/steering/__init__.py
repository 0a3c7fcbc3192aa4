"""Sets the learning rate, the momentum and other numbers of optimizers while a model trains.

    session            one steered `fit`: what happens at its begin, at each epoch, and at its end
    policy             what a callback contributes to it
    companions         which callbacks cannot be in one list
    composition        the rule: what the rate of an update is
    steered_optimizer  one optimizer of the model: its callbacks, and changes of its rate
    accounting         the rates that batches used, and those to come
    backup             the state that a resumed run needs
    backends/          the patched train function, one file a backend
    optimizers         the optimizers of a model: which there are, their rates and momenta
    binding            an optimizer and its curves, and how it reads them

`run` counts batches, `guard` knows when a `fit` ends, `update_check` refuses an optimizer that
makes no update, and `epoch_logs` writes the rate to the logs.
"""

from keras_lr.steering.accounting import UsedRates
from keras_lr.steering.composition import Length, Plan, Roles
from keras_lr.steering.optimizers import (
    MOMENTUM_NAMES,
    SQUARE_NAMES,
    BorrowedRate,
    all_optimizers,
    check_rate_may_change,
    choose_optimizer,
    current_rate,
    fit_optimizers,
    follows_rate,
    innermost_optimizers,
    model_optimizers,
    square_decay,
    updates_every,
)
from keras_lr.steering.policy import Policy
from keras_lr.steering.session import SteeredFit
from keras_lr.steering.steered_optimizer import RateChange, SteeredOptimizer

__all__ = [
    "MOMENTUM_NAMES",
    "SQUARE_NAMES",
    "BorrowedRate",
    "Length",
    "Plan",
    "Policy",
    "RateChange",
    "Roles",
    "SteeredFit",
    "SteeredOptimizer",
    "UsedRates",
    "all_optimizers",
    "check_rate_may_change",
    "choose_optimizer",
    "current_rate",
    "innermost_optimizers",
    "model_optimizers",
    "fit_optimizers",
    "follows_rate",
    "square_decay",
    "updates_every",
]
