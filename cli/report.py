"""The answer, for people and for programs."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass
from typing import Any

import click

from .multipliers import summary
from .terminal_plot import draw_curve
from .text import LABEL, is_narrow, labelled, rate_text, table_box, table_text, width

__all__ = ["RULES", "Outcome", "to_json", "to_text"]

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
    "diverged": "it stopped when the loss diverged",
    "non_finite": "it stopped at a loss of NaN or infinity",
    "data_ended": "it stopped when the data ended",
}


@dataclass
class Outcome:
    """One finished test and what is said about it."""

    test: Any
    suggestion: Any  # None when there is none
    refusal: str  # why not, then
    bounds: tuple[float, float] | None
    rules: dict[str, Any]  # name: Suggestion, or the reason for there being none
    model_spec: str
    data_spec: str
    backend: str
    optimizer: str
    paste: str
    seconds: float
    written: dict[str, str]  # "plot", "save": path
    multipliers: dict[str, float] | None = None  # as in the file, if there is one
    multipliers_spec: str = ""
    classes: list[str] | None = None  # of a target that held text


def to_json(outcome: Outcome) -> str:
    """One JSON object; what is not known is null."""
    from keras_lr._util.json import finite

    found = outcome.suggestion
    content = {
        "learning_rate": found and found.learning_rate,
        "low": found and found.low,
        "high": found and found.high,
        "method": found and found.method,
        "reason": found.reason if found else outcome.refusal,
        "warnings": list(found.warnings) if found else [],
        "bounds": outcome.bounds and {"base_lr": outcome.bounds[0], "max_lr": outcome.bounds[1]},
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
    return json.dumps(finite(content), allow_nan=False)


def to_text(outcome: Outcome, *, method: str, unicode: bool) -> str:
    """What a person reads, as wide as the terminal up to 80 columns."""
    found = outcome.suggestion
    blocks = [_answer(outcome), _picture(outcome, unicode), _table(outcome, method, unicode)]
    cost = labelled("It cost", _cost(outcome))
    blocks.append("\n".join(part for part in (_tried(outcome), cost) if part))
    if outcome.written:
        blocks[-1] += "\n" + labelled("Wrote", ", ".join(outcome.written.values()))
    if found:
        blocks.append("In Python:\n" + textwrap.indent(outcome.paste, "  "))
    return "\n\n".join(block for block in blocks if block)


def _answer(outcome: Outcome) -> str:
    found = outcome.suggestion
    if not found:
        return labelled("Learning rate", "none")
    rate = click.style(rate_text(found.learning_rate), bold=True)
    interval = f"(between {rate_text(found.low)} and {rate_text(found.high)})"
    lines = [
        f"{'Learning rate':<{LABEL}}{rate}" + ("" if is_narrow() else f"   {interval}"),
        *([labelled("", interval)] if is_narrow() else []),
        labelled("Why", found.reason),
    ]
    lines += [labelled("Warning", warning) for warning in found.warnings]
    if outcome.bounds:
        low, high = outcome.bounds
        text = f"base_lr {rate_text(low)}, max_lr {rate_text(high)}   (for cyclic schedules)"
        lines.append(labelled("Bounds", text))
    if outcome.multipliers:
        lines.append(
            labelled("Multipliers", summary(outcome.multipliers, outcome.multipliers_spec))
        )
    return "\n".join(lines)


def _picture(outcome: Outcome, unicode: bool) -> str:
    import numpy as np

    from keras_lr.range_test.smoothing import smooth

    rates = np.asarray(outcome.test.learning_rates)
    losses = np.atleast_2d(outcome.test.losses)
    if not np.isfinite(losses).any():
        return ""
    seen = np.isfinite(losses).any(axis=0)
    rates, losses = rates[seen], losses[:, seen]
    middle = np.nanmedian(losses, axis=0)
    found = outcome.suggestion
    lines = draw_curve(
        rates.tolist(),
        middle.tolist(),
        np.asarray(smooth(rates, middle)).tolist(),
        suggestion=(found.low, found.learning_rate, found.high) if found else None,
        width=width() - 2,
        unicode=unicode,
    )
    return "\n".join([" Loss against learning rate", *lines]) if lines else ""


def _table(outcome: Outcome, method: str, unicode: bool) -> str:
    """The rules side by side, each with its distance from the answer."""
    from rich.table import Table

    found = outcome.suggestion
    table = Table(**table_box(unicode))
    table.add_column("Rule", no_wrap=True)
    narrow = is_narrow()
    table.add_column("Rate" if narrow else "Learning rate", justify="right", no_wrap=True)
    ratio = "x answer" if narrow else "x the answer"
    table.add_column(ratio if found else "", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("")
    for name, answer in outcome.rules.items():
        mark = "the answer" if name == method and found else ""
        if isinstance(answer, str):
            reason = textwrap.shorten(answer, 42, placeholder=" ...")
            table.add_row(name, "-", "", *([] if narrow else [reason]))
            continue
        ratio = _ratio(answer.learning_rate / found.learning_rate) if found else ""
        rate = rate_text(answer.learning_rate)
        table.add_row(name, rate, ratio, *([] if narrow else [mark]))
    return table_text(table)


def _tried(outcome: Outcome) -> str:
    """The candidates of the confirmation, with the held-out loss that each ended with."""
    confirmation = outcome.test.confirmation
    if confirmation is None:
        return ""
    tried = sorted(zip(confirmation.learning_rates, confirmation.losses, strict=True))
    ends = [f"{loss:.4g}" if math.isfinite(loss) else "diverged" for _, loss in tried]
    text = ", ".join(f"{end} at {rate:.2e}" for end, (rate, _) in zip(ends, tried, strict=True))
    return labelled("Confirmed", f"Held-out loss after short runs at constant rates: {text}.")


def _cost(outcome: Outcome) -> str:
    test = outcome.test
    confirmed = ", the short runs among them" if test.confirmation is not None else ""
    stopped = STOPPED.get(test.stop_reason)
    return (
        f"{test.training_steps} training steps with {outcome.optimizer} on {outcome.backend}"
        f"{confirmed}; {outcome.seconds:.3g} s in all"
        + (f"; {stopped}." if stopped else ".")
        + " The model is as it was."
    )


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"


def paste_line(model: Any, rate: float, optimizer: str | None) -> str:
    """A line of Python that trains the same model at the rate that was found."""
    import keras

    if hasattr(model.optimizer, "optimizers"):  # the rate is that of the fastest group
        rates = [float(part.learning_rate) for part in model.optimizer.optimizers]
        if not any(rates):
            return f"# give the fastest group of the optimizer the rate {rate:.3g}"
        now = max(rates)
        return (
            "for part in model.optimizer.optimizers: "
            f"part.learning_rate = float(part.learning_rate) * {rate / now:.3g}"
        )
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    schedules = keras.optimizers.schedules.LearningRateSchedule
    if optimizer or isinstance(getattr(inner, "_learning_rate", None), schedules):
        return f"optimizer = keras.optimizers.{type(inner).__name__}(learning_rate={rate:.3g})"
    path = "model.optimizer" if inner is model.optimizer else "model.optimizer.inner_optimizer"
    return f"{path}.learning_rate = {rate:.3g}"
