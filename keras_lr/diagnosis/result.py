"""What a diagnosis says."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

__all__ = ["SEVERITIES", "Diagnosis", "Finding"]

SEVERITIES = ("error", "warning", "hint")
NOTHING_WRONG = "Nothing wrong seen."
_LABEL = 15


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        name: What it is: a key of `keras_lr.diagnosis.NAMES`.
        severity: "error": the run is lost; "warning": it is worse than it could be; "hint": it
            may be, and the log alone does not tell.
        evidence: What was seen, with epochs and values.
        advice: One thing to do.
        first: Number of the epoch where it begins, as in the log.
        last: Number of the epoch where it ends.
    """

    name: str
    severity: str
    evidence: str
    advice: str
    first: float
    last: float

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run, and what could not be judged; `diagnose` makes it.

    `print` shows it as text, and its truth value is whether something was found.

    Attributes:
        source: The log.
        rows: Epochs, or rows of a log that counts steps, that were looked at.
        unit: "epoch" or "step": what the numbers in the evidence count.
        findings: The worst first.
        not_judged: What the log does not show, in sentences.
        notes: What reading the log left out or put together, in sentences.
    """

    source: str
    rows: int
    unit: str
    findings: tuple[Finding, ...]
    not_judged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.findings)

    def __iter__(self) -> Any:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        return self.to_text()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the findings, the worst first."""
        return tuple(finding.name for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain lists and values."""
        return {
            "source": self.source,
            "rows": self.rows,
            "unit": self.unit,
            "findings": [finding.to_dict() for finding in self.findings],
            "not_judged": list(self.not_judged),
            "notes": list(self.notes),
        }

    def to_text(self, *, width: int = 80) -> str:
        """The findings as text.

        Args:
            width: Columns, at least 40.
        """
        blocks = []
        for finding in self.findings:
            blocks.append(
                "\n".join(
                    [
                        f"{finding.severity.capitalize():<{_LABEL}}{finding.name}",
                        _labelled("Seen", finding.evidence, width),
                        _labelled("Do", finding.advice, width),
                    ]
                )
            )
        if not blocks:
            rows = f"{self.rows} {'row' if self.unit == 'step' else 'epoch'}"
            rows += "" if self.rows == 1 else "s"
            blocks.append(f"{NOTHING_WRONG[:-1]} in {rows}.")
        for label, lines in (("Not judged", self.not_judged), ("Note", self.notes)):
            if lines:
                labels = [label, *[""] * (len(lines) - 1)]
                shown = zip(labels, lines, strict=True)
                blocks.append("\n".join(_labelled(each, line, width) for each, line in shown))
        return "\n\n".join(blocks)


def _labelled(label: str, text: str, width: int) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )
