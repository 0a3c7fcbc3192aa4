"""Metrics: whether an entry of the logs should fall or rise."""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = ["direction_by_name", "direction_of", "directions_of"]


def direction_of(model: Any, monitor: str) -> str:
    """ "min" or "max", according to the metric itself.

    Raises:
        ValueError: If no metric of that name has a direction.
    """
    name = monitor.removeprefix("val_")
    if name == "loss" or name.endswith("_loss"):
        return "min"
    found = [
        metric
        for outer in model.metrics
        for metric in [outer, *getattr(outer, "metrics", [])]
        if metric.name == name
    ]
    directions = [direction for m in found if (direction := getattr(m, "_direction", None))]
    if found and not directions and "acc" in name:
        directions = ["up"]
    if not directions:
        raise ValueError(
            f"The metric does not say whether {monitor!r} should fall or rise; got mode='auto'. "
            "Pass mode='min' or mode='max'."
        )
    return "max" if directions[0] == "up" else "min"


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
