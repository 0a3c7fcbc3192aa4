"""Which callbacks cannot be in one list, whatever optimizer they steer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import keras

from keras_lr.steering.policy import Policy


def refuse_beside_finder(policies: Iterable[Policy]) -> None:
    """Refuse a callback of ours in the list of one that replaces the training by a range test.

    Raises:
        ValueError: If there are both.
    """
    finder: dict[bool, str] = {}
    for policy in policies:
        finder.setdefault("find" in policy.roles, type(policy).__name__)
    if len(finder) == 2:
        raise ValueError(
            f"{finder[True]} stops the fit before it trains; got {finder[False]} in the same list. "
            f"Pass {finder[False]} to the next fit."
        )


def refuse_swap_before(callbacks: Iterable[Any], policy: Policy) -> None:
    """Refuse Keras's `SwapEMAWeights` before a callback that handles the weights of the training.

    At the end of an epoch it puts the averages into the model, and the weights into the slots of
    the optimizer, until the next epoch begins.

    Args:
        callbacks: All callbacks of the fit.

    Raises:
        ValueError: If there is one.
    """
    for each in itertools.takewhile(lambda each: each is not policy, callbacks):
        if isinstance(each, keras.callbacks.SwapEMAWeights) and each.swap_on_epoch:
            name = type(policy).__name__
            raise ValueError(
                f"{name} must come before SwapEMAWeights(swap_on_epoch=True) in the list, because "
                f"it copies the weights of the training at the end of an epoch; got {name} after "
                "it. Move it to the front."
            )
