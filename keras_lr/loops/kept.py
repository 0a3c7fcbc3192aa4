"""Making the loop of the running backend, and keeping it with its model for the next range test."""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_lr._keras.optimizers import stored_rate
from keras_lr.loops.base import Loop
from keras_lr.steering import BorrowedRate, innermost_optimizers
from keras_lr.steering.dependencies import includes_objects, same_objects, step_dependencies

_KEPT = "_keras_lr_loop"


def make_loop(model: Any, rate: BorrowedRate, monitor: str, needs: list[Any]) -> Loop:
    """The loop of the running backend, for a model of which one optimizer reads `rate`.

    It is the one that `keep_loop` stored in the model, if that is still valid.

    Args:
        monitor: The log entry that is the loss.
        needs: The `loop_dependencies` of the model.
    """
    kept = vars(model).get(_KEPT)
    if kept is not None and same_objects(kept[0], needs):
        loop: Loop = kept[1]
        loop.rate = rate
        return loop
    return _new_loop(model, rate, monitor)


def keep_loop(model: Any, loop: Loop, needs: list[Any], now: list[Any]) -> None:
    """Store a compiled loop in its model, so that the next range test starts at once.

    Like Keras's train function it is valid until the model is compiled again; also until the
    variables of the model, its optimizers or its metrics are replaced. A range test removes the
    variables that it created. A loop that trained with such variables is stored only if its
    steps get them as arguments, as on JAX: the next test creates them again.

    Args:
        needs: The `loop_dependencies` before the loop was made.
        now: The `loop_dependencies` after the loop has trained.
    """
    loop.release()
    if same_objects(needs, now) or (loop.stateless and includes_objects(now, needs)):
        object.__setattr__(model, _KEPT, (needs, loop))


def _new_loop(model: Any, rate: BorrowedRate, monitor: str) -> Loop:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_lr.loops.tensorflow import TensorFlowLoop

        return TensorFlowLoop(model, rate, monitor)
    if backend == "jax":
        from keras_lr.loops.jax import JaxLoop

        return JaxLoop(model, rate, monitor)
    if backend == "torch":
        from keras_lr.loops.torch import TorchLoop

        return TorchLoop(model, rate, monitor)
    raise RuntimeError(
        f"The range test trains on tensorflow, jax or torch; the Keras backend is {backend!r}. "
        "Set KERAS_BACKEND before Keras is imported."
    )


def loop_dependencies(
    model: Any, optimizer: Any, monitor: str, optimizers: dict[str, Any]
) -> list[Any]:
    """The objects that a compiled loop depends on.

    Args:
        optimizers: The `model_optimizers` of the model.
    """
    held = optimizers.values()
    others = [part for each in held if each is not optimizer for part in innermost_optimizers(each)]
    return [
        sys.intern(monitor),
        optimizer,
        *(stored_rate(part) for part in others),
        model.run_eagerly,
        model.jit_compile,
        *step_dependencies(model, held),
    ]
