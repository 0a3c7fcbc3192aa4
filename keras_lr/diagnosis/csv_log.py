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
from keras_lr.diagnosis.rows import by_name, log_of_rows, number
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
        row = by_name(names, cells, "The table", asked)
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


@dataclasses.dataclass
class _Table:
    """The rows under a header, as `CSVLogger` writes them.

    Attributes:
        rows: Cells by the names of their columns.
        lines: Line number of each row in the file.
        restarts: Rows before which the header stands again, since a run was appended.
        last: The column of the last cell of the file; "" if its line is left out.
        notes: Sentences on what is left out.
    """

    rows: list[dict[str, str]] = dataclasses.field(default_factory=list)
    lines: list[int] = dataclasses.field(default_factory=list)
    restarts: list[int] = dataclasses.field(default_factory=list)
    last: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)


def log_of_csv(text: str, path: str, asked: Asked) -> Log:
    """A log from the text of a CSV file; lines above its header are left out."""
    lines, separator = _lines_in(text, path, asked)
    header = lines[0][1]
    if any(is_number(name) for name in header):
        raise ValueError(f"{path} has no header; its first line must name the columns.")
    if asked.loss is None and [name.lower() for name in header] == _TENSORBOARD_TABLE:
        tag = os.path.basename(path).rpartition("tag-")[2].partition(".")[0]
        if _is_loss(tag) or _is_loss(tag.replace("_", "/")):
            asked = dataclasses.replace(asked, loss=header[2])
    table = _table_of(lines, path, asked)
    _leave_out_cut_off(table, text, asked)
    if not table.rows:
        if any(map(role_of, header)):
            raise ValueError(f"{path} is empty: it has only a header.")
        raise ValueError(f"{path} is not a log: it has one line, which names no known column.")
    # Programs write semicolons where a comma is the decimal sign.
    comma: Comma | None = "decimal" if separator == ";" else None
    rows = plain_rows(table.rows)
    if rows is not table.rows:  # a row for each step, from lines of one value
        return log_of_rows(rows, path, table.notes, comma=comma, asked=asked)
    return log_of_rows(
        rows,
        path,
        table.notes,
        restarts=table.restarts,
        lines=table.lines,
        comma=comma,
        asked=asked,
    )


def _lines_in(text: str, path: str, asked: Asked) -> tuple[list[tuple[int, list[str]]], str]:
    """The cells of each line from the header on, with its number, and the separator."""
    begin, separator = header_of(text, asked) or (0, "")
    head, _, _ = text.lstrip("\n").partition("\n")
    separator = separator or max(",;\t", key=head.count)
    try:
        lines = [
            (line, [cell.strip() for cell in row])
            for line, row in _numbered(csv.reader(io.StringIO(text), delimiter=separator))
            if line > begin and any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}.") from error
    return lines, separator


def _table_of(lines: Sequence[tuple[int, list[str]]], path: str, asked: Asked) -> _Table:
    """The table of lines, the first of which is the header.

    Raises:
        ValueError: If a line has too many or too few cells, or two columns of one name differ.
    """
    header = lines[0][1]
    names = plain_header(header, path, asked)
    table = _Table()
    for line, cells in lines[1:]:
        if _is_header(cells, header):
            header, names = cells, plain_header(cells, path, asked)
            table.restarts.append(len(table.rows))
            table.last = ""
            continue
        wrong = f"{path}, line {line}, has {len(cells)} cells; the header has {len(header)}."
        table.last = names[len(cells) - 1] if len(cells) <= len(names) else ""
        if len(cells) < len(header):
            if line == lines[-1][0]:
                table.last = ""
                table.notes.append(f"Line {line} is incomplete and was skipped.")
                continue
            blank = [name for name in header[len(cells) :] if role_of(name)]
            if len(cells) < 2 or (blank and not _ragged(lines, header)):
                raise ValueError(wrong)
            cells = cells + [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise ValueError(wrong)
        table.rows.append(by_name(names, cells, f"{path}, line {line},", asked))
        table.lines.append(line)
    return table


def _is_header(cells: list[str], header: list[str]) -> bool:
    """Whether a line is a header again: CSVLogger(append=True) appended a run."""
    if cells != header and (len(cells) != len(header) or any(map(is_number, cells))):
        return False
    return any(map(role_of, cells)) and all(cells)


def _leave_out_cut_off(table: _Table, text: str, asked: Asked) -> None:
    """Leave out the last row if its last number may be cut off."""
    last = table.last
    used = role_of(last) or _names_loss([last], asked) or last in dataclasses.astuple(asked)
    if last and used and is_cut_off(text, [row[last] for row in table.rows if row.get(last)]):
        table.rows.pop()
        table.lines.pop()
        table.notes.append(f"The last line may be cut off in {last}, and was skipped.")


def _ragged(rows: Sequence[tuple[int, list[str]]], header: Sequence[str]) -> bool:
    """Whether the file leaves the last cells empty in other rows too."""
    empty = [len(row) == len(header) and not row[-1] for _, row in rows[1:]]
    return sum(empty) > len(empty) // 2


def _numbered(reader: Any) -> Iterable[tuple[int, list[str]]]:
    for row in reader:
        yield reader.line_num, row


def is_number(text: str) -> bool:
    try:
        return number(text, "decimal") is not None
    except ValueError:
        return False
