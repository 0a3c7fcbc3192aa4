"""Several runs of `keras-lr diagnose`: the logs in a folder, a line a run, what differs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .extensions import extension

__all__ = ["compared", "logs_in", "runs_of"]

_LOGS = (".csv", ".tsv", ".json", ".jsonl", ".log")
_EVENTS = "tfevents"
_SIDES = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "test"}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def logs_in(folder: str) -> list[str]:
    """The logs in a folder: files by their names, TensorBoard runs and MLflow runs as folders.

    Of the checkpoints of one transformers run, which each have the log so far, the last counts.
    """
    found: dict[str, None] = {}
    states: dict[str, tuple[int, str]] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "meta.yaml" in files and "metrics" in folders:
            found[place] = None
            folders.clear()
            continue
        if any(_EVENTS in name for name in files):
            inner = os.path.relpath(place, folder).split(os.sep)
            kept = [name for name in inner if name not in _SIDES and name != "."]
            found[os.path.join(folder, *kept)] = None
        checkpoint = _CHECKPOINT.fullmatch(os.path.basename(place))
        for name in sorted(files):
            path = os.path.join(place, name)
            if checkpoint and name == "trainer_state.json":
                run = os.path.dirname(place)
                states[run] = max(states.get(run, (-1, "")), (int(checkpoint.group(1)), path))
            elif extension(name) in _LOGS and _EVENTS not in name:
                found[path] = None
    for run, (_, path) in states.items():
        if os.path.join(run, "trainer_state.json") not in found:
            found[path] = None
    return list(found)


def runs_of(found: Iterable[Any]) -> list[tuple[str, Any]]:
    """Each run with its name, worst first; a log may hold several."""
    from keras_lr.diagnosis.result import VERDICTS

    runs = []
    for each in found:
        parts = [*each.earlier, each.alone()]
        for number, run in enumerate(parts, start=1):
            name = f"{each.source}, run {number} of {len(parts)}" if parts[1:] else each.source
            runs.append((name, run))
    return sorted(runs, key=lambda pair: VERDICTS.index(pair[1].verdict))


def compared(runs: Sequence[tuple[str, Any]]) -> list[str]:
    """A line for each run: verdict, name, findings, best value, and the settings that differ.

    The last lines name a setting that separates the runs with an error or a warning from the
    others.
    """
    varied = {
        name: (values, text)
        for name, (value, text) in _SETTINGS.items()
        if len(set(values := [value(run) for _, run in runs]) - {None}) > 1
    }
    lines = []
    for place, (name, run) in enumerate(runs):
        parts = [f"{name}: {', '.join(run.names) or 'no problems found'}"]
        if run.best is not None:
            parts.append(f"best {run.best_of} {run.best:.4g} in {run.unit} {run.best_at:g}")
        parts += [
            text.format(values[place])
            for values, text in varied.values()
            if values[place] is not None
        ]
        lines.append(f"{run.verdict:<10}  {'; '.join(parts)}")
    failed = [run.verdict in ("error", "warning") for _, run in runs]
    sentences = [
        _separates(name, values, failed)
        for name, (values, _) in varied.items()
        if name != "length"  # a failure ends a run early: the length follows from it
    ]
    return lines + [""] * any(sentences) + [each for each in sentences if each]


def _separates(name: str, values: Sequence[float | None], failed: Sequence[bool]) -> str | None:
    known = [pair for pair in zip(values, failed, strict=True) if pair[0] is not None]
    bad = [value for value, wrong in known if value is not None and wrong]
    good = [value for value, wrong in known if value is not None and not wrong]
    if not bad or not good or len(known) < 3:
        return None
    runs = "Each run with an error or a warning has"
    if min(bad) > max(good):
        return f"{runs} a {name} of at least {min(bad):.3g}; the others, at most {max(good):.3g}."
    if max(bad) < min(good):
        return f"{runs} a {name} of at most {max(bad):.3g}; the others, at least {min(good):.3g}."
    return None


_SETTINGS: dict[str, tuple[Callable[[Any], float | None], str]] = {
    "learning rate": (lambda run: run.learning_rate, "rate {:.3g}"),
    "batch size": (lambda run: run.batch_size, "batch {:g}"),
    "length": (lambda run: run.rows, "{:g} rows"),
}
