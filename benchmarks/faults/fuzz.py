"""Does every reader of files read a damaged file, or say in one sentence what is wrong?

    python benchmarks/faults/fuzz.py                       # 1000 damaged files each
    python benchmarks/faults/fuzz.py --trials 50 model     # readers with "model" in their name
    python benchmarks/faults/fuzz.py --keep FOLDER         # keep the files that went wrong

A damaged file counts as "read" if the reader accepted it and its result can be used; as "refused"
if the reader raised the documented error, or exited with 2 and one line, naming the file.
Everything else is wrong: another exception, a traceback, ten seconds without an answer (a minute
for a search, which continues), more than 3 GB of memory, a crash of the process. A search's SQLite
file takes about a second. The damage comes from a seed, so it is the same in each run. Each reader
has its own process. Needs torch, tensorflow, pandas, pyarrow, pillow, optuna and tensorboard.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from mutations import damaged
from readers import READERS, Reader, Refused

PATIENCE = 120  # seconds after which a process that ignores the alarm is killed
MEMORY = 3 * 2**30  # bytes in addition to those at the start of the process
COLUMNS = ("read", "refused", "wrong", "too slow", "crashed")


class TooSlow(BaseException):
    """No answer in time. Not an Exception, which a reader might catch."""


def damage(content: bytes, reader: Reader, trial: int) -> bytes:
    """The damaged file of a trial, the same in each run."""
    return damaged(content, reader.kind, random.Random(f"{reader.name} {trial}"))


def attempt(reader: Reader, good: Path, content: bytes, folder: Path) -> tuple[str, str]:
    """Read a damaged file: the outcome, and the message."""
    path = good.with_name(f"damaged{good.name}" if reader.name != "log, TensorBoard" else good.name)
    path.write_bytes(content)
    try:
        reader.read(path, folder)
    except Refused as refusal:
        return "refused", str(refusal)
    except TooSlow:
        return "too slow", "".join(traceback.format_exc())[-3000:]
    except Exception:
        return "wrong", traceback.format_exc()
    finally:
        path.unlink(missing_ok=True)
    return "read", ""


def child(name: str, first: int, trials: int) -> None:
    """The process of one reader: prints a line of JSON before and after each trial."""
    reader = next(each for each in READERS if each.name == name)
    for package in {"tensorflow", "jax", "torch", "sklearn"} - {os.environ["KERAS_BACKEND"]}:
        sys.modules[package] = None  # Keras imports it if installed, which takes seconds

    def late(*_: object) -> None:
        raise TooSlow

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of a library is not an answer
    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        good = reader.make(folder)
        content = good.read_bytes()
        outcome, told = attempt(reader, good, content, folder)
        if outcome != "read":
            sys.exit(f"The undamaged file of {name!r} was {outcome}: {told}")
        good.write_bytes(content)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for trial in range(first, trials):
            print(json.dumps([trial]), file=answers, flush=True)
            made = damage(content, reader, trial)
            signal.setitimer(signal.ITIMER_REAL, reader.limit)
            outcome, told = attempt(reader, good, made, folder)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps([trial, outcome, told]), file=answers, flush=True)
    answers.flush()
    os._exit(0)


def outcomes(reader: Reader, trials: int, log: Path):
    """The outcome of each trial; a process that crashes is restarted after that trial."""
    first = 0
    while first < trials:
        command = [sys.executable, __file__, "--child", reader.name, str(first), str(trials)]
        environment = {**os.environ, "KERAS_BACKEND": reader.backend or "torch"}
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        begun, buffer, hung = None, b"", False
        while True:
            patience = 10 * PATIENCE if begun is None else PATIENCE  # it imports Keras first
            ready, _, _ = select.select([process.stdout], [], [], patience)
            block = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not block:
                hung = not ready
                break
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                begun = json.loads(line)
                if len(begun) > 1:
                    yield tuple(begun)
        process.kill()
        process.wait()
        process.stdout.close()
        if begun is None:
            sys.exit(f"{reader.name} did not start: {log.read_text(errors='replace')[-3000:]}")
        if len(begun) == 1:  # it ended in the middle
            yield begun[0], "too slow" if hung else "crashed", f"exit {process.returncode}"
        first = begun[0] + 1


def keep(folder: Path, reader: Reader, trial: int, told: str) -> None:
    """Save the report of a trial that went wrong, and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "".join(c if c.isalnum() else "_" for c in reader.name)
    with tempfile.TemporaryDirectory() as place:
        made = damage(reader.make(Path(place)).read_bytes(), reader, trial)
    (folder / f"{stem}.{trial}").write_bytes(made)
    (folder / f"{stem}.{trial}.txt").write_text(told, "utf-8", "replace")


def table(trials: int, wanted: list[str], kept: Path | None) -> tuple[str, int]:
    """The table as Markdown, and the number of trials that went wrong."""
    lines = [f"| reader | files | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * 6]
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        for reader in READERS:
            if wanted and not any(word in reader.name for word in wanted):
                continue
            started, counts = time.perf_counter(), Counter()
            for trial, outcome, told in outcomes(reader, trials, Path(place, "log")):
                counts[outcome] += 1
                if outcome not in ("read", "refused"):
                    last = told.strip().splitlines()[-1][:300] if told.strip() else ""
                    print(f"{reader.name}, file {trial}: {outcome}: {last}", file=sys.stderr)
                    if kept:
                        keep(kept, reader, trial, told)
            seconds = time.perf_counter() - started
            cells = [f"{counts[column]:,}" for column in COLUMNS]
            lines.append(f"| {reader.name} | {sum(counts.values()):,} | {' | '.join(cells)} |")
            print(f"{lines[-1]}  {seconds:.0f} s", file=sys.stderr)
            total += counts
    cells = [f"{total[column]:,}" for column in COLUMNS]
    lines.append(f"| all | {sum(total.values()):,} | {' | '.join(cells)} |")
    return "\n".join(lines), sum(total[column] for column in COLUMNS[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="words in names of readers; all by default")
    parser.add_argument("--trials", type=int, default=1000, help="damaged files each")
    parser.add_argument("--keep", type=Path, help="folder for files that went wrong")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], int(given.child[1]), int(given.child[2]))
    text, wrong = table(given.trials, given.name, given.keep)
    print(text)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
