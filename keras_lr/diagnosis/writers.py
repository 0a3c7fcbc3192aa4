"""What writers of logs do differently: mmengine, Weights & Biases, MLflow.

Each function returns rows or names as `CSVLogger` would write them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from keras_lr.diagnosis.choose import AUTO, Asked
from keras_lr.diagnosis.columns import SIDES, kind_of

__all__ = ["is_mlflow_run", "mlflow_rows", "plain_header", "plain_rows"]

# Columns of a table with one value a row: the name of the value, and where it belongs.
_MEASURES = {"key", "metric", "name", "tag", "variable", "measure"}
_PLACES = {"step", "epoch", "iteration"}


def plain_rows(rows: Sequence[Mapping[Any, Any]]) -> Sequence[Mapping[Any, Any]]:
    """Rows with a column for each value, in the positions of their training rows."""
    names = set.intersection(*(set(map(str, row)) for row in rows)) if rows else set()
    measure, place = (
        next((name for name in names if name.strip().lower() in known), None)
        for known in (_MEASURES, _PLACES)
    )
    value = next((name for name in names if name.strip().lower() == "value"), None)
    if measure is not None and place is not None and value is not None:
        return _wide(rows, measure, place, value)
    if any(row.get("mode") in ("train", "val") for row in rows):
        return _of_mmcv(rows)
    if any("iter" in row and "step" in row for row in rows):
        # mmengine numbers its training rows by update and the others by epoch, both as "step".
        return [
            row if "iter" in row else {name: row[name] for name in row if name != "step"}
            for row in rows
        ]
    side = next((name for name in names if _tells_side(name, rows)), None)
    return rows if side is None else _of_sides(rows, side)


def _tells_side(name: str, rows: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether a column names the data of each row, such as "train" and "val"."""
    words = {str(row[name]).strip().lower() for row in rows}
    return len(words) > 1 and words <= SIDES.keys()


def _of_sides(rows: Sequence[Mapping[Any, Any]], side: str) -> list[Mapping[Any, Any]]:
    """A row for each position, from one row for the training data and others for held-out data."""
    found: dict[tuple[Any, ...], dict[Any, Any]] = {}
    count: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        word = SIDES[str(row[side]).strip().lower()]
        at = {name: value for name, value in row.items() if _is_place(str(name))}
        key = tuple(at.values())
        count[key, word] += 1  # a second run has the position again
        cells = found.setdefault((*key, count[key, word]) if at else (count[key, word],), dict(at))
        for name, value in row.items():
            if name != side and name not in at:
                known = kind_of(str(name))
                plain = known in ("learning_rate", "batch_size") or known.startswith("val_")
                cells[name if plain or word == "train" else f"{word}_{name}"] = value
    return list(found.values())


def _is_place(name: str) -> bool:
    return kind_of(name) in ("epoch", "step") or name.lower() in ("fold", "run")


def plain_header(header: Sequence[str], path: str, asked: Asked) -> list[str]:
    """Names of columns without the name of the run, which Weights & Biases adds to a chart's table.

    Raises:
        ValueError: If the table holds the losses of several runs, and none was asked for.
    """
    runs = [name.rpartition(" - ")[0] for name in header]
    if not any(runs) or asked != AUTO or any(kind_of(name) == "loss" for name in header):
        return list(header)
    shown = list(dict.fromkeys(run for run in runs if run))
    if len(shown) > 1:
        listed = ", ".join(shown[:8]) + (", ..." if shown[8:] else "")
        raise ValueError(
            f"{path} holds several runs: {listed}. Name the columns of one, such as "
            f"loss={header[runs.index(shown[0])]!r} (--loss on the command line)."
        )
    return [name.rpartition(" - ")[2] for name in header]


def is_mlflow_run(folder: str) -> bool:
    """Whether the folder is that of a run in MLflow's file store."""
    return os.path.isfile(os.path.join(folder, "meta.yaml")) and os.path.isdir(
        os.path.join(folder, "metrics")
    )


def mlflow_rows(folder: str) -> list[Mapping[Any, Any]]:
    """Rows from the folder of an MLflow run: metrics/<name> has lines of time, value and step."""
    rows: list[Mapping[Any, Any]] = []
    top = os.path.join(folder, "metrics")
    for place, _, files in sorted(os.walk(top)):
        for file in sorted(files):
            path = os.path.join(place, file)
            key = os.path.relpath(path, top).replace(os.sep, "/")
            with open(path, encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, start=1):
                    cells = line.split()
                    if len(cells) != 3:
                        raise ValueError(
                            f"{path}, line {number}, must hold time, value and step, as MLflow "
                            f"writes them; got {line.strip()[:40]!r}."
                        )
                    rows.append({"key": key, "value": cells[1], "step": cells[2]})
    if not rows:
        raise ValueError(f"{folder} holds no metrics of an MLflow run.")
    return _wide(rows, "key", "step", "value")


def _wide(
    rows: Sequence[Mapping[Any, Any]], measure: str, place: str, value: str
) -> list[Mapping[Any, Any]]:
    """A row for each step, from rows of one value each, with the names of their columns."""
    found: dict[float, dict[Any, Any]] = {}
    runs = {row.get("run_id") for row in rows}
    if len(runs) > 1:
        raise ValueError(
            f"The log holds {len(runs)} runs, by its column run_id; write each to its own file."
        )
    for row in rows:
        step = float(row[place])
        found.setdefault(step, {place: step})[row[measure]] = row[value]
    return [found[step] for step in sorted(found)]


def _of_mmcv(rows: Sequence[Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """Rows of mmcv, whose "iter" counts within an epoch, and whose "mode" tells the data."""
    inner = [row["iter"] for row in rows if row.get("mode") == "train" and "iter" in row]
    epochs = [row.get("epoch") for row in rows if row.get("mode") == "train"]
    falls = any(b < a for a, b in zip(inner, inner[1:], strict=False))
    length = max(inner, default=1)
    found: list[Mapping[Any, Any]] = []
    for row in rows:
        if row.get("mode") not in ("train", "val"):
            continue  # the environment
        cells = dict(row)
        if falls and None not in epochs and "epoch" in row:
            cells.pop("iter", None)
            done = row["iter"] / length if row["mode"] == "train" else 1.0
            cells["epoch"] = row["epoch"] - 1 + done
        if row["mode"] == "val":
            cells = {
                name if name in ("epoch", "iter", "step") else f"val_{name}": value
                for name, value in cells.items()
            }
        found.append(cells)
    return found
