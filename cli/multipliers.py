"""Multipliers of layers: read from a file, put into a model's optimizer, written as Python."""

from __future__ import annotations

import collections
import inspect
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import BadInput, one_line

__all__ = ["in_python", "put_multipliers", "read_multipliers", "summary"]

LARGEST_FILE = 16 * 2**20
WIDTH = 78


def read_multipliers(path: str) -> dict[str, float]:
    """The multipliers in a file: what `keras-lr layers --json` prints, or {"key": number, ...}.

    Raises:
        BadInput: If the file cannot be read, or has other content.
    """
    try:
        if os.path.isdir(path):
            raise BadInput(f"--multipliers {path} is a folder; pass a JSON file.")
        with open(path, "rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise BadInput(f"--multipliers {path} cannot be read: {reason}.") from error
    if len(raw) > LARGEST_FILE:
        raise BadInput(f"--multipliers {path} is larger than {LARGEST_FILE >> 20} MiB.")
    try:
        content = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except BadInput as error:
        raise BadInput(f"--multipliers {path} {error.message}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--multipliers {path} is not JSON: {one_line(error, 120)}.") from error
    if isinstance(content, dict) and isinstance(content.get("multipliers"), dict):
        content = content["multipliers"]
    if not isinstance(content, dict) or not content:
        raise BadInput(
            f'--multipliers {path} must hold {{"layer": number, ...}}, or what keras-lr layers '
            "--json prints."
        )
    return {key: _number(path, key, value) for key, value in content.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise BadInput(f"names {one_line(twice, 60)!r} twice.")
    return found


def _number(path: str, key: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise BadInput(
            f"--multipliers {path}: {one_line(key, 60)!r} must have a finite number of at least "
            f"0; got {one_line(json.dumps(value), 60)}."
        )
    return number


def put_multipliers(model: Any, multipliers: Mapping[str, float], path: str) -> dict[Any, float]:
    """Put `LayerwiseLR` around the optimizer of a compiled model, which keeps its state.

    Args:
        model: The model.
        multipliers: By the label of a layer that `keras-lr layers` shows, or by regular
            expression.
        path: The file that they come from, for messages.

    Returns:
        The multipliers with the keys of `LayerwiseLR`.

    Raises:
        BadInput: If the optimizer takes no multipliers, or a key matches no layer.
    """
    from keras_lr.optimizers import LayerwiseLR
    from keras_lr.optimizers.layer_keys import keys_for_labels
    from keras_lr.optimizers.multipliers import check_multipliers, resolve_in
    from keras_lr.optimizers.temporary_layerwise import replace_optimizer

    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if hasattr(inner, "optimizers"):
        raise BadInput(
            f"--multipliers cannot be used with a {type(inner).__name__}, which has a learning "
            "rate for each group already; choose another optimizer with --optimizer."
        )
    if isinstance(inner, LayerwiseLR):
        raise BadInput(
            "The model's optimizer has multipliers already; leave out --multipliers to use them, "
            "or choose another optimizer with --optimizer."
        )
    try:
        found: dict[Any, float] = dict(multipliers)
        if model.built:
            found = keys_for_labels(multipliers, model)
            resolve_in(check_multipliers(found), model)
        wrapped = LayerwiseLR(inner, found)
    except (ValueError, TypeError) as error:
        raise BadInput(f"--multipliers {path}: {one_line(error)}") from error
    replace_optimizer(model, inner, wrapped)
    model.train_function = None  # a model from a function may have trained already
    return found


def summary(multipliers: Mapping[Any, float], path: str) -> str:
    """One sentence about the multipliers in use."""
    low, high = min(multipliers.values()), max(multipliers.values())
    values = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return (
        f"{values}, for {len(multipliers)} {'key' if len(multipliers) == 1 else 'keys'} of {path}; "
        "the learning rate is that of the layers at 1."
    )


def in_python(model: Any, multipliers: Mapping[Any, float], rate: float | None = None) -> str:
    """Lines of Python that make the model's optimizer with these multipliers.

    Args:
        model: The model, compiled or not.
        multipliers: By the keys of `LayerwiseLR`.
        rate: The learning rate; None for the rate of the model's optimizer.
    """
    from keras_lr.optimizers import LayerwiseLR

    outer = model.optimizer if getattr(model, "compiled", False) else None
    inner = getattr(outer, "inner_optimizer", outer)
    here = "model.optimizer" if inner is outer else "model.optimizer.inner_optimizer"
    entries = [f"{_key(model, key)}: {_float(value)}" for key, value in multipliers.items()]
    plain = _plain_call(inner, rate)
    lines = []
    if plain is None and isinstance(inner, LayerwiseLR):
        lines += _broken(f"{here}.multipliers = ", "", entries, "")
    else:
        call = "optimizer = keras_lr.optimizers.LayerwiseLR("
        lines += _broken(call, plain or here, entries, ")")
        if inner is not outer:
            lines.append("optimizer = keras.optimizers.LossScaleOptimizer(optimizer)")
    if plain is None and rate is not None:
        changed = here if isinstance(inner, LayerwiseLR) else "optimizer"
        lines.append(f"{changed}.learning_rate = {_float(rate)}")
    return "\n".join(lines)


def _broken(head: str, first: str, entries: list[str], tail: str) -> list[str]:
    """The lines of a dictionary after `head` and a first argument; one line if it fits."""
    before = f"{first}, " if first else ""
    line = f"{head}{before}{{{', '.join(entries)}}}{tail}"
    if len(line) <= WIDTH:
        return [line]
    if not tail:
        return [f"{head}{{", *(f"    {entry}," for entry in entries), "}"]
    rows = [f"        {entry}," for entry in entries]
    return [head, f"    {first},", "    {", *rows, "    },", tail]


def _plain_call(optimizer: Any, rate: float | None) -> str | None:
    """The call that makes the optimizer without multipliers; None if one call is not enough."""
    import keras

    from keras_lr._keras.optimizers import has_schedule
    from keras_lr.optimizers import LayerwiseLR

    if optimizer is None or hasattr(optimizer, "optimizers"):
        return f"keras.optimizers.AdamW(learning_rate={_float(1e-4 if rate is None else rate)})"
    kind = type(optimizer).__bases__[-1] if isinstance(optimizer, LayerwiseLR) else type(optimizer)
    made = getattr(keras.optimizers, kind.__name__, None)
    if made is None or not issubclass(kind, made):
        return None
    if rate is None and has_schedule(optimizer):
        return None
    rate = float(optimizer.learning_rate) if rate is None else rate
    arguments = [f"learning_rate={_float(rate)}"]
    # Not from `get_config`: with a schedule, it imports TensorFlow on every backend.
    for argument, parameter in inspect.signature(made).parameters.items():
        value = getattr(optimizer, argument, None)
        if argument in ("learning_rate", "name") or value == parameter.default:
            continue
        if isinstance(value, (bool, int, float, str)):
            written = _float(value) if isinstance(value, float) else repr(value)
            arguments.append(f"{argument}={written}")
    return f"keras.optimizers.{kind.__name__}({', '.join(arguments)})"


def _key(model: Any, key: Any) -> str:
    """A key as a Python expression: a string, or an expression for the layer."""
    if isinstance(key, str):
        return _quoted(key)
    return next(text for layer, text in _layers_in(model, "model") if layer is key)


def _layers_in(model: Any, text: str) -> Iterator[tuple[Any, str]]:
    """Each layer in a model, with a Python expression for it; `text` is that of the model."""
    import keras

    if not isinstance(model, keras.Model):
        model, text = model.layer, f"{text}.layer"  # of a wrapper
        yield model, text
    names = [layer.name for layer in model.layers]
    for place, layer in enumerate(model.layers):
        unique = names.count(layer.name) == 1
        inner = f"{text}.get_layer({_quoted(layer.name)})" if unique else f"{text}.layers[{place}]"
        yield layer, inner
        if isinstance(getattr(layer, "layer", layer), keras.Model):
            yield from _layers_in(layer, inner)


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or text.endswith("\\"):
        return repr(text)
    return f'r"{text}"' if "\\" in text else f'"{text}"'


def _float(value: float) -> str:
    return repr(float(f"{value:.6g}"))
