"""Read a log, ask each rule, and put what they say in order."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_lr._util import checks
from keras_lr.diagnosis import rules
from keras_lr.diagnosis.log import Log
from keras_lr.diagnosis.readers import read
from keras_lr.diagnosis.result import SEVERITIES, Diagnosis, Finding

__all__ = ["NAMES", "diagnose"]

# The worst first, which is also the order among findings of one severity.
NAMES = tuple(rules.RULES)


def diagnose(
    log: Any,
    *,
    batch_size: int | Mapping[int, int] | None = None,
    restarts: Iterable[int] = (),
    total_epochs: int | None = None,
    untrained_loss: float | None = None,
) -> Diagnosis:
    """Tell from the log of a training run what is wrong with it, and what to do.

    Looks for: loss of NaN or infinity, divergence, a rate too high or too low, a plateau,
    overfitting, underfitting, a loss that jumps where a run was resumed, a schedule that ended
    early or hardly began, a large batch without warm-up, and a batch size that changed while the
    rate did not. A rule that cannot tell says nothing; what the log does not show is named.

    Args:
        log: A path: a file of `CSVLogger`, a history as JSON, a folder of TensorBoard. Or what
            `fit` returns, a dictionary of lists, a list of rows, or a DataFrame. Epochs are
            numbered as the log does; where it does not, from 0.
        batch_size: Rows of data in an update, at least 1; or sizes by the epochs that they begin
            at. By default the log's, if it has a column for it.
        restarts: Numbers of the epochs at which the run was resumed, where the log does not show
            it by itself.
        total_epochs: Epochs that were planned, if the run ended before.
        untrained_loss: Loss of the model before training, such as log(10) for 10 classes.

    Raises:
        ValueError: If the log is empty, has no training loss, or is no log; or an argument is out
            of its range.
        TypeError: If something is of an unknown kind.
        OSError: If a file cannot be read.
        ModuleNotFoundError: If the log is a folder, and the package tensorboard is missing.

    >>> from keras_lr.diagnosis import diagnose
    >>> found = diagnose({"loss": [2.3, 1.2, 0.9, 1.7, 5.2, 31.0, 480.0]})
    >>> found.names
    ('diverged',)
    >>> found.findings[0].evidence
    'The loss rose from 0.9 in epoch 2 to 480 in epoch 6; it was 2.3 in epoch 0.'
    """
    content = read(log)
    content = _with_options(content, batch_size, restarts, total_epochs)
    if untrained_loss is not None:
        untrained_loss = checks.number("untrained_loss", untrained_loss)
    case = rules.Case.of(content, untrained_loss)
    found: dict[str, Finding] = {}
    for name, rule in rules.RULES.items():
        if not rules.SILENCED_BY.get(name, frozenset()) & found.keys():
            finding = rule(case)
            if finding is not None:
                found[name] = finding
    order = sorted(found.values(), key=lambda each: SEVERITIES.index(each.severity))
    return Diagnosis(
        source=os.fspath(log) if isinstance(log, (str, os.PathLike)) else content.source,
        rows=len(content),
        unit=content.unit,
        findings=tuple(order),
        not_judged=tuple(rules.not_judged(case)),
        notes=content.notes,
    )


def _with_options(
    log: Log,
    batch_size: int | Mapping[int, int] | None,
    restarts: Iterable[int],
    total_epochs: int | None,
) -> Log:
    """The log, with what the caller knows of the run put in."""
    changes: dict[str, Any] = {}
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
        epoch = checks.count("a restart", epoch, 0)
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
    return dataclasses.replace(log, **changes)
