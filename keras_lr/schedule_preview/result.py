"""The result of a preview: rate and momentum of each update, as text, picture, CSV and JSON."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_lr._util import checks, html
from keras_lr._util.files import atomic_write
from keras_lr.schedule_preview.shape import close, turns
from keras_lr.schedule_preview.sparkline import sparkline

__all__ = ["KeyPoint", "Preview"]

_ROWS = 16  # of the table in text


class KeyPoint(NamedTuple):
    """A step at which the shape of a run changes.

    Attributes:
        step: The update, counted from 0.
        learning_rate: The learning rate of the update.
        momentum: The momentum of the update, or None if it is unknown.
        what: "start", "highest", "lowest", "end" or the phase that begins, separated by commas.
    """

    step: int
    learning_rate: float
    momentum: float | None
    what: str


@dataclasses.dataclass(frozen=True, eq=False)
class Preview:
    """The learning rate and momentum of each update of a run, as returned by `preview`.

    `print` shows it as text.

    Attributes:
        learning_rates: The learning rate of each update, in float64; shape (steps,).
        momenta: The momentum of each update, or None if nothing sets it.
        turns: The steps at which phases begin or end, except the first and the last step of the
            run. By default they are computed from the values.

    Raises:
        ValueError: If there are no rates, a value is negative or not finite, or the shapes
            differ.
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
                    f"{name} must have shape (steps,), with one number for each step and at "
                    f"least one step; got an array of shape {array.shape}."
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
        """Number of updates in the run."""
        return len(self.learning_rates)

    def __repr__(self) -> str:
        low, high = self.learning_rates.min(), self.learning_rates.max()
        return f"<Preview of {self.steps} steps, learning rate {low:.4g} to {high:.4g}>"

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        """The picture and the steps at which the shape changes, which notebooks show."""
        from keras_lr.plotting.schedule_preview import preview_figure

        about = f"Learning rate of {self.steps} updates"
        image = html.picture(lambda: html.png(preview_figure(self), about))
        return f"{image}<pre>{html.escape(chr(10).join(self._table(80)))}</pre>"

    def key_points(self) -> list[KeyPoint]:
        """Return the first and last step, the extremes, and the steps at which phases change."""
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

    def plot(self, ax: Any = None, *, log: bool | None = None) -> Any:
        """Draw rate and momentum against the step; see `keras_lr.plotting.plot_preview`."""
        from keras_lr.plotting import plot_preview

        return plot_preview(self, ax, log=log)

    def to_text(self, *, width: int = 80, log: bool | None = None, unicode: bool = True) -> str:
        """Draw rate and momentum as bars of text, with a table of the key points.

        Args:
            width: Columns, at least 40.
            log: Draw the rate on a logarithmic scale; by default only for a ramp as in a range
                test.
            unicode: Draw with block characters instead of ASCII.

        Raises:
            TypeError: If `log` or `unicode` is not a bool.
        """
        checks.flag("unicode", unicode)
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
        """Write the columns `step`, `learning_rate` and, if known, `momentum`.

        Each update is a row. The numbers have the shortest digits that identify them in float32,
        the precision of training. The file is written completely or not at all.

        Returns:
            `path`, as a `Path`.

        Raises:
            OSError: If the file cannot be written.
        """
        names, columns = ["step", "learning_rate"], [_digits(self.learning_rates)]
        if self.momenta is not None:
            names.append("momentum")
            columns.append(_digits(self.momenta))
        rows = zip(map(str, range(self.steps)), *columns, strict=True)
        return atomic_write(path, "\n".join(map(",".join, [names, *rows])) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and numbers, with the digits of `to_csv`."""
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
        """Return whether to draw the rate on a logarithmic scale.

        Args:
            log: What the caller asked for. None chooses a logarithmic scale if the rates rise by
                a factor of 100 or more in equal ratios.

        Raises:
            TypeError: If `log` is neither None nor a bool.
        """
        rates = self.learning_rates
        if log is not None:
            return checks.flag("log", log) and bool((rates > 0).any())
        if len(rates) < 3 or rates[0] <= 0 or rates[-1] < 100 * rates[0]:
            return False
        return np.allclose(np.diff(np.log(rates)), np.log(rates[1] / rates[0]), rtol=1e-2)


def _behaviour(rates: np.ndarray, step: int, before: int, after: int, named: bool) -> list[str]:
    """The phase that begins at a step, judged from the rates on both sides of it."""
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
    """Numbers as text, with the shortest digits that identify them in float32."""
    return np.asarray(values, dtype=np.float32).astype(str).tolist()


def _plain(values: Any) -> list[float]:
    return [float(digits) for digits in _digits(values)]
