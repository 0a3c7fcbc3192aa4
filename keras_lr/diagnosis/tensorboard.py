"""Reader of TensorBoard folders: scalars written by Keras or by any other writer."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr.diagnosis.choose import AUTO, Asked, chosen_columns, evaluation_sets
from keras_lr.diagnosis.columns import kind_of, rewarded
from keras_lr.diagnosis.log import Log, Series, assemble

__all__ = ["EVENT_FILE", "read_folder"]

EVENT_FILE = "tfevents"
_SIDES = re.compile(r"(train(ing)?|val(id(ation)?)?|eval(uation)?|test|loss|[_\W])+", re.IGNORECASE)
# Keras also writes validation values by update, which gives the updates per epoch.
_AGAINST_UPDATES = "evaluation_loss_vs_iterations"


def read_folder(path: str, asked: Asked = AUTO) -> Log:
    """Read the scalars of one run: a folder, which may contain train/ and validation/, or a file.

    The name of a column is its tag, below "train/" or "validation/" if it is in such a folder.

    Raises:
        ValueError: If there is no event file, no training loss, or more than one run.
        ModuleNotFoundError: If the tensorboard package is not installed.
        OSError: If a file cannot be read.
    """
    files = [path] if os.path.isfile(path) else sorted(_files_below(path))
    if not files:
        raise ValueError(f"{path} contains no TensorBoard event file.")
    notes: list[str] = []
    top = path if os.path.isdir(path) else os.path.dirname(path)
    folders: dict[str, list[list[tuple[str, int, float]]]] = {}
    for file in files:
        scalars = list(_scalars(file, notes))
        if scalars:
            folder = os.path.relpath(os.path.dirname(file), top or ".").replace(os.sep, "/")
            folders.setdefault("" if folder == "." else folder, []).append(scalars)
    tags_of: dict[str, dict[str, None]] = {}
    for folder, parts in folders.items():
        tags = (_name(folder, tag) for part in parts for tag, _, _ in part)
        tags_of.setdefault(_run_of(folder), {}).update(dict.fromkeys(tags))
    runs = sorted(run for run, found in tags_of.items() if _losses(found, asked))
    if len(runs) > 1:
        names = ", ".join(name or "." for name in runs[:8]) + (", ..." if len(runs) > 8 else "")
        raise ValueError(f"{path} contains several runs; pass the folder of one of them: {names}.")
    columns: dict[str, Series] = {}
    for folder, parts in folders.items():
        if runs and _run_of(folder) != runs[0]:
            continue
        begun: dict[str, int] = {}  # each run writes a file; another file may hold other tags of it
        for scalars in parts:
            for tag in {tag for tag, _, _ in scalars}:
                begun[tag] = begun.get(tag, -1) + 1
            for tag, step, value in scalars:
                series = columns.setdefault(_name(folder, tag), Series([], []))
                series.keys.append((begun[tag], float(step)))
                series.values.append(value)
    unit = _add_updates(columns, asked)
    log = _with_chosen(columns, asked, path, unit, notes)
    sets = {
        name: _with_chosen(columns, dataclasses.replace(asked, val_loss=name), path, unit, [])
        for name in evaluation_sets(columns, asked)[1:]
    }
    return dataclasses.replace(log, sets=sets) if sets else log


def _with_chosen(
    columns: Mapping[str, Series], asked: Asked, path: str, unit: str, notes: list[str]
) -> Log:
    """The log, with the columns that were asked for, or that stand for a loss."""
    chosen = chosen_columns(columns, asked, path, notes)
    kept = {name: series for name, series in columns.items() if kind_of(name) not in chosen}
    for role, parts in chosen.items():
        kept[role] = _sum([columns[part] for part in parts])
    log = assemble(kept, source=path, unit=unit, notes=notes)
    return dataclasses.replace(log, rewarded=rewarded(columns))


def _sum(parts: Sequence[Series]) -> Series:
    """The sum of columns, at the positions that all have."""
    values = [dict(zip(part.keys, part.values, strict=True)) for part in parts]
    keys = [key for key in dict.fromkeys(parts[0].keys) if all(key in each for each in values)]
    return Series(keys, [sum(each[key] for each in values) for key in keys])


def _name(folder: str, tag: str) -> str:
    return f"{_side_of(folder)}/{tag}".lstrip("/")


def _losses(names: Iterable[str], asked: Asked) -> list[str]:
    """The columns that make the training loss."""
    names = list(names)
    try:
        chosen = chosen_columns(names, asked, "", []).get("loss")
    except ValueError:  # another run may have the columns
        return []
    return list(chosen or (name for name in names if kind_of(name) == "loss"))


def _files_below(path: str) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in sorted(names) if EVENT_FILE in name)


def _run_of(folder: str) -> str:
    """The folder without train/ and validation/, which Keras writes for one run."""
    return "/".join(part for part in folder.split("/") if part and not _SIDES.fullmatch(part))


def _side_of(folder: str) -> str:
    """The parts of the folder that name the data: train/, validation/."""
    return "/".join(part for part in folder.split("/") if _SIDES.fullmatch(part))


def _add_updates(columns: dict[str, Series], asked: Asked) -> str:
    """Add a column of updates, if Keras wrote them; return the unit of the loss."""
    losses = _losses(columns, asked)
    epochs = any("epoch" in re.split(r"[^a-z]+", name.lower()) for name in losses)
    if not epochs:
        return "step"
    held_out = next((s for n, s in columns.items() if kind_of(n) == "val_loss"), None)
    against = next((s for name, s in columns.items() if name.endswith(_AGAINST_UPDATES)), None)
    if held_out and against and len(held_out.keys) == len(against.keys):
        updates = [step for _, step in against.keys]
        columns["step"] = Series(list(held_out.keys), updates)
    return "epoch"


def _scalars(path: str, notes: list[str]) -> Iterator[tuple[str, int, float]]:
    """Each scalar in a file: tag, step, value. A truncated record ends the file, with a note.

    This is the reader that TensorBoard uses without TensorFlow, whose import would dominate the
    run time.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise ModuleNotFoundError(
            f"Reading {path} requires the tensorboard package: pip install tensorboard."
        ) from error
    with open(path, "rb"):  # raises OSError if the file cannot be read
        pass
    reader = PyRecordReader_New(path)
    name = os.path.basename(path)
    while True:
        try:
            reader.GetNext()
            event = Event.FromString(reader.record())
        except errors.OutOfRangeError:
            return
        except Exception:  # a truncated or foreign record
            notes.append(
                f"{name} is truncated or damaged; the records before the damage were read."
            )
            return
        for value in event.summary.value:
            number = _number_in(value, make_ndarray)
            if number is not None:
                yield value.tag, event.step, number


def _number_in(value: Any, make_ndarray: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in ("", "scalars"):
        return None
    array = np.asarray(make_ndarray(value.tensor))
    return float(array) if array.size == 1 and array.dtype.kind in "biuf" else None
