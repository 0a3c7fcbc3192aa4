"""Check that the data fit the model, before any training. Messages name both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .data import Data
from .errors import BadInput, one_line
from .folders import listed
from .models import loss_name

__all__ = ["check_data", "describe_inputs"]

CHUNK = 4096


def describe_inputs(model: Any) -> str:
    """The shapes that the model takes: 'x of shape (None, 32) and y for an output of ...'."""
    inputs = getattr(model, "inputs", None) or []
    if not inputs:
        return "x and y; it does not declare their shapes"
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
    outputs = ", ".join(str(tuple(tensor.shape)) for tensor in model.outputs)
    return f"x of shape {shapes} and y for an output of shape {outputs}"


def check_data(data: Data, model: Any, source: str) -> None:
    """Check whole arrays, or the first batch of a data set that can be read again.

    Raises:
        BadInput: If lengths, shapes, kinds of numbers, labels or values are wrong.
    """
    import keras

    if type(model).fit is not keras.Model.fit:
        return  # its own `fit` may change the data first
    if data.is_arrays:
        _check_width(data, model, source)
        _check(data.x, data.y, model, source)
        _check_weights(data, model, source)
        return
    batch = _first_batch(data.x, source)
    if batch is not None and isinstance(batch, (tuple, list)) and len(batch) >= 2:
        _check(batch[0], batch[1], model, f"The first batch of {source}", examples=False)


def _first_batch(dataset: Any, source: str) -> Any:
    try:
        if hasattr(dataset, "__len__") and len(dataset) == 0:
            raise BadInput(f"{source} has no examples.")
        if iter(dataset) is dataset:  # a generator cannot be read again
            return None
    except TypeError:
        pass
    try:
        if hasattr(dataset, "__getitem__"):
            return dataset[0]
        return next(iter(dataset))
    except BadInput:
        raise
    except StopIteration as error:
        raise BadInput(f"{source} has no examples.") from error
    except Exception as error:
        raise BadInput(
            f"{source} could not be read: {type(error).__name__}: {one_line(error)}"
        ) from error


def _check(x: Any, y: Any, model: Any, source: str, examples: bool = True) -> None:
    inputs = list(getattr(model, "inputs", None) or [])
    names = [tensor.name for tensor in inputs]
    outputs = list(getattr(model, "outputs", None) or [])
    xs = dict(_parts(x, names or ["x"], "x"))
    ys = dict(_parts(y, list(getattr(model, "output_names", None) or ["y"]), "y"))
    lengths = {name: len(part) if part.ndim else 0 for name, part in {**xs, **ys}.items()}
    if not min(lengths.values(), default=0):
        raise BadInput(f"{source} has no examples.")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise BadInput(f"{source}: x and y must have the same length; {counts}.")
    if inputs and len(xs) != len(inputs):
        raise BadInput(
            f"The model has {len(inputs)} inputs ({', '.join(names)}); {source} has {len(xs)}."
        )
    for (name, part), tensor in zip(xs.items(), inputs or [None] * len(xs), strict=True):
        _check_kind(part, name, source, text=tensor is not None and tensor.dtype == "string")
        if tensor is not None:
            _check_input_shape(part, tensor, name, source)
            _check_tokens(part, tensor, model, name)
        _check_finite(part, name, source)
    loss = loss_name(model.loss)
    for name, part in ys.items():
        _check_kind(part, name, source, labels=True)
        _check_finite(part, name, source)
        if loss and len(ys) == 1 and len(outputs) == 1:
            _check_target(part, tuple(outputs[0].shape), model, loss, name, source)


def _check_width(data: Data, model: Any, source: str) -> None:
    """Compare the number of columns of a table with the input of the model, and name them."""
    inputs = list(getattr(model, "inputs", None) or [])
    count = len(data.columns)
    width = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) == 2 else None
    if not count or width in (None, count):
        return
    plural = "column" if count == 1 else "columns"
    raise BadInput(
        f"The model takes {width} numbers for each row; {source} has {count} {plural} besides the "
        f"target: {listed(data.columns)}. Choose columns with --features or --drop."
    )


def _check_weights(data: Data, model: Any, source: str) -> None:
    """Check the weights of the examples, of which Keras would not say what is wrong."""
    if data.sample_weight is None:
        return
    names = list(getattr(model, "output_names", None) or [])
    examples = next(len(part) for _, part in _parts(data.x, ["x"], "x"))
    for name, part in _parts(data.sample_weight, names, "sample_weight"):
        name = name if name.startswith("sample_weight") else f"sample_weight of {name}"
        _check_kind(part, name, source)
        if not part.ndim or len(part) != examples:
            raise BadInput(
                f"{source}: {name} must have a weight for each of the {examples} examples; it has "
                f"the shape {part.shape}."
            )
        _check_finite(part, name, source)


def _parts(value: Any, names: list[str], one: str) -> Iterator[tuple[str, Any]]:
    """The arrays in a value, with their names for messages."""
    import numpy as np

    if isinstance(value, dict):
        missing = [name for name in names if name not in value] if len(names) > 1 else []
        if missing:
            raise BadInput(f"The model's {', '.join(missing)} is missing; got {', '.join(value)}.")
        order = names if len(names) > 1 else list(value)
        values = [value[name] for name in order]
        names = order
    elif isinstance(value, (tuple, list)) and any(hasattr(part, "shape") for part in value):
        values = list(value)
        names = names if len(names) == len(values) else [f"{one}[{i}]" for i in range(len(values))]
    else:
        values, names = [value], [one]
    for name, part in zip(names, values, strict=True):
        if part is None:
            continue
        if hasattr(part, "detach"):  # a tensor of torch, perhaps on a GPU
            part = part.detach().cpu()
        try:
            yield name, np.asarray(part)
        except Exception as error:
            raise BadInput(f"{name} is not an array: {one_line(error)}") from error


def _check_kind(
    part: Any, name: str, source: str, *, text: bool = False, labels: bool = False
) -> None:
    if part.dtype.kind in "biuf" and not text or text and part.dtype.kind in "OSUT":
        return
    if part.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return
    kind = {"O": "Python objects", "S": "bytes", "U": "text", "T": "text"}
    got = kind.get(part.dtype.kind, str(part.dtype))
    hint = ""
    if labels and part.dtype.kind in "SUT":
        hint = f" Encode it as integers, as by np.unique({name}, return_inverse=True)[1]."
    raise BadInput(
        f"{source}: {name} must hold {'text' if text else 'numbers'}; it holds {got}.{hint}"
    )


def _check_finite(part: Any, name: str, source: str) -> None:
    import numpy as np

    if part.dtype.kind != "f":
        return
    for start in range(0, len(part), CHUNK):
        chunk = part[start : start + CHUNK]
        finite = np.isfinite(chunk)
        if not finite.all():
            row = start + int(np.argmin(finite.reshape(len(chunk), -1).all(axis=1)))
            raise BadInput(
                f"{source}: {name} holds NaN or infinity, first in row {row}; fill or drop it."
            )


def _check_input_shape(part: Any, tensor: Any, name: str, source: str) -> None:
    got, wanted = part.shape[1:], tuple(tensor.shape)[1:]
    shapes = [got, (*got, 1)] + ([got[:-1]] if got and got[-1] == 1 else [])
    if not any(_fits(shape, wanted) for shape in shapes):
        raise BadInput(
            f"{source}: {name} has shape {part.shape}; the model takes {tuple(tensor.shape)}."
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in pairs)


def _check_tokens(part: Any, tensor: Any, model: Any, name: str) -> None:
    """Check the range of tokens: JAX clips them silently, TensorFlow prints twenty lines."""
    import keras

    for layer in getattr(model, "layers", ()):
        if not isinstance(layer, keras.layers.Embedding) or part.dtype.kind not in "biuf":
            continue
        try:
            direct = layer.input is tensor
        except (AttributeError, ValueError):
            continue
        if direct and (part.min() < 0 or part.max() >= layer.input_dim):
            raise BadInput(
                f"{name} holds tokens from {part.min():g} to {part.max():g}; the embedding "
                f"{layer.name} takes 0 to {layer.input_dim - 1}."
            )


def _check_target(
    part: Any, output: tuple[Any, ...], model: Any, loss: str, name: str, source: str
) -> None:
    got, wanted = part.shape[1:], output[1:]
    if loss == "sparse_categorical_crossentropy":
        if not (_fits(got, wanted[:-1]) or got[-1:] == (1,) and _fits(got[:-1], wanted[:-1])):
            hint = " One-hot rows go with categorical_crossentropy." if _fits(got, wanted) else ""
            raise BadInput(
                f"{source}: {name} has shape {part.shape}; {loss} takes one integer for an output "
                f"of shape {output}.{hint}"
            )
        _check_labels(part, wanted[-1], model, name, source)
        return
    same = _fits(got, wanted) or (wanted[-1:] == (1,) and _fits(got, wanted[:-1]))
    if not (same or got[-1:] == (1,) and _fits(got[:-1], wanted)):
        integers = part.dtype.kind in "iu" and _fits(got, wanted[:-1])
        hint = " Integer labels go with sparse_categorical_crossentropy." if integers else ""
        raise BadInput(
            f"{source}: {name} has shape {part.shape}; the model's output is {output}.{hint}"
        )
    if loss in ("binary_crossentropy", "categorical_crossentropy"):
        low, high = part.min(), part.max()
        if low < 0 or high > 1:
            raise BadInput(
                f"{source}: {name} ranges from {low:g} to {high:g}; {loss} takes values in [0, 1]."
            )


def _check_labels(part: Any, classes: Any, model: Any, name: str, source: str) -> None:
    import numpy as np

    ignored = getattr(model.loss, "ignore_class", None)
    labels = part if ignored is None else part[part != ignored]
    if not labels.size:
        return
    if labels.dtype.kind == "f" and not np.equal(np.mod(labels, 1), 0).all():
        raise BadInput(f"{source}: {name} holds fractions; class labels must be integers.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        raise BadInput(
            f"{source}: {name} holds labels from {low} to {high}; the model has {classes} "
            f"classes, so labels must be from 0 to {classes - 1}."
        )
