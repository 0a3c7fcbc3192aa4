"""Models and arrays that a range test cannot train, and data that make training hard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lr._keras.distribution import check_distribution
from keras_lr._keras.layers import all_layers
from keras_lr.loops.data import is_array_data
from keras_lr.steering import check_rate_may_change, choose_optimizer, innermost_optimizers

CHUNK = 2**20  # values that are read at a time
SAMPLE = 256  # rows that show the scale of an array
LARGE_INPUT, LARGE_TARGET = 30.0, 1e3  # standard deviations above which there is a hint
TEXT = {"O": "Python objects", "S": "bytes", "U": "text", "T": "text"}
SCALING = ("Rescaling", "Normalization", "BatchNormalization", "LayerNormalization", "Embedding")


def check_model(
    model: Any, optimizer: Any = None, whose: str = "lr_find", *, changes_rate: bool = True
) -> Any:
    """Refuse a model that cannot be trained; returns the optimizer whose rate is to change.

    Args:
        optimizer: Which one, as in `lr_find`.
        whose: Name of the caller, for the messages.
        changes_rate: Whether the rate is to change while the model trains.

    Raises:
        TypeError: If it is not a Keras model, or `optimizer` is neither a name nor an optimizer.
        ValueError: If it is not compiled, has no such optimizer, or Keras cannot train it.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model must be a Keras model; got {type(model).__name__}. "
            "Load a saved one with keras.saving.load_model."
        )
    own = type(model).compile is not keras.Model.compile
    needed = keras.backend.backend() == "jax"  # where `fit` reads its variables
    if not model.compiled or needed and getattr(model, "optimizer", None) is None:
        way_out = "Call model.compile(optimizer=..., loss=...) first."
        if own:
            way_out = "Call its compile() first, which must call super().compile()."
        raise ValueError(
            f"The model {model.name!r} must be compiled with an optimizer and a loss. {way_out}"
        )
    if type(model).make_train_function is not keras.Model.make_train_function:
        raise ValueError(
            f"{whose} trains with train_step; {type(model).__name__} overrides "
            "make_train_function, which may train in another way. Override train_step instead."
        )
    check_distribution(model)
    chosen = choose_optimizer(model, optimizer, whose)
    for each in innermost_optimizers(chosen):
        if isinstance(each, getattr(keras.optimizers, "ScheduleFreeAdamW", ())):
            raise ValueError(
                f"{whose} needs an optimizer that follows its paper; got Keras's "
                "ScheduleFreeAdamW. On TensorFlow its first step sets the weights to about 0, on "
                "torch it runs another algorithm, and with all backends Keras evaluates and saves "
                "at the wrong weights. Compile with "
                "keras_lr.optimizers.ScheduleFree(keras.optimizers.AdamW(...)) instead."
            )
    if changes_rate:
        check_rate_may_change(chosen, whose)
    return chosen


class NotFinite(ValueError):
    """The loss was not finite, and arrays hold NaN or infinity."""


def check_kinds(model: Any, x: Any, y: Any, sample_weight: Any = None, of: str = "") -> None:
    """Refuse text and Python objects where numbers are needed.

    Args:
        of: What follows the names of the arrays in messages, such as " of validation_data".

    Raises:
        ValueError: If targets or weights are not numbers, if inputs are not and the model's inputs
            are not text, or if there are no targets although Keras computes a loss of them.
    """
    if not is_array_data(x, y, sample_weight):
        x = None  # a data set, whose batches are not read here
    elif y is None and _needs_targets(model):
        raise ValueError(
            f"y{of} must be given, because the model is compiled with a loss; got None. Pass the "
            "targets; those of an autoencoder are x."
        )
    takes_text = any(str(part.dtype) == "string" for part in getattr(model, "inputs", None) or [])
    may_be_text = takes_text or not getattr(model, "inputs", None)
    for name, part in _arrays(x, y, sample_weight):
        kind = TEXT.get(np.dtype(part.dtype).kind)
        if np.dtype(part.dtype).kind in "US" and name.startswith("x") and may_be_text:
            raise ValueError(
                f"{name}{of} holds text of NumPy's type {np.dtype(part.dtype).str}, which Keras's "
                f"fit does not take. Pass {name}.astype(object)."
            )
        if kind and not (name.startswith("x") and may_be_text):
            raise ValueError(
                f"{name}{of} must hold numbers; it holds {kind}. Encode it as numbers first, "
                "for example labels as the integers 0 to classes - 1."
            )


def _needs_targets(model: Any) -> bool:
    """Whether Keras's own training step computes a loss of predictions and targets."""
    kind, keras_own = type(model), keras.Model
    own = kind.train_step is keras_own.train_step and kind.compute_loss is keras_own.compute_loss
    return own and any(loss is not None for loss in keras.tree.flatten(model.loss))


def first_not_finite(x: Any, y: Any, sample_weight: Any = None) -> str | None:
    """Where the first NaN or infinity is, as "x has NaN in row 17, column 3"; None if none is.

    Arrays are read in pieces: an array on disk is never in memory as a whole.
    """
    for name, part in _arrays(x, y, sample_weight):
        if np.dtype(part.dtype).kind != "f" or not len(part):
            continue
        rows = max(1, CHUNK // max(1, int(np.prod(part.shape[1:]))))
        for start in range(0, len(part), rows):
            piece = np.asarray(part[start : start + rows])
            bad = np.argwhere(~np.isfinite(piece))
            if len(bad):
                what = "NaN" if np.isnan(piece[tuple(bad[0])]) else "infinity"
                row, *place = (int(index) for index in bad[0])
                where = f"row {start + row}"
                if len(place) == 1:
                    where += f", column {place[0]}"
                elif place:
                    where += f", at {tuple(place)}"
                return f"{name} has {what} in {where}"
    return None


def scale_hints(model: Any, x: Any, y: Any) -> list[str]:
    """Sentences on inputs and targets of a large scale, from a sample of rows."""
    hints = []
    scaled_inside = any(type(layer).__name__ in SCALING for layer in all_layers(model))
    for name, part in _arrays(x, y, None):
        kind = np.dtype(part.dtype)
        # Integers of other types are labels and tokens.
        if not (kind.kind == "f" or kind == np.uint8) or (name[0] == "x" and scaled_inside):
            continue
        rows = np.unique(np.linspace(0, len(part) - 1, min(SAMPLE, len(part))).astype(int))
        with np.errstate(all="ignore"):
            sample = np.stack([np.asarray(part[row]) for row in rows]).astype("float64")
            spread, size = float(np.nanstd(sample)), float(np.nanmax(np.abs(sample)))
        if name[0] == "x" and spread > LARGE_INPUT:
            advice = "Divide it by 255" if 100 < size <= 255 else "Standardize its columns"
            hints.append(
                f"{name} has values of up to {size:.3g}, not scaled to about 1. {advice}, or add "
                "a Rescaling or Normalization layer; the best rate will change."
            )
        elif name[0] == "y" and kind.kind == "f" and spread > LARGE_TARGET:
            hints.append(
                f"{name} has values of up to {size:.3g} (standard deviation {spread:.3g}). Scale "
                "the targets to about 1; the best rate will change."
            )
    return hints


def _arrays(x: Any, y: Any, sample_weight: Any) -> Iterator[tuple[str, Any]]:
    """The arrays among the data, with their names in messages."""
    for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        leaves = keras.tree.flatten_with_path(value) if value is not None else []
        for path, leaf in leaves:
            if hasattr(leaf, "detach"):  # a tensor of torch, perhaps on a GPU
                leaf = leaf.detach().cpu().numpy()
            if not getattr(leaf, "shape", ()):
                continue
            if not isinstance(leaf, np.ndarray):
                if not hasattr(leaf, "__array__"):
                    continue
                leaf = np.asarray(leaf)  # also a table of pandas, which has no dtype
            yield name + "".join(f"[{key!r}]" for key in path), leaf
