"""Which columns of a log are its losses and its rate: by name, by sum of parts, or as asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_lr._util import checks
from keras_lr.diagnosis.columns import kind_of, substitutes, words_of

__all__ = ["AUTO", "Asked", "chosen_columns", "evaluation_sets", "renamed"]

# ultralytics and other detectors log the parts of a loss only: train/box_loss, val/box_loss.
_PART = re.compile(r"(train|val)[/_.](\w+_loss)")
# Losses that oppose each other have no sum.
_ADVERSARIAL = {"d", "g", "disc", "gen", "discriminator", "generator", "critic", "actor"}
# transformers, with a dictionary of evaluation data, and Lightning with several loaders.
_SET = re.compile(r"eval[_/]\w+_loss|val_loss(_epoch)?/dataloader_idx_\d+")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Columns that the caller names; None chooses by name.

    Attributes:
        loss: Column of the training loss, or several joined by "+", which are added.
        val_loss: Likewise of the validation loss.
        learning_rate: Column of the learning rate.
    """

    loss: str | None = None
    val_loss: str | None = None
    learning_rate: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not isinstance(value, str):
                raise TypeError(
                    f"{field.name} must be the name of a column; got {type(value).__name__}."
                )


AUTO = Asked()


def chosen_columns(
    names: Iterable[str], asked: Asked, source: str, notes: list[str]
) -> Mapping[str, tuple[str, ...]]:
    """For "loss", "val_loss" and "learning_rate" the columns to add, where names do not tell.

    Raises:
        ValueError: If the log has no column that was asked for.
    """
    names = list(names)
    found: dict[str, tuple[str, ...]] = {}
    for role in ("loss", "val_loss", "learning_rate"):
        text = getattr(asked, role)
        if text is not None:
            found[role] = _named(text, role, names, source)
    if "loss" not in found and not any(kind_of(name) == "loss" for name in names):
        _without_loss(names, found, notes)
    sets = evaluation_sets(names, asked)
    if sets:
        found["val_loss"] = (sets[0],)
        note = f"The validation loss is {sets[0]}"
        if sets[1:]:
            note += f"; {', '.join(sets[1:])} {'is' if len(sets) == 2 else 'are'} judged beside it"
        notes.append(note + ".")
    return found


def _without_loss(names: list[str], found: dict[str, tuple[str, ...]], notes: list[str]) -> None:
    """Choose columns of a log that has no column named loss: a loss of another name, or parts."""
    other = substitutes(names)
    if other is not None:
        for role, name in zip(("loss", "val_loss"), other, strict=True):
            if name is not None and role not in found:
                found[role] = (name,)
                notes.append(f"The {role} is {name}; the log has no column named loss.")
        return
    parts: dict[str, list[str]] = {}
    for name in names:
        if part := _PART.fullmatch(name.strip()):
            parts.setdefault(part.group(1), []).append(name)
    if any(not _ADVERSARIAL.isdisjoint(words_of(name)) for name in parts.get("train", [])):
        return
    for role, side in (("loss", "train"), ("val_loss", "val")):
        if role not in found and side in parts:
            found[role] = tuple(parts[side])
            notes.append(f"The {role} is the sum of {', '.join(parts[side])}.")


def evaluation_sets(names: Iterable[str], asked: Asked) -> list[str]:
    """The losses of several evaluation sets, if no other column is the validation loss."""
    names = list(names)
    if asked.val_loss is not None or any(kind_of(name) == "val_loss" for name in names):
        return []
    return [name for name in names if _SET.fullmatch(name.strip())]


def _named(text: str, role: str, names: list[str], source: str) -> tuple[str, ...]:
    if text in names:
        return (text,)
    columns = tuple(part.strip() for part in text.split("+"))
    for column in columns:
        if column not in names:
            listed = checks.shortened(", ".join(names), 200)
            raise ValueError(
                f"{source} has no column {column!r} for {role}; its columns are: {listed}."
            )
    return columns


def renamed(row: Mapping[Any, Any], columns: Mapping[str, tuple[str, ...]], number: Any) -> Any:
    """The row with the chosen columns under the names of their roles.

    Args:
        row: Cells by column name.
        columns: The result of `chosen_columns`.
        number: Function that converts a cell to a float, or None if it is missing.
    """
    if not columns:
        return row
    cells = {name: value for name, value in row.items() if kind_of(str(name)) not in columns}
    for role, parts in columns.items():
        values = [number(row.get(part)) for part in parts]
        cells[role] = None if None in values else sum(values)
    return cells
