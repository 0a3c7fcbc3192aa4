"""Training loops of one backend each: one step a batch, at a rate that is set for each step.

All three are the same thing to their caller. `train` runs steps on a stream and returns the
true values of each batch (Keras's own logs are running means), `evaluate` judges fixed batches.
They differ in how a step becomes cheap: TensorFlow and JAX fuse up to `CHUNK` steps into one
call of the compiled graph, and no backend waits for a number before the chunk is done.
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np

from keras_lr.steering import BorrowedRate

CHUNK = 25
_KEPT = "_keras_lr_loop"


class Loop(Protocol):
    rate: BorrowedRate

    def start(self) -> None:
        """Begin from the values that the model's variables hold now."""

    def train(self, stream: Any, rates: np.ndarray) -> dict[str, np.ndarray]:
        """Train one step a batch, at most `CHUNK` of them, at the given rates.

        Returns the logs of each step that ran, arrays of equal length. Fewer than
        `len(rates)` when the loss was not finite (the last entry shows it).

        Raises:
            DataEnded: If the stream had no batch left and cannot start again.
        """

    def evaluate(self, batches: list[Any]) -> dict[str, float]:
        """Loss and metrics over the batches, without training."""

    def release(self) -> None:
        """Give up the state that was trained: the model is put back, or keeps the loop."""


def make_loop(model: Any, rate: BorrowedRate) -> Loop:
    """The loop of the running backend, for a model whose optimizer reads `rate`.

    It is the one that `keep_loop` left there, if that still fits.
    """
    kept = vars(model).get(_KEPT)
    if kept is not None and _same(kept[0], _signature(model)):
        loop: Loop = kept[1]
        loop.rate = rate
        return loop
    return _new_loop(model, rate)


def keep_loop(model: Any, loop: Loop) -> None:
    """Leave a compiled loop with its model, so that the next range test starts at once.

    Like Keras's train function it serves until the model is compiled anew; also until the
    variables of the model, its optimizer or its metrics are others.
    """
    loop.release()
    object.__setattr__(model, _KEPT, (_signature(model), loop))


def _new_loop(model: Any, rate: BorrowedRate) -> Loop:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_lr.loops.tensorflow import TensorFlowLoop

        return TensorFlowLoop(model, rate)
    if backend == "jax":
        from keras_lr.loops.jax import JaxLoop

        return JaxLoop(model, rate)
    if backend == "torch":
        from keras_lr.loops.torch import TorchLoop

        return TorchLoop(model, rate)
    raise RuntimeError(
        f"The range test trains on tensorflow, jax or torch; the Keras backend is {backend!r}. "
        "Set KERAS_BACKEND before Keras is imported."
    )


def _signature(model: Any) -> list[Any]:
    """What a compiled loop depends on. Objects, not ids: an id may come again."""
    return [
        model.optimizer,
        model._compile_loss,
        model._compile_metrics,
        model.run_eagerly,
        model.jit_compile,
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.metrics_variables,
        *model.optimizer.variables,
    ]


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def scalar_logs(logs: Any) -> dict[str, Any]:
    """The scalar entries of what a train step returned, by name."""
    if not isinstance(logs, dict):
        logs = {"loss": logs}
    scalars = {name: value for name, value in logs.items() if not _shape(value)}
    if "loss" not in scalars:
        raise ValueError(
            "The train step must return the loss, as the number 'loss' among its logs; it "
            f"returned {sorted(logs)}."
        )
    return scalars


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))
