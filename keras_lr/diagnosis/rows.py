"""Rows of a log, as mappings from column names to cells, made into a `Log`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr._util import checks
from keras_lr._util.numerals import Comma, comma_of, meaning, plain
from keras_lr.diagnosis.choose import AUTO, Asked, chosen_columns, evaluation_sets, renamed
from keras_lr.diagnosis.columns import kind_of, pick, rewarded, role_of
from keras_lr.diagnosis.log import Log, Series, assemble

__all__ = ["by_name", "log_of_rows", "number", "short"]

_MISSING = {"", "na", "n/a", "<na>", "none", "null", "-", "--", "no log"}
# A number printed alone, in brackets, by NumPy, or as a tensor. No two adjacent repeats match the
# same text, so matching takes time linear in the cell.
_PLAIN = r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_NUMBER = re.compile(
    rf"({_PLAIN})\s*[%,]?"
    rf"|(?:[\w.]+\(\[?|\[)\s*({_PLAIN})\s*\]?(?:,[^()]*(?:\([^()]*\)[^()]*)?)?\)?",
    re.IGNORECASE,
)
_BEGIN = re.compile(r"[-+]?[\d.,]*\d(?:e[-+]?\d+)?", re.IGNORECASE)


def number(value: Any, comma: Comma | None = None) -> float | None:
    """A value as a float, None if it is missing; a list gives its last value.

    Args:
        value: A number, its text, or a list of numbers.
        comma: What a comma stands for in a text such as "1,234"; None refuses that text.

    Raises:
        ValueError: If it is not a number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value.strip().lower() in _MISSING:
            return None
        text = _BEGIN.sub(lambda found: plain(found.group(), comma), value.strip(), count=1)
        found = _NUMBER.fullmatch(text)
        if not found:
            raise ValueError(value)
        return float(found.group(1) or found.group(2))
    if isinstance(value, (bool, Mapping)):
        raise ValueError(value)
    if isinstance(value, (list, tuple)) and not value:
        return None
    try:
        numbers = np.asarray(value, dtype=float).reshape(-1)
        return float(numbers[-1]) if numbers.size else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(value) from error


def short(value: Any) -> str:
    return checks.shortened(repr(value), 40)


def by_name(
    names: Sequence[str], cells: Sequence[Any], where: str, asked: Asked = AUTO
) -> dict[str, Any]:
    """The cells of a row by the names of their columns.

    Raises:
        ValueError: If two columns of one name, which is that of a loss or such, differ.
    """
    row = dict(zip(names, cells, strict=True))
    if len(row) < len(names):
        for name, cell in zip(names, cells, strict=True):
            other = row[name]
            known = role_of(name) or name in dataclasses.astuple(asked)
            if known and cell != other and not cell != cell != other != other:  # NaN equals none
                raise ValueError(
                    f"{where} has {short(cell)} and {short(other)} in two columns named {name}; "
                    "rename one of them."
                )
    return row


def log_of_rows(
    rows: Iterable[Mapping[Any, Any]],
    source: str,
    notes: list[str],
    *,
    restarts: Sequence[int] = (),
    lines: Sequence[int] | None = None,
    total_epochs: int | None = None,
    comma: Comma | None = None,
    asked: Asked = AUTO,
) -> Log:
    """A log from rows, in the order in which they were written, with its evaluation sets.

    The arguments are those of `_table_of`.
    """
    rows = list(rows)
    shared: Any = {
        "restarts": restarts,
        "lines": lines,
        "total_epochs": total_epochs,
        "comma": _comma_in(rows) or comma,
    }
    log = _table_of(rows, source, notes, asked=asked, **shared)
    others = evaluation_sets(dict.fromkeys(str(name) for row in rows for name in row), asked)[1:]
    sets = {
        name: _table_of(rows, source, [], asked=dataclasses.replace(asked, val_loss=name), **shared)
        for name in others
    }
    return dataclasses.replace(log, sets=sets) if sets else log


def _table_of(
    rows: Sequence[Mapping[Any, Any]],
    source: str,
    notes: list[str],
    *,
    restarts: Sequence[int],
    lines: Sequence[int] | None,
    total_epochs: int | None,
    comma: Comma | None,
    asked: Asked,
) -> Log:
    """A log from rows.

    Args:
        rows: Cells by column name; columns without a known role are ignored.
        source: Path or kind of the log, for messages.
        notes: Sentences on what was skipped.
        restarts: Rows at which the file shows the start of a run.
        lines: Line number of each row in the file, for messages.
        total_epochs: Planned number of epochs.
        comma: What a comma stands for in a number such as 1,234.
        asked: Columns that the caller names.
    """
    head = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = chosen_columns(head, asked, source, notes)
    table: list[dict[str, float]] = []
    names = dict.fromkeys(map(str, renamed(dict.fromkeys(head), columns, lambda value: None)))
    spoilt: dict[str, str] = {}
    skipped = 0
    for place, row in enumerate(rows):
        where = f"line {lines[place]}" if lines else f"row {place}"
        cells = _cells_of(row, columns, f"{source}, {where}", spoilt, comma)
        if cells is None:
            skipped += 1
        table.append(cells or {})
    _tell_spoilt(table, spoilt, skipped, notes)
    key, unit = _key_of(table, names, len(restarts))
    if key and not restarts:
        _put_in_order(table, key, unit, notes)
    run, before, series = 0, -math.inf, {name: Series([], []) for name in names}
    began = set(restarts)
    losses = set(_chosen_loss(table))
    seen = False  # whether this position already has a loss
    for place, cells in enumerate(table):
        at = cells.get(key, before if place else 0.0) if key else float(place)
        if not math.isfinite(at):
            at = before if place else 0.0
        again = at < before or (at == before and seen and not losses.isdisjoint(cells))
        if (place in began or again) and place:
            run += 1
        seen = (seen and at == before) or not losses.isdisjoint(cells)
        before = at
        for name, value in cells.items():
            series[name].keys.append((run, at))
            series[name].values.append(value)
    log = assemble(series, source=source, unit=unit, total_epochs=total_epochs, notes=notes)
    if not rewarded(head):
        return log
    other = None if log.evaluated is None else dataclasses.replace(log.evaluated, rewarded=True)
    return dataclasses.replace(log, rewarded=True, evaluated=other)


def _number_in(value: Any) -> float | None:
    """The number in the text of a position, such as "3/100", "Epoch 3" or "1,000"."""
    found = re.search(r"\d(?:[\d.,]*\d)?", value) if isinstance(value, str) else None
    try:
        return float(plain(found.group(), "thousands")) if found else None
    except ValueError:
        return None


def _comma_in(rows: Sequence[Mapping[Any, Any]]) -> Comma | None:
    """What a comma stands for in the cells; None if they do not tell or have none."""
    columns: dict[Any, list[str]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str):
                columns.setdefault(name, []).append(value.strip().rstrip("% "))
    return comma_of(columns.values())


def _either(value: Any) -> str:
    """The way out for a number that has two readings; "" for any other cell."""
    text = value.strip() if isinstance(value, str) else ""
    if meaning(text) != "either":
        return ""
    return f" It may be {plain(text, 'decimal')} or {plain(text, 'thousands')}; write one of them."


def _cells_of(
    row: Mapping[Any, Any],
    columns: Mapping[str, tuple[str, ...]],
    where: str,
    spoilt: dict[str, str],
    comma: Comma | None,
) -> dict[str, float] | None:
    """The cells with a known role as numbers; None for a row with text in place of its position.

    The first cell of a metric, rate or batch size that is not a number is written to `spoilt`.

    Raises:
        ValueError: If a loss is not a number.
    """

    def loss(value: Any) -> float | None:
        try:
            return number(value, comma)
        except ValueError as error:
            raise ValueError(
                f"{where}: the loss must be a number; got {short(value)}.{_either(value)}"
            ) from error

    cells: dict[str, float] = {}
    for name, value in renamed(row, columns, loss).items():
        role = kind_of(str(name))
        if not role:
            continue
        try:
            cell = number(value, "thousands" if role == "step" else comma)
        except ValueError as error:
            if role in ("loss", "val_loss"):
                raise ValueError(
                    f"{where}: {name} must be a number; got {short(value)}.{_either(value)}"
                ) from error
            if role in ("epoch", "step"):
                cell = _number_in(value)
                if cell is None:
                    return None
            else:
                spoilt.setdefault(str(name), f"{where.rpartition(', ')[2]} has {short(value)}")
                continue
        if cell is not None:
            cells[str(name)] = cell
    return cells


def _tell_spoilt(
    table: list[dict[str, float]], spoilt: Mapping[str, str], skipped: int, notes: list[str]
) -> None:
    """Leave out columns with cells that are not numbers, and say what was left out."""
    for name, why in spoilt.items():
        for cells in table:
            cells.pop(name, None)
        notes.append(f"{name} is left out, because it is not a column of numbers: {why}.")
    if skipped:
        rows = "1 row was" if skipped == 1 else f"{skipped} rows were"
        notes.append(f"{rows} skipped, without a number for the epoch or the step.")


def _put_in_order(table: list[dict[str, float]], key: str, unit: str, notes: list[str]) -> None:
    """Order rows that go from the last position to the first, or are sorted as text: 1, 10, 2."""
    places = [cells[key] for cells in table if key in cells]
    pairs = list(zip(places, places[1:], strict=False))
    if len(places) > 2 and all(a > b for a, b in pairs):
        table.reverse()
        notes.append(f"The last {unit} comes first; the rows are read from the last to the first.")
        return
    if not 3 < len(places) == len(table) or not all(map(math.isfinite, places)):
        return
    texts = [f"{place:.17g}" for place in places]
    if any(a > b for a, b in pairs) and all(a < b for a, b in zip(texts, texts[1:], strict=False)):
        table.sort(key=lambda cells: cells[key])
        notes.append(
            f"The rows are sorted as text ({', '.join(texts[:4])}, ...); they are read in the "
            f"order of the {unit}s."
        )


def _chosen_loss(table: Sequence[Mapping[str, float]]) -> list[str]:
    """The column of the training loss, if it has values."""
    chosen = pick(dict.fromkeys(name for cells in table for name in cells))
    return [chosen["loss"]] if "loss" in chosen else []


def _key_of(
    table: list[dict[str, float]], names: Iterable[str], restarts: int
) -> tuple[str | None, str]:
    """The column that numbers the rows: the epochs if each loss has its own, else the steps.

    Lightning writes one row every few batches, all with the same epoch.
    """
    roles = {name: role_of(name) for name in names}
    by_role = {found[0]: name for name, found in reversed(list(roles.items())) if found}
    losses = _chosen_loss(table)
    for role in ("epoch", "step"):
        name = by_role.get(role)
        if name is None:
            continue
        for loss in losses:
            numbers = [cells.get(name) for cells in table if loss in cells]
            repeats = sum(a == b for a, b in zip(numbers, numbers[1:], strict=False))
            # A run that was killed in the middle of an epoch trains it again.
            if None not in numbers and repeats <= 1 + restarts + len(numbers) // 10:
                return name, role
    return None, "epoch"
