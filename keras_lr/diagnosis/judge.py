"""`diagnose`: read a log, apply each rule, and sort the findings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_lr._util import checks
from keras_lr.diagnosis import rules
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.log import MOST_ROWS, Log
from keras_lr.diagnosis.readers import read
from keras_lr.diagnosis.result import FEWEST_ROWS, SEVERITIES, Diagnosis, Finding
from keras_lr.diagnosis.rules.case import first_from

__all__ = ["NAMES", "diagnose"]

# Most serious first; findings of one severity keep this order.
NAMES = tuple(rules.RULES)


def diagnose(
    log: Any,
    *,
    batch_size: int | Mapping[int, int] | None = None,
    restarts: Iterable[int] = (),
    total_epochs: int | None = None,
    untrained_loss: float | None = None,
    loss: str | None = None,
    val_loss: str | None = None,
    learning_rate: str | None = None,
) -> Diagnosis:
    """Find problems of a training run in its log, with evidence and advice for each.

    The rules detect a loss of NaN or infinity, divergence, a rate that is too high or too low, a
    plateau, overfitting, underfitting, a validation loss that jumps, a validation metric that is
    perfect from the start, a spike of the loss after a restart, a schedule that ended early or
    never decayed, a large batch without warm-up, a batch size that changed while the rate did not,
    and several runs in one log, each of which is judged. A rule without enough evidence returns no
    finding. `Diagnosis.not_judged` lists what the log does not contain.

    Args:
        log: A path to a file of `CSVLogger`, a history as JSON, or a TensorBoard folder; or the
            `History` that `fit` returns, a dictionary of lists, a list of rows, or a DataFrame.
            Epoch numbers are those of the log, or count from 0 if it has none.
        batch_size: Batch size, at least 1; or a mapping from the first epoch of each batch size
            to that size. Default: the column of the log, if it has one.
        restarts: Epochs at which the run was resumed, if the log does not show them.
        total_epochs: Planned number of epochs, if the run ended earlier.
        untrained_loss: Loss of the model before training, such as log(10) for 10 classes.
        loss: Column of the training loss, or columns joined by "+", which are added. Default: by
            name; if the log has only parts, such as train/box_loss, their sum.
        val_loss: Likewise of the validation loss.
        learning_rate: Column of the learning rate.

    Raises:
        ValueError: If the log is empty, has no training loss, or has an unknown format; or if an
            argument is out of range.
        TypeError: If an argument has the wrong type.
        OSError: If a file cannot be read.
        ModuleNotFoundError: If the log is a TensorBoard folder and the tensorboard package is not
            installed.

    >>> from keras_lr.diagnosis import diagnose
    >>> found = diagnose({"loss": [2.3, 1.2, 0.9, 1.7, 5.2, 31.0, 480.0]})
    >>> found.names
    ('diverged',)
    >>> found.findings[0].evidence
    'The loss rose from 0.9 in epoch 2 to 480 in epoch 6; it was 2.3 in epoch 0.'
    """
    content = read(log, Asked(loss, val_loss, learning_rate))
    content = _with_options(content, batch_size, restarts, total_epochs)
    if untrained_loss is not None:
        untrained_loss = checks.number("untrained_loss", untrained_loss)
    source = os.fspath(log) if isinstance(log, (str, os.PathLike)) else content.source
    earlier = [_judged(run, source, untrained_loss) for run in rules.earlier_runs(content)]
    last = _judged(content, source, untrained_loss)
    return dataclasses.replace(last, notes=(*content.notes, *last.notes), earlier=tuple(earlier))


def _judged(content: Log, source: str, untrained_loss: float | None) -> Diagnosis:
    """The diagnosis of the last run of a log."""
    case = rules.Case.of(content, untrained_loss)
    rows = len(case.training)
    averaged = f"{rows} {content.unit}s are averaged into {MOST_ROWS} rows."
    return Diagnosis(
        source=source,
        rows=rows,
        unit=content.unit,
        findings=tuple(_with_sets(_findings(case), content, untrained_loss)),
        not_judged=tuple(rules.not_judged(case)),
        notes=(averaged,) if rows > MOST_ROWS else (),
        judged=rows >= FEWEST_ROWS,
        first=case.training.epoch(0),
        last=case.training.epoch(rows - 1),
        log=case.rows,
        **_best(case),
    )


def _best(case: rules.Case) -> dict[str, Any]:
    """The lowest validation loss, or training loss, with its epoch."""
    for name, log in (("val_loss", case.evaluated), ("loss", case.training)):
        values = None if log is None else log.val_loss if name == "val_loss" else log.loss
        if log is not None and values is not None and np.isfinite(values).any():
            known = np.isfinite(values)
            if case.delayed and name == "loss":
                known &= values != 0  # before a replay buffer has filled
            row = int(np.nanargmin(np.where(known, values, np.nan)))
            return {"best": float(values[row]), "best_at": log.epoch(row), "best_of": name}
    return {}


def _findings(case: rules.Case, names: Iterable[str] = NAMES) -> list[Finding]:
    """The findings of the rules, most serious first."""
    found: dict[str, Finding] = {}
    for name in names:
        if case.rewarded and name in rules.FALLING:
            continue
        if not rules.SILENCED_BY.get(name, frozenset()) & found.keys():
            finding = rules.RULES[name](case)
            if finding is not None:
                found[name] = finding
    return _sorted(found.values())


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


def _with_sets(
    found: Iterable[Finding], content: Log, untrained_loss: float | None
) -> list[Finding]:
    """The findings, and those of the rules on the validation loss for further evaluation sets.

    A rule that has a finding for several sets keeps the worst severity, the evidence of each set,
    and the span over all.
    """
    merged = {each.name: each for each in found}
    for name, log in content.sets.items():
        for each in _findings(rules.Case.of(log, untrained_loss), rules.HELD_OUT):
            own = merged.get(each.name)
            if own is not None and own.evidence == each.evidence:  # a training loss of NaN
                continue
            said = f"{name}: {each.evidence}"
            if own is None:
                merged[each.name] = dataclasses.replace(each, evidence=said)
                continue
            worst = min(own.severity, each.severity, key=SEVERITIES.index)
            merged[each.name] = dataclasses.replace(
                own,
                severity=worst,
                evidence=f"{own.evidence} {said}",
                first=min(own.first, each.first),
                last=max(own.last, each.last),
            )
    return _sorted(merged.values())


def _with_options(
    log: Log,
    batch_size: int | Mapping[int, int] | None,
    restarts: Iterable[int],
    total_epochs: int | None,
) -> Log:
    """The log, completed with the arguments of `diagnose`."""
    changes: dict[str, Any] = {}
    restarts = list(restarts)
    if batch_size is not None:
        sizes = batch_size if isinstance(batch_size, Mapping) else {0: batch_size}
        if not sizes:
            raise ValueError("batch_size must name at least one size; got {}.")
        column = np.full(len(log), np.nan)
        for epoch, size in sorted(sizes.items()):
            begin = checks.count("an epoch of batch_size", epoch, 0)
            column[log.positions >= begin] = checks.count("batch_size", size)
        changes["batch_size"] = column
    rows = set(log.restarts)
    for epoch in restarts:
        epoch = checks.count("an epoch of restarts", epoch, 0)
        later = np.flatnonzero(log.positions >= epoch)
        if not later.size:
            raise ValueError(
                f"restarts must be epochs of the log, which ends with {log.at(len(log) - 1)}; "
                f"got {epoch}."
            )
        rows.add(int(later[0]))
    changes["restarts"] = tuple(sorted(rows - {0}))
    if total_epochs is not None:
        changes["total_epochs"] = checks.count("total_epochs", total_epochs)
    if log.evaluated is not None:
        changes["evaluated"] = _with_options(log.evaluated, batch_size, (), total_epochs)
        marked = {first_from(log.evaluated, log, row) for row in changes["restarts"]}
        marked = {row for row in marked if 0 < row < len(log.evaluated)}
        changes["evaluated"] = dataclasses.replace(
            changes["evaluated"], restarts=tuple(sorted(marked))
        )
    changes["sets"] = {
        name: _with_options(each, batch_size, restarts, total_epochs)
        for name, each in log.sets.items()
    }
    return dataclasses.replace(log, **changes)
