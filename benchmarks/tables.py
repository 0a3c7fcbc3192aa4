"""Remake the tables of README.md, benchmarks/ and docs/ from measurements.

    python benchmarks/tables.py                     # all of them: hours
    python benchmarks/tables.py suggestion          # those of one script

Each script of `SCRIPTS` reports its progress on stderr and prints its blocks (`blocks.py`) on
stdout. A block replaces the one with the same name in any of these pages.
Never edit a block by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from blocks import blocks, replaced

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "benchmarks" / "tables").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
SCRIPTS = {
    "accelerator": "benchmarks/accelerator/run.py",
    "diagnosis": "benchmarks/diagnosis/run.py",
    "faults": "benchmarks/faults/run.py",
    "horizon": "benchmarks/horizon/run.py",
    "horizon-long": "benchmarks/horizon/run.py --long",
    "models": "benchmarks/models/run.py",
    "search": "benchmarks/search/run.py",
    "search-plans": "benchmarks/search/plans.py",
    "speed": "benchmarks/speed/run.py",
    "suggestion": "benchmarks/suggestion/run.py",
    "suggestion-refit": "benchmarks/suggestion/refit.py",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"of {', '.join(SCRIPTS)}; all by default")
    names = parser.parse_args().name or list(SCRIPTS)
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        parser.error(
            f"There is no script {', '.join(unknown)}; the scripts are: {', '.join(SCRIPTS)}."
        )
    for name in names:
        print(f"{name}: {SCRIPTS[name]}", file=sys.stderr)
        run = subprocess.run(
            [sys.executable, *SCRIPTS[name].split()],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
        made = blocks(run.stdout)
        missing = set(made).difference(*(blocks(page.read_text("utf-8")) for page in PAGES))
        if missing or not made:
            sys.exit(f"No page has these blocks of {name}: {sorted(missing)}\n{run.stdout}")
        for page in PAGES:
            page.write_text(replaced(page.read_text("utf-8"), made), "utf-8")


if __name__ == "__main__":
    main()
