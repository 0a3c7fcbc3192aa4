"""Experiment trackers for `LRLogger`: what it needs from one, and adapters for W&B and MLflow."""

from __future__ import annotations

import importlib.util
import time
from typing import Any, Protocol, runtime_checkable

from keras_lr._util.checks import choice

_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
_STEP = "update"  # the key of W&B's step axis
_METRICS_PER_CALL = 1000  # what a server of MLflow accepts


@runtime_checkable
class Tracker(Protocol):
    """What `LRLogger` writes to: any object with this method."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record the values of one update, counted from the start of the run."""


def checked_tracker(tracker: Any) -> Any:
    """Check the argument `tracker` of `LRLogger`, and return it.

    Raises:
        TypeError: If it is neither a name nor an object with a method `log`.
        ValueError: If it is another name.
        ModuleNotFoundError: If the package is not installed.
    """
    if tracker is None or (isinstance(tracker, Tracker) and not isinstance(tracker, type)):
        return tracker
    if not isinstance(tracker, str):
        raise TypeError(
            f"tracker must be an object with a method log(metrics, step), 'wandb' or 'mlflow'; got "
            f"{tracker!r}."
        )
    package = _PACKAGES[choice("tracker", tracker, _PACKAGES)]
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"tracker={tracker!r} needs the package {package}, which is not installed. Run `pip "
            f"install {package}`, or pass an object with a method log(metrics, step)."
        )
    return tracker


def open_tracker(tracker: Any) -> Tracker:
    """The tracker to write to: the object itself, or the adapter of a name.

    Raises:
        ValueError: If the tracker that is named has no active run.
    """
    if tracker == "wandb":
        return _WandbRun()
    if tracker == "mlflow":
        return _MlflowRun()
    opened: Tracker = tracker
    return opened


def log_batches(
    tracker: Tracker, columns: dict[str, list[float]], optimizer: str | None = None
) -> None:
    """Log the batches of an epoch: one entry per update, with the values of its last batch.

    Args:
        columns: A list for each name, one entry per batch, with `step` among the names.
        optimizer: The name of the optimizer, if others of the model are steered too.
    """
    names = {_key(name, optimizer): name for name in columns if name not in ("epoch", "step")}
    steps = [int(step) for step in columns["step"]]
    last = {step: batch for batch, step in enumerate(steps)}
    for step, batch in last.items():
        tracker.log({key: float(columns[name][batch]) for key, name in names.items()}, step)
    if isinstance(tracker, _MlflowRun):
        tracker.send()


def _key(name: str, optimizer: str | None) -> str:
    """`learning_rate_<group>` of the history is `learning_rate/<group>` in a tracker."""
    group = name.removeprefix("learning_rate_")
    parts = [name, optimizer] if group == name else ["learning_rate", optimizer, group]
    return "/".join(filter(None, parts))


class _WandbRun:
    """The active run of Weights & Biases.

    W&B drops what is logged at a step below its last one, so that two callbacks cannot each count
    their own steps. The updates are an axis of their own instead, as W&B's callback for Keras
    does it with epochs.
    """

    def __init__(self) -> None:
        import wandb

        if wandb.run is None:
            raise ValueError(
                "tracker='wandb' needs an active run; got none. Call wandb.init() before fit."
            )
        self._run = wandb.run
        self._run.define_metric(_STEP, hidden=True)
        for key in ("learning_rate", "learning_rate/*", "momentum", "momentum/*"):
            self._run.define_metric(key, step_metric=_STEP)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log({**metrics, _STEP: step})


class _MlflowRun:
    """The active run of MLflow; it sends the values together, not in a request for each update."""

    def __init__(self) -> None:
        import mlflow

        active = mlflow.active_run()
        if active is None:
            raise ValueError(
                "tracker='mlflow' needs an active run; got none. Call mlflow.start_run() before "
                "fit."
            )
        self._id = active.info.run_id
        self._client = mlflow.MlflowClient()
        self._metric = mlflow.entities.Metric
        self._unsent: list[Any] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._unsent += [self._metric(key, value, now, step) for key, value in metrics.items()]

    def send(self) -> None:
        """Send what was logged; it stays for the next call if the server does not answer."""
        while self._unsent:
            self._client.log_batch(self._id, metrics=self._unsent[:_METRICS_PER_CALL])
            del self._unsent[:_METRICS_PER_CALL]
