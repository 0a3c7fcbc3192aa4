"""Whether an entry of the logs should fall or rise."""

from __future__ import annotations

from typing import Any

__all__ = ["direction_of"]


def direction_of(model: Any, monitor: str) -> str:
    """ "min" or "max", as the metric itself says.

    Raises:
        ValueError: If no metric of that name says so.
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
            f"Whether {monitor!r} should fall or rise cannot be told from the metric; got "
            "mode='auto'. Pass mode='min' or mode='max'."
        )
    return "max" if directions[0] == "up" else "min"
