"""What a run would be trained with: the rates of a schedule or of a stack, without training."""

from __future__ import annotations

import copy
import dataclasses
import os
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._util import checks
from keras_lr._util.files import atomic_write
from keras_lr.schedule_preview.shape import close, turns
from keras_lr.schedule_preview.sparkline import sparkline
from keras_lr.schedules.base import Curve, evaluate
from keras_lr.steering import Length, Plan, Policy, Roles
from keras_lr.steering.composition import Factor, RateRule, refuse_assigners

__all__ = ["KeyPoint", "Preview", "preview"]

_MOST_STEPS = 2**24  # float32, in which schedules count, has no more whole numbers
_PROBES = 8
_ROWS = 16  # of the table in text
_NO_RATE = "Pass learning_rate, the number or the schedule that the optimizer has."


class KeyPoint(NamedTuple):
    """A step that tells the shape of a run.

    Attributes:
        step: The update, from 0.
        learning_rate: Its rate.
        momentum: Its momentum; None if that is not known.
        what: "start", "highest", "lowest", "end", and what begins there, with commas between.
    """

    step: int
    learning_rate: float
    momentum: float | None
    what: str


@dataclasses.dataclass(frozen=True, eq=False)
class Preview:
    """The learning rate and the momentum of each update of a run; `preview` makes it.

    `print` shows it as text.

    Attributes:
        learning_rates: The rate of each update, in float64; shape (steps,).
        momenta: The momentum of each update, or None if nothing sets it.
        turns: The steps where a phase ends or begins, first and last step apart; by default
            found in the values.

    Raises:
        ValueError: If there are no rates, a value is not finite or below 0, or the shapes differ.
    """

    learning_rates: np.ndarray
    momenta: np.ndarray | None = None
    turns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        curves = {"learning_rates": self.learning_rates}
        if self.momenta is not None:
            curves["momenta"] = self.momenta
        for name, values in curves.items():
            array = np.array(values, dtype=np.float64)
            object.__setattr__(self, name, array)
            if array.ndim != 1 or not 0 < len(array) == len(self.learning_rates):
                raise ValueError(
                    f"{name} must have shape (steps,), one number for each of at least one step; "
                    f"got an array of shape {array.shape}."
                )
            bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
            if bad.size:
                kind = "learning rate" if name == "learning_rates" else "momentum"
                raise ValueError(
                    f"A {kind} must be finite and at least 0; got {array[bad[0]]:g} at step "
                    f"{bad[0]}."
                )
        if self.turns is None:
            found = [turn for values in curves.values() for turn in turns(np.asarray(values))]
            object.__setattr__(self, "turns", tuple(sorted(set(found))))

    @property
    def steps(self) -> int:
        """Updates of the run."""
        return len(self.learning_rates)

    def __repr__(self) -> str:
        low, high = self.learning_rates.min(), self.learning_rates.max()
        return f"<Preview of {self.steps} steps, learning rate {low:.4g} to {high:.4g}>"

    def __str__(self) -> str:
        return self.to_text()

    def key_points(self) -> list[KeyPoint]:
        """The steps that tell the shape: first and last, extremes, and where phases change."""
        rates, turning = self.learning_rates, self.turns or ()
        high, low = float(rates.max()), float(rates.min())
        steps = {0, self.steps - 1, *turning}
        words: dict[int, str] = {}
        for word, level, extreme in (
            ("highest", high, int(rates.argmax())),
            ("lowest", low, int(rates.argmin())),
        ):
            if high > low:
                reached = [step for step in steps if close(rates[step], level)]
                first = min(reached, default=extreme)
                steps.add(first)
                words[first] = word
        ordered = sorted(steps)
        points = []
        for place, step in enumerate(ordered):
            what = ["start"] if step == 0 else []
            what += [words[step]] if step in words else []
            if 0 < step < self.steps - 1:
                before = (step + ordered[place - 1]) // 2
                after = (step + ordered[place + 1] + 1) // 2
                what += _behaviour(rates, step, before, after, step in words)
            what += ["end"] if step == self.steps - 1 else []
            momentum = None if self.momenta is None else float(self.momenta[step])
            points.append(KeyPoint(step, float(rates[step]), momentum, ", ".join(what)))
        return points

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw rate and momentum against the step; see `keras_lr.plotting.plot_preview`."""
        from keras_lr.plotting import plot_preview

        return plot_preview(self, ax, **options)

    def to_text(self, *, width: int = 80, log: bool | None = None, unicode: bool = True) -> str:
        """Rate and momentum as bars of text, and the key points in a table.

        Args:
            width: Columns, at least 40.
            log: Draw the rate on a logarithmic scale; by default for a ramp as in a range test.
            unicode: Draw with block characters; otherwise with ASCII alone.
        """
        rates, log = self.learning_rates, self.logarithmic(log)
        base = float(rates[rates > 0].min()) if log else 0.0
        lines = [" Learning rate" + (" (log scale)" if log else "")]
        lines += sparkline(rates, (width - 1, 4), base=base, log=log, unicode=unicode)
        if self.momenta is not None:
            low, high = float(self.momenta.min()), float(self.momenta.max())
            base = low if low < high else 0.0
            lines.append(" Momentum")
            lines += sparkline(self.momenta, (width - 1, 2), base=base, unicode=unicode)
        ends = ("step 0", str(self.steps - 1))
        lines.append(" " * 9 + ends[0] + ends[1].rjust(width - 10 - len(ends[0])))
        return "\n".join([*lines, "", *self._table(width)])

    def _table(self, width: int) -> list[str]:
        rate = "Learning rate" if width >= 50 else "Rate"
        columns = {
            "Step": lambda point: str(point.step),
            rate: lambda point: f"{point.learning_rate:.4g}",
            "Momentum": lambda point: f"{point.momentum:.4g}",
        }
        if self.momenta is None:
            del columns["Momentum"]
        points = self.key_points()
        rows = [[cell(point) for cell in columns.values()] + [point.what] for point in points]
        if len(rows) > _ROWS:
            more = f"{len(rows) - _ROWS + 1} more"
            rows[_ROWS - 4 : -3] = [["...", *[""] * (len(columns) - 1), more]]
        widths = [9 if width >= 50 else 6, *(max(len(name), 8) for name in [*columns][1:]), 0]
        lines = []
        for row in [[*columns, ""], *rows]:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        return lines

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write `step`, `learning_rate` and, if known, `momentum`, a row for each update.

        The numbers have as many digits as tell them apart in float32, which is what training
        uses. The file appears whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        names, columns = ["step", "learning_rate"], [_digits(self.learning_rates)]
        if self.momenta is not None:
            names.append("momentum")
            columns.append(_digits(self.momenta))
        rows = zip(map(str, range(self.steps)), *columns, strict=True)
        return atomic_write(path, "\n".join(map(",".join, [names, *rows])) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain lists and numbers, in the digits of `to_csv`."""
        rates = _plain(self.learning_rates)
        momenta = None if self.momenta is None else _plain(self.momenta)
        return {
            "steps": self.steps,
            "learning_rates": rates,
            "momenta": momenta,
            "key_points": [
                {
                    "step": step,
                    "learning_rate": rates[step],
                    "momentum": None if momenta is None else momenta[step],
                    "what": what,
                }
                for step, _, _, what in self.key_points()
            ],
        }

    def logarithmic(self, log: bool | None = None) -> bool:
        """Whether the rate is drawn on a logarithmic scale.

        Args:
            log: The wish; None has it for rates that rise over two decades in equal ratios.
        """
        rates = self.learning_rates
        if log is not None:
            return log and bool((rates > 0).any())
        if len(rates) < 3 or rates[0] <= 0 or rates[-1] < 100 * rates[0]:
            return False
        return np.allclose(np.diff(np.log(rates)), np.log(rates[1] / rates[0]), rtol=1e-2)


def preview(
    policy: Any,
    steps: int,
    *,
    learning_rate: Any = None,
    momentum: float | None = None,
    epochs: int = 1,
    gradient_accumulation_steps: int = 1,
) -> Preview:
    """Tell what each update of a run would use, without a model and without training.

    The values are those of the training itself: the same curves, joined by the same rule, with
    the same refusals and warnings where callbacks do not go together.

    What depends on how the training goes is left out: a `ReduceLROnPlateau`, ours or Keras's,
    is taken not to act. For a `MultiOptimizer` the rate is that of its fastest group.

    Args:
        policy: A rate or a schedule, ours, Keras's or your own, as the optimizer is compiled
            with; a callback that sets the rate (`OneCycle`, `CyclicLR`, `ScheduleLR`, `WarmUp`,
            Keras's `LearningRateScheduler`); or a list of them. Other callbacks of ours and of
            Keras may be among them.
        steps: Updates of the weights in the whole run, at least 1.
        learning_rate: The optimizer's own rate or schedule, where `policy` holds none. It
            counts as in training: where no callback brings a schedule in its place.
        momentum: The optimizer's own momentum, from 0, below 1; shown where nothing steers it.
        epochs: Epochs of the run, for what counts in epochs.
        gradient_accumulation_steps: Batches that make an update, as the optimizer has it.

    Raises:
        ValueError: If an argument is out of its range, the parts do not go together, or there is
            no rate at all.
        TypeError: If an argument, or a part of the stack, is of an unknown kind.

    >>> import keras, keras_lr
    >>> decay = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    >>> shown = keras_lr.preview([decay, keras_lr.WarmUp(steps=10)], steps=100)
    >>> [(point.step, round(point.learning_rate, 4), point.what) for point in shown.key_points()]
    [(0, 0.0, 'start, lowest'), (10, 0.0976, 'highest'), (99, 0.0, 'end')]
    """
    checks.count("steps", steps)
    if steps > _MOST_STEPS:
        raise ValueError(
            f"steps must be at most {_MOST_STEPS}, up to which schedules can count; got {steps}."
        )
    checks.count("epochs", epochs)
    checks.count("gradient_accumulation_steps", gradient_accumulation_steps)
    if momentum is not None:
        momentum = checks.number("momentum", momentum, least=0, below=1)
    own, callbacks = _sorted_out(policy, learning_rate)
    plan, roles = _joined(callbacks, Length(steps, epochs))
    if momentum == 0.0 and (owner := roles.owner("momentum")):
        raise ValueError(f"{owner} cannot cycle a momentum that is 0; got momentum=0.0.")
    if own is None and plan.schedule is None:
        names = ", ".join(type(each).__name__ for each in callbacks) or "an empty list"
        raise ValueError(f"Nothing here brings a rate of its own; got {names}. {_NO_RATE}")

    # A number stands for the variable that the optimizer would hold.
    variable = None if own is None or isinstance(own, LearningRateSchedule) else _Variable(own)
    rule = _asked_rule(plan.rate_rule(variable or own, batches=gradient_accumulation_steps))
    updates = np.arange(steps)
    held = np.full(steps, 1.0 if variable is None or plan.schedule is not None else variable.value)
    schedule = None if isinstance(own, float) or own is None else type(own).__name__
    refuse_assigners(callbacks, roles.owner("schedule") or schedule, ())
    if any(isinstance(each, keras.callbacks.LearningRateScheduler) for each in callbacks):
        assert variable is not None  # noqa: S101  refused otherwise
        held = _scheduled(callbacks, variable, steps, epochs)
    rates = rule.values(updates, updates, held)

    momenta = None if momentum is None else np.full(steps, float(np.float32(momentum)))
    steered = plan.momentum_factor()
    if steered is not None:
        momenta = _asked(steered).values(updates)

    factors = (each for each in (rule.schedule, rule.warm_up) if each is not None)
    curves = [*(factor.values(updates) for factor in factors), held]
    curves += [] if momenta is None else [momenta]
    return Preview(rates, momenta, _turns_of(curves))


class _Variable:
    """An optimizer's number, as float32 holds it."""

    def __init__(self, value: float) -> None:
        self.assign(value)

    def assign(self, value: Any) -> None:
        self.value = float(np.float32(value))


class _Optimizer:
    """As much of an optimizer as Keras's `LearningRateScheduler` looks at."""

    def __init__(self, variable: _Variable) -> None:
        self._variable = variable

    @property
    def learning_rate(self) -> Any:
        return ops.convert_to_tensor(self._variable.value, "float32")

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._variable.assign(value)


class _Asked(Curve):
    """Any curve, asked as few times as may be, with the values of asking step by step.

    Schedules of Keras's or of a user promise a rate for one step. Most of them take an array as
    well, and one by one a step takes a millisecond; on JAX, with a condition in it, 300.
    """

    def __init__(self, curve: Any) -> None:
        self._curve = curve
        self._steps = np.array([])
        self._values = np.array([])

    def __call__(self, steps: Any) -> np.ndarray:
        if not np.array_equal(steps, self._steps):
            self._steps, self._values = steps, self._ask(steps)
        return self._values

    def _ask(self, steps: np.ndarray) -> np.ndarray:
        if not isinstance(self._curve, Curve) and len(steps) > 4 * _PROBES:
            schedule = isinstance(self._curve, LearningRateSchedule)
            asked = ops.convert_to_tensor(steps, "int32") if schedule else steps
            values = _tried(self._curve, asked)
            if values is not None and self._agree(values, steps):
                return values
            if schedule:
                values = _tried(lambda tensor: ops.vectorized_map(self._curve, tensor), asked)
                if values is not None:
                    return values
        return evaluate(self._curve, steps)

    def _agree(self, values: np.ndarray, steps: np.ndarray) -> bool:
        """Whether some steps alone have the same values, but for the rounding of float32."""
        some = np.linspace(0, len(steps) - 1, _PROBES).astype(int)
        expected = evaluate(self._curve, steps[some])
        return np.allclose(values[some], expected, rtol=0.0, atol=2.0**-21 * np.abs(expected).max())


def _tried(function: Callable[[Any], Any], steps: Any) -> np.ndarray | None:
    """The values at all steps, or None if the function takes one step and no more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.asarray(ops.convert_to_numpy(function(steps)), dtype="float64")
    except Exception:
        return None
    return values if values.shape == tuple(steps.shape) else None


def _asked(factor: Factor) -> Factor:
    return dataclasses.replace(factor, curve=_Asked(factor.curve))


def _asked_rule(rule: RateRule) -> RateRule:
    schedule = rule.schedule and _asked(rule.schedule)
    warm_up = rule.warm_up and _asked(rule.warm_up)
    return dataclasses.replace(rule, schedule=schedule, warm_up=warm_up)


def _sorted_out(policy: Any, learning_rate: Any) -> tuple[Any, list[Any]]:
    """The optimizer's own rate or schedule, None if there is none, and the callbacks."""
    parts = list(policy) if isinstance(policy, (list, tuple)) else [policy]
    callbacks = [part for part in parts if isinstance(part, keras.callbacks.Callback)]
    own = [part for part in parts if not isinstance(part, keras.callbacks.Callback)]
    for part in own:
        if not isinstance(part, LearningRateSchedule):
            _number("policy", part, "a rate, a schedule, a callback, or a list of them")
    for callback in callbacks:
        if not _is_known(callback):
            raise TypeError(
                "What a callback of your own does to the rate cannot be previewed; got "
                f"{type(callback).__name__}. Leave it out."
            )
    if learning_rate is not None:
        own.append(learning_rate)
    if len(own) > 1:
        raise ValueError(
            f"The optimizer has one rate or schedule of its own; got {len(own)} of them. Join "
            "schedules with SequentialSchedule, or give ScheduleLR the one that takes the other's "
            "place."
        )
    if not own:
        return None, callbacks
    if isinstance(own[0], LearningRateSchedule):
        return own[0], callbacks
    return _number("learning_rate", own[0], "a number or a LearningRateSchedule"), callbacks


def _number(name: str, value: Any, kinds: str) -> float:
    if isinstance(value, keras.Variable) or (ops.is_tensor(value) and not value.shape):
        value = float(ops.convert_to_numpy(value))
    try:
        return checks.number(name, value, least=0)
    except TypeError as error:
        raise TypeError(f"{name} must be {kinds}; got {value!r}.") from error


def _is_known(callback: Any) -> bool:
    """Whether it is ours or one of Keras's that runs no function of the user."""
    if isinstance(callback, (Policy, keras.callbacks.LearningRateScheduler)):
        return True
    kind = type(callback)
    users = (keras.callbacks.LambdaCallback, keras.callbacks.CallbackList)
    return getattr(keras.callbacks, kind.__name__, None) is kind and kind not in users


def _joined(callbacks: list[Any], length: Length) -> tuple[Plan, Roles]:
    """What the callbacks ask for together, refused as `fit` refuses it."""
    plan, roles = Plan(), Roles()
    members = [each for each in callbacks if isinstance(each, Policy)]
    for member in members:
        roles.add(type(member).__name__, member.roles)
        plan = plan.joined(member.plan(length))
    if finder := roles.owner("find"):
        raise ValueError(
            f"{finder} ends its fit before anything is trained; nothing of it can be previewed."
        )
    for member in members:
        member.check(length)
    return plan, roles


def _scheduled(callbacks: list[Any], variable: _Variable, steps: int, epochs: int) -> np.ndarray:
    """What the optimizer's variable holds at each update if Keras's schedulers set it.

    They are run as they are, on a stand-in for the optimizer.
    """
    if steps % epochs:
        raise ValueError(
            "steps must be a multiple of epochs for LearningRateScheduler, which acts when an "
            f"epoch begins; got steps={steps} and epochs={epochs}."
        )
    each_epoch = steps // epochs
    held = np.ones(steps)
    for epoch in range(epochs):
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.LearningRateScheduler):
                continue
            scheduler = copy.copy(callback)
            scheduler.verbose = 0
            scheduler.set_model(types.SimpleNamespace(optimizer=_Optimizer(variable)))
            scheduler.on_epoch_begin(epoch)
        held[epoch * each_epoch : (epoch + 1) * each_epoch] = variable.value
    return held


def _turns_of(curves: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Where the curves turn; those that turn together count once, as the first one says."""
    found: list[int] = []
    for curve in curves:
        apart = len(curve) // 500
        found += [
            turn for turn in turns(curve) if all(abs(turn - other) > apart for other in found)
        ]
    return tuple(sorted(found))


def _behaviour(rates: np.ndarray, step: int, before: int, after: int, named: bool) -> list[str]:
    """What begins at a step, told from the rates on both sides of it."""
    here = rates[step]
    was, becomes = (
        0 if close(rates[other], here) else int(np.sign(rates[other] - here))
        for other in (before, after)
    )
    if becomes == 0:
        return [] if was == 0 else ["flat from here"]
    if was == 0:
        return ["rises from here" if becomes > 0 else "falls from here"]
    if named:
        return []
    if was == becomes:
        return ["top" if was < 0 else "bottom"]
    return ["next phase"]


def _digits(values: Any) -> list[str]:
    """Numbers as text, with as many digits as tell them apart in float32."""
    return np.asarray(values, dtype=np.float32).astype(str).tolist()


def _plain(values: Any) -> list[float]:
    return [float(digits) for digits in _digits(values)]
