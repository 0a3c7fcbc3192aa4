"""Logs as text: lines such as `Epoch 3: Train Loss=0.07, Val Loss=0.08`, and Keras's output."""

from __future__ import annotations

import re

from keras_lr.diagnosis.columns import role_of

__all__ = ["rows_of_text"]

_EPOCH = re.compile(r"\bepochs?\s*[:=#]?\s*\[?\s*(\d{1,9})", re.IGNORECASE)
_VALUE = re.compile(
    r"([A-Za-z][A-Za-z_]{0,30}(?: [A-Za-z][A-Za-z_]{0,30}){0,2})\s{0,3}[:=]\s{0,3}"
    r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|[-+]?inf|nan)\b",
    re.IGNORECASE,
)


def rows_of_text(text: str) -> list[dict[str, float]]:
    """A row for each epoch that the text names; the last value of each column counts.

    A progress bar prints the mean so far many times in an epoch; its last one is the result. Text
    before the first "Epoch" is ignored.
    """
    rows: list[dict[str, float]] = []
    for line in re.split(r"[\r\n]+|\x08+", text):
        found = _EPOCH.search(line)
        if found:
            number = float(found.group(1))
            # A new number, or the same one after a result, as when two runs follow each other.
            if not rows or rows[-1]["epoch"] != number:
                rows.append({"epoch": number})
        if not rows:
            continue
        for name, value in _VALUE.findall(line):
            role = role_of(name)
            if role is not None and role[0] not in ("epoch", "step"):
                rows[-1][name.strip().lower().replace(" ", "_")] = float(value)
    return [row for row in rows if len(row) > 1]
