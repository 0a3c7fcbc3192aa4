"""Measure what is lost after a fault: damaged files, full disks and kills.

    python benchmarks/faults/run.py            # over an hour on two cores, longer on busy ones
    python benchmarks/faults/run.py --quick    # 20 damaged files each and 30 kills
    python benchmarks/faults/run.py --results FOLDER    # keep each table, and skip finished parts

Each part is a script: `fuzz.py` damages every file that the package reads, `disks.py` fills the
disk, `soak.py` kills runs and starts them again, `signals.py` interrupts searches and `names.py`
uses hostile names. The docstring of each says what it counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

HERE = Path(__file__).resolve().parent
PARTS = {
    "fuzz": ("Damaged files", ["--trials", "20"]),
    "disks": ("Full and read-only disks", []),
    "soak": ("Killed runs", ["--runs", "30"]),
    "signals": ("Signals, and servers that go away", ["--runs", "3"]),
    "names": ("Hostile names", []),
}


def measured(part: str, folder: Path, quick: bool) -> str:
    """The table of a part: from the folder, or measured now and stored there."""
    kept = folder / f"{part}.md"
    if not kept.exists():
        _, short = PARTS[part]
        command = [sys.executable, str(HERE / f"{part}.py"), *(short if quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if not done.stdout.strip():
            sys.exit(f"{part}.py ended with {done.returncode} and printed no table.")
        kept.write_text(done.stdout.strip() + "\n", "utf-8")
    return kept.read_text("utf-8")


def rows(text: str) -> dict[str, dict[str, str]]:
    """A Markdown table as dictionaries: by its first column, then by the titles of the others."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[each.strip() for each in line.strip("|").split("|")] for line in lines]
    titles = cells[0][1:]
    return {name: dict(zip(titles, rest, strict=True)) for name, *rest in cells[2:]}


def short(texts: dict[str, str]) -> str:
    """The totals of each table, in one table."""
    files, kills = rows(texts["fuzz"])["all"], rows(texts["soak"])["all"]
    disks = rows(texts["disks"])
    failed = [name for name, each in disks.items() if "WRONG" in "".join(each.values())]
    bad_files = [f"{files[each]} {each}" for each in ("wrong", "too slow", "crashed")]
    bad_kills = [f"{kills[each]} {each}" for each in ("lost", "half files", "changed models")]
    backup = kills["Keras's backup"]
    ends, names = rows(texts["signals"]), rows(texts["names"])["all"]
    ended = {name: sum(int(each[name]) for each in ends.values()) for name in ("runs", "misses")}
    lines = [
        "| what went wrong | times | as it should be | otherwise |",
        "| --- | --- | --- | --- |",
        "| a run of `find`, `search` or `fit` with a callback is killed by SIGKILL, then begun "
        f"again | {kills['kills']} kills of {kills['runs']} runs | {kills['equal']} runs ended as "
        f"if nobody had touched them; {backup} kills damaged Keras's backup and the run began anew "
        f"| {', '.join(bad_kills)} |",
        f"| a file that is read is damaged | {files['files']} files | {files['read']} read, "
        f"{files['refused']} refused in a sentence | {', '.join(bad_files)} |",
        f"| the disk is full or read-only | {len(disks)} outputs | {len(disks) - len(failed)} said "
        f"so, and lost no answer | {len(failed)} |",
        "| a search gets SIGTERM, SIGHUP or Ctrl-C, its parent dies, or its database restarts | "
        f"{ended['runs']} searches | {ended['runs'] - ended['misses']} ended in time with all "
        f"given back, or went on | {ended['misses']} missed |",
        "| a layer, a metric, a column or a file has a hostile name | "
        f"{names['outputs']} outputs | {int(names['outputs']) - int(names['raw'])} without a "
        f"character that a terminal obeys | {names['raw']} raw, {names['lost']} without answer |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep tables and reuse them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.results or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {part: measured(part, folder, given.quick) for part in PARTS}
    told = "\n".join(f"### {PARTS[part][0]}\n\n{text}" for part, text in texts.items())
    print(block("faults", told))
    print(block("faults-short", short(texts)))


if __name__ == "__main__":
    main()
