"""Building blocks of the curves; each keeps its relative precision in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def after(step: Any, point: float) -> Any:
    """Steps since `point`, subtracted in two parts in case float32 cannot represent `point`."""
    near = float(np.float32(point))
    return (step - near) - (point - near)


def until(step: Any, point: float) -> Any:
    """Steps left until `point`."""
    return -after(step, point)


def share(part: Any, length: float) -> Any:
    """`part / length`, clipped to [0, 1]; 1 for a phase of length 0."""
    return ops.clip(part / length, 0.0, 1.0) if length > 0 else ops.ones_like(part)


def linear(x: Any) -> Any:
    """A straight line from 0 to 1."""
    return x


def cosine(x: Any) -> Any:
    """Half a cosine wave from 0 to 1: (1 - cos(pi x)) / 2 without its cancellation near 0."""
    return ops.square(ops.sin(0.5 * math.pi * x))


def power(base: float, exponent: Any) -> Any:
    """`base ** exponent` for a base above 0; float32 would round a base near 1 too coarsely."""
    return ops.exp(math.log(base) * exponent)


def between(low: float, high: float, height: Any) -> Any:
    """`low` at height 0, `high` at height 1."""
    return low + (high - low) * height
