"""Training loops of one backend each: one step a batch, at a rate that is set for each step.

All three are the same thing to their caller. `train` runs steps on a stream and returns the
true values of each batch (Keras's own logs are running means), `evaluate` judges fixed batches.
They differ in how a step becomes cheap: TensorFlow and JAX fuse up to `CHUNK` steps into one
call of the compiled graph, and no backend waits for a number before the chunk is done.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import keras
import numpy as np

from keras_lr._keras.optimizers import stored_rate
from keras_lr._keras.trainer import compiled_loss_and_metrics
from keras_lr.steering import BorrowedRate, driven_optimizers, held_optimizers

CHUNK = 25
_KEPT = "_keras_lr_loop"


class Loop(Protocol):
    rate: BorrowedRate
    # Whether each step runs the model's Python code, and would create variables again.
    eager: bool

    def build(self, stream: Any) -> None:
        """Create the variables that the first training step of `fit` would create.

        Does nothing where the step cannot be traced without being run.
        """

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

    def read(self, variable: Any) -> np.ndarray | None:
        """The value of a variable after the last step; None if a step cannot change it.

        Only JAX has such variables: those that are not part of the state that `fit` trains.
        """


def make_loop(model: Any, rate: BorrowedRate, monitor: str, needs: list[Any]) -> Loop:
    """The loop of the running backend, for a model of which one optimizer reads `rate`.

    It is the one that `keep_loop` left there, if that still fits.

    Args:
        monitor: The log entry that is the loss.
        needs: What `loop_needs` gives for the model now.
    """
    kept = vars(model).get(_KEPT)
    if kept is not None and _same(kept[0], needs):
        loop: Loop = kept[1]
        loop.rate = rate
        return loop
    return _new_loop(model, rate, monitor)


def keep_loop(model: Any, loop: Loop, needs: list[Any], now: list[Any]) -> None:
    """Leave a compiled loop with its model, so that the next range test starts at once.

    Like Keras's train function it serves until the model is compiled anew; also until the
    variables of the model, its optimizers or its metrics are others. A loop with variables that
    the model loses again is of no use.

    Args:
        needs: What `loop_needs` gave before the loop was made.
        now: What it gives after the loop has trained.
    """
    loop.release()
    if _same(needs, now):
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


def loop_needs(model: Any, optimizer: Any, monitor: str) -> list[Any]:
    """What a compiled loop depends on. Objects, not ids: an id may come again."""
    held = held_optimizers(model).values()
    others = [leaf for each in held if each is not optimizer for leaf in driven_optimizers(each)]
    return [
        sys.intern(monitor),
        optimizer,
        *held,
        *(stored_rate(leaf) for leaf in others),
        *compiled_loss_and_metrics(model),
        model.run_eagerly,
        model.jit_compile,
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.metrics_variables,
        *(variable for each in held for variable in each.variables),
    ]


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def scalar_logs(logs: Any, monitor: str, step: str = "train") -> dict[str, Any]:
    """The scalar entries of what a step returned, by name; nested dictionaries are flattened.

    Args:
        monitor: The entry that is the loss of the test.
        step: The step that returned them, "train" or "test", for the message.

    Raises:
        ValueError: If no scalar has the name `monitor`.
    """
    scalars = _flattened(logs if isinstance(logs, dict) else {"loss": logs})
    if monitor not in scalars:
        names = ", ".join(scalars) or "no scalar"
        way_out = "Return the loss as a scalar in its dictionary of logs."
        if step == "test":
            way_out = "Return it from test_step, or leave out validation_data and confirm."
        elif scalars:
            likely = next((name for name in scalars if "loss" in name.lower()), next(iter(scalars)))
            way_out = f"Pass monitor={likely!r}, or another of them, to say which one is the loss."
        raise ValueError(
            f"The {step} step of this model logs no scalar {monitor!r}; it logs {names}. {way_out}"
        )
    return scalars


def _flattened(logs: dict[str, Any]) -> dict[str, Any]:
    """What Keras's `fit` makes of logs (`pythonify_logs`), before values become Python numbers."""
    scalars: dict[str, Any] = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            scalars.update(_flattened(value))
        elif hasattr(value, "shape"):
            if not tuple(value.shape):
                scalars[name] = value
        elif isinstance(value, (bool, int, float)):
            scalars[name] = value
    return scalars
