"""The report of `keras-lr find`: one HTML file for people who send results to others.

It imports Keras, so only the writing of a report imports it.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from typing import Any

from keras_lr import Suggestion
from keras_lr._util import html
from keras_lr._util.files import atomic_write

from .layers import rows_of
from .multipliers import summary
from .report import RULES, Outcome, cost_of, evidence_of

__all__ = ["write_page"]


def write_page(
    outcome: Outcome, path: str, model: Any, command: Sequence[str], search: Sequence[str]
) -> None:
    """Write the answer, its pictures, the planned run, the layers and what to do next.

    The file needs no other file, has no scripts, and appears whole or not at all.

    Args:
        outcome: The finished test.
        path: The file to write.
        model: The model, for its layers.
        command: The arguments of the command that made the test.
        search: The arguments of the command that confirms its answer; [] if none can.
    """
    name = os.path.basename(outcome.model_spec)
    parts = [
        _answer(outcome),
        html.section("Next steps", _next_steps(outcome, search)),
        html.section("Plots", _pictures(outcome)),
        html.section("Short runs at constant rates", _short_runs(outcome)),
        html.section("Rules of other libraries", _rules(outcome)),
        html.section("Layers", _layers(model)),
        html.section("Repeat the test", html.code("Command:", _line(command))),
        html.facts("Environment", _environment(outcome)),
    ]
    page = html.page(f"Learning rate: {name}", "\n".join(part for part in parts if part))
    atomic_write(path, page)


def _line(command: Sequence[str]) -> str:
    return shlex.join(["keras-lr", *command])


def _answer(outcome: Outcome) -> str:
    found = outcome.suggestion
    facts = {"Evidence": evidence_of(outcome), "Cost": cost_of(outcome)}
    facts = {name: text for name, text in facts.items() if text}
    if not found:
        head = '<p class="answer">No learning rate can be suggested.</p>'
        return head + html.pairs({"Why": outcome.refusal, **facts})
    run = f"for {found.run}" if found.run else ""
    head = (
        f'<p class="answer">Learning rate <strong>{found.learning_rate:.3g}</strong>'
        + (f'<br><span class="beside">{html.escape(run)}</span>' if run else "")
        + "</p>"
    )
    interval = f"{found.low:.3g} to {found.high:.3g}"
    if outcome.method == "auto":
        interval += "; holds the best rate in about 85% of cases"
    answer = {"Interval": interval, "Why": found.reason}
    if outcome.policy_factors:
        factors = (f"{name}: × {factor:.1f}" for name, factor in outcome.policy_factors.items())
        answer["By policy"] = ", ".join(factors)
    if outcome.policy is None and outcome.bounds:
        low, high = outcome.bounds
        answer["For CyclicLR"] = f"base_lr={low:.3g}, max_lr={high:.3g}"
    if outcome.warm_up:
        answer["Warm-up"] = str(outcome.warm_up)
    if outcome.multipliers:
        answer["Multipliers"] = summary(outcome.multipliers, outcome.multipliers_spec)
    return head + html.pairs({**answer, **facts}) + html.warning_list(found.warnings)


def _next_steps(outcome: Outcome, search: Sequence[str]) -> str:
    if not outcome.suggestion:
        return ""
    title = "Confirm it by training, which takes whole runs:"
    confirm = [html.code(title, _line(search))] if search else []
    return "\n".join(
        [
            html.code("Train with the rate, in Python:", outcome.paste),
            *confirm,
            html.code(
                "After the training, read its log (CSVLogger, TensorBoard, a saved history):",
                "keras-lr diagnose training.csv",
            ),
        ]
    )


def _pictures(outcome: Outcome) -> str:
    from keras_lr.plotting.range_test import planned_run_figure, range_test_figure

    figure = range_test_figure(outcome.test, outcome.suggestion)
    parts = [f'<div class="wide">{html.svg(figure, "loss against the learning rate")}</div>']
    planned, found = outcome.test.planned, outcome.suggestion
    if found and _has_a_shape(planned):
        plan = planned_run_figure(planned, found.learning_rate)
        title = html.escape(f"The planned run: {planned.name}")
        image = html.svg(plan, "learning rate of each update of the planned run")
        parts.append(f'<h3>{title}</h3>\n<div class="wide">{image}</div>')
    return "\n".join(parts)


def _has_a_shape(planned: Any) -> bool:
    """Whether the rate changes during the planned run."""
    shape = None if planned is None else planned.shape
    return shape is not None and float(shape.min()) < float(shape.max())


def _short_runs(outcome: Outcome) -> str:
    probes = outcome.test.probes
    if probes is None:
        return ""
    runs = sorted(zip(probes.learning_rates, probes.losses, probes.steps, strict=True))
    best = min((loss for _, loss, _ in runs if math.isfinite(loss)), default=None)
    rows = []
    for rate, loss, steps in runs:
        shown = f"{loss:.4g}" if math.isfinite(loss) else "diverged"
        kind = "best" if loss == best else "" if math.isfinite(loss) else "diverged"
        rows.append((kind, [f"{rate:.3g}" + " ★ best" * (loss == best), shown, str(steps)]))
    title = f"Loss of {probes.rows} held-out examples; {probes.start:.4g} before training"
    return html.table(title, ["Learning rate", "Held-out loss", "Steps"], rows)


def _rules(outcome: Outcome) -> str:
    found, rows = outcome.suggestion, []
    for name, answer in outcome.rules.items():
        if isinstance(answer, str):
            rows.append(("", [name, html.NOTHING, html.NOTHING]))
            continue
        ratio = f"× {answer.learning_rate / found.learning_rate:.2g}" if found else html.NOTHING
        chosen = name == outcome.method and found
        rows.append(("best" if chosen else "", [name, f"{answer.learning_rate:.3g}", ratio]))
    if not any(isinstance(outcome.rules.get(name), Suggestion) for name in RULES):
        return ""  # no curve to read
    return html.table("On the same curve", ["Rule", "Learning rate", "Beside the answer"], rows)


def _layers(model: Any) -> str:
    rows = [row for row in rows_of(model) if row.parameters]
    total = sum(row.parameters for row in rows)
    cells = [
        (
            "",
            [
                row.label,
                row.kind,
                f"{row.parameters:,}",
                f"{row.parameters / total:.1%}",
                "yes" if row.trained else "no",
                html.NOTHING if not row.trained else row.shown_multiplier,
            ],
        )
        for row in rows
    ]
    if not cells:
        return ""
    trained = sum(row.trained for row in rows)
    title = f"{total:,} parameters, {trained:,} of them train"
    heads = ["Layer", "Class", "Parameters", "Share", "Trains", "Multiplier of the rate"]
    return html.table(title, heads, cells)


def _environment(outcome: Outcome) -> dict[str, Any]:
    known = outcome.test.provenance
    hidden = ("hints", "directions", "multipliers", "group_ratios", "snapshot_bytes", "options")
    options = {k: v for k, v in known.get("options", {}).items() if v is not None}
    return {
        "model": outcome.model_spec,
        "data": outcome.data_spec,
        "backend": outcome.backend,
        "optimizer": outcome.optimizer,
        **{name: value for name, value in known.items() if name not in hidden and value != {}},
        **({"options": options} if options else {}),
    }
