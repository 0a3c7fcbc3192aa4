"""Is anything lost when a run is killed at any moment and started again?

    python benchmarks/faults/soak.py               # 200 runs
    python benchmarks/faults/soak.py --runs 30     # a short one

Each run is a process that is killed with SIGKILL, at a moment drawn uniformly over the time that
the same job takes undisturbed; then the same command runs again, sometimes killed again, until it
ends. The jobs are in `jobs.py`: `keras-lr find` that replaces an old curve and picture; `fit` with
each callback, `LRLogger(csv)` and `keras.callbacks.BackupAndRestore`; `keras-lr search` on a SQLite
file and on a journal. Most run on torch, in processes forked from one that has imported everything;
some on JAX and TensorFlow. After each kill and at the end the script checks:

- equal: the final result equals that of an undisturbed run: the curve and the suggestion; the rate
  of each update and, to the last bit, weights and optimizer state; each run of the search once,
  with its loss.
- half files: a file of ours that is incomplete. Temporary files left by a kill are counted
  separately; nothing reads them.
- models: the model file is unchanged to the last byte.
- Keras's backup: Keras does not write its backup atomically. A kill during that write, after which
  the run could not continue or continued from the wrong place, is counted here and not as equal;
  a run that could not continue is started anew and must still end equal.

The moments come from a seed, but what a process does at that moment varies. Needs torch, jax,
tensorflow, optuna and pillow.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PATIENCE = 300  # seconds after which a run without an end is an error
ELSEWHERE = ("find", "OneCycle", "ReduceLROnPlateau", "search, SQLite")  # on JAX and TensorFlow
SEARCH_FILES = {"search, SQLite": "search.sqlite3", "search, journal": "search.log"}
COLUMNS = ("runs", "kills", "equal", "lost", "half files", "changed models", "Keras's backup")


class Process:
    """A job in its own process: forked on torch, started on the other backends."""

    def __init__(self, kind: str, folder: Path, backend: str) -> None:
        for name in ("began", "ended", "error"):
            (folder / name).unlink(missing_ok=True)
        self.folder = folder
        self._forked = self._started = None
        if backend == "torch":
            self._forked = _context().Process(target=_job, args=(kind, str(folder)))
            self._forked.start()
        else:
            self._started = subprocess.Popen(
                [sys.executable, HERE / "jobs.py", kind, folder],
                env={**os.environ, "KERAS_BACKEND": backend},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._wait_for_work()

    def _wait_for_work(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "began").exists():
            if time.monotonic() > deadline or self.wait(0) is not None:
                sys.exit(f"A job did not begin in {self.folder}: {_log(self.folder)}")
            time.sleep(0.002)

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if the process still runs after so many seconds."""
        if self._forked is not None:
            self._forked.join(seconds)
            return self._forked.exitcode
        try:
            return self._started.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        os.kill((self._forked or self._started).pid, signal.SIGKILL)
        self.wait(PATIENCE)


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jobs"])
    return context


def _job(kind: str, folder: str) -> None:
    import jobs

    jobs.job(kind, folder)


def _log(folder: Path) -> str:
    log = folder / "log"
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""


# What a run leaves


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def answer(kind: str, folder: Path) -> dict:
    """The final result of the run, in a form that can be compared."""
    if kind == "find":
        curve = json.loads((folder / "curve.json").read_text())
        told = json.loads((folder / "stdout.json").read_text())
        return {"losses": curve["losses"], "rate": told["learning_rate"]}
    if kind in SEARCH_FILES:
        told = json.loads((folder / "stdout.json").read_text())
        columns = ("round", "learning_rate", "seed", "ended", "value")
        runs = sorted([each[name] for name in columns] for each in told["runs"])
        jobs = Counter(
            name for name, state in _trials(kind, folder) if state in ("COMPLETE", "PRUNED")
        )
        twice = [name for name, count in jobs.items() if count > 1]
        return {"rate": told["learning_rate"], "runs": runs, "jobs": len(jobs), "twice": twice}
    with np.load(folder / "arrays.npz") as arrays:
        found = {name: arrays[name].tobytes().hex() for name in arrays.files}
    rows = list(csv.DictReader((folder / "rates.csv").open(newline="")))
    found["steps"] = [(row["epoch"], row["step"]) for row in rows]
    # As many digits as float32 holds: devices may differ in the last.
    found["rates"] = [
        f"{float(row[name]):.5e}" for row in rows for name in row if name not in ("epoch", "step")
    ]
    return found


def _trials(kind: str, folder: Path) -> list[tuple[str, str]]:
    """The jobs in the record of a search, with their states."""
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / SEARCH_FILES[kind]
    if kind == "search, SQLite":
        storage = RDBStorage(f"sqlite:///{path}")
    else:
        storage = JournalStorage(JournalFileBackend(str(path)))
    (study,) = storage.get_all_studies()
    trials = storage.get_all_trials(study._study_id)
    return [(trial.user_attrs.get("job", ""), trial.state.name) for trial in trials]


def half_files(kind: str, folder: Path, old: dict[str, str]) -> list[str]:
    """The incomplete files of ours after a kill."""
    if kind != "find":
        return _half_rates(folder / "rates.csv") if (folder / "rates.csv").exists() else []
    import keras_lr  # on whatever backend: a curve is read with NumPy

    found = []
    for name, was in old.items():
        path = folder / name
        if path.exists() and digest(path) == was:
            continue
        try:
            if name.endswith(".json"):
                keras_lr.RangeTest.load(path)
            else:
                from PIL import Image

                Image.open(path).load()
        except (OSError, ValueError) as error:
            found.append(f"{name}: {error}")
    return found


def _half_rates(path: Path) -> list[str]:
    """The rows of a killed run: all complete but the last, which the next run drops."""
    text = path.read_bytes().decode()
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(whole.splitlines()))
    broken = [row for row in rows if None in row or None in row.values()]
    return [f"rates.csv: {len(broken)} rows of {len(rows)}"] if broken else []


# A run


class Bench:
    """The common data of the runs of one kind on one backend."""

    def __init__(self, kind: str, backend: str, files: Path, place: Path) -> None:
        self.kind, self.backend, self._files, self._place = kind, backend, files, place
        self._count = 0
        folder = self.folder()
        process = Process(kind, folder, backend)
        code = process.wait(PATIENCE)
        if code != 0:
            sys.exit(f"{kind} on {backend}, undisturbed: exit {code}: {_log(folder)}")
        times = [(folder / name).stat().st_mtime for name in ("began", "ended")]
        self.seconds = times[1] - times[0]
        self.answer = answer(kind, folder)
        self._outputs = {
            name: (folder / name).read_bytes() for name in ("curve.json", "curve.png")
            if (folder / name).exists()
        }  # fmt: skip

    def folder(self) -> Path:
        self._count += 1
        folder = self._place / f"{self.kind} {self.backend} {self._count}".replace("/", " ")
        shutil.copytree(self._files, folder)
        return folder

    def run(self, chance: random.Random) -> Counter[str]:
        """Kill a run, and check what it leaves."""
        while True:
            found = self._run(chance)
            if found["kills"]:
                return found

    def _run(self, chance: random.Random) -> Counter[str]:
        folder, found = self.folder(), Counter(runs=1)
        if chance.random() < 0.5:
            (folder / "double").touch()  # of the two ways in which Keras keeps a backup
        for name, content in self._outputs.items():
            if name.endswith(".json"):  # of the same length or not, but another test
                content = content.replace(b'"stop_reason": "', b'"stop_reason": "an older one, ')
            (folder / name).write_bytes(content)
        old = {name: digest(folder / name) for name in self._outputs}
        model, suspect = digest(folder / "model.keras"), False
        kills = 1 + (chance.random() < 0.4) + (chance.random() < 0.15)
        while True:
            process = Process(self.kind, folder, self.backend)
            if kills:
                kills -= 1
                if process.wait(chance.uniform(0, self.seconds)) is None:
                    process.kill()
                    found["kills"] += 1
            elif process.wait(PATIENCE) is None:
                process.kill()
                self._complain(folder, "did not end")
                found["lost"] += 1
                return found
            # Keras was writing its backup when it was killed.
            suspect |= (folder / "busy").exists()
            (folder / "busy").unlink(missing_ok=True)
            for half in half_files(self.kind, folder, old):
                self._complain(folder, half)
                found["half files"] += 1
            if digest(folder / "model.keras") != model:
                self._complain(folder, "the model was changed")
                found["changed models"] += 1
            if (folder / "ended").exists():
                break
            if (folder / "error").exists():
                trace = (folder / "error").read_text()
                if not (suspect and "backup_and_restore.py" in trace):
                    self._complain(folder, f"failed: {trace}")
                    found["lost"] += 1
                    return found
                found["Keras's backup"] += 1
                shutil.rmtree(folder / "backup")
                suspect = False
        if found["kills"]:
            self._compare(folder, found, suspect)
        found["temporary files"] = sum(1 for path in folder.iterdir() if path.suffix == ".tmp")
        if not found["lost"] and not found["half files"]:
            shutil.rmtree(folder)
        return found

    def _compare(self, folder: Path, found: Counter[str], suspect: bool) -> None:
        made = answer(self.kind, folder)
        if made == self.answer:
            found["equal"] += 1
        elif suspect:
            found["Keras's backup"] += 1
        else:
            wrong = [name for name in self.answer if made.get(name) != self.answer[name]]
            self._complain(folder, f"not equal: {', '.join(wrong)}")
            found["lost"] += 1

    def _complain(self, folder: Path, text: str) -> None:
        print(f"{self.kind} on {self.backend}, {folder}: {text}", file=sys.stderr)


def shares(kinds: list[str], runs: int) -> list[tuple[str, str, int]]:
    """The number of runs of each kind on each backend: more for find and search."""
    other = [(kind, backend) for kind in ELSEWHERE for backend in ("jax", "tensorflow")]
    each = runs // 200
    weights = {kind: 2 if kind == "find" or kind in SEARCH_FILES else 1 for kind in kinds}
    left = runs - each * len(other)
    whole = sum(weights.values())
    counts = {kind: max(1, left * weight // whole) for kind, weight in weights.items()}
    counts["find"] += max(0, left - sum(counts.values()))
    return [(kind, "torch", count) for kind, count in counts.items()] + [
        (kind, backend, each) for kind, backend in other if each
    ]


def soak(runs: int, seed: int, wanted: list[str]) -> tuple[str, int]:
    """The table as Markdown, and the number of runs that lost something."""
    os.environ["KERAS_BACKEND"] = "torch"
    # The fork server finds modules there, not beside this file.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    rows: dict[str, Counter[str]] = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        files = Path(place, "files")
        files.mkdir()
        told = subprocess.run(
            [sys.executable, HERE / "jobs.py", "--prepare", files],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        kinds = json.loads(told.stdout.splitlines()[-1])
        for kind, backend, count in shares(kinds, runs):
            if wanted and not any(word in f"{kind} {backend}" for word in wanted):
                continue
            bench = Bench(kind, backend, files, Path(place))
            counts: Counter[str] = Counter()
            for number in range(count):
                counts += bench.run(random.Random(f"{seed} {kind} {backend} {number}"))
            print(
                f"{kind} on {backend}: {dict(counts)}, {bench.seconds:.2f} s undisturbed; "
                f"{time.perf_counter() - started:.0f} s so far",
                file=sys.stderr,
            )
            name = _row(kind)
            rows[name] = rows.get(name, Counter()) + counts
    total = sum(rows.values(), Counter())
    lines = [f"| run | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    for name, counts in [*rows.items(), ("all", total)]:
        lines.append(f"| {name} | {' | '.join(str(counts[column]) for column in COLUMNS)} |")
    count = total["temporary files"]
    lines += ["", f"Temporary files that kills have left beside the outputs: {count}."]
    return "\n".join(lines), total["lost"] + total["half files"] + total["changed models"]


def _row(kind: str) -> str:
    """The name of the kind in the table; several backends share a row."""
    name, comma, more = kind.partition(", ")
    if kind == "find" or kind in SEARCH_FILES:
        return f"`keras-lr {name}`{comma}{more}"
    return f"`fit` with `{kind}`" if "(" in kind else f"`fit` with `{name}`{comma}{more}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="words in names of kinds; all by default")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    text, lost = soak(given.runs, given.seed, given.name)
    print(text)
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
