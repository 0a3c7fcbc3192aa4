"""Remakes the tables of README.md and benchmarks/README.md from measurements.

    python benchmarks/tables.py                     # all of them: hours
    python benchmarks/tables.py suggestion          # those of one script

A script of `SCRIPTS` tells its progress on stderr, and prints on stdout the blocks that it
remakes, as Markdown between two marks:

    <!-- begin suggestion -->
    ...
    <!-- end suggestion -->

A block takes the place of the one of the same name in either file. What stands between two marks
is never edited by hand.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
SCRIPTS = {
    "accelerator": "benchmarks/accelerator/run.py",
    "diagnosis": "benchmarks/diagnosis/run.py",
    "faults": "benchmarks/faults/run.py",
    "search": "benchmarks/search/run.py",
    "speed": "benchmarks/speed/run.py",
    "suggestion": "benchmarks/suggestion/run.py",
    "suggestion-refit": "benchmarks/suggestion/refit.py",
}
BLOCK = re.compile(
    r"^<!-- begin (?P<name>[\w-]+) -->\n(?P<text>.*?)^<!-- end (?P=name) -->$",
    re.DOTALL | re.MULTILINE,
)


def blocks(text: str) -> dict[str, str]:
    """What stands between the marks, by name."""
    return {found["name"]: found["text"] for found in BLOCK.finditer(text)}


def replaced(page: str, made: dict[str, str]) -> str:
    """The page with the blocks that were made in place of its own."""

    def block(found: re.Match) -> str:
        name = found["name"]
        return f"<!-- begin {name} -->\n{made.get(name, found['text'])}<!-- end {name} -->"

    return BLOCK.sub(block, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"of {', '.join(SCRIPTS)}; all without")
    names = parser.parse_args().name or list(SCRIPTS)
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        parser.error(f"No script makes {', '.join(unknown)}. There are: {', '.join(SCRIPTS)}.")
    for name in names:
        print(f"{name}: {SCRIPTS[name]}", file=sys.stderr)
        run = subprocess.run(
            [sys.executable, str(ROOT / SCRIPTS[name])],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
        made = blocks(run.stdout)
        homeless = set(made).difference(*(blocks(page.read_text("utf-8")) for page in PAGES))
        if homeless or not made:
            sys.exit(f"{name} printed no block that a page has: {sorted(homeless)}\n{run.stdout}")
        for page in PAGES:
            page.write_text(replaced(page.read_text("utf-8"), made), "utf-8")


if __name__ == "__main__":
    main()
