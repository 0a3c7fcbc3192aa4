"""Measure the time that everything takes: each script of this folder on each backend.

    python benchmarks/speed/run.py                                        # all: most of an hour
    python benchmarks/speed/run.py --results speed --part callbacks --backend jax
    python benchmarks/speed/run.py --results speed                        # the rest, all tables

Each script runs on each backend in its own process, where contenders and baseline alternate. The
output are ratios: medians in the short tables, in bold above the mark; medians and quartiles in
the full ones. Where a compiler puts a model's memory differs between processes, which moves the
ratio of one process by up to .1: `--processes` counts the rounds of several together.
`--results` keeps the result of each process as a JSON file, and skips processes whose file exists.
`--quick` checks that everything runs; its figures are meaningless, so do not mix its folder with
real results.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import BACKENDS, EMPTY, Row, full, grid, quartiles, short, table

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block
from kept import keep

FOLDER = Path(__file__).resolve().parent
PARTS = {
    "range-test": ("range_test.py", "--repeats 2 --firsts 1 --models mlp"),
    "callbacks": ("callbacks.py", "--repeats 2 --sizes 20 --steps 10"),
    "optimizers": ("optimizers.py", "--rounds 2 --steps 3"),
    "schedule-free": ("schedule_free.py", "--rounds 2 --steps 3 --sizes 4"),
    "command": ("command.py", "--repeats 1"),
    "growth": ("growth.py", "--repeats 2 --sizes 20 --epochs 10 --tests 10 --steps 10"),
}
SHORT_SIZES = ("20 variables", "200 variables")  # of the callbacks in the short table
PEERS = ("torch-lr-finder", "Lightning's Tuner", "ignite")


def measured(part: str, backend: str, quick: bool) -> dict[str, Any]:
    """The result of a script on a backend, run in its own process."""
    script, few = PARTS[part]
    run = subprocess.run(
        [sys.executable, str(FOLDER / script), "--json", *(few.split() if quick else ())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    # Its answer is the last line: Keras and the peers print on stdout too.
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def results(
    folder: Path, parts: Sequence[str], backends: Sequence[str], quick: bool, processes: int = 1
) -> list[dict[str, Any]]:
    """Measure what has no file in the folder, and read all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for process in range(1, processes + 1):
        for part in parts:
            for backend in backends:
                keep(
                    folder / file_name(part, backend, process),
                    f"{part} on {BACKENDS[backend]}, process {process}",
                    functools.partial(measured, part, backend, quick),
                )
    found = []
    for part in PARTS:
        for backend in BACKENDS:
            for process in itertools.count(1):
                path = folder / file_name(part, backend, process)
                if not path.exists():
                    break
                found.append(json.loads(path.read_text("utf-8")))
    return found


def file_name(part: str, backend: str, process: int) -> str:
    return f"{part}-{backend}{'' if process == 1 else f'-{process}'}.json"


class Figures:
    """All rows, by part and backend; those of several processes have the rounds of all."""

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self._rows: dict[tuple[str, str], list[Row]] = {}
        for each in results:
            known = self._rows.setdefault((each["part"], each["backend"]), [])
            rows = {(row["table"], row["row"], row["column"]): row for row in known}
            for row in each["rows"]:
                earlier = rows.get((row["table"], row["row"], row["column"]))
                if earlier is None:
                    known.append({**row})
                else:
                    for kind in ("cpu", "wall"):
                        earlier[kind] = [*earlier[kind], *row[kind]]

    def of(self, part: str) -> dict[str, list[Row]]:
        """The rows of a part by backend; backends without rows are left out."""
        return {each: rows for each in BACKENDS if (rows := self._rows.get((part, each)))}

    def tables(self, part: str) -> str:
        """Every table of a part, one backend after the other."""
        made = []
        for backend, rows in self.of(part).items():
            for name in dict.fromkeys(each["table"] for each in rows):
                told = [each for each in rows if each["table"] == name]
                made.append(table(f"{BACKENDS[backend]}, {name}", told, full))
        return "\n".join(made)


def range_test(figures: Figures) -> str:
    """Rows: models and backends; columns: contenders."""
    cells = {}
    for backend, rows in figures.of("range-test").items():
        found = {(each["table"], each["row"], each["column"]): each for each in rows}
        for model in dict.fromkeys(each["column"] for each in rows):
            name = f"{model}, {BACKENDS[backend]}"
            for contender in ("classic", "lr_find", "lr_find, default"):
                for title, suffix in (("range test", ""), ("range test, first call", ", first")):
                    each = found.get((title, contender, model))
                    cells[name, contender + suffix] = short(each) if each else EMPTY
            for peer in PEERS:
                each = found.get(("range test", peer, model))
                cells[name, peer] = short(each) if each else EMPTY
    return grid("model, backend", cells)


def by_backend(figures: Figures, part: str, title: str, columns: Sequence[str]) -> str:
    """Rows: contenders; columns: backends and their columns."""
    cells = {}
    for backend, rows in figures.of(part).items():
        for each in rows:
            if each["table"] == title and each["column"] in columns:
                unit = each["column"].removesuffix(" variables")
                cells[each["row"], f"{BACKENDS[backend]}, {unit}"] = short(each)
    return grid("variables", cells)


def optimizers(figures: Figures) -> str:
    """Rows: optimizers; columns: backends and memory."""
    cells, memory = {}, {}
    for backend, rows in figures.of("optimizers").items():
        for each in rows:
            if each["cpu"]:
                cells[each["row"], BACKENDS[backend]] = short(each)
            else:
                memory[each["row"], each["column"]] = each["text"]
    return grid("", cells | memory)


def command(figures: Figures) -> str:
    """Rows: backends; columns: CPU and wall time."""
    cells = {}
    for backend, rows in figures.of("command").items():
        for each in rows:
            first = ", first run" if each["row"].endswith("first run") else ""
            cells[BACKENDS[backend], f"CPU{first}"] = short(each)
            cells[BACKENDS[backend], f"wall{first}"] = f"{quartiles(each['wall'])[1]:.2f}"
    return grid("backend", cells)


def growth(figures: Figures) -> str:
    """As for the callbacks, with the largest model."""
    columns = [
        each["column"] for rows in figures.of("growth").values() for each in rows
    ]  # sizes and steps; only sizes belong to the table
    return by_backend(figures, "growth", "growth with the model", columns)


SHORT = {
    "range-test": range_test,
    "callbacks": lambda figures: by_backend(figures, "callbacks", "callbacks", SHORT_SIZES),
    "optimizers": optimizers,
    "schedule-free": lambda figures: by_backend(
        figures, "schedule-free", "schedule-free", SHORT_SIZES
    ),
    "command": command,
    "growth": growth,
}


def blocks(figures: Figures) -> dict[str, str]:
    """For each measured part, the short block and the block with quartiles."""
    made = {}
    for part, make in SHORT.items():
        if figures.of(part):
            made[f"speed-{part}"] = make(figures)
            made[f"speed-{part}-full"] = figures.tables(part)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--backend", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="keep results and reuse them"
    )
    parser.add_argument("--processes", type=int, default=1, help="for each part and backend")
    parser.add_argument("--quick", action="store_true", help="few repeats, to check that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch)
        found = results(folder, options.part, options.backend, options.quick, options.processes)
    for name, text in blocks(Figures(found)).items():
        print(block(name, text))


if __name__ == "__main__":
    main()
