"""Measure on a GPU: checks, speed, transfers and memory, with JAX and torch.

    python benchmarks/accelerator/run.py                   # at most nine minutes; result.json
    python benchmarks/accelerator/run.py --minutes 4       # what fits
    python benchmarks/accelerator/run.py --resume          # then the rest
    python benchmarks/accelerator/run.py --dry-run         # toy sizes, also on a CPU, not kept

Without a GPU it prints a message and the table of the result stored in result.json.

Each part runs on each backend in its own process; parts that measure time run alone. Results are
written after each part. Ratios are within one process, contenders alternating: the median of the
rounds, the smallest and the largest. The baseline is `fit` of the same model on the same data for
as many steps. Everything is compiled before it is measured, except in the first calls. First calls,
and peaks of device memory, come from a process that does nothing else; for the peak it runs again
with cached programs, so that the compiler's autotuning does not count.

A transfer is a read of the device by the host: on JAX the first read of an array's value, and what
the transfer guard logs; on torch an operation that its debug mode reports as synchronizing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "speed")]

from blocks import block  # noqa: E402
from figures import BACKENDS, grid  # noqa: E402

RESULT = FOLDER / "result.json"
DEVICES = {
    "jax": "import jax; d = jax.devices()[0]; print(d.device_kind * (d.platform != 'cpu'))",
    "torch": "import torch; c = torch.cuda; print(c.get_device_name() if c.is_available() else '')",
}
MODELS = ("MLP", "transformer", "ResNet50")
CONTENDERS = ("fit", "OneCycle", "lr_find")
LEAST = 15  # seconds; with less left, no job is started
TESTS = (  # of true losses, what is restored, and what an update used
    *("test_restore.py", "test_layerwise.py", "test_steering.py", "test_finder_fit.py"),
    *("test_callbacks.py", "test_composition.py"),
)


class Process(NamedTuple):
    backend: str
    arguments: tuple[str, ...]
    cache: str = "shared"  # of programs that JAX has compiled

    @property
    def name(self) -> str:
        return "-".join([self.backend, *(each.strip("-") for each in self.arguments)])


class Job(NamedTuple):
    """Processes that run at the same time, and the seconds after which they are stopped."""

    processes: list[Process]
    limit: float


def jobs(backends: Sequence[str]) -> list[Job]:
    """The jobs, the most valuable first."""

    def each(*arguments: str, only: Sequence[str] = backends) -> list[Process]:
        return [Process(backend, arguments) for backend in only if backend in backends]

    def alone(*arguments: str, limit: float) -> list[Job]:
        return [Job([process], limit) for process in each(*arguments)]

    def once(model: str, limit: float) -> list[Job]:
        processes = [
            Process(backend, ("once", "--model", model, "--contender", contender), contender)
            for backend in backends
            for contender in CONTENDERS
        ]
        again = [
            Process(each.backend, ("memory", *each.arguments[1:]), each.cache) for each in processes
        ]
        return [Job(processes, limit), Job(again, limit)]

    return [
        # These do not measure time, so they may run at the same time.
        Job([*each("checks"), *each("transfers"), *each("tests")], 100),
        *alone("speed", "--model", "MLP", limit=80),
        Job(each("candidates", only=["jax"]), 60),
        *alone("speed", "--model", "transformer", limit=120),
        *once("transformer", 80),
        *reversed(alone("speed", "--model", "ResNet50", limit=170)),  # JAX compiles slowly
        *once("MLP", 40),
        *once("ResNet50", 110),
    ]


def command(process: Process) -> list[str]:
    if process.arguments == ("tests",):
        files = [str(ROOT / "tests" / name) for name in TESTS]
        options = ["-v", "--tb=line", "-n", str(max(2, (os.cpu_count() or 4) // 2 - 2))]
        # Other versions warn of other things; a search needs Optuna.
        options += ["-p", "no:cacheprovider", "-W", "default", "-k", "not test_search"]
        few = ["-m", "not once"] if process.backend != "torch" else []
        return [sys.executable, "-m", "pytest", *options, *few, *files]
    return [sys.executable, str(FOLDER / "worker.py"), *process.arguments]


def environment(process: Process, scratch: Path) -> dict[str, str]:
    made = {**os.environ, "KERAS_BACKEND": process.backend, "PYTHONUNBUFFERED": "1"}
    made |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "0"}
    made.setdefault("CUDA_VISIBLE_DEVICES", "0")
    made["JAX_COMPILATION_CACHE_DIR"] = str(
        scratch / "-".join([process.cache, *process.arguments[1:3]])
    )
    made["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    made["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if process.arguments[0] in ("checks", "tests", "everything"):
        # What is compared with NumPy is not to be rounded to the matrix units' short numbers.
        made["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    return made


def run(job: Job, seconds: float, logs: Path, scratch: Path) -> tuple[list[Any], list[Any]]:
    """The rows printed by the processes of a job, and the failed processes with their ends."""
    begin = time.monotonic()
    running = []
    for process in job.processes:
        with (logs / f"{process.name}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    command(process),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(process, scratch),
                    cwd=ROOT,
                    start_new_session=True,
                )
            )
    rows, failures = [], []
    for process, child in zip(job.processes, running, strict=True):
        stopped = ""
        try:
            child.wait(max(0.1, seconds - (time.monotonic() - begin)))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            stopped = f"stopped after {seconds:.0f} s"
        text = (logs / f"{process.name}.log").read_text("utf-8", "replace")
        told, error = (tests if process.arguments == ("tests",) else figures)(process, text)
        rows += told
        if stopped or (child.returncode and error):
            failures.append({"process": process.name, "error": stopped or error})
    return rows, failures


def figures(process: Process, text: str) -> tuple[list[Any], str]:
    """The rows of a worker, and the last line of its error."""
    lines = text.strip().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('{"table":')]
    return rows, lines[-1][:200] if lines else "no output"


def tests(process: Process, text: str) -> tuple[list[Any], str]:
    """How the tests of the suite ended; those that did not pass by name."""
    found = re.findall(r"^\[gw\d+\].*? (PASSED|FAILED|ERROR|SKIPPED|XFAIL) (\S.*?)\s*$", text, re.M)
    names = {kind: sorted(name for each, name in found if each == kind) for kind, _ in found}
    passed = len(names.get("PASSED", ()))
    failed = [*names.get("FAILED", ()), *names.get("ERROR", ())]
    summary = f"{passed} passed, {len(failed)} failed"
    row = {"table": "checks", "backend": process.backend, "row": "tests of the suite", "column": ""}
    row |= {"values": [], "mark": None, "text": summary, "failed": failed}
    return [row] if found else [], "" if found else text.strip()[-200:]


def devices(backends: Sequence[str]) -> dict[str, str]:
    """The name of the accelerator on each backend; backends without one are left out."""
    names = {}
    for backend in backends:
        made = environment(Process(backend, ("device",)), Path(tempfile.gettempdir()))
        asked = subprocess.run(
            [sys.executable, "-c", DEVICES[backend]], capture_output=True, text=True, env=made
        )
        name = asked.stdout.strip().rpartition("\n")[2]
        if not asked.returncode and name:
            names[backend] = name
    return names


def asked(*line: str) -> str | None:
    """The one-line output of a command, if the command exists."""
    try:
        answer = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip().partition("\n")[0]


def about(names: dict[str, str], commit: str | None) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("keras", "jax", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    driver = asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": ", ".join(dict.fromkeys(names.values())) or "CPU",
        "driver": driver if names else None,
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "commit": commit or asked("git", "rev-parse", "--short", "HEAD"),
    }


def measured(todo: list[Job], result: dict[str, Any], options: argparse.Namespace) -> None:
    """Run jobs while time is left; `result` is written after each."""
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        logs = options.logs or scratch / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for job in todo:
            left = end - time.monotonic()
            names = [process.name for process in job.processes]
            if set(names) <= set(result["done"]):
                continue
            if left < LEAST:
                result["skipped"] += names
            else:
                print(f"{', '.join(names)}; {left:.0f} s left", file=sys.stderr, flush=True)
                rows, failures = run(job, min(job.limit, left), logs, scratch)
                result["rows"] += rows
                result["failures"] += failures
                failed = {failure["process"] for failure in failures}
                result["done"] += [name for name in names if name not in failed]
                for failure in failures:
                    print(f"  {failure['process']}: {failure['error']}", file=sys.stderr)
            if options.out:
                new = options.out.with_suffix(".new")
                new.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
                new.replace(options.out)


# --- tables


def cell(row: dict[str, Any]) -> str:
    """The median, the smallest and the largest value; in bold if above the mark."""
    values = sorted(row["values"])
    if not values:
        return row["text"] or "-"
    half = len(values) // 2
    middle = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    if row["table"] == "checks":  # every seed has to be right
        middle = values[-1]
    told = short(middle)
    if row["mark"] is not None and not (middle <= row["mark"] or round(middle, 2) == row["mark"]):
        told = f"**{told}**"
    if len(values) > 1 and row["table"] != "checks":
        told += f" ({short(values[0])}-{short(values[-1])})"
    return told if row["mark"] is None else f"{told}, mark {short(row['mark'])}"


def short(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 1e4 else f"{value:.1e}"


def tables(result: dict[str, Any]) -> str:
    """The tables of benchmarks/README.md."""
    if not result.get("rows"):
        return "Not measured yet.\n"
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    driver = f", driver {result['driver']}" if result["driver"] else ""
    made = [f"{result['device']}{driver}; {versions}; {result['date']}, {result['commit']}.\n"]
    titles = {
        "checks": "on the device",
        "speed": "time, warm",
        "transfers": "transfers",
        "candidates": "16 rates, one program",
    }
    for table, title in titles.items():
        cells = {}
        for row in result["rows"]:
            if row["table"] == table:
                column = row["column"] if table in ("speed", "transfers") else ""
                place = ", ".join(filter(None, [BACKENDS[row["backend"]], column]))
                cells[row["row"], place] = cell(row)
        if cells:
            made.append(grid(title, cells))
    if cells := once(result["rows"]):
        made.append(grid("one process each", cells))
    for name in ("failures", "skipped"):
        if result[name]:
            told = [
                each if name == "skipped" else f"{each['process']} ({each['error']})"
                for each in result[name]
            ]
            made.append(f"{name.capitalize()}: {'; '.join(told)}.\n")
    return "\n".join(made)


def once(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """First calls and peaks, of what ran once each, against those of `fit`."""
    found = {
        (row["table"], row["backend"], row["column"], row["row"]): row["values"][0]
        for row in rows
        if row["table"] in ("first call, s", "peak, MB", "state, MB")
    }
    cells = {}
    for table, backend, model, contender in found:
        floor = found.get((table, backend, model, "fit"))
        if contender == "fit" or not floor:
            continue
        value, column = found[table, backend, model, contender], f"{BACKENDS[backend]}, {model}"
        if table == "first call, s":
            cells[f"{contender} / fit, first call", column] = f"{value / floor:.2f}"
        elif table == "peak, MB":
            more, state = value - floor, found["state, MB", backend, model, "fit"]
            cells[f"{contender}, memory above fit's peak", column] = (
                f"{more:+,.0f} MB of {floor:,.0f}, {more / state:+.2f} of weights and slots"
            )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", nargs="+", default=list(DEVICES), choices=list(DEVICES))
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything; default 9")
    parser.add_argument("--out", type=Path, help="default result.json beside this script")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the output of the parts")
    parser.add_argument("--commit", help="for a tree without a git folder")
    parser.add_argument("--resume", action="store_true", help="add the missing parts to --out")
    parser.add_argument("--dry-run", action="store_true", help="run every part at toy size")
    options = parser.parse_args()
    names = devices(options.backend)
    if not names and not options.dry_run:
        asked_of = " or ".join(BACKENDS[each] for each in options.backend)
        print(f"No GPU is visible to {asked_of}: nothing is measured.", file=sys.stderr)
        result = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    else:
        result = about(names, options.commit) | {"rows": [], "failures": [], "done": []}
        if options.resume:
            result |= json.loads((options.out or RESULT).read_text("utf-8"))
            result["failures"] = []  # what failed is run again
        result["skipped"] = []
        if options.dry_run:
            toys = [Process(each, ("everything", "--toy")) for each in options.backend]
            todo = [Job(toys, 60 * options.minutes)]
        else:
            todo = jobs(list(names))
            options.out = options.out or RESULT
        measured(todo, result, options)
    print(block("accelerator", tables(result)))
    if options.dry_run and result["failures"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
