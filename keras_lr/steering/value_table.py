"""The values of a curve, computed a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

_BLOCK = 256


class ValueTable:
    """The values of a curve, computed a block at a time.

    Args:
        values: Called with updates of the run, and how far the optimizer's own count is ahead.
    """

    def __init__(self, values: Callable[[np.ndarray, int], np.ndarray]) -> None:
        self._compute = values
        self.forget()

    def forget(self) -> None:
        """Compute the values again when they are next read."""
        self._first, self._ahead = 0, 0
        self._values: np.ndarray = np.empty(0)
        self._tensor: Any = None

    def tensor_at(self, update: int, ahead: int) -> Any:
        index = self._index(update, ahead)
        if self._tensor is None:
            self._tensor = ops.convert_to_tensor(self._values, "float32")
        return self._tensor[index]

    def number_at(self, update: int, ahead: int) -> float:
        index = self._index(update, ahead)
        return float(self._values[index])

    def _index(self, update: int, ahead: int) -> int:
        index = update - self._first
        if not 0 <= index < len(self._values) or ahead != self._ahead:
            self._values = self._compute(np.arange(update, update + _BLOCK), ahead)
            self._tensor = None
            self._first, self._ahead, index = update, ahead, 0
        return index
