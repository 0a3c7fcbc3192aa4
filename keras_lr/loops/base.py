"""What the loops of all backends have in common: their methods, and the logs of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from keras_lr.loops.data import Batches
from keras_lr.steering import BorrowedRate

CHUNK = 25  # steps that a loop trains in one call
ONLY_A_RAMP = "pass steps=100, budget=100 and no validation_data"  # which needs no test_step


class Loop(Protocol):
    """A training loop for one model."""

    rate: BorrowedRate
    # Whether each step runs the model's Python code, and would create variables again.
    eager: bool
    # Whether the compiled steps get the variables as arguments: they then serve other variables
    # of the same shapes, such as the slots of an optimizer that is built again.
    stateless: bool

    @property
    def draws(self) -> bool:
        """Whether steps may draw from random generators that no variable of Keras holds."""

    def build(self, stream: Batches) -> None:
        """Create the variables that the first training step of `fit` would create.

        Does nothing if the step cannot be traced without running it.
        """

    def start(self) -> None:
        """Start from the current values of the model's variables."""

    def train(self, stream: Batches, rates: np.ndarray) -> dict[str, np.ndarray]:
        """Train one step on each batch, at most `CHUNK` steps, at the given rates.

        Returns the logs of each step that ran, arrays of equal length. They are shorter than
        `rates` if the loss was not finite (it is the last entry), or if the data ended.

        Raises:
            DataEnded: If the stream has no batch left and cannot start again.
        """

    def evaluate(self, batches: list[Any]) -> dict[str, float]:
        """Loss and metrics over the batches, without training."""

    def store(self) -> None:
        """Write the trained state into the model's variables, to copy it; then `release`."""

    def release(self) -> None:
        """Drop the trained state: the model is restored, or keeps the loop."""

    def read(self, variable: Any) -> np.ndarray | None:
        """The value of a variable after the last step; None if a step cannot change it.

        Only JAX has such variables: those outside of the state that `fit` trains.
        """


def scalar_logs(logs: Any, monitor: str, step: str = "train") -> dict[str, Any]:
    """The scalars among the logs of a step, by name; nested dictionaries are flattened.

    Args:
        monitor: The entry that is the loss.
        step: The step that logged them, "train" or "test", for the message.

    Raises:
        ValueError: If no scalar has the name `monitor`.
    """
    scalars = _flattened(logs if isinstance(logs, dict) else {"loss": logs})
    if monitor not in scalars:
        names = ", ".join(scalars) or "no scalar"
        way_out = "Return the loss as a scalar in its dictionary of logs."
        if step == "test":
            way_out = f"Return it from test_step, or {ONLY_A_RAMP}."
        elif scalars:
            likely = next((name for name in scalars if "loss" in name.lower()), next(iter(scalars)))
            way_out = f"Pass monitor={likely!r}, or another of them, to choose the loss."
        raise ValueError(
            f"The {step} step of this model logs no scalar {monitor!r}; it logs {names}. {way_out}"
        )
    return scalars


def check_updated(
    model: Any, monitor: str, logs: dict[str, float], read: Callable[[Any], np.ndarray | None]
) -> None:
    """Refuse a loss of the test step that is a metric which the step has not updated.

    Keras's own step logs all metrics of a model: that of a GAN has none for its losses, but logs
    the metrics that only its training step updates.

    Args:
        logs: Those of an evaluation.
        read: Returns the value of a variable of a metric after it; None if it had none.

    Raises:
        ValueError: If the loss and all variables of the metric are 0, as after a reset.
    """
    if logs[monitor] != 0.0:
        return
    for metric in model.metrics:
        if metric.name != monitor:
            continue
        values = [value for each in metric.variables if (value := read(each)) is not None]
        if values and not any(np.any(value) for value in values):
            raise ValueError(
                f"The test step of this model logs {monitor!r}, but does not update that metric. "
                f"Define test_step, or {ONLY_A_RAMP}."
            )


def _flattened(logs: dict[str, Any]) -> dict[str, Any]:
    """The logs as Keras's `fit` flattens them, before it makes Python numbers of them."""
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
