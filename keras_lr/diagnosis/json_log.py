"""Logs as JSON, or as Python prints dictionaries: lists by column, rows, and these in others."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_lr.diagnosis.choose import AUTO, Asked, chosen_columns, evaluation_sets
from keras_lr.diagnosis.columns import kind_of, role_of, substitutes
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.rows import by_name, log_of_rows, short
from keras_lr.diagnosis.writers import plain_rows

__all__ = ["log_of_content", "log_of_lists", "parsed", "rows_of_lines"]

_DEEPEST = 5  # how deep a history may lie in other objects
_NUMBERED = re.compile(r"(?:epoch|step|iter(?:ation)?)?[\s_-]*(\d+)", re.IGNORECASE)
_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMPY = re.compile(
    r"\b(?:np\.|numpy\.)?(?:float\d*|int\d*|tensor|array)\(([^()]*?)(?:,[^(),]*=[^()]*)?\)"
)
_PYTHON = {"None": "null", "True": "true", "False": "false", "nan": "NaN", "inf": "Infinity"}


def parsed(text: str) -> Any:
    """The value of JSON, or of what Python prints for a dictionary or a list.

    Raises:
        ValueError: If it is neither.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError:
        if "'" not in text:
            raise
        plain = re.sub(r"\b(None|True|False|nan|inf)\b", lambda m: _PYTHON[m.group()], text)
        plain = _NUMPY.sub(r"\1", plain).replace("'", '"').replace("(", "[").replace(")", "]")
        try:
            return json.loads(plain)
        except (ValueError, RecursionError):
            pass
        raise


def rows_of_lines(text: str) -> list[Mapping[str, Any]]:
    """The objects that lines of text hold, one a line, if they name a loss.

    The Trainer of transformers prints {'loss': 0.5, 'epoch': 1.0} between its progress bars.
    """
    rows: list[Mapping[str, Any]] = []
    for line in re.split(r"[\r\n]+", text):
        for found in _OBJECT.findall(line):
            if "loss" not in found.lower():
                continue
            try:
                row = parsed(found)
            except ValueError:
                continue
            if isinstance(row, Mapping) and _has_loss(row):
                rows.append(row)
    return rows


def _has_loss(row: Mapping[Any, Any]) -> bool:
    return any(kind_of(str(name)) in ("loss", "val_loss") for name in row)


def log_of_content(content: Any, source: str, notes: list[str], asked: Asked = AUTO) -> Log:
    """A log from the content of a JSON file, or from such Python objects."""
    state = isinstance(content, Mapping) and isinstance(content.get("log_history"), list)
    planned = content.get("num_train_epochs") if state else None
    planned = planned if isinstance(planned, int) and planned > 0 else None
    for name in ("log_history", "history"):  # the state of a transformers Trainer; a History
        if isinstance(content, Mapping) and isinstance(content.get(name), (Mapping, list)):
            if isinstance(content[name], Mapping) and _lists(content[name], asked):
                return log_of_lists(content, source, notes, asked)
            content = content[name]
    if isinstance(content, Mapping):
        lists = {str(name): each for name, each in content.items() if not isinstance(each, Mapping)}
        histories = [] if _losses(lists, asked) else _histories(content, asked)
        if not histories:
            return log_of_lists({"history": content}, source, notes, asked)
        if histories[1:]:
            rows, restarts = _joined(histories)
            return log_of_rows(rows, source, notes, restarts=restarts, asked=asked)
        content = histories[0]
    if isinstance(content, Mapping):
        return log_of_lists({"history": content}, source, notes, asked)
    if not isinstance(content, list):
        raise ValueError(
            f"{source} must hold lists of values by column name; got {short(content)}."
        )
    if not content:
        raise ValueError(f"{source} is empty.")
    if not all(isinstance(row, Mapping) for row in content):
        raise ValueError(f"{source} must hold lists of values by column name, or rows of them.")
    table = plain_rows([_flat(row) for row in content])
    found = log_of_rows(table, source, notes, total_epochs=planned, asked=asked)
    if not state:
        return found
    evaluated = found.evaluated
    if evaluated is not None:
        evaluated = dataclasses.replace(evaluated, schedule_fits=True)
    return dataclasses.replace(found, schedule_fits=True, evaluated=evaluated)


# Histories inside other objects


def _flat(content: Mapping[Any, Any], deepest: int = 3) -> dict[str, Any]:
    """The values of inner mappings under joined names: {"train": {"loss": x}} has train/loss."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping) and deepest:
            flat |= {f"{name}/{key}": each for key, each in _flat(value, deepest - 1).items()}
        else:
            flat[str(name)] = value
    return flat


def _numbers(names: Sequence[Any]) -> list[int] | None:
    """The number of each name, such as "3" or "epoch_3"; None if one has none."""
    found = [_NUMBERED.fullmatch(str(name)) for name in names]
    return [int(each.group(1)) for each in found if each] if names and all(found) else None


def _lists(content: Mapping[Any, Any], asked: Asked) -> dict[str, list[Any]]:
    """The columns of an object that has a loss as a list, or as pandas writes it; else none."""
    lists: dict[str, list[Any]] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            numbers = _numbers(list(value))
            if numbers is None or any(isinstance(each, Mapping) for each in value.values()):
                continue
            value = [each for _, each in sorted(zip(numbers, value.values(), strict=True))]
        if not isinstance(value, str) and hasattr(value, "__len__"):
            lists[str(name)] = list(value)
    return lists if _losses(lists, asked) else {}


def _losses(names: Mapping[str, Any], asked: Asked) -> bool:
    return "loss" in map(kind_of, names) or asked.loss in names or substitutes(names) is not None


def _history(content: Any, asked: Asked) -> dict[str, list[Any]] | list[dict[str, Any]] | None:
    """The lists by column, or the rows, of an object or a list that is a history by itself."""
    if isinstance(content, Mapping):
        if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
            names = list(map(str, content["columns"]))  # pandas, orient="split"
            rows = [
                by_name(names[: len(row)], row[: len(names)], f"The log, row {place},", asked)
                for place, row in enumerate(content["data"])
            ]
            return rows if _losses(dict.fromkeys(names), asked) else None
        lists = _lists(content, asked)
        if not lists and "loss" in map(kind_of, flat := _flat(content, 2)):
            lists = _lists(flat, asked)
        numbers = _numbers(list(content))
        if lists or numbers is None:
            return lists or None
        if not all(isinstance(row, Mapping) for row in content.values()):
            return None
        pairs = zip(numbers, content.values(), strict=True)
        content = [{"epoch": number, **row} for number, row in sorted(pairs, key=lambda p: p[0])]
    if isinstance(content, list) and content and all(isinstance(row, Mapping) for row in content):
        rows = [_flat(row) for row in content]
        return rows if _losses(dict.fromkeys(name for row in rows for name in row), asked) else None
    return None


def _histories(content: Mapping[Any, Any], asked: Asked) -> list[Any]:
    """The histories that lie highest in an object, such as those of the folds."""
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        found = [each for inner in level if (each := _history(inner, asked))]
        if found:
            return found
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, Mapping) else each)
            if isinstance(inner, (Mapping, list))
        ]
    return []


def _joined(histories: Sequence[Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of several histories, and where each but the first begins."""
    rows: list[dict[str, Any]] = []
    restarts: list[int] = []
    for each in histories:
        restarts.append(len(rows))
        if isinstance(each, dict):
            other = substitutes(each) or ()
            known = {name: cells for name, cells in each.items() if role_of(name) or name in other}
            length = max(map(len, known.values()), default=0)
            columns = _spread(known, length)
            each = [
                {"epoch": place, **{name: values[place] for name, values in columns.items()}}
                for place in range(length)
            ]
        rows += each
    return rows, restarts[1:]


# Lists by column name


def log_of_lists(
    content: Mapping[str, Any], source: str, notes: Sequence[str] = (), asked: Asked = AUTO
) -> Log:
    """A log from the lists of a History, with its epochs and planned epochs if it has them."""
    lists: dict[str, list[Any]] = {}
    for name, values in content["history"].items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            if role_of(str(name)) not in (None, ("loss", 0)):
                continue
            if role_of(str(name)) is None:
                continue
            raise ValueError(f"{source}: {name} must be a list; got {short(values)}.")
        lists[str(name)] = list(values)
    wanted = {part for each in chosen_columns(lists, asked, source, []).values() for part in each}
    wanted |= set(evaluation_sets(lists, asked))
    used = {name: values for name, values in lists.items() if role_of(name) or name in wanted}
    rows = max((len(values) for values in used.values()), default=0)
    epochs = content.get("epoch")
    if "epoch" not in lists and isinstance(epochs, Sequence) and len(epochs) == rows:
        lists["epoch"] = used["epoch"] = list(epochs)
    lengths = {len(values) for name, values in used.items()}
    if len(lengths) > 1 and not _sparse(used, rows):
        counts = ", ".join(f"{name} {len(values)}" for name, values in used.items())
        raise ValueError(f"{source}: all lists must have the same length; got {counts}.")
    if not lists and content["history"]:
        got = short(dict(content["history"]))
        raise ValueError(f"{source} must hold lists of values by column name; got {got}.")
    if not lists:
        raise ValueError(f"{source} is empty.")
    used = _spread(used, rows)
    table = [
        {name: values[row] for name, values in used.items()} | dict.fromkeys(set(lists) - set(used))
        for row in range(rows)
    ]
    if not rows:
        table = [dict.fromkeys(lists)]
    parameters = content.get("params")
    planned = parameters.get("epochs") if isinstance(parameters, Mapping) else None
    planned = planned if isinstance(planned, int) and planned > 0 else None
    return log_of_rows(table, source, list(notes), total_epochs=planned, asked=asked)


def _sparse(lists: Mapping[str, list[Any]], rows: int) -> bool:
    """Whether all shorter lists come from validation every few epochs."""
    short = {name for name, values in lists.items() if len(values) < rows}
    return all((role_of(name) or ("val_",))[0].startswith("val_") for name in short)


def _spread(lists: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
    """Put the values of validation every k epochs at epochs k, 2k, ..., as Keras does."""
    spread = {}
    for name, values in lists.items():
        if values and len(values) < rows:
            each = rows // len(values)
            column: list[Any] = [None] * rows
            for place, value in enumerate(values):
                column[min((place + 1) * each, rows) - 1] = value
            values = column
        spread[name] = values or [None] * rows
    return spread
