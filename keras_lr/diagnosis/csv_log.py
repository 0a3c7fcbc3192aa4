"""Logs as tables of text: CSV files, and tables that programs print or Markdown shows."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from keras_lr._util.numerals import Comma
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.columns import kind_of, role_of, substitutes
from keras_lr.diagnosis.cut_off import is_cut_off
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.rows import log_of_rows, number, short
from keras_lr.diagnosis.writers import plain_header, plain_rows

__all__ = ["header_of", "log_of_csv", "rows_of_table"]

_FIRST_LINES = 400  # in which the header of a table is looked for
_RULE = re.compile(r"[\s|:+=\-─━┃│┼╇┡╞╪╡├┤┏┓┳]+")
# A scalar downloaded from TensorBoard; the name of the file has its tag.
_TENSORBOARD_TABLE = ["wall time", "step", "value"]
_SPLITS = {
    "|": lambda line: [cell.strip() for cell in re.split(r"[|│┃]", line.strip().strip("|│┃"))],
    "  ": lambda line: re.split(r"\s{2,}|\t", line.strip()),
    " ": lambda line: line.split(),
}


def header_of(text: str, asked: Asked) -> tuple[int, str] | None:
    """The line of the header of a CSV file, counted from 0, and the separator; None if unknown.

    The line names a loss, and the next one has as many cells, with numbers or nothing for those.
    """
    lines = text.split("\n", _FIRST_LINES)[:_FIRST_LINES]
    for place, line in enumerate(lines):
        for separator in ",;\t":
            if separator in line and _names_loss(_cells(line, separator), asked):
                after = next((each for each in lines[place + 1 :] if each.strip()), "")
                if _fits(_cells(line, separator), _cells(after, separator)):
                    return place, separator
    return None


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _names_loss(cells: Sequence[str], asked: Asked) -> bool:
    if any(map(is_number, filter(None, cells))):
        return False
    if asked.loss is not None and asked.loss.split("+")[0].strip() in cells:
        return True
    if any(kind_of(cell) == "loss" for cell in cells):
        return True
    return not any("=" in cell for cell in cells) and substitutes(cells) is not None


def _fits(header: Sequence[str], cells: Sequence[str]) -> bool:
    """Whether cells can be the first row under a header."""
    if not 1 < len(cells) <= len(header):
        return False
    numbers = [name for name, cell in zip(header, cells, strict=False) if is_number(cell)]
    return bool(numbers)


def rows_of_table(text: str, asked: Asked, notes: list[str]) -> list[dict[str, str]]:
    """The rows of the first table in the text whose columns are set with spaces or bars.

    A row that may be cut off is left out, and `notes` gets a sentence about it.

    Such are the tables of fastai, of pandas, of rich, and of the cards of models.
    """
    lines = re.split(r"[\r\n]+", text)
    for place, line in enumerate(lines[:_FIRST_LINES]):
        for mark, split in _SPLITS.items():
            if mark not in line and not (mark == "|" and re.search("[│┃]", line)):
                continue
            header = split(line)
            spoken = any(re.search("[:=,]$|=", name) for name in header)
            if len(header) < 2 or spoken or not _names_loss(header, asked):
                continue
            rows = _below(lines[place + 1 :], header, split, asked)
            if len(rows) > 1:
                last = list(rows[-1])[-1]
                if is_cut_off(text, [row[last] for row in rows if row.get(last)]):
                    rows.pop()
                    notes.append(f"The last line may be cut off in {last}, and was skipped.")
                return rows
    return []


def _below(
    lines: Sequence[str], header: list[str], split: Any, asked: Asked
) -> list[dict[str, str]]:
    """The rows under a header, until a line of another form."""
    rows: list[dict[str, str]] = []
    losses = [place for place, name in enumerate(header) if _is_loss(name)]
    for line in lines:
        if not line.strip() or _RULE.fullmatch(line) or split(line) == header:
            continue
        cells = split(line)
        names = header
        if len(cells) == len(header) + 1 and cells[0].isdigit():
            names = ["", *header]  # pandas prints its index without a name
        shift = len(names) - len(header)
        fits = len(cells) == len(names) and any(map(is_number, cells))
        if not fits or not all(_is_value(cells[place + shift]) for place in losses):
            if rows:
                break
            continue
        row = _row(names, cells, "The table", asked)
        rows.append({name: cell for name, cell in row.items() if name})
    return rows


def _is_loss(name: str) -> bool:
    return kind_of(name) in ("loss", "val_loss")


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or says that there is none."""
    try:
        number(cell, "decimal")
    except ValueError:
        return False
    return True


def log_of_csv(text: str, path: str, asked: Asked) -> Log:
    """A log from the text of a CSV file; lines above its header are left out."""
    begin, separator = header_of(text, asked) or (0, "")
    head, _, _ = text.lstrip("\n").partition("\n")
    separator = separator or max(",;\t", key=head.count)
    try:
        rows = [
            (line, row)
            for line, row in _numbered(csv.reader(io.StringIO(text), delimiter=separator))
            if line > begin and any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}.") from error
    header = [name.strip() for name in rows[0][1]]
    if any(is_number(name) for name in header):
        raise ValueError(f"{path} has no header; its first line must name the columns.")
    if asked.loss is None and [name.lower() for name in header] == _TENSORBOARD_TABLE:
        tag = os.path.basename(path).rpartition("tag-")[2].partition(".")[0]
        if _is_loss(tag) or _is_loss(tag.replace("_", "/")):
            asked = dataclasses.replace(asked, loss=header[2])
    notes: list[str] = []
    found: list[dict[str, str]] = []
    lines: list[int] = []
    restarts: list[int] = []
    for line, row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if cells == header or (len(cells) == len(header) and not any(map(is_number, cells))):
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
        found.append(_row(header, cells, f"{path}, line {line},", asked))
        lines.append(line)
    last = header[len(rows[-1][1]) - 1] if found else ""
    used = role_of(last) or _names_loss([last], asked) or last in dataclasses.astuple(asked)
    if used and is_cut_off(text, [row[last] for row in found if row.get(last)]):
        found.pop()
        lines.pop()
        notes.append(f"The last line may be cut off in {last}, and was skipped.")
    if not found:
        text = "only a header" if any(map(role_of, header)) else "one line and no known column"
        raise ValueError(f"{path} is empty: it has {text}.")
    # Programs write semicolons where a comma is the decimal sign.
    comma: Comma | None = "decimal" if separator == ";" else None
    plain = plain_header(header, path, asked)
    if plain != header:
        found = [
            {new: row.get(old, "") for old, new in zip(header, plain, strict=True)} for row in found
        ]
    table = plain_rows(found)
    if table is not found:  # a row for each step, from lines of one value
        return log_of_rows(table, path, notes, comma=comma, asked=asked)
    return log_of_rows(found, path, notes, restarts=restarts, lines=lines, comma=comma, asked=asked)


def _row(header: Sequence[str], cells: Sequence[str], where: str, asked: Asked) -> dict[str, str]:
    """The cells of a row by the names of their columns.

    Raises:
        ValueError: If two columns of one name, which is that of a loss or such, differ.
    """
    row = dict(zip(header, cells, strict=True))
    if len(row) < len(header):
        for name, cell in zip(header, cells, strict=True):
            if row[name] != cell and (role_of(name) or name in dataclasses.astuple(asked)):
                raise ValueError(
                    f"{where} has {short(cell)} and {short(row[name])} in two columns named "
                    f"{name}; rename one of them."
                )
    return row


def _ragged(rows: Sequence[tuple[int, list[str]]], header: Sequence[str]) -> bool:
    """Whether the file leaves the last cells empty in other rows too."""
    empty = [len(row) == len(header) and not row[-1].strip() for _, row in rows[1:]]
    return sum(empty) > len(empty) // 2


def _numbered(reader: Any) -> Iterable[tuple[int, list[str]]]:
    for row in reader:
        yield reader.line_num, row


def is_number(text: str) -> bool:
    try:
        return number(text, "decimal") is not None
    except ValueError:
        return False
