"""The one place that puts a learning rate into an optimizer and takes it out again.

Keras reads the rate from `optimizer._learning_rate`, which may be a variable, a schedule or a
callable. `BorrowedRate` puts a callable there. Going through `object.__setattr__` matters: the
normal assignment tracks what it is given into `optimizer.variables` (or untracks the variable
that it replaces), and so changes the layout in which the optimizer is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras import ops


def driven_optimizers(optimizer: Any) -> list[Any]:
    """The optimizers that hold a rate of their own: those inside a wrapper, or the one itself.

    `LossScaleOptimizer` and `MultiOptimizer` carry a learning rate that nothing reads; what
    counts is the rate of the optimizers that they hold.
    """
    if hasattr(optimizer, "inner_optimizer"):
        return driven_optimizers(optimizer.inner_optimizer)
    if hasattr(optimizer, "optimizers"):
        return [leaf for part in optimizer.optimizers for leaf in driven_optimizers(part)]
    return [optimizer]


def all_optimizers(optimizer: Any) -> list[Any]:
    """`optimizer` and every optimizer that it wraps, the outer one first."""
    parts = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    parts += getattr(optimizer, "optimizers", [])
    return [optimizer] + [inner for part in parts for inner in all_optimizers(part)]


def updates_every(optimizer: Any) -> int:
    """Batches that make one update: `gradient_accumulation_steps`, or 1 without accumulation."""
    steps = {leaf.gradient_accumulation_steps or 1 for leaf in driven_optimizers(optimizer)}
    if len(steps) > 1:
        raise ValueError(
            "All groups of a MultiOptimizer must accumulate the same number of batches; got "
            f"gradient_accumulation_steps of {', '.join(map(str, sorted(steps)))}."
        )
    return steps.pop()


def current_rate(optimizer: Any) -> float:
    """The learning rate that the next update of a single optimizer would use."""
    rate = optimizer.learning_rate
    return float(ops.convert_to_numpy(getattr(rate, "value", rate)))


class BorrowedRate:
    """A learning rate that a loop sets before each step, for every group of an optimizer.

    `value` is what the optimizer reads: a number, or a tensor of the graph being traced. The
    groups of a `MultiOptimizer` keep the ratios that they had: `value` is the rate of the
    fastest group, and the others follow at their share of it.
    """

    def __init__(self, optimizer: Any) -> None:
        self.value: Any = 0.0
        self._leaves = driven_optimizers(optimizer)
        if len(self._leaves) == 1:
            self.ratios = [1.0]
        else:
            rates = [current_rate(leaf) for leaf in self._leaves]
            if max(rates) <= 0.0:
                raise ValueError(
                    f"At least one group of the optimizer must have a rate above 0; got {rates}. "
                    "Their ratios are what the range test keeps."
                )
            self.ratios = [rate / max(rates) for rate in rates]

    def _read(self, ratio: float) -> Any:
        def learning_rate() -> Any:
            return self.value if ratio == 1.0 else self.value * ratio

        return learning_rate

    @contextmanager
    def installed(self) -> Iterator[BorrowedRate]:
        """Drive the optimizers within the block; afterwards each has its own rate again."""
        own = [leaf._learning_rate for leaf in self._leaves]
        try:
            for leaf, ratio in zip(self._leaves, self.ratios, strict=True):
                object.__setattr__(leaf, "_learning_rate", self._read(ratio))
            yield self
        finally:
            for leaf, learning_rate in zip(self._leaves, own, strict=True):
                object.__setattr__(leaf, "_learning_rate", learning_rate)
