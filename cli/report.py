"""The answer of `keras-lr find`, for people and for programs."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from .multipliers import summary
from .outputs import schema_of
from .text import LABEL, is_narrow, labelled, table_box, table_text, width

__all__ = ["RULES", "Outcome", "cost_of", "evidence_of", "to_json", "to_text"]

# The rules of other libraries, as `suggest` names them.
RULES = (
    "valley",
    "slide",
    "steep",
    "minimum",
    "lightning",
    "torch_lr_finder",
    "ignite",
    "ktrain",
)
STOPPED = {
    "completed": "the ramp ran to its end",
    "diverged": "stopped when the loss diverged",
    "non_finite": "stopped at a loss of NaN or infinity",
    "data_ended": "stopped when the data ended",
}


@dataclass
class Outcome:
    """A finished test and its answers."""

    test: Any
    suggestion: Any  # or None
    refusal: str  # the reason for None
    bounds: tuple[float, float] | None
    rules: dict[str, Any]  # name: Suggestion, or the reason for none
    policy: str | None
    method: str
    model_spec: str
    data_spec: str
    backend: str
    optimizer: str
    paste: str = ""
    policy_factors: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    written: dict[str, str] = field(default_factory=dict)  # "plot", "save", "report": path
    multipliers: dict[str, float] | None = None  # of the file, if there is one
    multipliers_spec: str = ""
    classes: list[str] | None = None  # of a target that held text
    warm_up: Any = None  # WarmUpSearch, if it was asked for

    @property
    def total_steps(self) -> int | None:
        """Updates of the planned run; None if unknown."""
        return getattr(self.test.planned, "total_steps", None)


def to_json(outcome: Outcome) -> str:
    """One JSON object; unknown values are null."""
    from keras_lr._util.json import jsonable

    found = outcome.suggestion
    content = {
        "schema": schema_of("find"),
        "learning_rate": found and found.learning_rate,
        "low": found and found.low,
        "high": found and found.high,
        "interval": found and [found.low, found.high],
        "run": found.run if found else "",
        "policy": outcome.policy,
        "total_steps": outcome.total_steps,
        "policy_factors": outcome.policy_factors,
        "method": found and found.method,
        "reason": found.reason if found else outcome.refusal,
        "warnings": list(found.warnings) if found else [],
        "bounds": outcome.bounds and {"base_lr": outcome.bounds[0], "max_lr": outcome.bounds[1]},
        "warm_up": outcome.warm_up and asdict(outcome.warm_up),
        "rules": {
            name: None if isinstance(answer, str) else answer.learning_rate
            for name, answer in outcome.rules.items()
        },
        "model": outcome.model_spec,
        "data": outcome.data_spec,
        "classes": outcome.classes,
        "backend": outcome.backend,
        "optimizer": outcome.optimizer,
        "multipliers": outcome.multipliers,
        "python": outcome.paste,
        "seconds": round(outcome.seconds, 3),
        "written": outcome.written,
        **outcome.test.to_dict(),
    }
    return json.dumps(jsonable(content), allow_nan=False)


def to_text(outcome: Outcome, *, compare: bool, unicode: bool) -> str:
    """The answer for people, as wide as the terminal up to 80 columns."""
    blocks = [_rate(outcome)]
    if outcome.suggestion:
        blocks.append("In Python:\n" + textwrap.indent(outcome.paste, "  "))
        blocks.append(_details(outcome))
    blocks.append(_picture(outcome, unicode))
    if compare:
        blocks.append(_table(outcome, unicode))
    lines = [labelled("Evidence", evidence_of(outcome)), _tried(outcome)]
    lines.append(labelled("Cost", cost_of(outcome)))
    if outcome.written:
        lines.append(labelled("Saved", ", ".join(outcome.written.values())))
    blocks.append("\n".join(line for line in lines if line))
    return "\n\n".join(block for block in blocks if block)


def _rate(outcome: Outcome) -> str:
    found = outcome.suggestion
    if not found:
        return labelled("Learning rate", "none")
    rate = click.style(f"{found.learning_rate:.3g}", bold=True)
    first = f"{'Learning rate':<{LABEL}}{rate}" + (f"   for {found.run}" if found.run else "")
    interval = f"between {found.low:.3g} and {found.high:.3g}"
    if outcome.method == "auto":
        interval = f"best {interval} in about 85% of cases"
    return f"{first}\n{labelled('Interval', interval)}"


def _details(outcome: Outcome) -> str:
    found = outcome.suggestion
    lines = [labelled("Why", found.reason)]
    lines += [labelled("Warning", warning) for warning in found.warnings]
    if outcome.policy_factors:
        factors = (f"{name}: x {factor:.1f}" for name, factor in outcome.policy_factors.items())
        lines.append(labelled("By policy", ", ".join(factors)))
    if outcome.policy is None and outcome.bounds:
        low, high = outcome.bounds
        lines.append(labelled("For CyclicLR", f"base_lr={low:.3g}, max_lr={high:.3g}"))
    if outcome.warm_up:
        updates = sum(trial.updates for trial in outcome.warm_up.trials)
        lines.append(labelled("Warm-up", f"{outcome.warm_up} ({updates} training steps)"))
    if outcome.multipliers:
        used = summary(outcome.multipliers, outcome.multipliers_spec)
        lines.append(labelled("Multipliers", used))
    return "\n".join(lines)


def _picture(outcome: Outcome, unicode: bool) -> str:
    from keras_lr.plotting.terminal import draw_range_test

    lines = draw_range_test(outcome.test, outcome.suggestion, width=width() - 2, unicode=unicode)
    return "\n".join([" Loss against learning rate", *lines]) if lines else ""


def _table(outcome: Outcome, unicode: bool) -> str:
    """All rules, each with its ratio to the suggestion."""
    from rich.table import Table

    found = outcome.suggestion
    table = Table(**table_box(unicode))
    table.add_column("Rule", no_wrap=True)
    narrow = is_narrow()
    table.add_column("Rate" if narrow else "Learning rate", justify="right", no_wrap=True)
    table.add_column("Ratio" if found else "", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("")
    for name, answer in outcome.rules.items():
        mark = "the suggestion" if name == outcome.method and found else ""
        if isinstance(answer, str):
            reason = textwrap.shorten(answer, 42, placeholder=" ...")
            table.add_row(name, "-", "", *([] if narrow else [reason]))
            continue
        ratio = _ratio(answer.learning_rate / found.learning_rate) if found else ""
        rate = f"{answer.learning_rate:.3g}"
        table.add_row(name, rate, ratio, *([] if narrow else [mark]))
    return table_text(table)


def evidence_of(outcome: Outcome) -> str:
    """What was measured: the ramp, the short runs, and the data that judge them."""
    test, parts = outcome.test, []
    if count := len(test.learning_rates):
        parts.append(f"a ramp of {count} steps")
    probes = test.probes
    if probes is not None:
        low, high = min(probes.steps), max(probes.steps)
        lengths = str(low) if low == high else f"{low} to {high}"
        parts.append(
            f"{len(probes.learning_rates)} short runs of {lengths} steps at constant rates, "
            f"judged by the loss of {probes.rows} held-out examples"
        )
    text = " and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _tried(outcome: Outcome) -> str:
    """The short runs, each with its final held-out loss."""
    probes = outcome.test.probes
    if probes is None:
        return ""
    tried = sorted(zip(probes.learning_rates, probes.losses, strict=True))
    ends = [f"{loss:.4g}" if math.isfinite(loss) else "diverged" for _, loss in tried]
    text = ", ".join(f"{end} at {rate:.3g}" for end, (rate, _) in zip(ends, tried, strict=True))
    return labelled("Held-out loss", f"{text}; {probes.start:.4g} before training.")


def cost_of(outcome: Outcome) -> str:
    test = outcome.test
    planned, stopped = outcome.total_steps, STOPPED.get(test.stop_reason)
    share = f" ({100 * test.training_steps / planned:.2g}% of the run)" if planned else ""
    return (
        f"{test.training_steps} training steps{share} with {outcome.optimizer} on "
        f"{outcome.backend}, {outcome.seconds:.3g} s"
        + (f"; {stopped}." if stopped else ".")
        + " The model is unchanged."
    )


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"
