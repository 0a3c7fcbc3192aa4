"""What tells one model, and one set of data, from another: for those who join a search."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np

from keras_lr.loops.data import is_array_data
from keras_lr.steering import driven_optimizers

MOST_HASHED = 2**26  # bytes of an array that are read; of larger ones, rows spread over it


def of_model(model: Any, made_anew: bool) -> dict[str, str]:
    """Layers, weights, optimizer and loss; names that Keras counts up do not matter.

    Args:
        made_anew: Whether each run has weights of its own, so that these say nothing.
    """
    layers = [
        [type(layer).__name__, _unnamed(_config(layer)), [list(v.shape) for v in layer.variables]]
        for layer in model._flatten_layers(include_self=False)
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    optimizers = [
        [type(leaf).__name__, _unnamed(_config(leaf))]
        for leaf in driven_optimizers(model.optimizer)
    ]
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
    return {
        "layers": _digest(layers),
        "weights": "made anew for each run" if made_anew else _hash(weights),
        "optimizer": f"{type(model.optimizer).__name__} {_digest(optimizers)}",
        "loss": _loss(model.loss),
    }


def of_data(training: tuple[Any, ...], validation: Any) -> dict[str, str]:
    """Rows and content of the arrays to train on and to judge by; of a data set only its kind."""
    found = dict(zip(("rows", "content"), _told(training), strict=True))
    if validation is not None:
        found["judged by"] = " ".join(_told(validation))
    return found


def _told(parts: Any) -> tuple[str, str]:
    leaves = [leaf for leaf in keras.tree.flatten(parts) if leaf is not None]
    if not is_array_data(*leaves):
        return "unknown", type(leaves[0]).__name__
    arrays = [
        keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
        for leaf in leaves
    ]
    return str(len(arrays[0])), _hash(arrays)


def _config(part: Any) -> Any:
    try:
        return part.get_config()
    except Exception:  # a class of the user's that cannot say what it is made of
        return type(part).__name__


def _unnamed(config: Any) -> Any:
    """A config without names, and without the rate, which is what is searched for."""
    if isinstance(config, dict):
        left_out = ("name", "learning_rate", "layers", "build_config", "registered_name")
        return {k: _unnamed(v) for k, v in sorted(config.items()) if k not in left_out}
    if isinstance(config, (list, tuple)):
        return [_unnamed(each) for each in config]
    return config if isinstance(config, (int, float, str, bool, type(None))) else str(type(config))


def _loss(loss: Any) -> str:
    if isinstance(loss, str):
        return loss
    name = getattr(loss, "name", None) or getattr(loss, "__name__", None)
    return str(name or type(loss).__name__)


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _hash(arrays: list[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        stride = max(1, -(-array.nbytes // MOST_HASHED)) if array.ndim else 1
        part = array[::stride] if array.ndim else array
        text = part.dtype.kind in "OU"
        digest.update(
            repr(part.tolist()).encode() if text else np.ascontiguousarray(part).tobytes()
        )
    return digest.hexdigest()[:12]
