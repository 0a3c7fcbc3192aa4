"""Metrics: whether an entry of the logs should fall or rise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

__all__ = ["direction_by_name", "direction_of", "directions_of", "should_rise"]


def direction_of(model: Any, monitor: str) -> str:
    """ "min" or "max", according to the metric itself.

    Raises:
        ValueError: If no metric of that name has a direction.
    """
    name = monitor.removeprefix("val_")
    if name == "loss" or name.endswith("_loss"):
        return "min"
    found = [metric for logged, metric in _named_metrics(model) if logged == name]
    directions = [direction for m in found if (direction := getattr(m, "_direction", None))]
    if found and not directions and "acc" in name:
        directions = ["up"]
    if not directions:
        raise ValueError(
            f"The metric does not say whether {monitor!r} should fall or rise; got mode='auto'. "
            "Pass mode='min' or mode='max'."
        )
    return "max" if directions[0] == "up" else "min"


def should_rise(model: Any, name: str) -> bool:
    """Whether a model has a metric of this name which says that it should rise."""
    found = [metric for logged, metric in _named_metrics(model) if logged == name]
    return any(getattr(metric, "_direction", None) == "up" for metric in found)


def _named_metrics(model: Any) -> Iterator[tuple[str, Any]]:
    """The metrics of a model, with their names in the logs."""
    for outer in model.metrics:
        yield outer.name, outer
        if getattr(outer, "_flat_metrics", None) is not None:
            yield from _names_in_logs(outer).items()
        else:
            yield from ((metric.name, metric) for metric in getattr(outer, "metrics", []))


def _names_in_logs(compiled: Any) -> dict[str, Any]:
    """The metrics that were passed to `compile`, by the names that Keras gives their results.

    Those of a model with several outputs begin with the name of the output, as in "head_accuracy".
    """

    def renamed(lists: Any) -> list[Any]:
        """A stand-in for the metrics of each output, which are their own results."""
        return [
            each
            and SimpleNamespace(
                output_name=each.output_name,
                metrics=[SimpleNamespace(name=m.name, result=lambda m=m: m) for m in each.metrics],
            )
            for each in lists
        ]

    flat, weighted = renamed(compiled._flat_metrics), renamed(compiled._flat_weighted_metrics)
    stand_in = SimpleNamespace(built=True, _flat_metrics=flat, _flat_weighted_metrics=weighted)
    named: dict[str, Any] = type(compiled).result(stand_in)
    return named


_RISING = ("acc", "auc", "precision", "recall", "f1", "iou", "r2", "similarity")
_FALLING = ("loss", "error", "crossentropy", "mse", "mae", "rmse", "mape", "msle", "divergence")


def direction_by_name(name: str) -> str | None:
    """ "min" or "max" by the names of common metrics, for values without a metric."""
    name = name.lower()
    if any(part in name for part in _FALLING):
        return "min"
    return "max" if any(part in name for part in _RISING) else None


def directions_of(model: Any, names: Any) -> dict[str, str]:
    """The directions of those entries for which the model's metrics have one."""
    found = {}
    for name in names:
        with contextlib.suppress(ValueError):
            found[name] = direction_of(model, name)
    return found
