"""Load a table: columns of numbers as features, and one column to predict."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

import click

from .errors import BadInput, visible
from .extensions import extension, opened_text
from .folders import LISTED, labels_for, listed

__all__ = ["TABLES", "Columns", "columns_in", "columns_of", "load_table"]

TABLES = (".csv", ".tsv", ".parquet")
NAMELESS = "Unnamed: "
_NUMBER = r"[-+]?[\d.,]*\d(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Columns:
    """The columns of a table that the options name.

    Attributes:
        target: The column to predict.
        features: The columns for the model, in its order; None for all but the target.
        drop: Columns to leave out.
        classes: The classes of a target that is text, from the training data; None to take them
            from this table.
    """

    target: str
    features: Sequence[str] | None = None
    drop: Sequence[str] = ()
    classes: Sequence[str] | None = None

    def uses(self, name: str) -> bool:
        """Whether the column is one of the features or the target."""
        if name == self.target:
            return True
        return name in self.features if self.features is not None else name not in self.drop


def columns_of(text: str | None, option: str) -> list[str] | None:
    """Split the value of an option at its commas; a name with a comma is quoted.

    Raises:
        BadInput: If a name is empty or occurs twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or not all(names):
        raise BadInput(f"{option} takes names with commas between them; got {text!r}.")
    if twice := _repeated(names):
        raise BadInput(f"{option} names {twice!r} twice.")
    return names


def load_table(
    path: str, chosen: Columns, model: Any
) -> tuple[Any, Any, list[str] | None, list[str]]:
    """The features, the target, the classes if the target is text, and the names of the features.

    Raises:
        BadInput: If pandas is missing, or a column is missing or cannot be used.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise BadInput(f"Reading {path} needs pandas; pip install pandas.") from error
    table = _parquet(pd, path) if extension(path) == ".parquet" else _text(pd, path, chosen)
    table = _choose(table, path, chosen)
    features = [name for name in table.columns if name != chosen.target]
    if chosen.features is not None:
        features = list(chosen.features)
    if not features:
        raise BadInput(f"{path} has no columns but the target {chosen.target!r}.")
    if not len(table):
        raise BadInput(f"{path} has a header and no rows.")
    _check_values(table[[*features, chosen.target]], path)
    if chosen.features is None:
        _check_no_index(table, features, path)
    x = _features(table[features], path, model)
    y, classes = _target(table[chosen.target], path, chosen, model)
    return x, y, classes, features


# Reading


def _parquet(pd: Any, path: str) -> Any:
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise BadInput(f"Reading {path} needs pyarrow; pip install pyarrow.") from error
    table.columns = [str(name) for name in table.columns]
    if twice := _repeated(list(table.columns)):
        raise BadInput(f"{path} has several columns named {twice!r}.")
    return table.apply(lambda column: _as_numbers(pd, column)) if len(table) else table


def _as_numbers(pd: Any, column: Any) -> Any:
    """Categories that are numbers, and decimals of a database, as numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype
        return column.astype(kind) if kind.kind in "iufb" and column.notna().all() else column
    if column.dtype == object and all(isinstance(value, Decimal) for value in column):
        return column.astype(float)
    return column


def _text(pd: Any, path: str, chosen: Columns) -> Any:
    """A text file, its cells separated by commas, semicolons or tabs, as in its first line."""
    try:
        with opened_text(path) as file:
            separator = _separator(path, file.readline(2**20))
            file.seek(0)
            header = next(csv.reader(file, delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in UTF-8; save it in that encoding.") from error
    if not any(header):
        raise BadInput(f"The first line of {path} must name the columns; it is empty.")
    # The name that pandas gives to a column without one, such as the index in its own files.
    names = [name.strip() or f"{NAMELESS}{place}" for place, name in enumerate(header)]
    if twice := _repeated(names):
        raise BadInput(f"{path} has several columns named {twice!r}.")
    if all(_is_number(name) for name in names):
        raise BadInput(f"The first line of {path} must name the columns; it holds numbers.")
    options = {"sep": separator, "index_col": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            with opened_text(path) as file:
                table = pd.read_csv(file, **options)
        except pd.errors.ParserWarning as error:
            raise BadInput(
                f"{path} has rows with more cells than its first line, which must name all columns."
            ) from error
    table.columns = names
    return _without_commas(pd, table, path, separator, chosen)


def columns_in(path: str) -> str:
    """The columns of a text table for a message; "" if they cannot be read."""
    if extension(path) == ".parquet":
        return ""
    try:
        with opened_text(path) as file:
            line = file.readline(2**16)
    except (BadInput, OSError, ValueError):
        return ""
    names = next(csv.reader([line], delimiter=_separator(path, line)), [])
    shown = [visible(name.strip()) for name in names]
    if len(shown) > LISTED:  # the column to predict is often the last
        shown = [*shown[: LISTED - 3], "...", *shown[-2:]]
    return ", ".join(shown)


def _separator(path: str, header: str) -> str:
    """The most frequent separator outside quotes; a tab in a `.tsv` file."""
    if extension(path) == ".tsv":
        return "\t"
    bare = "".join(header.split('"')[::2])
    return max(",;\t", key=bare.count)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_commas(pd: Any, table: Any, path: str, separator: str, chosen: Columns) -> Any:
    """The table with numbers in the place of texts such as 0,5 and 1,234.5.

    With commas between the cells, a cell such as "1,5" stays text: it may be a list.

    Raises:
        BadInput: If a column in use has 1,234, and the table does not tell which number it is.
    """
    from keras_lr._util.numerals import comma_of, meaning, plain

    texts = {
        name: table[name].dropna().astype(str).str.strip()
        for name in table.columns
        if not _is_numeric(pd, table[name])
    }
    texts = {name: cells for name, cells in texts.items() if cells.str.fullmatch(_NUMBER).all()}
    texts = {name: cells for name, cells in texts.items() if cells.str.contains(",").any()}
    if not texts:
        return table
    fractions = any(
        table[name].dtype.kind == "f" and (table[name].dropna() % 1 != 0).any()
        for name in table.columns
    )
    comma = comma_of([*(set(cells) for cells in texts.values()), ["0.5"] if fractions else []])
    # Programs write semicolons where a comma is the decimal sign.
    comma = comma or ("decimal" if separator == ";" else None)
    read: set[str] = set()  # what commas are read as
    for name, cells in texts.items():
        found = {meaning(cell) for cell in cells} - {None}
        decimal = "decimal" in found or comma == "decimal"
        if decimal and (separator == "," or cells.str.contains(".", regex=False).any()):
            continue
        if comma is None and "either" in found:
            if chosen.uses(name):
                one = next(cell for cell in cells if meaning(cell) == "either")
                raise BadInput(
                    f"{path}: the column {name!r} has {one}, which may be {plain(one, 'decimal')} "
                    f"or {plain(one, 'thousands')}; write one of them."
                )
            continue
        numbers = pd.to_numeric(cells.map(lambda cell: plain(cell, comma)), errors="coerce")
        if not numbers.isna().any():
            table[name] = numbers.reindex(table.index)
            read |= {str(comma if each == "either" else each) for each in found}
    words = {"decimal": "decimal commas", "thousands": "commas between thousands"}
    for each in sorted(read):
        click.echo(f"{path} is read with {words[each]}.", err=True)
    return table


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# Columns


def _choose(table: Any, path: str, chosen: Columns) -> Any:
    """The table without the dropped columns, after a check of all the names."""
    columns = list(table.columns)
    features, drop = chosen.features or (), chosen.drop
    wanted = {"--target": [chosen.target], "--features": features, "--drop": drop}
    for option, names in wanted.items():
        for name in names:
            if name not in columns:
                raise BadInput(
                    f"{path} has no column {name!r}, which {option} names; its columns are: "
                    f"{listed(columns)}."
                )
            if option != "--target" and name == chosen.target:
                raise BadInput(f"{option} names {name!r}, which is the target.")
    both = set(drop).intersection(features)
    if both:
        raise BadInput(f"--features and --drop both name {sorted(both)[0]!r}.")
    return table.drop(columns=list(drop))


def _check_values(table: Any, path: str) -> None:
    """Check that every cell in use holds a finite value."""
    import numpy as np

    for name in table.columns:
        column = table[name]
        if column.dtype.kind == "f":
            missing = ~np.isfinite(column.to_numpy(dtype=float, na_value=np.nan))
        else:
            missing = column.isna().to_numpy()
        if not missing.any():
            continue
        row, count = int(missing.argmax()), int(missing.sum())
        value = "infinity" if column.notna().iloc[row] else _missing(path, name, row)
        more = f", and so {count - 1} more" if count > 1 else ""
        raise BadInput(
            f"{path}: the column {name!r} has {value} in {_place(path, row)}{more}; fill it, or "
            f"leave the column out with --drop {_quoted(name)}."
        )


def _missing(path: str, name: str, row: int) -> str:
    """What a cell without a value holds: nothing, or a word such as None, NA or null."""
    header, cells = ([], []) if extension(path) == ".parquet" else _line(path, row)[1:]
    names = [each.strip() for each in header]
    text = cells[names.index(name)].strip() if name in names[: len(cells)] else ""
    return f"{text!r}, which stands for no value," if text else "no value"


def _place(path: str, row: int) -> str:
    """The row, by its line number in a file of text."""
    return f"row {row}" if extension(path) == ".parquet" else f"line {_line(path, row)[0]}"


def _line(path: str, row: int) -> tuple[int, list[str], list[str]]:
    """The number of the line of a row in a file of text, the header, and the cells of the row."""
    with opened_text(path) as file:
        separator = _separator(path, file.readline(2**20))
        file.seek(0)
        reader = csv.reader(file, delimiter=separator)
        lines = ((reader.line_num, cells) for cells in reader if cells)
        header = next(lines, (1, []))[1]
        number, cells = next(islice(lines, row, None), (row + 2, []))
        return number, header, cells


def _check_no_index(table: Any, features: Sequence[str], path: str) -> None:
    """Refuse a first column without a name that counts the rows: programs write it by default."""
    import numpy as np

    first = features[0]
    if not first.startswith(NAMELESS) or not _is_whole(table[first]):
        return
    if np.array_equal(np.diff(table[first].to_numpy()), np.ones(len(table) - 1)):
        raise BadInput(
            f"{path}: the first column has no name and counts the rows; leave it out with --drop "
            f"{_quoted(first)}, or name it in --features."
        )


def _is_whole(column: Any) -> bool:
    return bool(column.dtype.kind in "iu")


def _features(table: Any, path: str, model: Any) -> Any:
    """The features in the form that the model takes: one array, or one for each named input."""
    import pandas as pd

    inputs = list(getattr(model, "inputs", None) or [])
    names = [tensor.name for tensor in inputs]
    if len(inputs) > 1 and set(names) <= set(table.columns):
        unused = [name for name in table.columns if name not in names]
        if unused:
            raise BadInput(
                f"{path} has columns that are not inputs of the model; leave them out with --drop "
                f"{','.join(map(_quoted, unused))}."
            )
        return {
            name: _column(pd, table[name], tensor, path)
            for name, tensor in zip(names, inputs, strict=True)
        }
    if len(inputs) == 1 and inputs[0].dtype == "string" and len(table.columns) == 1:
        return _column(pd, table[table.columns[0]], inputs[0], path)
    if getattr(model, "preprocessor", None) is not None and len(table.columns) == 1:
        column = table[table.columns[0]]  # a task of KerasHub takes texts, on each backend
        if not _is_numeric(pd, column):
            return column.astype(str).to_numpy(dtype=str)
    _refuse_text(pd, table, path)
    return _reshaped(table.to_numpy(dtype="float32"), inputs)


def _column(pd: Any, column: Any, tensor: Any, path: str) -> Any:
    """The column for one input."""
    if tensor.dtype == "string":
        import keras

        if keras.backend.backend() != "tensorflow":
            raise BadInput("Only TensorFlow feeds text to a model; pass --backend tensorflow.")
        values = column.astype(str).to_numpy(dtype=object)
    else:
        _refuse_text(pd, column.to_frame(), path)
        values = column.to_numpy(dtype="float32")
    return values.reshape(-1, 1) if len(tensor.shape) == 2 else values


def _is_numeric(pd: Any, column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def _refuse_text(pd: Any, table: Any, path: str) -> None:
    texts = [name for name in table.columns if not _is_numeric(pd, table[name])]
    if texts:
        names = ",".join(map(_quoted, texts[:LISTED]))
        raise BadInput(
            f"{path} has columns that are not numbers: {listed(texts)}; encode them as numbers, "
            f"or leave them out with --drop {names}{',...' if len(texts) > LISTED else ''}."
        )


def _target(column: Any, path: str, chosen: Columns, model: Any) -> tuple[Any, list[str] | None]:
    """The target, and the sorted classes if it is text."""
    import pandas as pd

    if _is_numeric(pd, column) and chosen.classes is None:
        return column.to_numpy(), None
    if pd.api.types.is_datetime64_any_dtype(column):
        raise BadInput(f"{path}: the target {chosen.target!r} holds dates; it must hold numbers.")
    values = column.astype(str).str.strip()
    classes = sorted(set(values)) if chosen.classes is None else list(chosen.classes)
    codes: Mapping[str, int] = {name: code for code, name in enumerate(classes)}
    unknown = [value for value in sorted(set(values)) if value not in codes]
    if unknown:
        raise BadInput(
            f"{path}: the target {chosen.target!r} has {unknown[0]!r}, which is not a class of the "
            f"training data: {listed(classes)}."
        )
    source = f"{path}: the target {chosen.target!r}"
    y = labels_for([codes[value] for value in values], len(classes), source, model)
    if chosen.classes is None:
        labels = listed([f"{visible(name)}={code}" for name, code in codes.items()])
        click.echo(f"Target {chosen.target!r}: {len(classes)} classes {labels}", err=True)
    return y, classes


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name or " " in name else name


def _reshaped(x: Any, inputs: Sequence[Any]) -> Any:
    """Reshape each row to the input of the model, if it is an image written as one row."""
    if len(inputs) != 1 or len(inputs[0].shape) <= 2 or None in inputs[0].shape[1:]:
        return x
    shape = tuple(inputs[0].shape[1:])
    size = 1
    for length in shape:
        size *= length
    if x.shape[1] != size:
        return x
    click.echo(f"Each row of {size} numbers is reshaped to {shape}.", err=True)
    return x.reshape(-1, *shape)
