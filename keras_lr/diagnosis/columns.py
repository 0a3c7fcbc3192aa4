"""The role of a log's column, by its name: each writer has its own names."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["RISING", "pick", "role_of"]

_HELD_OUT = {"val", "valid", "validation", "eval", "evaluation", "test", "dev", "holdout"}
_TRAINING = {"train", "training", "trn"}
# Words that tell how a value was computed. A lower number is closer to the plain name, and wins.
_HOW = {"epoch": 1, "mean": 1, "avg": 1, "average": 1, "total": 2, "running": 3, "smooth": 3}
_HOW |= {"step": 10, "batch": 10, "iteration": 10}
_TEST = 20  # a loss on test data is often a single value after training: any validation loss wins
_RATE = {("lr",), ("learning", "rate"), ("learningrate",)}
_BATCH_SIZE = {("batch", "size"), ("batchsize",)}
_STEP = {("step",), ("steps",), ("global", "step"), ("iteration",), ("iterations",), ("iter",)}
_EPOCH = {("epoch",), ("epochs",)}

# Metrics in [0, 1], higher is better.
RISING = {
    "accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "dice", "top1", "top5",
}  # fmt: skip


def role_of(name: str) -> tuple[str, int] | None:
    """Role of a column, and distance of its name from the plain name; None if unknown.

    Roles are "epoch", "step", "loss", "val_loss", "learning_rate", "batch_size", and for metrics
    "metric accuracy", "val_metric accuracy", and so on.

    >>> role_of("val_loss"), role_of("validation/epoch_loss"), role_of("Loss/train")
    (('val_loss', 0), ('val_loss', 1), ('loss', 0))
    >>> role_of("epoch_learning_rate"), role_of("lr-Adam"), role_of("dense_3_loss")
    (('learning_rate', 1), ('learning_rate', 1), None)
    """
    plain = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip())
    words = tuple(word for word in re.split(r"[^a-z0-9]+", plain.lower()) if word)
    for role, known in (("epoch", _EPOCH), ("step", _STEP), ("batch_size", _BATCH_SIZE)):
        if words in known:
            return role, 0
    held_out = any(word in _HELD_OUT for word in words)
    once = _TEST if "test" in words else 0
    words = tuple(word for word in words if word not in _HELD_OUT | _TRAINING)
    distance = once + sum(_HOW.get(word, 0) for word in words)
    words = tuple(word for word in words if word not in _HOW)
    words = tuple(dict.fromkeys(words))  # TensorBoard's folders repeat: Loss_train/Loss
    if words == ("loss",):
        return ("val_loss" if held_out else "loss"), distance
    for rate in _RATE:
        if words[: len(rate)] == rate and not held_out:
            return "learning_rate", distance + len(words) - len(rate)
    if any(word in RISING for word in words) and "loss" not in words:
        side = "val_metric" if held_out else "metric"
        return f"{side} {'_'.join(words)}", distance
    return None


def pick(names: Iterable[str]) -> dict[str, str]:
    """For each role the name with the smallest distance; the first of equal ones."""
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        found = role_of(name)
        if found and (found[0] not in best or found[1] < best[found[0]][0]):
            best[found[0]] = (found[1], name)
    return {role: name for role, (_, name) in best.items()}
