"""The rule of `ReduceLROnPlateau`: when to lower or raise the rate, from the values of a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from keras_lr._keras.metrics import direction_by_name, direction_of
from keras_lr._util.checks import choice, count, log_entry, number

__all__ = ["Decision", "PlateauRule", "Progress"]


@dataclass(frozen=True)
class Decision:
    """The result of `PlateauRule.observe`.

    Attributes:
        action: "none", "reduce", "grow" or "stop".
        factor: Factor on the learning rate; 1.0 for "none" and "stop".
        improved: Whether the value is a new best.
        reason: The reason, as one sentence for the log, without a full stop.
    """

    action: Literal["none", "reduce", "grow", "stop"]
    factor: float
    improved: bool
    reason: str


@dataclass
class Progress:
    """The state of a `PlateauRule`.

    Attributes:
        seen: Values observed.
        best: The best (smoothed) value so far; None before the first.
        wait: Values without improvement that count towards `patience`.
        streak: Improvements in a row that count towards `growth_patience`.
        cooldown: Values until the cooldown ends, including the last one.
        reductions: Reductions so far.
        average: The moving average of the finite values.
        averaged: The number of values in it.
    """

    seen: int = 0
    best: float | None = None
    wait: int = 0
    streak: int = 0
    cooldown: int = 0
    reductions: int = 0
    average: float = 0.0
    averaged: int = 0


class PlateauRule:
    """Decide when to lower or raise the learning rate, from one value of a metric after another.

    With the defaults the decisions are those of `keras.callbacks.ReduceLROnPlateau`, including
    the order of its counters: `patience` values in a row that are not better than the best one by
    more than `min_delta` lead to a reduction. There are three differences. A value that is not
    finite is not an improvement and does not enter the average; after a NaN as its first value,
    Keras's callback never finds an improvement. Values are compared in double precision, not in
    that of the backend. A factor of zero or less and a negative `min_delta` raise an error.

    The rule does not know the learning rate. The caller passes with each value whether the rate
    can still go down or up, and multiplies the rate by `Decision.factor`.

    Arguments of other libraries: `patience=p` and `cooldown=c` of `torch.optim.lr_scheduler.
    ReduceLROnPlateau` are `patience=p + 1` and `cooldown=c + 1` here, because torch acts when
    the count is above its patience and skips all values of its cooldown, while Keras counts the
    last of them (so cooldowns of 0 and 1 are the same). `reduce_on_plateau` of optax has Keras's
    patience and torch's cooldown. GreedyLR of Hugging Face (Subramanian et al., 2025, arXiv
    2512.14527) with `factor=f` and `patience=p` is `factor=f, growth_factor=1 / f,
    patience=p + 1`, and its cooldown is torch's; but here a best value is also noted during a
    cooldown, and a reduction that a lower bound prevents starts no cooldown.

    Args:
        factor: Factor of a reduction, in (0, 1).
        patience: Values without improvement before a reduction; an integer of at least 0. As in
            Keras, 0 is the same as 1.
        mode: "min" if lower values are better, "max" if higher ones are; "auto": in a callback the
            direction of the metric, otherwise that of common metrics of this name.
        min_delta: A value is an improvement if it is better than the best one by more than this;
            at least 0.
        threshold_mode: "abs" if `min_delta` is in the unit of the metric, "rel" if it is a fraction
            of the absolute best value, below 1. torch multiplies the best value itself by
            `1 - min_delta`, which accepts a worse value below zero as an improvement.
        cooldown: Values that do not count after a reduction, as Keras counts: all but the last of
            them are skipped. An integer of at least 0. A best value is noted nevertheless.
        smoothing: Decay of the moving average, in [0, 1); 0 is no smoothing. The average is
            corrected for its start at zero and replaces the value, also for `Decision.improved`.
        warmup: Values at the start that do not count; an integer of at least 0. The best of them
            is noted, and the average includes them.
        max_reductions: The decision is "stop" when a reduction is due after this many. 0 stops at
            the first plateau; None never stops.
        growth_factor: Factor of a growth, above 1; None for no growth.
        growth_patience: Improvements in a row before a growth, each over the best before it; an
            integer of at least 0, where 0 is the same as 1. By default `patience`.
        monitor: Name of the metric, for `Decision.reason`.
        unit: The unit of one value, for `Decision.reason`; its first word takes the plural "s",
            as in "windows of 50 batches".

    Attributes:
        progress: The `Progress` so far.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of the wrong kind.

    >>> rule = PlateauRule(factor=0.5, patience=2)
    >>> [rule.observe(loss).action for loss in (1.0, 0.8, 0.9, 0.8)]
    ['none', 'none', 'none', 'reduce']
    """

    def __init__(
        self,
        *,
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        smoothing: float = 0.0,
        warmup: int = 0,
        max_reductions: int | None = None,
        growth_factor: float | None = None,
        growth_patience: int | None = None,
        monitor: str = "val_loss",
        unit: str = "epoch",
    ) -> None:
        self.factor = number("factor", factor, above=0.0, below=1.0)
        self.patience = count("patience", patience, 0)
        self.mode = choice("mode", mode, ["auto", "min", "max"])
        self.min_delta = number("min_delta", min_delta, least=0.0)
        self.threshold_mode = choice("threshold_mode", threshold_mode, ["abs", "rel"])
        if self.threshold_mode == "rel" and min_delta >= 1.0:
            raise ValueError(
                f"min_delta must be below 1 with threshold_mode='rel'; got {min_delta!r}. "
                "It is a fraction of the best value: 0.01 is one percent."
            )
        self.cooldown = count("cooldown", cooldown, 0)
        self.smoothing = number("smoothing", smoothing, least=0.0, below=1.0)
        self.warmup = count("warmup", warmup, 0)
        self.max_reductions = max_reductions
        if max_reductions is not None:
            self.max_reductions = count("max_reductions", max_reductions, 0)
        self.growth_factor = growth_factor
        if growth_factor is not None:
            self.growth_factor = number("growth_factor", growth_factor, above=1.0)
        elif growth_patience is not None:
            raise ValueError(
                f"growth_patience must be None without a growth_factor; got {growth_patience!r}. "
                "Pass growth_factor too, a number above 1."
            )
        self.growth_patience = self.patience
        if growth_patience is not None:
            self.growth_patience = count("growth_patience", growth_patience, 0)
        self.monitor = log_entry("monitor", monitor)
        self.unit = unit
        self._direction: str | None
        self.reset()

    def observe(self, value: Any, *, can_reduce: bool = True, can_grow: bool = True) -> Decision:
        """Decide what to do after the next value of the metric.

        Args:
            value: The value, a number; NaN and infinities are not improvements.
            can_reduce: Whether the learning rate is above its lower bound. If not, a reduction
                that is due does not happen, and no counter changes, as in Keras: it stays due
                until the next improvement.
            can_grow: The same for the upper bound and a growth.

        Raises:
            TypeError: If `value` is not a number.
            ValueError: If the mode is "auto", and the name of the metric tells no direction.
        """
        if self._direction is None:
            self._direction = _direction_by_name(self.monitor)
        progress = self.progress
        value = self._smooth(_metric(self.monitor, value))
        progress.seen += 1
        if progress.cooldown > 0:
            progress.cooldown -= 1
        improved = self._improves(value)
        verdict = self._verdict(value, improved)
        if improved:
            progress.best, progress.wait = value, 0

        def nothing(why: str) -> Decision:
            return Decision("none", 1.0, improved, verdict + why)

        if progress.seen <= self.warmup:
            return nothing(", which does not count during the warm-up")
        if progress.cooldown > 0:
            return nothing(", which does not count during the cooldown")

        if improved:
            progress.streak += 1
            if self.growth_factor is None or progress.streak < self.growth_patience:
                return nothing("")
            if not can_grow:
                return nothing(", but the learning rate is at its upper bound")
            why = f"{verdict}, now for {self._units(progress.streak)} in a row"
            progress.streak = 0
            return Decision("grow", self.growth_factor, True, why)

        progress.wait += 1
        progress.streak = 0
        verdict += f" for {self._units(progress.wait)}"
        if progress.wait < self.patience:
            return nothing("")
        if self.max_reductions is not None and progress.reductions >= self.max_reductions:
            why = f"{verdict}, after {progress.reductions} of {self.max_reductions} reductions"
            return Decision("stop", 1.0, False, why)
        if not can_reduce:
            return nothing(", but the learning rate is at its lower bound")
        progress.reductions += 1
        progress.cooldown = self.cooldown
        progress.wait = 0
        return Decision("reduce", self.factor, False, verdict)

    def reset(self) -> None:
        """Forget all values, for a new run."""
        self.progress = Progress()
        self._direction = None if self.mode == "auto" else self.mode

    def look_up_direction(self, model: Any) -> None:
        """Take the direction from the model's metric if the mode is "auto".

        Raises:
            ValueError: If the metric has none.
        """
        if self._direction is None:
            self._direction = direction_of(model, self.monitor)

    def state(self) -> dict[str, Any]:
        """The state for `load`: numbers and None, as JSON can store them."""
        return asdict(self.progress)

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`, which does not include the arguments of the rule.

        Raises:
            ValueError: If this is not a result of `state`; then the rule does not change.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"The state of a PlateauRule must be a dict; got {state!r}.")
        kinds = {field.name: type(field.default) for field in fields(Progress)}
        if set(state) != set(kinds):
            raise ValueError(
                f"The state of a PlateauRule must have the keys {', '.join(kinds)}; "
                f"got {', '.join(map(str, state)) or 'none'}."
            )
        restored: dict[str, Any] = {
            name: _restored(name, kind, state[name]) for name, kind in kinds.items()
        }
        self.progress = Progress(**restored)

    def _smooth(self, value: float) -> float:
        """The moving average with `value`; NaN, without a change of the average, if not finite."""
        progress = self.progress
        averaged = progress.averaged + 1
        share = (1.0 - self.smoothing) / (1.0 - self.smoothing**averaged)
        average = value
        if share != 1.0:  # exact without smoothing, and for a constant metric
            average = progress.average + share * (value - progress.average)
        if not math.isfinite(average):
            return math.nan
        progress.average, progress.averaged = average, averaged
        return average

    def _improves(self, value: float) -> bool:
        best = self.progress.best
        if best is None:
            return not math.isnan(value)
        margin = self.min_delta * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return value + margin < best if self._direction == "min" else value - margin > best

    def _verdict(self, value: float, improved: bool) -> str:
        name = f"smoothed {self.monitor}" if self.smoothing else self.monitor
        best = self.progress.best
        if improved:
            before = "" if best is None else f"from {best:.6g} "
            return f"{name} has improved {before}to {value:.6g}"
        if best is None:
            return f"{name} has not been finite"
        margin = ""
        if self.min_delta:
            relative = self.threshold_mode == "rel"
            margin = f" by {100 * self.min_delta:.6g}%" if relative else f" by {self.min_delta:.6g}"
        cause = " is not finite and" if math.isnan(value) else ""
        return f"{name}{cause} has not improved on {best:.6g}{margin}"

    def _units(self, quantity: int) -> str:
        first, *rest = self.unit.split(" ")
        return " ".join([str(quantity), first if quantity == 1 else f"{first}s", *rest])


def _direction_by_name(monitor: str) -> str:
    direction = direction_by_name(monitor)
    if direction is None:
        raise ValueError(
            f"The name does not say whether {monitor!r} should fall or rise; got mode='auto'. "
            "Pass mode='min' or mode='max'."
        )
    return direction


def _metric(name: str, value: Any) -> float:
    """A number, or an array or tensor with one number."""
    if not hasattr(value, "__float__"):  # a string has none, and float() would read it
        raise TypeError(f"{name} must be a number; got {value!r}.")
    return float(value)


def _restored(name: str, kind: type, value: Any) -> int | float | None:
    """`value` as `Progress` stores it under `name`."""
    try:
        if kind is int:
            return count(name, value, 0)
        if kind is not float and value is None:
            return None
        return number(name, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The state of a PlateauRule is damaged: {error}") from error
