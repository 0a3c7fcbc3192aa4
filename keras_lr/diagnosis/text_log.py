"""Logs as text: lines such as `Epoch 3: Train Loss=0.07, Val Loss=0.08`, and Keras's output."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from keras_lr._util.numerals import comma_of, meaning, plain
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.columns import kind_of, role_of, substitutes
from keras_lr.diagnosis.curves import noise
from keras_lr.diagnosis.cut_off import is_cut_off

__all__ = ["lowered", "rows_of_text"]

_NUMBER = (
    r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![.,]?\d)|[-+]?\d+,\d+(?:e[-+]?\d+)?(?![.,]?\d)"
    r"|[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|[-+]?inf|nan"
)
_WHOLE = r"[1-9]\d{0,2}(?:,\d{3})+(?![.,]?\d)|\d{1,9}"  # 3, or 1,000
# The number of a row. "epochs=100" is a setting, but "Epochs 3/100" is not.
_PLACES = {
    "epoch": (
        r"(?<!best )(?<!best_)\b(?:epochs(?=\s*:?\s*\[?\s*\d+\s*/)|epoch|ep)\b\.?\s*(?:\(\w+\)\s*)?"
        rf"[:=#]?\s*[\[(]?\s*({_WHOLE})"
    ),
    "step": (
        r"\b(?:global[ _]step|step|iter(?:ation)?|episode)s?\b\s*[:=#]?\s*[\[(]?\s*"
        rf"({_WHOLE})"
    ),
    "row": r"^\W{0,3}\[\s*(\d{1,9})\s*[/,]\s*\d+\s*\]",  # [3/100], [3,  2000]
    "update": r"^\s*(\d+)(?=: \S+, \S+ avg\b)",  # darknet
}
_OTHER = re.compile("best|final|lowest|minimum|min|previous|new|old", re.IGNORECASE)
_AGAIN = re.compile(r"\b(?:best|load|restor|resum|sav|checkpoint)", re.IGNORECASE)
_WORD = r"[A-Za-z][A-Za-z0-9_/@]{0,30}"
# A value, and after it perhaps its mean so far in brackets: Loss 0.52 (0.61).
_VALUE = re.compile(
    rf"(?<![A-Za-z])({_WORD}(?: {_WORD}){{0,2}})"
    r"\s{0,3}(?:[:=]\s{0,3}|(?<=loss)\s{1,3}|\s(?:is|was)\s)"
    rf"({_NUMBER})\b(?!\s*/)(?:\s*\(\s*({_NUMBER})\s*\))?",
    re.IGNORECASE,
)
_DARKNET = re.compile(rf"({_NUMBER}) avg(?: loss)?, ({_NUMBER}) rate", re.IGNORECASE)
_HELD_OUT = re.compile(
    r"\b(val|valid|validation|eval|evaluation|test|Saving dict)\b", re.IGNORECASE
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ABBREVIATED = re.compile(r"\b(val|valid|avg|acc|tr|train)\.(?=\s*[A-Za-z:=])", re.IGNORECASE)
_BAR = re.compile(r"^\s*(\d+)/(\d+)\s+(?:\[|━|-|\d)")
_FEW = 8  # values of an epoch from which batches are told from running means
_BATCH_NOISE = 0.03


class _Bar:
    """The progress bars of one epoch: a second one is of another call, such as `evaluate`."""

    def __init__(self) -> None:
        self.total, self.done = 0, False

    def foreign(self, line: str, row: dict[str, Any]) -> bool:
        found = _BAR.match(line)
        if found is None:
            return False
        at, total = int(found.group(1)), int(found.group(2))
        self.total = self.total or total
        held_out = any(kind_of(name) == "val_loss" for name in row)
        again = self.done and (total != self.total or at < total or held_out)
        self.done = self.done or (total == self.total and at == total)
        return again


def rows_of_text(text: str, asked: Asked, notes: list[str]) -> list[dict[str, float]]:
    """A row for each epoch that the text names, or else each step.

    The last value of a column counts: a progress bar prints the mean so far many times in an
    epoch. Where the lines of an epoch have the losses of single batches, their mean counts. Text
    before the first epoch is ignored. In a line that begins with a word for held-out data, such as
    "Test set: average loss: 0.5", the values are those of that data.

    A value that may be cut off is left out, and `notes` gets a sentence about it.
    """
    lines = [
        _ABBREVIATED.sub(r"\1 ", line) for line in re.split(r"[\r\n]+|\x08+", _ANSI.sub("", text))
    ]
    place, pattern = _place_of(lines)
    named = {
        part for each in dataclasses.astuple(lowered(asked)) if each for part in each.split("+")
    }
    rows: list[dict[str, Any]] = []
    bar = _Bar()
    for line in lines:
        found = pattern.search(line)
        if found:
            number = float(found.group(1).replace(",", ""))
            back = bool(rows) and number < rows[-1][place]
            if not rows or (number != rows[-1][place] and not (back and _AGAIN.search(line))):
                rows.append({place: number})
                bar = _Bar()
        if not rows:
            continue
        if bar.foreign(line, rows[-1]) or (
            not found and re.search(r"\bbest\b", line, re.IGNORECASE)
        ):
            continue
        for name, value in _values(line, named):
            rows[-1].setdefault(name, []).append(value)
    _leave_out_cut_off(rows, place, text, lines, notes)
    _read_numbers(rows, place)
    return _numbers([row for row in rows if len(row) > 1], place)


def _place_of(lines: list[str]) -> tuple[str, re.Pattern[str]]:
    """What numbers the rows, and its pattern: what most of the lines with a loss follow."""
    for place, text in _PLACES.items():
        pattern = re.compile(text, re.IGNORECASE)
        if sum(bool(pattern.search(line)) for line in lines) > 1:
            return ("epoch" if place == "row" else "step" if place == "update" else place), pattern
    return "epoch", re.compile(_PLACES["epoch"], re.IGNORECASE)


def _values(line: str, named: set[str]) -> list[tuple[str, str]]:
    """The columns of a line with the texts of their values."""
    if darknet := _DARKNET.search(line):
        return [("loss", darknet.group(1)), ("lr", darknet.group(2))]
    values = list(_VALUE.finditer(line))
    begin = line[: values[0].start()] if values else ""
    held_out = bool(_HELD_OUT.search(begin)) and "train" not in begin.lower()
    found = []
    for value in values:
        name = _column(value.group(1))
        words = value.group(1).split()
        while name not in named and role_of(name) is None and words[1:]:
            if _OTHER.fullmatch(words[0]):  # "Best val loss: 0.3" is of another row
                break
            words = words[1:]  # "the training loss"
            if role_of(" ".join(words)) is not None:
                name = _column(" ".join(words))
        role = role_of(name)
        if held_out and role is not None and not role[0].startswith("val_"):
            name = f"val_{name}"
        other = role is None and substitutes([name]) is not None
        if name in named or other or (role is not None and role[0] not in ("epoch", "step")):
            found.append((name, value.group(3) or value.group(2)))
    return found


def _leave_out_cut_off(
    rows: list[dict[str, Any]], place: str, text: str, lines: list[str], notes: list[str]
) -> None:
    """Leave out the value at the very end of a text if it may be cut off."""
    if not rows:
        return
    end = lines[-1].rstrip(".,eE+-")  # what belongs to no whole number
    for name, values in list(rows[-1].items()):
        if name == place or not end.endswith(values[-1]):
            continue
        if is_cut_off(text, [value for row in rows for value in row.get(name, [])]):
            values.pop()
            if not values:
                del rows[-1][name]
            notes.append(f"The last {name} may be cut off, and was left out.")
            return


def _read_numbers(rows: list[dict[str, Any]], place: str) -> None:
    """Replace the texts of the values by numbers.

    Raises:
        ValueError: If a comma in one of them may be a decimal comma or separate thousands.
    """
    columns: dict[str, list[str]] = {}
    for row in rows:
        for name, texts in row.items():
            if name != place:
                columns.setdefault(name, []).extend(texts)
    comma = comma_of(columns.values())
    for name, texts in columns.items():
        for text in texts:
            if comma is None and meaning(text) == "either":
                raise ValueError(
                    f"The log has {name} {text}, which may be {plain(text, 'decimal')} or "
                    f"{plain(text, 'thousands')}; write one of them."
                )
    for row in rows:
        for name in row:
            if name != place:
                row[name] = [float(plain(text, comma)) for text in row[name]]


def _numbers(rows: list[dict[str, Any]], place: str) -> list[dict[str, float]]:
    """The rows with one value of each column: the last one, or the mean if it is of batches."""
    losses = {name for row in rows for name in row if name != place}
    shaken = {}
    for name in losses:
        spread = [
            noise(np.array(values[len(values) // 2 :])) / (abs(float(np.mean(values))) or 1.0)
            for row in rows
            if len(values := row.get(name, [])) >= _FEW and np.isfinite(values).all()
        ]
        shaken[name] = bool(spread) and float(np.median(spread)) > _BATCH_NOISE
    return [
        {
            name: value if name == place else float(np.mean(value)) if shaken[name] else value[-1]
            for name, value in row.items()
        }
        for row in rows
    ]


def lowered(asked: Asked) -> Asked:
    """The columns that the caller names, as `rows_of_text` writes them."""
    return Asked(
        *(
            each and "+".join(_column(part) for part in each.split("+"))
            for each in dataclasses.astuple(asked)
        )
    )


def _column(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
