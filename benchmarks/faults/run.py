"""What is lost when something goes wrong? Prints the tables of damaged files, disks and kills.

    python benchmarks/faults/run.py            # about an hour on two cores, longer on busy ones
    python benchmarks/faults/run.py --quick    # 20 damaged files each and 30 kills

The parts are scripts of their own: `fuzz.py` damages every file that the package reads, `disks.py`
fills the disk, `soak.py` kills runs and starts them again. Each says at its top what it counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = (
    ("Damaged files", "fuzz.py", ["--trials", "20"]),
    ("Full and read-only disks", "disks.py", []),
    ("Killed runs", "soak.py", ["--runs", "30"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short one")
    quick = parser.parse_args().quick
    texts = []
    for title, script, short in PARTS:
        command = [sys.executable, str(HERE / script), *(short if quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if not done.stdout.strip():
            sys.exit(f"{script} ended with {done.returncode} and gave no table.")
        texts.append(f"### {title}\n\n{done.stdout.strip()}\n")
    print("<!-- begin faults -->\n" + "\n".join(texts) + "<!-- end faults -->")


if __name__ == "__main__":
    main()
