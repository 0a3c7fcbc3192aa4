"""`lr_find`, callbacks, multipliers, search and command on models as people use them.

    python benchmarks/models/run.py                                       # all: some hours
    python benchmarks/models/run.py --results models --backend torch --model vit
    python benchmarks/models/run.py --results models                      # only what is missing

zoo.py makes the models: KerasHub tasks with their preprocessors, keras.applications, a transformer
with 110 million weights, an audio and a forecasting network. Measured for each, on each backend:

- `lr_find` and `OneCycle` over a `fit` of the same steps, by turns in one process, once compiled;
- the first call of each in a new process over the first `fit` of another;
- the peak of the process's memory, in copies of weights and optimizer slots above that of `fit`;
- whether each thing that a user does with the model comes through.

Times are processor time, which other work on the machine changes little. Where everything is
compiled, glibc keeps the memory that is freed (other C libraries ignore the setting): by default it
may give the end of the heap back to the system after each step and take it anew, by chance, so that
the same `fit` takes up to twice as long in one turn as in the next. Prints one table of medians;
bold above the target. `--results` keeps each measurement as JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent))

from blocks import block  # noqa: E402
from kept import keep  # noqa: E402

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
MODELS = {
    "bert": "BERT, KerasHub, texts",
    "gpt2": "GPT-2 with LoRA, KerasHub, texts",
    "resnet": "ResNet-18, KerasHub",
    "vit": "ViT, KerasHub",
    "resnet50": "ResNet50",
    "efficientnet": "EfficientNetV2B0",
    "mobilenet": "MobileNetV3Small",
    "transformer": "transformer, 110 M weights",
    "audio": "audio, Conv1D",
    "forecaster": "forecaster, LSTM",
}
PARTS = {
    "first-fit": ("first", "--contender", "fit"),
    "first-OneCycle": ("first", "--contender", "OneCycle"),
    "first-lr_find": ("first", "--contender", "lr_find"),
    "steady": ("steady",),
    "works": ("works",),
}
KEEPS_MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(2**34))
STEADY, FIRST, MEMORY = 1.05, 1.15, 1.15  # targets: ratios of time, copies of weights and slots


def measured(model: str, backend: str, part: str, small: bool) -> dict[str, Any]:
    """The answer of worker.py; `{"failed": ...}` if it gave none."""
    command = [sys.executable, str(FOLDER / "worker.py"), *PARTS[part], "--model", model]
    run = subprocess.run(
        [*command, *(["--small"] if small else [])],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            **(KEEPS_MEMORY if part == "steady" else {}),
        },
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return {"failed": reason[:300]}
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def results(
    folder: Path, models: Sequence[str], backends: Sequence[str], small: bool
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Measure what the folder has no file of, and read everything that it has then."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        for backend in backends:
            for part in PARTS:
                keep(
                    folder / f"{model}.{backend}.{part}.json",
                    f"{model} on {BACKENDS[backend]}, {part}",
                    functools.partial(measured, model, backend, part, small),
                )
    found = {}
    for path in sorted(folder.glob("*.json")):
        model, backend, part = path.name.removesuffix(".json").split(".")
        found[model, backend, part] = json.loads(path.read_text("utf-8"))
    return found


def cell(value: float | None, target: float | None = None) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}"
    return f"**{text}**" if target is not None and round(value, 2) > target else text


def steady_ratio(row: dict[str, Any], contender: str) -> float | None:
    """The median over rounds of the time of a contender over that of `fit`."""
    if contender not in row:
        return None
    pairs = zip(row[contender], row["fit"], strict=True)
    return statistics.median(ours / fit for ours, fit in pairs)


def first_ratio(ours: dict[str, Any], fit: dict[str, Any]) -> float | None:
    return ours["seconds"] / fit["seconds"] if "seconds" in ours and "seconds" in fit else None


def memory(ours: dict[str, Any], fit: dict[str, Any]) -> str:
    """The difference of the peaks, in copies of weights and slots and in MB."""
    if "peak" not in ours or "peak" not in fit:
        return cell(None)
    more = ours["peak"] - fit["peak"]
    return f"{cell(more / fit['state'], MEMORY)} ({more / 2**20:.0f} MB)"


def failures(row: dict[str, Any]) -> str:
    failed = [f"{name}: {word}" for name, word in row.items() if word != "yes"]
    return "; ".join(failed).replace("|", "/").replace("\n", " ") or f"all {len(row)}"


def table(found: dict[tuple[str, str, str], dict[str, Any]]) -> list[str]:
    columns = (
        "model", "backend", "`lr_find` / `fit`", "`OneCycle` / `fit`", "`lr_find`, first call",
        "`OneCycle`, first call", "memory of `lr_find`", "works",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for model, title in MODELS.items():
        for backend, name in BACKENDS.items():
            row = {part: found.get((model, backend, part), {}) for part in PARTS}
            if not any(row.values()):
                continue
            fit, find, cycle = (row[f"first-{each}"] for each in ("fit", "lr_find", "OneCycle"))
            cells = (
                cell(steady_ratio(row["steady"], "lr_find"), STEADY),
                cell(steady_ratio(row["steady"], "OneCycle"), STEADY),
                cell(first_ratio(find, fit), FIRST),
                cell(first_ratio(cycle, fit), FIRST),
                memory(find, fit),
                failures(row["works"]) if row["works"] else "-",
            )
            lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="a folder that keeps the measurements")
    parser.add_argument("--model", action="append", choices=MODELS, help="default: all")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="default: all")
    parser.add_argument("--small", action="store_true", help="toy models: shows that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.results or Path(temporary)
        found = results(
            folder, options.model or list(MODELS), options.backend or list(BACKENDS), options.small
        )
    print(block("models", table(found)))


if __name__ == "__main__":
    main()
