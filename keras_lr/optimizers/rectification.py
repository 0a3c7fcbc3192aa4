"""RAdam's factor on the rate, by which the first updates of Adam need no warm-up."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

LEAST = 0.6  # a `beta_2` of at most this never leaves the phase without updates
_BERNOULLI = ((-1, 12), (1, 720), (-1, 30240), (1, 1209600), (-1, 47900160))
_SERIES = 0.5  # where the two forms of `_rest` meet


def rectification(update: Any, beta_2: float) -> Any:
    """The factor of an update in [0, 1), 0 while the variance of the step is not finite.

    Liu et al., "On the variance of the adaptive learning rate and beyond", 2020
    (arXiv 1908.03265), algorithm 2. The length of the moving average is
    rho_t = rho - 2 t beta_2^t / (1 - beta_2^t) with rho = 2 / (1 - beta_2) - 1. In float32 this
    difference would lose half of the digits, so it is written as a sum of positive parts.

    Args:
        update: t = 1, 2, ..., a tensor of float32 or float64.
        beta_2: Adam's; above `LEAST`.
    """
    rate = -math.log(beta_2)
    longest = 2.0 / (1.0 - beta_2) - 1.0
    length = (longest - 2.0 / rate) + (2.0 / rate) * _rest(rate * update)
    above = length - 4.0
    above = ops.where(above > 0.0, above, ops.zeros_like(above))
    scale = longest / ((longest - 4.0) * (longest - 2.0))
    return ops.sqrt(above * (length - 2.0) * scale / length)


def _rest(x: Any) -> Any:
    """1 - x / (e^x - 1) for x above 0; near 0 by its Bernoulli series."""
    power = square = x * x
    series = x * 0.5
    for sign, divisor in _BERNOULLI:
        series = series + sign * power / divisor
        power = power * square
    large = ops.where(x < _SERIES, ops.ones_like(x), x)
    return ops.where(x < _SERIES, series, 1.0 - large / ops.expm1(large))
