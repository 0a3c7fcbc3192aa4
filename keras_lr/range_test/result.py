"""`RangeTest`: what a range test recorded, and what can be read from it."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_lr._keras.metrics import direction_by_name
from keras_lr._util.files import atomic_write
from keras_lr._util.json import read_saved
from keras_lr.range_test import bounds, rules
from keras_lr.range_test.suggestion import (
    Confirmation,
    NoSuggestion,
    Suggestion,
    SuggestionWarning,
)

_KIND = "range test"
_FORMAT_VERSION = 1


@dataclass(eq=False)
class RangeTest:
    """A curve of losses against learning rates, and how it was made.

    Curves recorded elsewhere work too: `RangeTest(learning_rates, losses).suggest()`.

    Args:
        learning_rates: Rate of each step, above 0 and increasing, shape (steps,).
        losses: True loss of each step's batch, shape (steps,), or (repeats, steps) with NaN
            after the end of a repeat that stopped early.
        metrics: Compiled metrics of each step's batch, shaped like `losses`.
        validation: `learning_rates` and the values measured there on the validation sample
            ("loss" and the metrics), each of shape (checks,); None without validation data.
        stop_reason: "completed", "diverged", "non_finite" or "data_ended"; "" for a curve that
            was recorded elsewhere. Of several repeats, the reason of the first that stopped early.
        confirmation: The short runs at constant rates; None without `confirm=True`.
        training_steps: Updates of the weights in the whole test.
        provenance: Versions, seed and options.

    Raises:
        ValueError: If shapes do not fit, or the rates are not above 0 and increasing.

    >>> test = RangeTest([1e-3, 1e-2, 1e-1], [2.0, 1.0, 4.0])
    >>> test
    <RangeTest of 3 steps, learning rate 0.001 to 0.1>
    >>> test.losses.shape
    (3,)
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    validation: dict[str, np.ndarray] | None = None
    stop_reason: str = ""
    confirmation: Confirmation | None = None
    training_steps: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        rates = self.learning_rates
        ends = f"{rates[0]:.4g} to {rates[-1]:.4g}" if len(rates) else "of none"
        ended = "" if self.stop_reason in ("", "completed") else f", {self.stop_reason}"
        return f"<RangeTest of {len(rates)} steps, learning rate {ends}{ended}>"

    def __post_init__(self) -> None:
        self.learning_rates = np.array(self.learning_rates, dtype=np.float64)
        self.losses = np.array(self.losses, dtype=np.float64)
        self.metrics = {name: np.array(v, np.float64) for name, v in self.metrics.items()}
        if self.validation is not None:
            self.validation = {k: np.array(v, np.float64) for k, v in self.validation.items()}
        _check_rising("learning_rates", self.learning_rates)
        _check_shapes({"losses": self.losses, **self.metrics}, self.learning_rates, "")
        if self.validation is not None:
            missing = [name for name in ("learning_rates", "loss") if name not in self.validation]
            if missing:
                raise ValueError(f"validation must have {' and '.join(missing)}; it does not.")
            rates = self.validation["learning_rates"]
            _check_rising("learning_rates of validation", rates)
            _check_shapes(self.validation, rates, " of validation")

    def suggest(self, method: str = "auto", *, monitor: str = "loss") -> Suggestion:
        """A learning rate to train with, its interval and the reason for it.

        Args:
            method: "auto" uses the confirmation if there is one, else the curve; "curve" always
                uses the curve. The rules of other libraries have their names: "valley", "slide",
                "steep", "minimum" (fastai), "lightning", "torch_lr_finder", "ignite", "ktrain".
            monitor: What to read: "loss", or a name in `metrics`: the loss of one output
                ("head_loss") or a compiled metric. A metric that should rise, such as an accuracy
                or an AUC, is read upside down. The confirmation is about the loss and does not
                apply to another monitor.

        Raises:
            NoSuggestion: If the curve supports no suggestion. The message gives the reason and a
                way out: the loss was not finite from the first step, the data ended too soon, there
                are too few steps, the loss is the same at every step, the curve is flat, the
                loss only rises, or the batch losses are too uneven (rare classes with large
                weights, heavy-tailed targets); for the last, it names a batch size that would do.
            ValueError: If there is no such method or monitor, or if it is unknown whether the
                monitored metric should fall or rise.

        Warns:
            SuggestionWarning: Once for each of the suggestion's `warnings`: a curve that never
                diverged, data that ended before the ramp, uneven losses, inputs or targets of
                a large scale. The interval is wide in the first three cases.
        """
        hints = tuple(str(hint) for hint in self.provenance.get("hints") or ())
        try:
            found = rules.suggest(
                self.learning_rates,
                self._read(monitor, self.metrics, self.losses),
                method,
                validation=self._validation_of(monitor),
                confirmation=self.confirmation if monitor == "loss" else None,
                stop_reason="" if self._ran_to_its_end() else self.stop_reason,
                batch_size=self.provenance.get("batch_size"),
            )
        except NoSuggestion as error:
            raise NoSuggestion(" ".join([str(error), *hints])) from None
        found = dataclasses.replace(found, warnings=(*found.warnings, *hints))
        for note in found.warnings:
            warnings.warn(note, SuggestionWarning, stacklevel=2)
        return found

    def _ran_to_its_end(self) -> bool:
        """Whether one ramp was recorded whole; the data may have ended in a later repeat."""
        options = self.provenance.get("options") or {}
        return len(self.learning_rates) == options.get("steps")

    def _read(self, monitor: str, metrics: dict[str, np.ndarray], losses: Any) -> np.ndarray:
        """The values of a monitor, negated if higher is better."""
        if monitor == "loss":
            return np.asarray(losses)
        if monitor not in metrics:
            names = ", ".join(["loss", *(name for name in metrics if name != "learning_rates")])
            raise ValueError(f"monitor must be one of {names}; got {monitor!r}.")
        recorded = self.provenance.get("directions", {})
        rises = recorded.get(monitor) or direction_by_name(monitor)
        if rises is None:
            raise ValueError(
                f"Whether {monitor!r} should fall or rise is not recorded, and its name does not "
                "say. Make a RangeTest of the values, negated if they should rise: "
                "RangeTest(test.learning_rates, -test.metrics[name])."
            )
        return -metrics[monitor] if rises == "max" else metrics[monitor]

    def _validation_of(self, monitor: str) -> dict[str, np.ndarray] | None:
        if self.validation is None or monitor not in self.validation:
            return None
        values = self._read(monitor, self.validation, self.validation["loss"])
        return {"learning_rates": self.validation["learning_rates"], "loss": values}

    def bounds(self) -> tuple[float, float]:
        """Smith's `(base_lr, max_lr)` for `CyclicLR`; `OneCycle` takes the suggestion as `max_lr`.

        Read from the accuracy if the model reports one (Smith 2015, section 3.3), else from the
        loss; on the validation sample if there is one.

        Raises:
            NoSuggestion: If the curve supports no bounds.
        """
        recorded = {"loss": self.losses, **self.metrics}
        rates = self.learning_rates
        if self.validation is not None:
            recorded = {k: v for k, v in self.validation.items() if k != "learning_rates"}
            rates = self.validation["learning_rates"]
        accuracy = next((v for name, v in recorded.items() if "acc" in name.lower()), None)
        return bounds.bounds(rates, recorded["loss"], accuracy)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the curve and the suggestion; see `keras_lr.plotting.plot_range_test`."""
        from keras_lr.plotting import plot_range_test

        return plot_range_test(self, ax, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the test as JSON, whole or not at all; `load` reads the same numbers.

        Returns:
            `path`, as a `Path`.

        Raises:
            OSError: If the file cannot be written.
        """
        content = {"format": f"keras-lr {_KIND}", "version": _FORMAT_VERSION, **self.to_dict()}
        return atomic_write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists and numbers; values that are not finite become None or text."""
        return {
            "learning_rates": _plain(self.learning_rates),
            "losses": _plain(self.losses),
            "metrics": {name: _plain(values) for name, values in self.metrics.items()},
            "validation": _plain(self.validation),
            "stop_reason": self.stop_reason,
            "confirmation": _plain(
                None if self.confirmation is None else dataclasses.asdict(self.confirmation)
            ),
            "training_steps": self.training_steps,
            "provenance": _plain(self.provenance),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTest:
        """Read a test that `save` wrote.

        Raises:
            ValueError: If the file is not a saved range test, or of a later version.
            OSError: If it cannot be read.
        """
        return read_saved(path, _KIND, 1, _FORMAT_VERSION, cls._of)

    @classmethod
    def _of(cls, content: dict[str, Any]) -> RangeTest:
        """The inverse of `to_dict`."""
        confirmation, validation = content["confirmation"], content["validation"]
        return cls(
            learning_rates=_numbers(content["learning_rates"]),
            losses=_numbers(content["losses"]),
            metrics={name: _numbers(v) for name, v in content["metrics"].items()},
            validation=None
            if validation is None
            else {name: _numbers(v) for name, v in validation.items()},
            stop_reason=str(content["stop_reason"]),
            confirmation=None if confirmation is None else _confirmation(confirmation),
            training_steps=int(content["training_steps"]),
            provenance=dict(content["provenance"]),
        )


def _check_shapes(columns: dict[str, np.ndarray], rates: np.ndarray, whose: str) -> None:
    for name, values in columns.items():
        if values.ndim not in (1, 2) or values.shape[-1] != len(rates):
            raise ValueError(
                f"{name}{whose} must have shape (steps,) or (repeats, steps), with {len(rates)} "
                f"steps like learning_rates; got {values.shape}."
            )


def _check_rising(name: str, rates: np.ndarray) -> None:
    if rates.ndim != 1:
        raise ValueError(f"{name} must have shape (steps,); got an array of shape {rates.shape}.")
    if not (np.all(np.isfinite(rates)) and np.all(rates > 0) and np.all(np.diff(rates) > 0)):
        raise ValueError(
            f"{name} must be finite, above 0 and increasing; got "
            f"{np.array2string(rates, threshold=6, precision=3)}."
        )


def _plain(value: Any) -> Any:
    """NumPy values as JSON values: NaN becomes null, an infinity its name."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def _numbers(value: Any) -> np.ndarray:
    """The inverse of `_plain` for arrays: float64 understands None and 'inf'."""
    return np.array(value, dtype=np.float64)


def _confirmation(content: dict[str, Any]) -> Confirmation:
    fields = {part.name: content[part.name] for part in dataclasses.fields(Confirmation)}
    made = Confirmation(**fields)
    lists: list[list[Any]] = [made.learning_rates, made.losses, made.steps]
    if len({len(each) for each in lists}) > 1 or not made.learning_rates:
        raise ValueError("the lists of the confirmation differ in length, or are empty")
    numbers = [*made.learning_rates, *made.steps, made.low, made.high, made.cost]
    if not all(type(value) in (int, float) for value in numbers):
        raise ValueError("a value of the confirmation is not a number")
    if not all(isinstance(warning, str) for warning in made.warnings):
        raise ValueError("a warning of the confirmation is not text")
    return made
