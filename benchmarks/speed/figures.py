"""The results of the speed scripts, and the tables made of them.

A script returns a dictionary for JSON: `part`, `backend`, and `rows`. A row has its `table`, its
`row` and `column` there, `cpu` and, if measured, `wall`: the ratio to the baseline in each round;
`mark`, the target for the median, or None; and for some `text`, which is printed unchanged. No
absolute time is reported: it tells more about the machine than about the library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
EMPTY = "-"


def row(
    table: str,
    name: str,
    column: Any,
    cpu: Iterable[float] = (),
    wall: Iterable[float] = (),
    mark: float | None = None,
    text: str = "",
) -> Row:
    """A row of a result; one ratio for each round, in the same order."""
    return {
        "table": table,
        "row": name,
        "column": str(column),
        "cpu": [round(float(ratio), 4) for ratio in cpu],
        "wall": [round(float(ratio), 4) for ratio in wall],
        "mark": mark,
        "text": text,
    }


def quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float(low), float(middle), float(high)


def missed(each: Row) -> bool:
    """Whether the median, rounded to two decimals, is above the mark."""
    return each["mark"] is not None and round(quartiles(each["cpu"])[1], 2) > each["mark"]


def short(each: Row) -> str:
    """The median, in bold if it is above the mark."""
    if not each["cpu"]:
        return each["text"] or EMPTY
    middle = f"{quartiles(each['cpu'])[1]:.2f}"
    return f"**{middle}**" if missed(each) else middle


def full(each: Row) -> str:
    """Median and quartiles of CPU time, the median of wall time, and the mark."""
    if not each["cpu"]:
        return each["text"] or EMPTY
    low, _, high = quartiles(each["cpu"])
    parts = [f"{short(each)} ({low:.2f}-{high:.2f})"]
    if each["wall"]:
        parts.append(f"wall {quartiles(each['wall'])[1]:.2f}")
    if each["mark"] is not None:
        parts.append(f"mark {each['mark']:.2f}")
    return ", ".join(parts)


def grid(corner: str, cells: dict[tuple[str, str], str], rows: Sequence[str] = ()) -> str:
    """A Markdown table of `{(row, column): text}`, in the order of the entries."""
    rows = list(rows) or list(dict.fromkeys(name for name, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    lines = [[corner, *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(cells.get((name, column), EMPTY) for column in columns)] for name in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(
    corner: str,
    rows: Iterable[Row],
    cell: Callable[[Row], str],
    column: Callable[[Row], str] = lambda each: each["column"],
) -> str:
    """A Markdown table of rows of results."""
    return grid(corner, {(each["row"], column(each)): cell(each) for each in rows})


def tell(result: dict[str, Any], as_json: bool) -> None:
    """Print the result of a script: as JSON, or as tables with quartiles."""
    if as_json:
        print(json.dumps(result))
        return
    for name in dict.fromkeys(each["table"] for each in result["rows"]):
        rows = [each for each in result["rows"] if each["table"] == name]
        print(table(f"{BACKENDS[result['backend']]}, {name}", rows, full))
