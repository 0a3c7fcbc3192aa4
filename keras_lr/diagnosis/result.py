"""`Diagnosis` and `Finding`: the result of `diagnose`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_lr.diagnosis.log import Log

__all__ = ["SEVERITIES", "VERDICTS", "Diagnosis", "Finding"]

SEVERITIES = ("error", "warning", "hint")
VERDICTS = (*SEVERITIES, "not judged", "healthy")  # worst first
FEWEST_ROWS = 6  # to judge the shape of a curve
_LABEL = 15


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem of a run.

    Attributes:
        name: Name of the problem, one of `keras_lr.diagnosis.NAMES`.
        severity: "error": the run failed; "warning": the run could be better; "hint": it may be
            better, but the log alone does not prove it.
        evidence: Observation, with epochs and values.
        advice: One action to take.
        first: First epoch of the problem, as numbered in the log.
        last: Last epoch of the problem.
    """

    name: str
    severity: str
    evidence: str
    advice: str
    first: float
    last: float

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Problems of a run, and what the log does not allow to judge; returned by `diagnose`.

    `print` shows it as text. It is true if there is at least one finding.

    Attributes:
        source: Path or kind of the log.
        rows: Number of epochs that were judged, or of rows if the log counts steps.
        unit: "epoch" or "step": what the numbers in the evidence count.
        findings: Most serious first.
        not_judged: Sentences on what the log does not contain.
        notes: Sentences on what the reader skipped or averaged.
        judged: Whether the log is long enough to judge the shape of its curves.
        best: Lowest validation loss; of the training loss if there is none; None if not finite.
        best_at: Epoch of `best`, as numbered in the log.
        best_of: "val_loss" or "loss".
        first: First epoch of the run, as numbered in the log.
        last: Last epoch of the run.
        earlier: Diagnoses of the runs before the last one, if the log holds several; all other
            attributes are of the last run.
        log: The rows of the run as arrays, for pictures; None in a diagnosis made by hand.
    """

    source: str
    rows: int
    unit: str
    findings: tuple[Finding, ...]
    not_judged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    judged: bool = True
    best: float | None = None
    best_at: float | None = None
    best_of: str = "loss"
    first: float = 0
    last: float = 0
    earlier: tuple[Diagnosis, ...] = ()
    log: Log | None = dataclasses.field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        """The picture and the text, which notebooks show."""
        from keras_lr.diagnosis.report import fragment

        return fragment(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the findings, most serious first."""
        return tuple(finding.name for finding in self.findings)

    @property
    def learning_rate(self) -> float | None:
        """Highest learning rate of the run; None if the log has none."""
        rate = None if self.log is None else self.log.learning_rate
        return None if rate is None or not np.isfinite(rate).all() else float(rate.max())

    @property
    def batch_size(self) -> int | None:
        """Batch size at the start of the run; None if the log has none."""
        sizes = None if self.log is None else self.log.batch_size
        return None if sizes is None or not np.isfinite(sizes[0]) else int(sizes[0])

    def alone(self) -> Diagnosis:
        """The diagnosis of the last run, without the earlier runs."""
        return dataclasses.replace(self, earlier=())

    def without(self, names: Collection[str]) -> Diagnosis:
        """The diagnosis without the findings of these names."""
        kept = tuple(finding for finding in self.findings if finding.name not in names)
        earlier = tuple(run.without(names) for run in self.earlier)
        return dataclasses.replace(self, findings=kept, earlier=earlier)

    @property
    def verdict(self) -> str:
        """Severity of the worst finding in any run of the log.

        Without findings it is "healthy", or "not judged" if a run is too short to judge.
        """
        own = "healthy" if self.judged else "not judged"
        if self.findings:
            own = self.findings[0].severity
        return min([own, *(run.verdict for run in self.earlier)], key=VERDICTS.index)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain lists and values, ready for JSON."""
        return {
            "source": self.source,
            "verdict": self.verdict,
            "rows": self.rows,
            "unit": self.unit,
            "findings": [finding.to_dict() for finding in self.findings],
            "not_judged": list(self.not_judged),
            "notes": list(self.notes),
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "best": self.best,
            "best_at": self.best_at,
            "best_of": self.best_of,
            "first": self.first,
            "last": self.last,
            "earlier": [run.to_dict() for run in self.earlier],
        }

    def to_text(self, *, width: int = 80) -> str:
        """The findings as text.

        Args:
            width: Width in columns, at least 40.
        """
        runs = [*self.earlier, self]
        blocks = []
        for number, run in enumerate(runs, start=1):
            if self.earlier:
                blocks.append(
                    f"Run {number} of {len(runs)}, {run.unit} {run.first:g} to {run.last:g}"
                )
            blocks += run._blocks(width)
        for label, lines in (("Not judged", self.not_judged), ("Note", self.notes)):
            if lines:
                labels = [label, *[""] * (len(lines) - 1)]
                shown = zip(labels, lines, strict=True)
                blocks.append("\n".join(_labelled(each, line, width) for each, line in shown))
        return "\n\n".join(blocks)

    def _blocks(self, width: int) -> list[str]:
        """The findings of this run as paragraphs, or that there are none."""
        if self.findings:
            return [
                "\n".join(
                    [
                        f"{finding.severity.capitalize():<{_LABEL}}{finding.name}",
                        _labelled("Evidence", finding.evidence, width),
                        _labelled("Advice", finding.advice, width),
                    ]
                )
                for finding in self.findings
            ]
        rows = f"{self.rows} {'row' if self.unit == 'step' else 'epoch'}"
        rows += "" if self.rows == 1 else "s"
        text = f"No problems found in {rows}."
        if not self.judged:
            text = f"Too short to judge: {rows}; at least {FEWEST_ROWS} are needed."
        if self.best is not None:
            text += f"\nBest {self.best_of}: {self.best:.4g} in {self.unit} {self.best_at:g}."
        return [text]


def _labelled(label: str, text: str, width: int) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )
