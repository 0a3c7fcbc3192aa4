"""The role of a log's column, by its name: each writer has its own names."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

__all__ = ["RISING", "SIDES", "kind_of", "pick", "rewarded", "role_of", "substitutes", "words_of"]

_HELD_OUT = {
    "val", "valid", "validation", "eval", "evaluation", "test", "testing", "dev", "holdout",
    "heldout", "va", "vld", "tst", "te",
}  # fmt: skip
_TRAINING = {"train", "training", "trn", "tr"}
# Words that tell how a value was computed. A lower number is closer to the plain name, and wins.
_HOW = {"epoch": 1, "mean": 1, "avg": 1, "average": 1, "total": 2, "running": 3, "smooth": 3}
_HOW |= {"main": 1, "combined": 1, "overall": 1, "smoothed": 3}
_HOW |= {"step": 10, "batch": 10, "minibatch": 10, "iteration": 10}
_TESTS = {"test", "testing", "tst", "te"}
_TEST = 20  # a loss on test data is often a single value after training: any validation loss wins
_RATE = {("lr",), ("learning", "rate"), ("learningrate",), ("x", "lr0")}
_BATCH_SIZE = {("batch", "size"), ("batchsize",)}
_STEP = {("step",), ("steps",), ("global", "step"), ("iteration",), ("iterations",), ("iter",)}
_STEP |= {("episode",), ("episodes",)}  # of reinforcement learning
_EPOCH = {("epoch",), ("epochs",)}
_SAME = {"losses": "loss", "accs": "acc", "accuracies": "accuracy"}
# Names written together: trainloss, valacc.
_TOGETHER = re.compile(
    r"(train|training|trn|tr|val|valid|validation|test|eval|dev|avg|mean|total|epoch)"
    r"(loss|losses|acc|accuracy)"
)
# The words for each side, as a column of a log names the data of its row.
SIDES = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Metrics in [0, 1], higher is better.
RISING = {
    "accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "dice", "top1", "top5",
}  # fmt: skip

# Words of columns that only a log of reinforcement learning has.
_REWARDS = {"reward", "rewards", "rew", "return", "returns", "episode", "episodes"}

# What a log without a loss was trained on, or has instead; the first of these that it has.
_ERRORS = (
    "cost", "nll", "bce", "ce", "xent", "crossentropy", "cross entropy", "logloss", "log loss",
    "binary crossentropy", "categorical crossentropy", "mse", "rmse", "mae", "l1", "l2", "error",
    "err", "perplexity", "ppl", "bpc", "bpd",
)  # fmt: skip


@functools.lru_cache(4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case.

    >>> words_of("trainLoss"), words_of("Loss/val"), words_of("valloss"), words_of("test_losses")
    (('train', 'loss'), ('loss', 'val'), ('val', 'loss'), ('test', 'loss'))
    """
    plain = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip())
    found: list[str] = []
    for word in re.split(r"[^a-z0-9]+", plain.lower()):
        together = _TOGETHER.fullmatch(word)
        found += together.groups() if together else (word,)
    return tuple(_SAME.get(word, word) for word in found if word)


@functools.lru_cache(4096)
def _parts(name: str) -> tuple[tuple[str, ...], bool, int]:
    """The words without those for the data and for how; whether held out; and the distance."""
    words = words_of(name)
    held_out = any(word in _HELD_OUT for word in words)
    distance = _TEST if not _TESTS.isdisjoint(words) else 0
    words = tuple(word for word in words if word not in _HELD_OUT | _TRAINING)
    distance += sum(_HOW.get(word, 0) for word in words)
    words = tuple(word for word in words if word not in _HOW)
    # TensorBoard's folders repeat: Loss_train/Loss
    return tuple(dict.fromkeys(words)), held_out, distance


@functools.lru_cache(4096)  # called for each cell of a log
def role_of(name: str) -> tuple[str, int] | None:
    """Role of a column, and distance of its name from the plain name; None if unknown.

    Roles are "epoch", "step", "loss", "val_loss", "learning_rate", "batch_size", and for metrics
    "metric accuracy", "val_metric accuracy", and so on.

    >>> role_of("val_loss"), role_of("validation/epoch_loss"), role_of("Loss/train")
    (('val_loss', 0), ('val_loss', 1), ('loss', 0))
    >>> role_of("epoch_learning_rate"), role_of("lr-Adam"), role_of("dense_3_loss")
    (('learning_rate', 1), ('learning_rate', 1), None)
    """
    plain = words_of(name)
    for role, known in (("epoch", _EPOCH), ("step", _STEP), ("batch_size", _BATCH_SIZE)):
        if plain in known:
            return role, 0
    words, held_out, distance = _parts(name)
    if words == ("loss",):
        return ("val_loss" if held_out else "loss"), distance
    for rate in _RATE:
        if words[: len(rate)] == rate and not held_out:
            return "learning_rate", distance + len(words) - len(rate)
    if any(word in RISING for word in words) and "loss" not in words:
        side = "val_metric" if held_out else "metric"
        return f"{side} {'_'.join(words)}", distance
    return None


def kind_of(name: str) -> str:
    """The role of a column; "" if it is unknown.

    >>> kind_of("val_loss_epoch"), kind_of("notes")
    ('val_loss', '')
    """
    found = role_of(name)
    return found[0] if found else ""


def rewarded(names: Iterable[str]) -> bool:
    """Whether one of the columns is of reinforcement learning."""
    return not _REWARDS.isdisjoint(word for name in names for word in words_of(name))


def substitutes(names: Iterable[str]) -> tuple[str, str | None] | None:
    """Columns for a training and a validation loss of a log that has none, such as train_mse.

    A loss of another name counts if there is one only: d_loss and g_loss are two.

    >>> substitutes(["epoch", "mae", "train_mse", "val_mse"])
    ('train_mse', 'val_mse')
    >>> substitutes(["ce_loss", "val_ce_loss"]), substitutes(["d_loss", "g_loss"])
    (('ce_loss', 'val_ce_loss'), None)
    """
    kinds: dict[str, dict[bool, list[tuple[int, str]]]] = {}
    for name in names:
        words, held_out, distance = _parts(name)
        if any(word.isdigit() for word in words):
            continue  # a sentence with its values
        kinds.setdefault(" ".join(words), {}).setdefault(held_out, []).append((distance, name))
    losses = [kind for kind in kinds if "loss" in kind.split() and kind not in _ERRORS]
    for kind in (*(losses if len(losses) == 1 else ()), *(() if losses[1:] else _ERRORS)):
        sides = kinds.get(kind, {})
        if False in sides:
            training, *_ = sorted(sides[False], key=lambda each: each[0])
            other = sorted(sides.get(True, []), key=lambda each: each[0])
            return training[1], other[0][1] if other else None
    return None


def pick(names: Iterable[str]) -> dict[str, str]:
    """For each role the name with the smallest distance; the first of equal ones."""
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        found = role_of(name)
        if found and (found[0] not in best or found[1] < best[found[0]][0]):
            best[found[0]] = (found[1], name)
    return {role: name for role, (_, name) in best.items()}
