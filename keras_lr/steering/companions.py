"""Which callbacks cannot be in one list, whatever optimizer they steer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_lr._keras.frames import caller_locals
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


def refuse_swap(callbacks: Iterable[Any], policy: Policy) -> None:
    """Refuse Keras's `SwapEMAWeights` where a callback would take its averages for the weights.

    With `swap_on_epoch=True` it puts the averages into the model at the end of an epoch, and the
    weights into the slots of the optimizer, until the next epoch begins.

    Args:
        callbacks: All callbacks of the fit.

    Raises:
        ValueError: If it stands before a callback that copies weights at the end of an epoch, or
            after one that trains when an epoch begins; or if the fit does not train.
    """
    name, before = type(policy).__name__, True
    for each in callbacks:
        if each is policy:
            before = False
        if not isinstance(each, keras.callbacks.SwapEMAWeights):
            continue
        if "find" in policy.roles:
            raise ValueError(
                f"{name} stops the fit before it trains, so there are no averages; got "
                "SwapEMAWeights in the same list. Pass SwapEMAWeights to the next fit."
            )
        if each.swap_on_epoch and policy.copies_weights and before:
            raise ValueError(
                f"{name} must come before SwapEMAWeights(swap_on_epoch=True) in the list, because "
                f"it copies the weights of the training at the end of an epoch; got {name} after "
                "it. Move it to the front."
            )
        if each.swap_on_epoch and policy.trains_between_epochs and not before:
            raise ValueError(
                f"{name} must come after SwapEMAWeights(swap_on_epoch=True) in the list, because "
                "the averages are in the model until it begins the next epoch; got "
                f"{name} before it. Move it to the end."
            )


def callbacks_of(hook: str) -> list[Any]:
    """All callbacks of the list whose hook is running; none without a list."""
    running = caller_locals(hook, keras.callbacks.CallbackList)
    return [] if running is None else running["self"].callbacks
