"""The pieces that curves are made of; each keeps its relative precision in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def after(step: Any, point: float) -> Any:
    """Steps since `point`, in two parts where no float32 is that point."""
    near = float(np.float32(point))
    return (step - near) - (point - near)


def until(step: Any, point: float) -> Any:
    """Steps that are left to `point`."""
    return -after(step, point)


def share(part: Any, length: float) -> Any:
    """`part / length` within 0 and 1; a phase without a length counts as whole."""
    return ops.clip(part / length, 0.0, 1.0) if length > 0 else ops.ones_like(part)


def linear(x: Any) -> Any:
    """A straight climb from 0 to 1."""
    return x


def cosine(x: Any) -> Any:
    """Half a cosine wave from 0 to 1: (1 - cos(pi x)) / 2, which would cancel near 0."""
    return ops.square(ops.sin(0.5 * math.pi * x))


def power(base: float, exponent: Any) -> Any:
    """`base ** exponent` for a base above 0: a base near 1 must not be rounded to float32."""
    return ops.exp(math.log(base) * exponent)


def between(low: float, high: float, height: Any) -> Any:
    """From `low` at height 0 to `high` at height 1."""
    return low + (high - low) * height
