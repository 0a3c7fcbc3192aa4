"""A training log as arrays, whatever it was read from."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr.diagnosis.columns import pick

__all__ = ["Log", "Series", "assemble"]

# A log of more rows is averaged into this many: rules look at shapes, which more do not show.
MOST_ROWS = 200


@dataclasses.dataclass(frozen=True)
class Log:
    """What a training run wrote, a row for each epoch; NaN stands where the log has NaN.

    Attributes:
        source: Where it came from, for messages.
        unit: "epoch" or "step": what `positions` count.
        positions: The number of each row's epoch, as it is in the log.
        loss: Training loss.
        val_loss: Held-out loss; None if the log has none. So for the rest:
        metric: A training metric that rises from 0 to 1, such as accuracy.
        val_metric: The same on held-out data.
        metric_name: Its name.
        learning_rate: The optimizer's rate.
        batch_size: Rows of data in an update.
        updates: Updates done at the end of each row.
        restarts: Rows at which training began again.
        total_epochs: Epochs that were planned.
        notes: What reading left out or put together, in sentences.
    """

    source: str
    unit: str
    positions: np.ndarray
    loss: np.ndarray
    val_loss: np.ndarray | None = None
    metric: np.ndarray | None = None
    val_metric: np.ndarray | None = None
    metric_name: str = ""
    learning_rate: np.ndarray | None = None
    batch_size: np.ndarray | None = None
    updates: np.ndarray | None = None
    restarts: tuple[int, ...] = ()
    total_epochs: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    def rows(self, begin: int, end: int | None = None) -> Log:
        """A part of the log."""
        end = len(self) if end is None else end
        cut: dict[str, Any] = {
            field.name: value[begin:end]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        restarts = tuple(row - begin for row in self.restarts if begin < row < end)
        return dataclasses.replace(self, **cut, restarts=restarts)

    def at(self, row: int) -> str:
        """The row in words: "epoch 12", and of which run if numbers repeat."""
        number = self.positions[row]
        text = f"{self.unit} {number:.0f}" if number == round(number) else f"{self.unit} {number:g}"
        if len(set(self.positions.tolist())) < len(self):
            run = 1 + sum(start <= row for start in self.restarts)
            text += f" of run {run}"
        return text

    def epoch(self, row: int) -> float:
        """The row's number, whole if it is."""
        number = float(self.positions[row])
        return int(number) if number == round(number) else number


@dataclasses.dataclass
class Series:
    """A column: for each value, the run that it belongs to, and its epoch or step there."""

    keys: list[tuple[int, float]]
    values: list[float]


def assemble(
    columns: Mapping[str, Series],
    *,
    source: str,
    unit: str,
    restarted: Sequence[int] = (),
    total_epochs: int | None = None,
    notes: Sequence[str] = (),
) -> Log:
    """One row for each epoch, out of columns that may have values at different places.

    Args:
        columns: By name.
        source: Where they come from.
        unit: What their keys count, "epoch" or "step".
        restarted: Runs that began as a restart, by number; those after the first are by default.
        total_epochs: Epochs that were planned, if known.
        notes: What reading had to leave out.

    Raises:
        ValueError: If there is no training loss in it.
    """
    chosen = pick(name for name, series in columns.items() if series.values)
    if "loss" not in chosen:
        if "loss" in pick(columns):
            raise ValueError(f"{source} is empty: it has no value of the loss yet.")
        names = ", ".join(map(str, columns)) or "none"
        names = names if len(names) < 200 else names[:196].rsplit(",", 1)[0] + ", ..."
        raise ValueError(f"{source} has no column of the training loss; its columns are: {names}.")
    notes = list(notes)
    loss = _by_key(columns[chosen["loss"]])
    held_out = _by_key(columns[chosen["val_loss"]]) if "val_loss" in chosen else {}
    grid = sorted(loss)
    if 2 <= len(held_out) <= len(grid) // 2:  # losses of batches, and of epochs held out
        notes.append(f"The training loss is averaged over the {unit}s between held-out losses.")
        grid = sorted(held_out)
    grid, dropped = _without_superseded(grid)
    if dropped:
        told = f"{dropped} {unit}s were" if dropped > 1 else f"An {unit} was".replace("An s", "A s")
        notes.append(f"{told} trained again after a restart; what came later counts.")
    if len(grid) > MOST_ROWS:
        notes.append(f"{len(grid)} {unit}s are averaged into {MOST_ROWS} rows.")
        last = np.linspace(0, len(grid) - 1, MOST_ROWS + 1).round().astype(int)[1:]
        grid = [grid[row] for row in last]
    runs = [run for run, _ in grid]
    starts = tuple(row for row in range(1, len(grid)) if runs[row] > runs[row - 1])

    def column(role: str, *, mean: bool) -> np.ndarray | None:
        return _on(grid, _by_key(columns[chosen[role]]), mean) if role in chosen else None

    metric = next((role[7:] for role in chosen if role.startswith("metric ")), "")
    if not metric:
        metric = next((role[11:] for role in chosen if role.startswith("val_metric ")), "")
    updates = column("step", mean=False) if unit == "epoch" else None
    return Log(
        source=source,
        unit=unit,
        positions=np.array([place for _, place in grid], dtype=float),
        loss=_on(grid, loss, True),
        val_loss=column("val_loss", mean=True),
        metric=column(f"metric {metric}", mean=True),
        val_metric=column(f"val_metric {metric}", mean=True),
        metric_name=metric,
        learning_rate=column("learning_rate", mean=False),
        batch_size=column("batch_size", mean=False),
        updates=updates,
        restarts=starts,
        total_epochs=total_epochs,
        notes=tuple(notes),
    )


def _by_key(series: Series) -> dict[tuple[int, float], Any]:
    """Values by their key; several of one key, as an epoch's batches have it, are averaged."""
    found: dict[tuple[int, float], list[float]] = {}
    for key, value in zip(series.keys, series.values, strict=True):
        found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _without_superseded(
    grid: list[tuple[int, float]],
) -> tuple[list[tuple[int, float]], int]:
    """Drop what a later run trained again, unless that run began from the very start."""
    firsts: dict[int, float] = {}
    for run, place in grid:
        firsts.setdefault(run, place)
    # The nearest place after its own first one at which a later run begins, for each run.
    ends: dict[int, float] = {}
    later: list[float] = []
    for run, first in sorted(firsts.items(), reverse=True):
        after = bisect.bisect_right(later, first)
        ends[run] = later[after] if after < len(later) else math.inf
        if not after or later[after - 1] < first:
            later.insert(after, first)
    kept = [(run, place) for run, place in grid if place < ends[run]]
    return kept, len(grid) - len(kept)


def _on(grid: list[tuple[int, float]], values: dict[Any, float], mean: bool) -> np.ndarray:
    """Values put on the grid: those since the last row, averaged or the last of them.

    A row that has none keeps the value before it; those before the first value get that one.
    """
    keys = sorted(values)
    found, place = np.full(len(grid), np.nan), 0
    filled = np.zeros(len(grid), dtype=bool)
    for row, key in enumerate(grid):
        begin = place
        while place < len(keys) and keys[place] <= key:
            place += 1
        part = [values[each] for each in keys[begin:place] if each[0] == key[0]]
        if part:
            with np.errstate(invalid="ignore"):  # infinity and its opposite
                found[row] = np.mean(part) if mean else part[-1]
            filled[row] = True
    rows = np.flatnonzero(filled)
    if rows.size:
        source = np.maximum(np.searchsorted(rows, np.arange(len(grid)), side="right") - 1, 0)
        found = found[rows[source]]
    return found
