"""Logs as text: lines such as `Epoch 3: Train Loss=0.07, Val Loss=0.08`, and Keras's output."""

from __future__ import annotations

import dataclasses
import re

from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.columns import role_of

__all__ = ["lowered", "rows_of_text"]

_EPOCH = re.compile(r"\bepochs?\s*[:=#]?\s*\[?\s*(\d{1,9})", re.IGNORECASE)
_STEP = re.compile(r"\b(?:step|iter(?:ation)?)s?\s*[:=#]?\s*\[?\s*(\d{1,9})", re.IGNORECASE)
_VALUE = re.compile(
    r"([A-Za-z][A-Za-z_]{0,30}(?: [A-Za-z][A-Za-z_]{0,30}){0,2})\s{0,3}(?:[:=]\s{0,3}|(?<=loss)\s)"
    r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|[-+]?inf|nan)\b",
    re.IGNORECASE,
)
_HELD_OUT = re.compile(r"\b(val|valid|validation|eval|evaluation|test)\b", re.IGNORECASE)


def rows_of_text(text: str, asked: Asked) -> list[dict[str, float]]:
    """A row for each epoch that the text names, or else each step.

    The last value of a column counts: a progress bar prints the mean so far many times in an
    epoch. Text before the first epoch is ignored. In a line that begins with a word for held-out
    data, such as "Test set: average loss: 0.5", the values are those of that data.
    """
    lines = re.split(r"[\r\n]+|\x08+", text)
    place, pattern = "epoch", _EPOCH
    if not any(_EPOCH.search(line) for line in lines):
        place, pattern = "step", _STEP
    named = {
        part for each in dataclasses.astuple(lowered(asked)) if each for part in each.split("+")
    }
    rows: list[dict[str, float]] = []
    for line in lines:
        found = pattern.search(line)
        if found:
            number = float(found.group(1))
            if not rows or rows[-1][place] != number:
                rows.append({place: number})
        if not rows:
            continue
        values = list(_VALUE.finditer(line))
        begin = line[: values[0].start()] if values else ""
        held_out = bool(_HELD_OUT.search(begin)) and "train" not in begin.lower()
        for value in values:
            name = _column(value.group(1))
            role = role_of(name)
            if held_out and role is not None and not role[0].startswith("val_"):
                name = f"val_{name}"
            if name in named or (role is not None and role[0] not in ("epoch", "step")):
                rows[-1][name] = float(value.group(2))
    return [row for row in rows if len(row) > 1]


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
