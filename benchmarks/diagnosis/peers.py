"""The public tools `sk-autod` 0.1.1 and `training-doctor` 0.1.0 on the arrays of a run.

Both take the losses as arrays, the second also the rate. A tool names a fault if one of the
findings listed here for that fault is among its own; a finding below a warning counts as nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["NAMED", "TOOLS", "said_by"]

TOOLS = ("sk-autod", "training-doctor")
_UNSTABLE = {"LR too high", "Exploding gradient", "Noisy training"}
_SHAKEN = {"lr_too_high", "gradient_instability"}
NAMED: dict[str, dict[str, set[str]]] = {
    "not-a-number": {"sk-autod": _UNSTABLE, "training-doctor": _SHAKEN},
    "diverged": {"sk-autod": _UNSTABLE, "training-doctor": _SHAKEN},
    "validation-jumps": {"sk-autod": _UNSTABLE, "training-doctor": _SHAKEN},
    "rate-too-high": {"sk-autod": _UNSTABLE, "training-doctor": _SHAKEN},
    "rate-too-low": {"sk-autod": {"LR too low"}, "training-doctor": {"lr_too_low"}},
    "overfitting": {
        "sk-autod": {"Classic overfitting", "Missed early stopping"},
        "training-doctor": {"overfitting", "train_eval_mismatch"},
    },
    "underfitting": {"sk-autod": {"Underfitting"}, "training-doctor": {"plateau", "early_plateau"}},
    "plateau": {
        "sk-autod": {"Underfitting", "LR too low", "Label noise floor"},
        "training-doctor": {"plateau", "early_plateau"},
    },
    "perfect-from-start": {"sk-autod": {"Data leakage"}, "training-doctor": set()},
}


def said_by(tool: str, log: dict[str, list[Any]]) -> set[str]:
    """Names of the tool's findings; empty if it refuses the arrays."""
    loss = log["loss"]
    held_out = log.get("val_loss", [None] * len(loss))
    if tool == "sk-autod":
        from sk_autod import diagnose

        # It needs arrays of equal length: the rows that have both losses.
        pairs = [pair for pair in zip(loss, held_out, strict=True) if None not in pair]
        try:
            report = diagnose(*map(list, zip(*pairs, strict=True)))
        except (TypeError, ValueError):
            return set()
        return {each.detector_name for each in report.findings if each.severity.value != "INFO"}
    from training_doctor import Doctor

    doctor = Doctor().set_auto_print(False)
    rates = log.get("learning_rate", [None] * len(loss))
    for step, row in enumerate(zip(loss, held_out, rates, strict=True)):
        values = dict(zip(("loss", "eval_loss", "lr"), row, strict=True))
        given = {name: float(value) for name, value in values.items() if value is not None}
        with np.errstate(all="ignore"):
            doctor.log(step, **given)
    return {each.detector_name for each in doctor.diagnoses if each.severity.value != "info"}
