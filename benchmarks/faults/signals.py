"""Does a search end when it is told to, and leave its record consistent?

    python benchmarks/faults/signals.py               # 20 of each
    python benchmarks/faults/signals.py --runs 3      # a short one
    python benchmarks/faults/signals.py SIGTERM       # of one kind

Each run is `keras-lr search` in its own process group, on PyDatasets that take a while for each
batch; the backends take turns. At a random moment after the first run has begun (for every second
run of "Ctrl-C" at a random moment of the start, while the workers still import) it gets:

- SIGTERM, SIGHUP: the command alone, alternating between no workers and two.
- Ctrl-C: SIGINT to the whole group, a command with three workers.
- parent dies: SIGKILL to a command with two workers.
- database restarts: a PostgreSQL server of our own, which holds the record, is stopped at once, as
  by a crash, and started again 3 seconds later. The search must end with every run done once.

A run is right if the process ends within 3 seconds (5 for workers whose parent died) with exit 130
and without a traceback, no process is left, and no run is left unfinished, except the run of a
parent that was killed. `misses` counts the others; each is printed to stderr. Needs optuna, for the
last kind psycopg and PostgreSQL, and the backends that it finds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("SIGTERM", "SIGHUP", "Ctrl-C", "parent dies", "database restarts")
BACKENDS = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]
PATIENCE = 180  # seconds after which a process counts as a miss
IN_TIME = {"parent dies": 5.0}
USUAL = 3.0
DOWN = 3.0  # seconds for which the database is away
CODE = """
import os, time
import keras, numpy as np

class Slow(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    def __len__(self):
        return 8
    def __getitem__(self, index):
        time.sleep(float(os.environ["SLOW"]))
        x = self.x[8 * index : 8 * index + 8]
        return x, x[:, :4].argmax(axis=1)

def data():
    return Slow()

def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(4, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
"""
COMMAND = (
    "search task:model --data task:data --validation task:data --json --heartbeat 1 "
    "--low 1e-3 --high 1 --fine-rounds 1 --points 3 --final-seeds 1 --pruner none --no-cache"
).split()


SITE = """
import os, sys
for package in {"tensorflow", "jax", "torch", "sklearn", "pandas", "matplotlib"}:
    if package != os.environ.get("KERAS_BACKEND"):
        sys.modules[package] = None  # which only makes the start slower
"""


class Search:
    """A running command with its workers."""

    def __init__(self, folder: Path, backend: str, *arguments: str, slow: float = 0.05) -> None:
        self.errors = (folder / "stderr").open("w+b")
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "keras_lr_cli", *COMMAND, *arguments],
            cwd=folder,
            env={
                **os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path, "SLOW": str(slow),
                "OMP_NUM_THREADS": "1",
            },
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.communicate(timeout=30)
        self.errors.close()

    def code(self, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def answer(self) -> bytes:
        return self._process.communicate()[0]

    def told(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def left(self) -> bool:
        """Whether one of its processes still runs."""
        for place in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = place.read_text().rpartition(")")[2].split()[:3]
                if group == str(self.pid) and state != "Z":
                    return True
        return False


def trials(storage: str) -> list[tuple[str, str, str]]:
    """For each run in the record: its job, its state, and its process."""
    from keras_lr.rate_search import storage as places

    with contextlib.suppress(Exception), places.silently():
        opened = places.opened(storage, 1, storage)
        try:
            return [
                (
                    trial.user_attrs.get("job", ""),
                    trial.state.name,
                    trial.user_attrs.get("worker", ":").rpartition(":")[2],
                )
                for study in opened.get_all_studies()
                for trial in opened.get_all_trials(study._study_id, deepcopy=False)
            ]
        finally:
            places.close(opened)
    return []


def at_work(search: Search, storage: str, processes: int) -> bool:
    """Wait until so many processes work on a run."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and search.code(0.2) is None:
        at = {who for _, state, who in trials(storage) if state == "RUNNING" and who}
        if len(at) >= processes:
            return True
    return False


def asked_to_end(kind: str, folder: Path, backend: str, chance: random.Random) -> tuple[str, float]:
    """What went wrong, if anything, and the seconds until the end."""
    beside = {"Ctrl-C": 3, "parent dies": 2}.get(kind, chance.choice([0, 2]))
    storage = str(folder / "search.sqlite3")
    words = ["--storage", storage, "--workers", str(1 + beside), "--epochs", "40"]
    with Search(folder, backend, *words) as search:
        early = kind == "Ctrl-C" and chance.random() < 0.5
        if not at_work(search, storage, 1 if early else 1 + beside):
            return f"nobody came to work: {search.told()}", 0.0
        time.sleep(chance.uniform(0.0, 1.0))
        began = time.monotonic()
        if kind == "Ctrl-C":
            os.killpg(search.pid, signal.SIGINT)
        else:
            sign = {"parent dies": "SIGKILL"}.get(kind, kind)
            os.kill(search.pid, getattr(signal, sign))
        code = search.code(PATIENCE)
        most = IN_TIME.get(kind, USUAL)
        while search.left() and time.monotonic() - began < PATIENCE:
            time.sleep(0.02)
        seconds = time.monotonic() - began
        wanted = -signal.SIGKILL if kind == "parent dies" else 130
        begun = [who for _, state, who in trials(storage) if state == "RUNNING"]
        if kind == "parent dies":
            begun = [who for who in begun if who != str(search.pid)]
        told = search.told()
        for wrong, what in (
            (code != wanted, f"exit {code}: {told}"),
            (seconds > most, f"{seconds:.1f} s"),
            (bool(begun), f"{len(begun)} runs were left as begun"),
            ("Traceback" in told or "Exception ignored" in told, told),
        ):
            if wrong:
                return what, seconds
    return "", seconds


def database(kind: str, folder: Path, backend: str, chance: random.Random) -> tuple[str, float]:
    """A server that crashes and comes back; how long the search took afterwards."""
    sys.path.insert(0, str(ROOT / "tests"))
    import databases

    with tempfile.TemporaryDirectory(prefix="keras-lr-postgres-") as place:
        process, port = databases._started(Path(place))
        try:
            server = databases.Server(port)
            storage = server.database()
            words = ["--storage", storage, "--workers", "2", "--epochs", "2"]
            with Search(folder, backend, *words, slow=0.05) as search:
                if not at_work(search, storage, 1):
                    return f"nobody came to work: {search.told()}", 0.0
                time.sleep(chance.uniform(0.0, 4.0))
                databases._stopped(process)
                time.sleep(DOWN)
                process = databases.restarted(Path(place), port)
                began = time.monotonic()
                code, told = search.code(PATIENCE), search.told()
                seconds = time.monotonic() - began
                if code != 0:
                    return f"exit {code}: {told}", seconds
                found = json.loads(search.answer())
                known = trials(storage)
                done = Counter(job for job, state, _ in known if state in ("COMPLETE", "PRUNED"))
                if not found["finished"] or set(done.values()) != {1}:
                    return f"not every run once: {done}", seconds
                if any(state in ("RUNNING", "WAITING") for _, state, _ in known):
                    return f"something is left: {known}", seconds
                if "Traceback" in told:
                    return told, seconds
        finally:
            databases._stopped(process)
    return "", seconds


def measure(kind: str, runs: int, seed: int) -> tuple[int, int, float]:
    """Runs, misses, and the longest time until the end."""
    misses, longest = 0, 0.0
    for number in range(runs):
        backend = BACKENDS[number % len(BACKENDS)]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            os.chmod(folder, 0o755)
            (folder / "task.py").write_text(CODE)
            (folder / "sitecustomize.py").write_text(SITE)
            run = database if kind == "database restarts" else asked_to_end
            wrong, seconds = run(kind, folder, backend, random.Random(f"{seed} {kind} {number}"))
        longest = max(longest, seconds)
        misses += bool(wrong)
        print(f"{kind} {number} on {backend}: {wrong or 'ok'}, {seconds:.2f} s", file=sys.stderr)
    return runs, misses, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # A search ignores signals that it inherits as ignored, as from nohup or a background job.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    lines = ["| what a search meets | runs | as it should be | misses | longest end |"]
    lines += ["| --- |" + " --- |" * 4]
    bad = 0
    for kind in given.name or KINDS:
        runs, misses, longest = measure(kind, given.runs, given.seed)
        bad += misses
        end = "-" if kind == "database restarts" else f"{longest:.1f} s"
        lines.append(f"| {kind} | {runs} | {runs - misses} | {misses} | {end} |")
    print("\n".join(lines))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
