"""Readers of logs: CSV files, JSON files, `History` and tables; folders go to `tensorboard`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr._util import checks
from keras_lr.diagnosis.choose import AUTO, Asked, chosen_columns, evaluation_sets, renamed
from keras_lr.diagnosis.columns import role_of
from keras_lr.diagnosis.log import Log, Series, assemble
from keras_lr.diagnosis.tensorboard import EVENT_FILE, read_folder
from keras_lr.diagnosis.text_log import rows_of_text

__all__ = ["read", "read_text"]

LARGEST_FILE = 256 * 2**20
_MISSING = {"", "na", "n/a", "none", "null", "-"}
# A number printed alone, in brackets, by NumPy, or as a tensor. No two adjacent repeats match the
# same text, so matching takes time linear in the cell.
_NUMBER = re.compile(
    r"(?:[\w.]+\()?\[?\s*([-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?))"
    r"\s*\]?(?:,[^()]*(?:\([^()]*\)[^()]*)?)?\)?",
    re.IGNORECASE,
)


def read(log: Any, asked: Asked = AUTO) -> Log:
    """Read a log of any kind that `keras_lr.diagnose` accepts; `asked` names its columns.

    Raises:
        ValueError: If the log is empty, has no training loss, or has an unknown format.
        TypeError: If it is an object of another kind.
        OSError: If a file cannot be read.
        ModuleNotFoundError: If it is a TensorBoard folder and the tensorboard package is not
            installed.
    """
    if isinstance(log, Log):
        return log
    if isinstance(log, (str, os.PathLike)):
        path = os.fspath(log)
        if os.path.isdir(path) or EVENT_FILE in os.path.basename(path):
            if asked != AUTO:
                raise ValueError(f"{path} is a TensorBoard folder; columns cannot be named for it.")
            return read_folder(path)
        return _read_file(path, asked)
    if isinstance(getattr(log, "history", None), Mapping):  # a History of Keras
        return _from_history(vars(log), "The history", asked=asked)
    if isinstance(log, Mapping):
        return _from_json(log, "The log", [], asked)
    if hasattr(log, "columns") and hasattr(log, "to_dict"):  # a DataFrame
        return _from_history({"history": _with_gaps(log)}, "The table", asked=asked)
    if isinstance(log, Sequence) and log and all(isinstance(row, Mapping) for row in log):
        return _from_rows(log, "The log", [], asked=asked)
    raise TypeError(
        "log must be a path, a History, a dictionary of lists, a list of rows, or a DataFrame; "
        f"got {type(log).__name__}."
    )


def _read_file(path: str, asked: Asked) -> Log:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist.")
    with open(path, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE >> 20} MiB.")
    try:
        text = raw.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("null bytes")
    except ValueError as error:
        raise ValueError(
            f"{path} is not a text file; a log is a CSV file, a JSON file, or a TensorBoard folder."
        ) from error
    return read_text(text, path, asked)


def read_text(text: str, path: str, asked: Asked = AUTO) -> Log:
    """Read a log from its text; `path` names it in messages."""
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    if text.lstrip()[0] in "{[" or path.endswith((".json", ".jsonl")):
        return _from_json_text(text, path, asked)
    head = text.lstrip("\r\n").partition("\n")[0]
    rows = [] if any(map(role_of, re.split(r"[,;\t]", head))) else rows_of_text(text)
    if len(rows) > 1 and asked == AUTO:
        return _from_rows(rows, path, ["The values are read from the lines that name an epoch."])
    return _from_csv(text, path, asked)


# Numbers


def _number(value: Any) -> float | None:
    """A value as a float, None if it is missing; a list gives its last value.

    Raises:
        ValueError: If it is not a number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value.strip().lower() in _MISSING:
            return None
        found = _NUMBER.fullmatch(value.strip())
        if not found:
            raise ValueError(value)
        return float(found.group(1))
    if isinstance(value, (bool, Mapping)):
        raise ValueError(value)
    if isinstance(value, (list, tuple)) and not value:
        return None
    try:
        numbers = np.asarray(value, dtype=float).reshape(-1)
        return float(numbers[-1]) if numbers.size else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(value) from error


def _short(value: Any) -> str:
    return checks.shortened(repr(value), 40)


# Rows


def _from_rows(
    rows: Iterable[Mapping[Any, Any]],
    source: str,
    notes: list[str],
    *,
    restarts: Sequence[int] = (),
    lines: Sequence[int] | None = None,
    total_epochs: int | None = None,
    asked: Asked = AUTO,
) -> Log:
    """A log from rows, in the order in which they were written, with its evaluation sets.

    The arguments are those of `_table_of`.
    """
    rows = list(rows)
    shared: Any = {"restarts": restarts, "lines": lines, "total_epochs": total_epochs}
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
        asked: Columns that the caller names.
    """
    head = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = chosen_columns(head, asked, source, notes)
    table: list[dict[str, float]] = []
    names: dict[str, None] = {}
    for place, row in enumerate(rows):
        cells = {}
        for name, value in renamed(row, columns, _number).items():
            name = str(name)
            names[name] = None
            if role_of(name) is None:
                continue
            try:
                number = _number(value)
            except ValueError as error:
                line = f", line {lines[place]}" if lines else f", row {place}"
                raise ValueError(
                    f"{source}{line}: {name} must be a number; got {_short(value)}."
                ) from error
            if number is not None:
                cells[name] = number
        table.append(cells)
    key, unit = _key_of(table, names, len(restarts))
    run, before, series = 0, -math.inf, {name: Series([], []) for name in names}
    began = set(restarts)
    losses = {name for name in names if (role_of(name) or ("",))[0] == "loss"}
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
    return assemble(series, source=source, unit=unit, total_epochs=total_epochs, notes=notes)


def _key_of(
    table: list[dict[str, float]], names: Iterable[str], restarts: int
) -> tuple[str | None, str]:
    """The column that numbers the rows: the epochs if each loss has its own, else the steps.

    Lightning writes one row every few batches, all with the same epoch.
    """
    roles = {name: role_of(name) for name in names}
    by_role = {found[0]: name for name, found in reversed(list(roles.items())) if found}
    losses = [name for name, found in roles.items() if found and found[0] == "loss"]
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


def _with_gaps(table: Any) -> dict[str, list[Any]]:
    """The columns of a DataFrame, which also marks an empty cell as NaN.

    A NaN followed by numbers is an empty cell; NaNs at the end of a column are values of the loss.
    """
    columns = {}
    for name in table.columns:
        values = table[name].tolist()
        lost = [isinstance(value, float) and math.isnan(value) for value in values]
        if True in lost and False in lost[lost.index(True) :]:
            values = [None if gone else value for gone, value in zip(lost, values, strict=True)]
        columns[str(name)] = values
    return columns


# Text


def _from_csv(text: str, path: str, asked: Asked) -> Log:
    head, _, _ = text.lstrip("\r\n").partition("\n")
    separator = max(",;\t", key=head.count)
    try:
        rows = [
            (number, row)
            for number, row in _numbered(csv.reader(io.StringIO(text), delimiter=separator))
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}.") from error
    header = [name.strip() for name in rows[0][1]]
    if any(_is_number(name) for name in header):
        raise ValueError(f"{path} has no header; its first line must name the columns.")
    notes: list[str] = []
    found: list[dict[str, str]] = []
    lines: list[int] = []
    restarts: list[int] = []
    for number, row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if cells == header or (len(cells) == len(header) and not any(map(_is_number, cells))):
            # The header again: CSVLogger(append=True) appended a run.
            if any(role_of(name) for name in cells) and all(cells):
                header = cells
                restarts.append(len(found))
                continue
        if len(cells) < len(header):
            if number == rows[-1][0]:
                notes.append(f"Line {number} is incomplete and was skipped.")
                continue
            blank = [name for name in header[len(cells) :] if role_of(name)]
            if len(cells) < 2 or (blank and not _ragged(rows, header)):
                raise ValueError(
                    f"{path}, line {number}, has {len(cells)} cells; the header has {len(header)}."
                )
            cells += [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise ValueError(
                f"{path}, line {number}, has {len(cells)} cells; the header has {len(header)}."
            )
        if separator == ";":
            cells = [re.sub(r"^([-+]?\d+),(\d)", r"\1.\2", cell) for cell in cells]
        found.append(dict(zip(header, cells, strict=True)))
        lines.append(number)
    if not found:
        text = "only a header" if any(map(role_of, header)) else "one line and no known column"
        raise ValueError(f"{path} is empty: it has {text}.")
    return _from_rows(found, path, notes, restarts=restarts, lines=lines, asked=asked)


def _ragged(rows: Sequence[tuple[int, list[str]]], header: Sequence[str]) -> bool:
    """Whether the file leaves the last cells empty in other rows too."""
    empty = [len(row) == len(header) and not row[-1].strip() for _, row in rows[1:]]
    return sum(empty) > len(empty) // 2


def _numbered(reader: Any) -> Iterable[tuple[int, list[str]]]:
    for row in reader:
        yield reader.line_num, row


def _is_number(text: str) -> bool:
    try:
        return _number(text) is not None
    except ValueError:
        return False


def _from_json_text(text: str, path: str, asked: Asked) -> Log:
    notes: list[str] = []
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        content = []
        for number, line in enumerate(lines):
            try:
                content.append(json.loads(line))
            except (ValueError, RecursionError):
                if number and number == len(lines) - 1:
                    notes.append("The last line is incomplete and was skipped.")
                    break
                raise ValueError(f"{path} is not valid JSON: {error}.") from error
    return _from_json(content, path, notes, asked)


def _from_json(content: Any, source: str, notes: list[str], asked: Asked) -> Log:
    state = isinstance(content, Mapping) and isinstance(content.get("log_history"), list)
    planned = content.get("num_train_epochs") if state else None
    planned = planned if isinstance(planned, int) and planned > 0 else None
    for name in ("log_history", "history"):  # the state of a transformers Trainer; a History
        if isinstance(content, Mapping) and isinstance(content.get(name), (Mapping, list)):
            if isinstance(content[name], Mapping):
                return _from_history(content, source, notes, asked)
            content = content[name]
    if isinstance(content, Mapping):
        return _from_history({"history": content}, source, notes, asked)
    if not isinstance(content, list):
        raise ValueError(
            f"{source} must hold lists of values by column name; got {_short(content)}."
        )
    if not content:
        raise ValueError(f"{source} is empty.")
    if not all(isinstance(row, Mapping) for row in content):
        raise ValueError(f"{source} must hold lists of values by column name, or rows of them.")
    found = _from_rows(content, source, notes, total_epochs=planned, asked=asked)
    if not state:
        return found
    evaluated = found.evaluated
    if evaluated is not None:
        evaluated = dataclasses.replace(evaluated, schedule_fits=True)
    return dataclasses.replace(found, schedule_fits=True, evaluated=evaluated)


def _from_history(
    content: Mapping[str, Any], source: str, notes: Sequence[str] = (), asked: Asked = AUTO
) -> Log:
    """A log from the lists of a History, with its epochs and planned epochs if it has them."""
    lists: dict[str, list[Any]] = {}
    for name, values in content["history"].items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            if role_of(str(name)) not in (None, ("loss", 0)):
                continue
            if role_of(str(name)) is None:
                continue
            raise ValueError(f"{source}: {name} must be a list; got {_short(values)}.")
        lists[str(name)] = list(values)
    wanted = {part for each in chosen_columns(lists, asked, source, []).values() for part in each}
    wanted |= set(evaluation_sets(lists, asked))
    used = {name: values for name, values in lists.items() if role_of(name) or name in wanted}
    rows = max((len(values) for values in used.values()), default=0)
    epochs = content.get("epoch")
    if "epoch" not in lists and isinstance(epochs, Sequence) and len(epochs) == rows:
        lists["epoch"] = used["epoch"] = list(epochs)
    lengths = {len(values) for name, values in used.items()}
    if len(lengths) > 1 and not _sparse(used, rows):
        counts = ", ".join(f"{name} {len(values)}" for name, values in used.items())
        raise ValueError(f"{source}: all lists must have the same length; got {counts}.")
    if not lists:
        raise ValueError(f"{source} is empty.")
    used = _spread(used, rows)
    table = [
        {name: values[row] for name, values in used.items()} | dict.fromkeys(set(lists) - set(used))
        for row in range(rows)
    ]
    if not rows:
        table = [dict.fromkeys(lists)]
    parameters = content.get("params")
    planned = parameters.get("epochs") if isinstance(parameters, Mapping) else None
    planned = planned if isinstance(planned, int) and planned > 0 else None
    return _from_rows(table, source, list(notes), total_epochs=planned, asked=asked)


def _sparse(lists: Mapping[str, list[Any]], rows: int) -> bool:
    """Whether all shorter lists come from validation every few epochs."""
    short = {name for name, values in lists.items() if len(values) < rows}
    return all((role_of(name) or ("val_",))[0].startswith("val_") for name in short)


def _spread(lists: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
    """Put the values of validation every k epochs at epochs k, 2k, ..., as Keras does."""
    spread = {}
    for name, values in lists.items():
        if values and len(values) < rows:
            each = rows // len(values)
            column: list[Any] = [None] * rows
            for place, value in enumerate(values):
                column[min((place + 1) * each, rows) - 1] = value
            values = column
        spread[name] = values or [None] * rows
    return spread
