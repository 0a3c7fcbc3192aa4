"""What the plots of a search share: the range of the vertical axis, line styles, the grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_lr.rate_search.result import Search
    from keras_lr.rate_search.rounds import Round

__all__ = ["STYLES", "View", "round_named"]

STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
_LOG_FROM = 10**1.5  # ratio of losses from which the axis is logarithmic


@dataclass(frozen=True)
class View:
    """The range of the vertical axis."""

    low: float
    high: float
    logarithmic: bool

    @staticmethod
    def of(
        groups: Iterable[Iterable[float]], wanted: Iterable[float] = (), extent: float = 3.0
    ) -> View:
        """The range from the lowest value up to the usual ones.

        Args:
            groups: The values.
            wanted: Values that the range must include.
            extent: Height of the range, in heights of the highest median of a group.
        """
        finite = [[v for v in group if math.isfinite(v)] for group in groups]
        wanted = [value for value in wanted if math.isfinite(value)]
        everything = [value for group in finite for value in group] + wanted
        if not everything:
            return View(0.0, 1.0, False)
        low, high = min(everything), max(everything)
        middles = [float(np.median(group)) for group in finite if group]
        usual = low + extent * (max(middles, default=low) - low)
        if usual > low:
            high = min(high, max(usual, *wanted, low))
        logarithmic = low > 0 and high / low > _LOG_FROM
        if high == low:
            return View(low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10, False)
        return View(low, high, logarithmic)

    def show(self, ax: Axes, flipped: bool = False) -> None:
        if self.logarithmic:
            ax.set_yscale("log")
            room = (self.high / self.low) ** 0.06
            ax.set_ylim(self.low / room, self.high * room)
        else:
            room = 0.07 * (self.high - self.low)
            ends = (self.low - room, self.high + room)
            ax.set_ylim(*(-end for end in reversed(ends)) if flipped else ends)


def round_named(search: Search, name: str) -> Round | None:
    return next((each for each in search.rounds if each.name == name), None)
