"""`RangeTest`: what a range test recorded, and what can be read from it."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_lr._keras.metrics import direction_by_name
from keras_lr._util import checks
from keras_lr._util.files import atomic_write
from keras_lr._util.json import jsonable, read_saved
from keras_lr.range_test import bounds, rules
from keras_lr.range_test.evidence import for_run, weigh
from keras_lr.range_test.planned_run import (
    SCHEDULE_FREE,
    PlannedRun,
    planned_run,
    schedule_free_run,
)
from keras_lr.range_test.prior import usual_rate
from keras_lr.range_test.probes import Probes
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion, SuggestionWarning

_KIND = "range test"
_FORMAT_VERSION = 2


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
        probes: The short runs at constant rates; None without any.
        planned: The run for which the rate is wanted; None if nothing is known about it.
        training_steps: Updates of the weights in the whole test.
        provenance: Versions, seed and options. "family" names the optimizer's family.

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
    probes: Probes | None = None
    planned: PlannedRun | None = None
    training_steps: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)
    _continue: Callable[[int], tuple[Probes, int]] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        rates = self.learning_rates
        ends = f", learning rate {rates[0]:.4g} to {rates[-1]:.4g}" if len(rates) else ""
        ended = "" if self.stop_reason in ("", "completed") else f", {self.stop_reason}"
        runs = "" if self.probes is None else f", {len(self.probes.learning_rates)} short runs"
        return f"<RangeTest of {len(rates)} steps{ends}{ended}{runs}>"

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

    def suggest(
        self,
        method: str = "auto",
        *,
        policy: Any = None,
        total_steps: int | None = None,
        monitor: str = "loss",
    ) -> Suggestion:
        """A learning rate to train with, its interval and the reason for it.

        Args:
            method: "auto" uses the short runs if there are any, else the curve and the usual rate
                of the optimizer's family; "curve" uses the curve alone. The rules of other
                libraries have their names: "valley", "slide", "steep", "minimum" (fastai),
                "lightning", "torch_lr_finder", "ignite", "ktrain". They know no planned run.
            policy, total_steps: Another planned run than that of the test, as in `lr_find`.
            monitor: What to read: "loss", or a name in `metrics`: the loss of one output
                ("head_loss") or a compiled metric. A metric that should rise, such as an accuracy
                or an AUC, is read upside down. The short runs are about the loss and do not apply
                to another monitor.

        Raises:
            NoSuggestion: If the test supports no suggestion. The message gives the reason and a
                way out: the loss was not finite from the first step, the data ended too soon, there
                are too few steps, the loss is the same at every step, the curve is flat, the
                loss only rises, or the batch losses are too uneven (rare classes with large
                weights, heavy-tailed targets); for the last, it names a batch size that would do.
            ValueError: If there is no such method, policy or monitor, or if it is unknown whether
                the monitored metric should fall or rise.

        Warns:
            SuggestionWarning: Once for each of the suggestion's `warnings`: a curve that never
                diverged, data that ended before the ramp, uneven losses, few held-out examples,
                inputs or targets of a large scale.
        """
        hints = tuple(str(hint) for hint in self.provenance.get("hints") or ())
        run = self._run(policy, total_steps)
        try:
            if method == "auto":
                found = weigh(
                    lambda: self._by_curve("curve", monitor),
                    self.probes if monitor == "loss" else None,
                    *usual_rate(self.provenance.get("family") or self.provenance.get("optimizer")),
                    run,
                )
            else:
                found = self._by_curve(method, monitor)
                found = for_run(found, run) if method == "curve" else found
        except NoSuggestion as error:
            raise NoSuggestion(" ".join([str(error), *hints])) from None
        found = dataclasses.replace(
            found, method=method, warnings=(*found.warnings, *hints), test=self._for_pictures()
        )
        for note in found.warnings:
            warnings.warn(note, SuggestionWarning, stacklevel=2)
        return found

    def _repr_html_(self) -> str:
        """The picture and the suggestion, or the reason for none, which notebooks show."""
        from keras_lr.range_test.report import fragment

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SuggestionWarning)  # the text repeats them
                found = self.suggest()
        except NoSuggestion as error:
            return fragment(self, None, str(error))
        return fragment(self, found)

    def _for_pictures(self) -> RangeTest:
        """This test without the states of its short runs, which take memory."""
        return self if self._continue is None else dataclasses.replace(self, _continue=None)

    def _run(self, policy: Any, total_steps: int | None) -> PlannedRun | None:
        """The planned run, with what the caller says instead."""
        if policy is None and total_steps is None:
            return self.planned
        if self.planned is not None:
            policy = self.planned if policy is None else policy
            total_steps = self.planned.total_steps if total_steps is None else total_steps
            if self.planned.policy == SCHEDULE_FREE:
                return schedule_free_run(policy, total_steps)
        return planned_run(policy, total_steps, self.provenance.get("updates_per_epoch"))

    def _by_curve(self, method: str, monitor: str) -> Suggestion:
        return rules.suggest(
            self.learning_rates,
            self._read(monitor, self.metrics, self.losses),
            method,
            validation=self._validation_of(monitor),
            stop_reason="" if self._ran_to_its_end() else self.stop_reason,
            batch_size=self.provenance.get("batch_size"),
        )

    def continue_(self, steps: int) -> RangeTest:
        """Train the best two short runs longer, from where they ended, and judge again.

        The model is borrowed and restored as by `lr_find`. The states of short runs are kept in
        memory as long as this object, unless weights and slots take more than 256 MiB.

        Args:
            steps: Training steps of both together, at least 2.

        Returns:
            This test, with the new evidence.

        Raises:
            ValueError: If the test has no short runs to continue: it was loaded, it had none,
                their states were too large, the data cannot be read again, or the model's
                variables have been replaced since.
        """
        checks.count("steps", steps, 2)
        if self._continue is None:
            raise ValueError(
                "Only a test of lr_find with short runs can continue, in the process that made "
                "it, with data that can be read again. Call lr_find with a larger budget."
            )
        self.probes, trained = self._continue(steps)
        self.training_steps += trained
        return self

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
        content = {
            "learning_rates": self.learning_rates,
            "losses": self.losses,
            "metrics": self.metrics,
            "validation": self.validation,
            "stop_reason": self.stop_reason,
            "probes": None if self.probes is None else dataclasses.asdict(self.probes),
            "planned": None if self.planned is None else self.planned.to_dict(),
            "training_steps": self.training_steps,
            "provenance": self.provenance,
        }
        return dict(jsonable(content, infinity=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTest:
        """Read a test that `save` wrote.

        Raises:
            ValueError: If the file is not a saved range test, or of a later version.
            OSError: If it cannot be read.
        """
        return read_saved(path, _KIND, 2, _FORMAT_VERSION, cls._of)

    @classmethod
    def _of(cls, content: dict[str, Any]) -> RangeTest:
        """The inverse of `to_dict`."""
        probes, validation, planned = (content[n] for n in ("probes", "validation", "planned"))
        return cls(
            learning_rates=_numbers(content["learning_rates"]),
            losses=_numbers(content["losses"]),
            metrics={name: _numbers(v) for name, v in content["metrics"].items()},
            validation=None
            if validation is None
            else {name: _numbers(v) for name, v in validation.items()},
            stop_reason=str(content["stop_reason"]),
            probes=None if probes is None else _probes(probes),
            planned=None if planned is None else PlannedRun.of(planned),
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


def _numbers(value: Any) -> np.ndarray:
    """The inverse of `jsonable` for arrays: float64 understands None and 'inf'."""
    return np.array(value, dtype=np.float64)


def _probes(content: dict[str, Any]) -> Probes:
    made = Probes(**{part.name: content[part.name] for part in dataclasses.fields(Probes)})
    lists: list[list[Any]] = [made.learning_rates, made.losses, made.steps]
    if len({len(each) for each in lists}) > 1 or not made.learning_rates:
        raise ValueError("the lists of the short runs differ in length, or are empty")
    numbers = [*made.learning_rates, *made.steps, made.rows, made.cost, made.centre]
    if not all(type(value) in (int, float) for value in numbers):
        raise ValueError("a value of the short runs is not a number")
    if not min(made.learning_rates) > 0:
        raise ValueError("a rate of the short runs is not above 0")
    return made
