"""Count what `keras_lr.diagnosis` finds in runs made to fail, and in healthy runs.

    KERAS_BACKEND=jax python benchmarks/diagnosis/run.py --logs runs.json
    python benchmarks/diagnosis/run.py --read runs.json --write tests/data/training_logs.json

--field trains the runs of `field_runs` instead, on the held-out data sets. With the packages
sk-autod and training-doctor installed (pip install --no-deps), their findings stand beside ours.

The thresholds were set with the runs on digits, diabetes and moons. The table of the other three
data sets, which were held out, shows what to expect on new data. Training takes half an hour;
--data trains some of the data sets, and --read takes several files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.append(str(Path(__file__).resolve().parents[1]))

import field_runs
import peers
import runs
from blocks import block

from keras_lr.diagnosis import NAMES, diagnose
from keras_lr.diagnosis.result import SEVERITIES

PARTS = ("held-out", "field", "tuned-on")
KEPT = 1  # runs of each way and data set in the fixture, and more healthy ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=[*runs.TUNED_ON, *runs.HELD_OUT])
    parser.add_argument("--logs", help="save the runs in this file")
    parser.add_argument(
        "--read", nargs="*", help="diagnose runs of files from --logs; do not train"
    )
    parser.add_argument("--field", action="store_true", help="train the runs of field_runs")
    parser.add_argument("--write", help="write a few of the runs for the tests")
    parser.add_argument("--show", action="store_true", help="print each wrong diagnosis")
    given = parser.parse_args()
    if given.read:
        found = [runs.Run(**each) for file in given.read for each in json.load(open(file))]
    else:
        warnings.simplefilter("ignore")
        found = []
        names = [name for name in given.data if not given.field or name in runs.HELD_OUT]
        ways = field_runs.WAYS if given.field else runs.WAYS
        for run in runs.runs(tuple(names), _tell, ways):
            found.append(run)
            if given.logs:
                with open(given.logs, "w") as file:
                    json.dump([dataclasses.asdict(each) for each in found], file)
    judged = [(run, diagnose(run.log, **options(run))) for run in found]
    for part in PARTS:
        told = [(run, said) for run, said in judged if part_of(run) == part]
        if told:
            print(blocks(f"diagnosis-{part}", told))
    if given.show:
        for run, said in judged:
            if run.way not in said.names and (said or run.way != "healthy"):
                _tell(f"\n{run.data}, {run.setup}: {run.way}\n{said}")
    if given.write:
        Path(given.write).write_text(fixture(judged))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def part_of(run: runs.Run) -> str:
    """The part of the measurement that a run belongs to."""
    if "seed" in run.setup and "sigmoids" not in run.setup:  # those of `field_runs`
        return "field"
    return "held-out" if run.data in runs.HELD_OUT else "tuned-on"


def options(run: runs.Run) -> dict[str, Any]:
    return dict(run.options)


def blocks(name: str, judged: list[tuple[runs.Run, Any]]) -> str:
    """A row for each fault: found by its name, no finding, and other findings; then the totals."""
    lines = [
        "| made to be | found | nothing said | what else was said |",
        "| --- | --- | --- | --- |",
    ]
    found = 0
    for way in NAMES:
        said = [each for run, each in judged if run.way == way]
        if not said:
            continue
        hits = sum(way in each.names for each in said)
        found += hits
        silent = sum(not each for each in said)
        other = Counter(name for each in said for name in each.names if name != way)
        told = ", ".join(f"{name} {count}" for name, count in other.most_common()) or "-"
        lines.append(f"| {way} | {hits} of {len(said)} | {silent} | {told} |")
    healthy = [each for run, each in judged if run.way == "healthy"]
    false = Counter((one.name, one.severity) for each in healthy for one in each)
    told = ", ".join(f"{name} {count} ({kind})" for (name, kind), count in false.most_common())
    cried = sum(any(one.severity in SEVERITIES[:2] for one in each) for each in healthy)
    sentence = (
        f"It named the fault in {found} of {len(judged) - len(healthy)} runs made to fail, and of "
        f"{len(healthy)} healthy ones {cried} got a false error or warning."
    )
    lines += ["", f"{sentence} What was said of those: {told or 'nothing'}."]
    lines += [said for tool in peers.TOOLS if (said := _peer(tool, judged))]
    made = [(name, lines)]
    if not name.endswith("tuned-on"):
        made.append((f"{name}-short", [sentence]))
    return "\n".join(block(*each) for each in made)


def _peer(tool: str, judged: list[tuple[runs.Run, Any]]) -> str | None:
    """A sentence on another tool, for the faults that it has a finding for."""
    try:
        said = [(run, mine, peers.said_by(tool, run.log)) for run, mine in judged]
    except ModuleNotFoundError:
        return None
    failed = [each for each in said if peers.NAMED.get(each[0].way, {}).get(tool)]
    found = sum(bool(theirs & peers.NAMED[run.way][tool]) for run, _, theirs in failed)
    ours = sum(run.way in mine.names for run, mine, _ in failed)
    healthy = [theirs for run, _, theirs in said if run.way == "healthy"]
    return (
        f"{tool} has a finding for the fault of {len(failed)} of these runs, and named {found} "
        f"(keras-lr: {ours}); it gave {sum(map(bool, healthy))} of {len(healthy)} healthy ones a "
        "finding."
    )


def fixture(judged: list[tuple[runs.Run, Any]]) -> str:
    """The first runs of each fault and data set that are diagnosed correctly, one a line."""
    kept: list[str] = []
    count: Counter[tuple[str, str]] = Counter()
    for run, said in judged:
        right = not said if run.way == "healthy" else run.way in said.names
        key = (run.way, run.data)
        most = KEPT * (4 if run.way == "healthy" else 1)
        if right and count[key] < most:
            count[key] += 1
            kept.append(json.dumps(dataclasses.asdict(run)))
    return "[\n" + ",\n".join(kept) + "\n]\n"


if __name__ == "__main__":
    main()
