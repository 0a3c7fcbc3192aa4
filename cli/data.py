"""Load the data that the command line names, as arrays or a data set that `fit` takes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from .errors import BadInput, one_line, visible
from .extensions import extension
from .functions import call, is_function
from .tables import TABLES, Columns, columns_in, columns_of, load_table

__all__ = ["Data", "check_source", "files_of", "is_table", "load_data", "source_beside"]

KINDS = (
    "an .npz file, x.npy,y.npy, a .csv, .tsv or .parquet file with --target, a folder, or "
    "module:function"
)
SAVED_DATASET = "dataset_spec.pb"  # in a folder that tf.data.Dataset.save wrote
TRAINING = (("x", "y"), ("x_train", "y_train"))
VALIDATION = (("x_val", "y_val"), ("x_valid", "y_valid"), ("x_test", "y_test"))


@dataclass
class Data:
    """The arguments of `fit`.

    `y` is None for a data set with its own batches, and for a model that makes its own targets.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    classes: list[str] | None = None  # names of the labels, if they came from text or folders
    without_targets: bool = False
    own_batches: bool = False  # whether `batch_size` has no effect
    columns: Sequence[str] = ()  # the features of a table, for messages

    @property
    def is_arrays(self) -> bool:
        return self.y is not None or self.without_targets


def check_source(
    source: str,
    option: str = "--data",
    target: str | None = None,
    features: str | None = None,
    drop: str | None = None,
) -> None:
    """Check, without reading it, that the source exists and is of a kind that `load_data` reads.

    Raises:
        BadInput: If not.
    """
    for_tables = {"--features": features, "--drop": drop}
    for name, given in for_tables.items():
        columns_of(given, name)
        if given is not None and not is_table(source):
            raise BadInput(f"{name} chooses columns of a table; {option} {source} is not a table.")
    if is_function(source):
        return
    paths = files_of(source)
    for path in paths:
        if not os.path.exists(path):
            if "," in path and any(map(os.path.exists, path.split(","))):
                raise BadInput(
                    f"{option} takes two .npy files with a comma, as in x.npy,y.npy; got {path}."
                )
            raise BadInput(f"{option} {path} does not exist.")
        if not os.access(path, os.R_OK):
            raise BadInput(f"{option} {path} cannot be read.")
        if os.path.isfile(path) and not os.path.getsize(path):
            raise BadInput(f"{option} {path} is an empty file.")
    if os.path.isdir(source) or len(paths) == 2:
        return
    if extension(source) == ".npy":
        raise BadInput(f"{source} is one array; name two files with a comma, as in x.npy,y.npy.")
    if extension(source) in TABLES:
        if target is None:
            columns = columns_in(source)
            names = f"; its columns are: {columns}" if columns else ""
            raise BadInput(f"{source} is a table; name the column to predict with --target{names}.")
    elif extension(source) != ".npz":
        raise BadInput(f"{option} {source} is of an unknown kind; it takes {KINDS}.")


def files_of(source: str) -> list[str]:
    """The files or the folder that a source names."""
    return _pair(source) or [source]


def is_table(source: str) -> bool:
    """Whether `load_data` reads the source as a table."""
    return extension(source) in TABLES and not os.path.isdir(source)


def source_beside(model_spec: str) -> str:
    """The `.npz` file beside the model file, used if --data is not given; "" if there is none."""
    if is_function(model_spec):
        raise BadInput(f"A model from a function has no data file beside it; pass --data: {KINDS}.")
    beside = os.path.splitext(model_spec)[0] + ".npz"
    return beside if os.path.exists(beside) else ""


def load_data(
    source: str,
    model: Any,
    *,
    batch_size: int | None = None,
    target: str | None = None,
    features: str | None = None,
    drop: str | None = None,
    classes: Sequence[str] | None = None,
    validation: bool = False,
) -> Data:
    """Read the data that `source` names.

    Args:
        source: A file, two `.npy` files with a comma between them, a folder, or
            `module:function`.
        model: The model that takes the data; it determines the size of images and the names of
            several inputs.
        batch_size: Examples per batch of a folder of images; `None` means 32.
        target: The column of a table that holds the targets.
        features: The columns of a table for the model, with commas; `None` means all others.
        drop: The columns of a table to leave out.
        classes: Names of the labels of the training data, for a table whose target is text, and
            for a folder.
        validation: Prefer the arrays `x_val` and `y_val` of an `.npz` file.

    Raises:
        BadInput: If the source is missing, damaged, empty or without the expected names.
    """
    check_source(source, "--validation" if validation else "--data", target, features, drop)
    try:
        if is_function(source):
            return _made(call(source), source, model)
        if os.path.isfile(os.path.join(source, SAVED_DATASET)):
            dataset, batched = _saved_dataset(source, model, batch_size or 32)
            return Data(dataset, own_batches=batched)
        if os.path.isdir(source):
            from .folders import load_folder

            x, y, classes = load_folder(source, model, batch_size or 32, classes)
            return Data(x, y, classes=classes)
        if extension(source) == ".npz":
            return _npz(source, model, VALIDATION + TRAINING if validation else TRAINING)
        if extension(source) in TABLES:
            columns = Columns(
                str(target),
                columns_of(features, "--features"),
                columns_of(drop, "--drop") or (),
                classes,
            )
            x, y, classes, names = load_table(source, columns, model)
            return Data(x, y, classes=classes and list(classes), columns=names)
        return Data(*(_array(path) for path in files_of(source)))
    except (BadInput, KeyboardInterrupt):
        raise
    except MemoryError as error:
        raise BadInput(f"{source} does not fit into memory.") from error
    except Exception as error:
        raise BadInput(f"{source} could not be read: {one_line(error)}") from error


def _pair(source: str) -> list[str]:
    paths = source.split(",")
    return paths if len(paths) == 2 and all(extension(path) == ".npy" for path in paths) else []


def _makes_targets(model: Any) -> bool:
    """Whether a model may train on inputs alone: its `fit`, step or loss can make the targets."""
    from keras_lr.loops.overridden_fit import overrides

    own = ("fit", "train_step", "compute_loss")
    return getattr(model, "loss", None) is None or any(overrides(model, name) for name in own)


def _made(made: Any, spec: str, model: Any) -> Data:
    if isinstance(made, (tuple, list)) and len(made) in (2, 3) and made[1] is not None:
        return Data(*made)
    if made is None or not (hasattr(made, "__iter__") or hasattr(made, "__getitem__")):
        raise BadInput(
            f"{spec} returned {type(made).__name__}; it must return (x, y) or a data set."
        )
    if isinstance(made, (str, dict)) or (hasattr(made, "shape") and hasattr(made, "dtype")):
        if not isinstance(made, str) and _makes_targets(model):
            return Data(made, without_targets=True)
        raise BadInput(f"{spec} returned {type(made).__name__} without targets; return (x, y).")
    return Data(made, own_batches=True)


def _saved_dataset(path: str, model: Any, batch_size: int) -> tuple[Any, bool]:
    """A data set that `tf.data.Dataset.save` wrote, in batches, and whether it was saved so."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise BadInput(f"Reading {path} needs TensorFlow; pip install tensorflow.") from error
    dataset = tf.data.Dataset.load(path)
    parts = dataset.element_spec
    if not isinstance(parts, tuple) or len(parts) not in (2, 3):
        raise BadInput(f"{path} must hold pairs (x, y); its elements have another structure.")
    inputs = getattr(model, "inputs", None) or []
    ranks = [part.shape.rank for part in tf.nest.flatten(parts[0])]
    if len(ranks) == len(inputs) and ranks == [len(tensor.shape) - 1 for tensor in inputs]:
        return dataset.batch(batch_size), False
    return dataset, True


def _array(path: str) -> Any:
    import numpy as np

    with open(path, "rb") as file:
        _check_header(file, os.path.getsize(path), path)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _npz(path: str, model: Any, choices: Sequence[tuple[str, str]]) -> Data:
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path} is damaged, cut short or not an .npz file.")
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        members = _Members(archive, names, path)
        data = _chosen(members, model, choices)
        if data is not None:
            members.say_unused()
            return data
    wanted = " or ".join(f"{x} and {y}" for x, y in choices)
    inputs, outputs = _names(model)
    if len(inputs) > 1:
        wanted += f", or an array for each input ({', '.join(inputs)}) and y"
    if len(outputs) > 1:
        wanted += f", or an array for each output ({', '.join(outputs)}) in the place of y"
    raise BadInput(f"{path} must hold {wanted}; it holds {', '.join(names) or 'nothing'}.")


class _Members:
    """The arrays of an `.npz` file by their names, in which capitals do not count."""

    def __init__(self, archive: zipfile.ZipFile, names: Sequence[str], path: str) -> None:
        self._archive, self._names, self._path = archive, names, path
        self._read: set[str] = set()

    def has(self, *names: str) -> bool:
        return {name.lower() for name in names} <= {name.lower() for name in self._names}

    def read(self, name: str) -> Any:
        same = [each for each in self._names if each.lower() == name.lower()]
        exact = [each for each in same if each == name]
        if len(same) > 1 and not exact:
            raise BadInput(f"{self._path} holds {' and '.join(same)}; name one of them {name}.")
        self._read.add((exact or same)[0])
        return _member(self._archive, f"{(exact or same)[0]}.npy", self._path)

    def weight(self, x: str) -> Any:
        """The weights of the examples in the array `x`; None without any."""
        part = x.partition("_")[2]
        names = [f"sample_weight_{part}"] if part else []
        if part in ("", "train"):
            names.append("sample_weight")
        return next((self.read(name) for name in names if self.has(name)), None)

    def say_unused(self) -> None:
        """Name the arrays that are not used, without those of the other parts of the data."""
        stems = ("x", "y", "sample_weight")
        parts = ("train", "val", "valid", "test")
        known = {*stems, *(f"{stem}_{part}" for stem in stems for part in parts)}
        unused = [n for n in self._names if n not in self._read and n.lower() not in known]
        if unused:
            listed = ", ".join(map(visible, unused))
            weights = any(n.lower() in ("w", "sw") or "weight" in n.lower() for n in unused)
            hint = "; weights must be named sample_weight" if weights else ""
            click.echo(f"Not used of {visible(self._path)}: {listed}{hint}.", err=True)


def _names(model: Any) -> tuple[list[str], list[str]]:
    """The names of the inputs and of the outputs of a model, as far as it declares them."""
    inputs = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    return inputs, list(getattr(model, "output_names", None) or [])


def _chosen(members: _Members, model: Any, choices: Sequence[tuple[str, str]]) -> Data | None:
    """The arrays that the model takes; None if the file lacks some."""
    inputs, outputs = _names(model)
    for x, y in choices:
        if members.has(x, y):
            return Data(members.read(x), members.read(y), members.weight(x))
    if inputs and members.has(*inputs):
        x_parts, weight = {name: members.read(name) for name in inputs}, members.weight("x")
        if members.has("y"):
            return Data(x_parts, members.read("y"), weight)
        if outputs and members.has(*outputs):
            return Data(x_parts, {name: members.read(name) for name in outputs}, weight)
        if _makes_targets(model):
            return Data(x_parts, sample_weight=weight, without_targets=True)
    for x, _ in choices:
        if members.has(x):
            if len(outputs) > 1 and members.has(*outputs):
                y_parts = {name: members.read(name) for name in outputs}
                return Data(members.read(x), y_parts, members.weight(x))
            if _makes_targets(model):
                return Data(members.read(x), sample_weight=members.weight(x), without_targets=True)
    return None


def _member(archive: zipfile.ZipFile, name: str, path: str) -> Any:
    import numpy as np

    label = f"{name.removesuffix('.npy')} in {path}"
    with archive.open(name) as file:
        _check_header(file, archive.getinfo(name).file_size, label)
    with archive.open(name) as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # the checksum is compared at the end
            return array
        except ValueError as error:
            raise BadInput(f"{label} could not be read: {one_line(error)}") from error


def _check_header(file: Any, size: int, label: str) -> None:
    """Compare the shape in the header with the size of the file, before memory is allocated."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise BadInput(f"{label} holds Python objects, which are not loaded; save numbers or text.")
    claimed = dtype.itemsize
    for length in shape:
        claimed *= length
    if claimed > size or min(shape, default=0) < 0:
        raise BadInput(
            f"{label} is damaged: its header names the shape {shape} but the file is shorter."
        )
