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

from keras_lr.diagnosis.choose import AUTO, Asked, chosen_columns, evaluation_sets
from keras_lr.diagnosis.columns import role_of
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.rows import log_of_rows, number, short
from keras_lr.diagnosis.tensorboard import EVENT_FILE, read_folder
from keras_lr.diagnosis.text_log import lowered, rows_of_text
from keras_lr.diagnosis.writers import is_mlflow_run, mlflow_rows, plain_header, plain_rows

__all__ = ["read", "read_text"]

LARGEST_FILE = 256 * 2**20


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
        if is_mlflow_run(path):
            return log_of_rows(mlflow_rows(path), path, [], asked=asked)
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
        return log_of_rows(log, "The log", [], asked=asked)
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
    head, _, rest = text.lstrip("\r\n").partition("\n")
    known = any(map(role_of, re.split(r"[,;\t]", head)))
    rows = [] if known else rows_of_text(text, asked)
    if len(rows) > 1:
        return log_of_rows(
            rows,
            path,
            ["The values are read from the lines that name an epoch or a step."],
            asked=lowered(asked),
        )
    if not known and rest.strip() and not re.search(r"[,;\t]", head):
        raise ValueError(
            f"{path} is text whose lines do not name an epoch and a loss, as in "
            "'Epoch 3: loss=0.5'; a log is a CSV file, a JSON file, or such text."
        )
    return _from_csv(text, path, asked)


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
            (line, row)
            for line, row in _numbered(csv.reader(io.StringIO(text), delimiter=separator))
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
    for line, row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if cells == header or (len(cells) == len(header) and not any(map(_is_number, cells))):
            # The header again: CSVLogger(append=True) appended a run.
            if any(role_of(name) for name in cells) and all(cells):
                header = cells
                restarts.append(len(found))
                continue
        if len(cells) < len(header):
            if line == rows[-1][0]:
                notes.append(f"Line {line} is incomplete and was skipped.")
                continue
            blank = [name for name in header[len(cells) :] if role_of(name)]
            if len(cells) < 2 or (blank and not _ragged(rows, header)):
                raise ValueError(
                    f"{path}, line {line}, has {len(cells)} cells; the header has {len(header)}."
                )
            cells += [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise ValueError(
                f"{path}, line {line}, has {len(cells)} cells; the header has {len(header)}."
            )
        if separator == ";":
            cells = [re.sub(r"^([-+]?\d+),(\d)", r"\1.\2", cell) for cell in cells]
        found.append(dict(zip(header, cells, strict=True)))
        lines.append(line)
    if not found:
        text = "only a header" if any(map(role_of, header)) else "one line and no known column"
        raise ValueError(f"{path} is empty: it has {text}.")
    plain = plain_header(header, path, asked)
    if plain != header:
        found = [
            {new: row.get(old, "") for old, new in zip(header, plain, strict=True)} for row in found
        ]
    table = plain_rows(found)
    if table is not found:  # a row for each step, from lines of one value
        return log_of_rows(table, path, notes, asked=asked)
    return log_of_rows(found, path, notes, restarts=restarts, lines=lines, asked=asked)


def _ragged(rows: Sequence[tuple[int, list[str]]], header: Sequence[str]) -> bool:
    """Whether the file leaves the last cells empty in other rows too."""
    empty = [len(row) == len(header) and not row[-1].strip() for _, row in rows[1:]]
    return sum(empty) > len(empty) // 2


def _numbered(reader: Any) -> Iterable[tuple[int, list[str]]]:
    for row in reader:
        yield reader.line_num, row


def _is_number(text: str) -> bool:
    try:
        return number(text) is not None
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
            f"{source} must hold lists of values by column name; got {short(content)}."
        )
    if not content:
        raise ValueError(f"{source} is empty.")
    if not all(isinstance(row, Mapping) for row in content):
        raise ValueError(f"{source} must hold lists of values by column name, or rows of them.")
    found = log_of_rows(plain_rows(content), source, notes, total_epochs=planned, asked=asked)
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
            raise ValueError(f"{source}: {name} must be a list; got {short(values)}.")
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
    if not lists and content["history"]:
        got = short(dict(content["history"]))
        raise ValueError(f"{source} must hold lists of values by column name; got {got}.")
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
    return log_of_rows(table, source, list(notes), total_epochs=planned, asked=asked)


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
