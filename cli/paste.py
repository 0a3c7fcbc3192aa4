"""The lines of Python that put a suggestion to use: a rate, a callback, or a schedule."""

from __future__ import annotations

from typing import Any

__all__ = ["in_python"]


def in_python(
    found: Any,
    model: Any,
    policy: str | None,
    total_steps: int | None,
    optimizer: str | None,
    *,
    compiled: bool,
) -> str:
    """Lines that train with a suggestion.

    Args:
        found: The `Suggestion`.
        policy: The option --policy.
        total_steps: Updates of the planned run; None if unknown.
        optimizer: The optimizer to set, if the model holds several.
        compiled: Whether the model's own optimizer has the rate, as in `Suggestion.python`.
    """
    if policy in (None, "constant"):
        return str(found.python(model, optimizer, compiled=compiled))
    rate = f"{found.learning_rate:.3g}"
    which = f", optimizer={optimizer!r}" if optimizer and optimizer != "optimizer" else ""
    lines = [] if compiled else [found.python(model, optimizer, compiled=False)]
    if policy == "one-cycle":
        still = "" if _has_momentum(model, optimizer) else ", cycle_momentum=False"
        callback = f"keras_lr.OneCycle(max_lr={rate}{still}{which})"
    else:
        lines += _schedule(str(policy), rate, total_steps)
        callback = f"keras_lr.ScheduleLR(schedule{which})"
    return "\n".join([*lines, f"callbacks=[{callback}]  # an argument of fit"])


def _schedule(policy: str, rate: str, total_steps: int | None) -> list[str]:
    """The schedule that the library plans with: a warm-up over 5%, and the decay of the policy."""
    lines = []
    if total_steps is None:
        lines.append("total_steps = epochs * steps_per_epoch  # updates of the run")
        total, warm_up, decay = "total_steps", "total_steps // 20", "total_steps // 5"
        rest = "total_steps - total_steps // 20"
    else:
        total, warm_up, decay = (str(total_steps // part) for part in (1, 20, 5))
        rest = str(total_steps - total_steps // 20)
    if policy == "cosine":
        name = "keras.optimizers.schedules.CosineDecay"
        arguments = [f"0.0, decay_steps={rest},", f"warmup_target={rate}, warmup_steps={warm_up},"]
        if warm_up == "0":
            arguments = [f"{rate}, decay_steps={rest},"]
    else:
        name = "keras_lr.schedules.WarmUpStableDecaySchedule"
        arguments = [
            f"{rate}, total_steps={total}, warmup_steps={warm_up},",
            f'decay_steps={decay}, decay="linear",',
        ]
    return [*lines, f"schedule = {name}(", *(f"    {each}" for each in arguments), ")"]


def _has_momentum(model: Any, optimizer: str | None) -> bool:
    """Whether `OneCycle` can cycle the momentum of the optimizer."""
    from keras_lr.steering.optimizers import check_momentum, choose_optimizer

    try:
        check_momentum(choose_optimizer(model, optimizer, "OneCycle"), "OneCycle")
    except ValueError:
        return False
    return True
