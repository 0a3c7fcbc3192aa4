"""Reader of TensorBoard folders: scalars written by Keras or by any other writer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lr.diagnosis.columns import role_of
from keras_lr.diagnosis.log import Log, Series, assemble

__all__ = ["EVENT_FILE", "read_folder"]

EVENT_FILE = "tfevents"
_SIDES = re.compile(r"(train(ing)?|val(id(ation)?)?|eval(uation)?|test|loss|[_\W])+", re.IGNORECASE)
# Keras also writes validation values by update, which gives the updates per epoch.
_AGAINST_UPDATES = "evaluation_loss_vs_iterations"


def read_folder(path: str) -> Log:
    """Read the scalars of one run: a folder, which may contain train/ and validation/, or a file.

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
    runs = sorted(
        {
            _run_of(folder)
            for folder, parts in folders.items()
            for part in parts
            for tag, _, _ in part
            if (role_of(f"{_side_of(folder)}/{tag}") or ("",))[0] == "loss"
        }
    )
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
                name = f"{_side_of(folder)}/{tag}".lstrip("/")
                series = columns.setdefault(name, Series([], []))
                series.keys.append((begun[tag], float(step)))
                series.values.append(value)
    unit = _add_updates(columns)
    return assemble(columns, source=path, unit=unit, notes=notes)


def _files_below(path: str) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in sorted(names) if EVENT_FILE in name)


def _run_of(folder: str) -> str:
    """The folder without train/ and validation/, which Keras writes for one run."""
    return "/".join(part for part in folder.split("/") if part and not _SIDES.fullmatch(part))


def _side_of(folder: str) -> str:
    """The parts of the folder that name the data: train/, validation/."""
    return "/".join(part for part in folder.split("/") if _SIDES.fullmatch(part))


def _add_updates(columns: dict[str, Series]) -> str:
    """Add a column of updates, if Keras wrote them; return the unit of the loss."""
    losses = [name for name in columns if (role_of(name) or ("",))[0] == "loss"]
    epochs = any("epoch" in re.split(r"[^a-z]+", name.lower()) for name in losses)
    if not epochs:
        return "step"
    held_out = next((s for n, s in columns.items() if (role_of(n) or ("",))[0] == "val_loss"), None)
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
