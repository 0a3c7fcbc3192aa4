"""Readers of logs: a file, a `History`, a table, or rows; folders go to `tensorboard`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_lr._util.compressed import SUFFIXES
from keras_lr.diagnosis.choose import AUTO, Asked
from keras_lr.diagnosis.columns import role_of
from keras_lr.diagnosis.csv_log import header_of, log_of_csv, rows_of_table
from keras_lr.diagnosis.files import text_in
from keras_lr.diagnosis.json_log import log_of_content, log_of_lists, parsed, rows_of_lines
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.rows import by_name, log_of_rows
from keras_lr.diagnosis.tensorboard import EVENT_FILE, read_folder
from keras_lr.diagnosis.text_log import lowered, rows_of_text
from keras_lr.diagnosis.writers import is_mlflow_run, mlflow_rows, plain_rows

__all__ = ["read", "read_text"]


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
            return read_folder(path, asked)
        return read_text(text_in(path), path, asked)
    if isinstance(getattr(log, "history", None), Mapping):  # a History of Keras
        return log_of_lists(vars(log), "The history", asked=asked)
    if isinstance(log, Mapping):
        return log_of_content(log, "The log", [], asked)
    if hasattr(log, "columns") and hasattr(log, "to_dict"):  # a DataFrame
        return log_of_lists({"history": _with_gaps(log, asked)}, "The table", asked=asked)
    if isinstance(log, Sequence) and log and all(isinstance(row, Mapping) for row in log):
        return log_of_content(list(log), "The log", [], asked)
    raise TypeError(
        "log must be a path, a History, a dictionary of lists, a list of rows, or a DataFrame; "
        f"got {type(log).__name__}."
    )


def read_text(text: str, path: str, asked: Asked = AUTO) -> Log:
    """Read a log from its text; `path` names it in messages."""
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    notes: list[str]
    stem, suffix = os.path.splitext(path.lower())
    named = (stem if suffix in SUFFIXES else path.lower()).endswith((".json", ".jsonl"))
    if text.lstrip()[0] in "{[" or named:
        notes = []
        try:
            return log_of_content(_content(text, notes), path, notes, asked)
        except _NotJson as error:
            if named or re.match(r'\s*[{[]\s*(?:["{[\]}]|$)', text):
                raise ValueError(f"{path} is not valid JSON: {error}.") from error
    plain = text.replace("\r\n", "\n")
    if "\n" not in plain.strip():
        plain = plain.replace("\r", "\n")  # as Mac OS 9 ended its lines
    if header_of(plain, asked) is not None:
        return log_of_csv(plain, path, asked)
    objects = rows_of_lines(text)
    if len(objects) > 1:
        return log_of_rows(
            objects,
            path,
            ["The values are read from the lines that hold a dictionary."],
            asked=asked,
        )
    notes = ["The values are read from the table in the text."]
    rows = rows_of_table(text, asked, notes)
    if rows:
        return log_of_rows(plain_rows(rows), path, notes, asked=asked)
    notes = ["The values are read from the lines that name an epoch or a step."]
    lines = rows_of_text(text, asked, notes)
    if len(lines) > 1:
        return log_of_rows(lines, path, notes, asked=lowered(asked))
    head, _, rest = plain.lstrip("\n").partition("\n")
    known = any(map(role_of, re.split(r"[,;\t]", head)))
    if not known and rest.strip() and not re.search(r"[,;\t]", head):
        raise ValueError(
            f"{path} is text whose lines do not name an epoch and a loss, as in "
            "'Epoch 3: loss=0.5'; a log is a CSV file, a JSON file, or such text."
        )
    return log_of_csv(plain, path, asked)


class _NotJson(ValueError):
    """The text is not JSON."""


def _content(text: str, notes: list[str]) -> Any:
    """The content of JSON, or of one object per line."""
    try:
        return parsed(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        content = []
        for number, line in enumerate(lines):
            try:
                content.append(parsed(line))
            except ValueError:
                if number > 0 and number == len(lines) - 1:
                    notes.append("The last line is incomplete and was skipped.")
                    break
                raise _NotJson(str(error)) from error
        return content


def _with_gaps(table: Any, asked: Asked) -> dict[str, list[Any]]:
    """The columns of a DataFrame, which also marks an empty cell as NaN.

    A NaN followed by numbers is an empty cell; NaNs at the end of a column are values of the loss.
    """
    names = [str(name) for name in table.columns]
    columns = []
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place] if hasattr(table, "iloc") else table[name]
        values = [None if type(value).__name__ == "NAType" else value for value in column.to_list()]
        lost = [isinstance(value, float) and math.isnan(value) for value in values]
        if True in lost and False in lost[lost.index(True) :]:
            values = [None if gone else value for gone, value in zip(lost, values, strict=True)]
        columns.append(values)
    if len(set(names)) < len(names):
        for row, cells in enumerate(zip(*columns, strict=True)):
            by_name(names, cells, f"The table, row {row},", asked)
    return dict(zip(names, columns, strict=True))
