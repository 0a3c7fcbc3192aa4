"""`Log`: a training log as arrays, and its assembly from columns of any writer."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr.diagnosis.columns import pick

__all__ = ["MOST_ROWS", "Log", "Series", "assemble", "binned"]

# The rules that judge the shape of a curve get longer logs averaged into this many rows.
MOST_ROWS = 200


@dataclasses.dataclass(frozen=True)
class Log:
    """The columns of a training log, one row per training loss; a NaN of the log stays NaN.

    An optional column is None if the log does not have it. A validation loss that was computed at
    other positions than the training loss is in `evaluated`.

    Attributes:
        source: Path or kind of the log, for messages.
        unit: "epoch" or "step": what `positions` count.
        positions: Epoch of each row, as numbered in the log.
        loss: Training loss.
        val_loss: Validation loss.
        metric: A training metric in [0, 1], higher is better, such as accuracy.
        val_metric: The same metric on the validation data.
        metric_name: Name of the metric.
        learning_rate: Learning rate of the optimizer.
        batch_size: Batch size.
        updates: Updates done by the end of each row.
        restarts: Rows at which training was restarted.
        runs: Number of the run of each row, from 0, where the log shows several.
        total_epochs: Planned number of epochs.
        rewarded: Whether the log has rewards, as one of reinforcement learning has.
        schedule_fits: Whether the writer of the log makes the schedule as long as the run, as the
            Trainer of transformers does.
        notes: Sentences on what the reader skipped or averaged.
        evaluated: One row per validation loss, with the mean training loss since the last one; None
            if the validation loss has the rows of the training loss, or if there is none.
        sets: The log with the loss of each further evaluation set as its validation loss, by name.
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
    runs: np.ndarray | None = None
    total_epochs: int | None = None
    rewarded: bool = False
    schedule_fits: bool = False
    notes: tuple[str, ...] = ()
    evaluated: Log | None = None
    sets: Mapping[str, Log] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.loss)

    def rows(self, begin: int, end: int | None = None) -> Log:
        """The rows from `begin` to before `end`."""
        end = len(self) if end is None else end
        cut: dict[str, Any] = {
            field.name: value[begin:end]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        restarts = tuple(row - begin for row in self.restarts if begin < row < end)
        return dataclasses.replace(self, **cut, restarts=restarts)

    def at(self, row: int) -> str:
        """The row as text: "epoch 12", with the run if epoch numbers repeat."""
        number = self.positions[row]
        text = f"{self.unit} {number:.0f}" if number == round(number) else f"{self.unit} {number:g}"
        if len(set(self.positions.tolist())) < len(self):
            run = 1 + sum(start <= row for start in self.restarts)
            text += f" of run {run}"
        return text

    def epoch(self, row: int) -> float:
        """Epoch number of the row, an int if it is whole."""
        number = float(self.positions[row])
        return int(number) if number == round(number) else number


@dataclasses.dataclass
class Series:
    """A column. Each value has a key: its run, and its epoch or step in that run."""

    keys: list[tuple[int, float]]
    values: list[float]


def assemble(
    columns: Mapping[str, Series],
    *,
    source: str,
    unit: str,
    total_epochs: int | None = None,
    notes: Sequence[str] = (),
) -> Log:
    """Align columns, which may have values at different epochs, to one row per epoch.

    Args:
        columns: Columns by name.
        source: Path or kind of the log, for messages.
        unit: What the keys count, "epoch" or "step".
        total_epochs: Planned number of epochs, if known.
        notes: Sentences on what the reader skipped.

    Raises:
        ValueError: If there is no training loss.
    """
    chosen = pick(name for name, series in columns.items() if series.values)
    if "loss" not in chosen:
        if "loss" in pick(columns):
            raise ValueError(f"{source} is empty: its loss column has no values.")
        names = ", ".join(map(str, columns)) or "none"
        names = names if len(names) < 200 else names[:196].rsplit(",", 1)[0] + ", ..."
        raise ValueError(
            f"{source} has no training loss column; its columns are: {names}. "
            "If one of them is the loss, name it with loss (--loss on the command line)."
        )
    notes = list(notes)
    loss = _by_key(columns[chosen["loss"]])
    held_out = _by_key(columns[chosen["val_loss"]]) if "val_loss" in chosen else {}
    every = sorted(loss)
    ends = _ends(every)
    grid = [key for key in every if key[1] < ends[key[0]]]
    dropped = len(every) - len(grid)
    if dropped:
        again = f"{dropped} {unit}s were" if dropped > 1 else f"1 {unit} was"
        notes.append(f"{again} trained again after a restart; the later values are used.")
    own = [key for key in sorted(held_out) if key[1] < ends.get(key[0], math.inf)]
    metric = next((role[7:] for role in chosen if role.startswith("metric ")), "")
    if not metric:
        metric = next((role[11:] for role in chosen if role.startswith("val_metric ")), "")

    def on(grid: list[tuple[int, float]], *, held_out: bool) -> Log:
        """The columns on the grid."""

        def column(role: str, *, mean: bool) -> np.ndarray | None:
            if role not in chosen or (role.startswith("val_") and not held_out):
                return None
            return _on(grid, _by_key(columns[chosen[role]]), mean)

        runs = [run for run, _ in grid]
        share, val_share = _shares(
            column(f"metric {metric}", mean=True), column(f"val_metric {metric}", mean=True)
        )
        return Log(
            source=source,
            unit=unit,
            positions=np.array([place for _, place in grid], dtype=float),
            loss=_on(grid, loss, True),
            val_loss=column("val_loss", mean=True),
            metric=share,
            val_metric=val_share,
            metric_name=metric,
            learning_rate=column("learning_rate", mean=False),
            batch_size=column("batch_size", mean=False),
            updates=column("step", mean=False) if unit == "epoch" else None,
            restarts=tuple(row for row in range(1, len(grid)) if runs[row] > runs[row - 1]),
            runs=np.array(runs, dtype=float),
            total_epochs=total_epochs,
            notes=tuple(notes),
        )

    apart = bool(own) and not len(grid) // 2 < len(own) <= len(grid)
    log = on(grid, held_out=not apart)
    return dataclasses.replace(log, evaluated=on(own, held_out=True)) if apart else log


def _shares(*metrics: np.ndarray | None) -> list[np.ndarray | None]:
    """The metrics in [0, 1]: those in percent are divided by 100, others are left out."""
    known = np.concatenate([np.zeros(1), *(each for each in metrics if each is not None)])
    highest = float(known[np.isfinite(known)].max())
    if highest <= 1.001:
        return list(metrics)
    return [None if each is None or not 1.5 < highest <= 100 else each / 100 for each in metrics]


def binned(log: Log) -> Log:
    """The log, averaged into `MOST_ROWS` rows if it is longer."""
    if len(log) <= MOST_ROWS:
        return log
    edges = np.linspace(0, len(log), MOST_ROWS + 1).round().astype(int)
    last = edges[1:] - 1
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(log):
        value = getattr(log, field.name)
        if isinstance(value, np.ndarray):
            if field.name in ("loss", "val_loss", "metric", "val_metric"):
                with np.errstate(all="ignore"):  # infinity, and sums that overflow
                    changes[field.name] = np.add.reduceat(value, edges[:-1]) / np.diff(edges)
            else:
                changes[field.name] = value[last]
    rows = {int(np.searchsorted(edges, row, side="right")) - 1 for row in log.restarts}
    return dataclasses.replace(log, **changes, restarts=tuple(sorted(rows - {0})))


def _by_key(series: Series) -> dict[tuple[int, float], Any]:
    """Values by key; values of one key, such as the batches of an epoch, are averaged."""
    found: dict[tuple[int, float], list[float]] = {}
    for key, value in zip(series.keys, series.values, strict=True):
        found.setdefault(key, []).append(value)
    return {key: _mean(values) for key, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))  # NumPy takes ten times as long for a value or two


def _ends(grid: list[tuple[int, float]]) -> dict[int, float]:
    """For each run the first position after its start at which a later run begins.

    A later run trained the rows from there on again, unless it started at the first epoch.
    """
    firsts: dict[int, float] = {}
    for run, place in grid:
        firsts.setdefault(run, place)
    ends: dict[int, float] = {}
    later: list[float] = []
    for run, first in sorted(firsts.items(), reverse=True):
        after = bisect.bisect_right(later, first)
        ends[run] = later[after] if after < len(later) else math.inf
        if not after or later[after - 1] < first:
            later.insert(after, first)
    return ends


def _on(grid: list[tuple[int, float]], values: dict[Any, float], mean: bool) -> np.ndarray:
    """Values on the grid: the mean, or the last, of those since the previous row.

    A row without values repeats the previous row; rows before the first value repeat the first.
    """
    keys = sorted(values)
    last = grid[-1] if grid else None
    found, place = np.full(len(grid), np.nan), 0
    filled = np.zeros(len(grid), dtype=bool)
    for row, key in enumerate(grid):
        begin = place
        # A value after the last row, such as an evaluation at the end, belongs to the last row.
        while place < len(keys) and (keys[place] <= key or key == last):
            place += 1
        part = [values[each] for each in keys[begin:place] if each[0] == key[0]]
        if part:
            found[row] = _mean(part) if mean else part[-1]
            filled[row] = True
    rows = np.flatnonzero(filled)
    if rows.size:
        source = np.maximum(np.searchsorted(rows, np.arange(len(grid)), side="right") - 1, 0)
        found = found[rows[source]]
    return found
