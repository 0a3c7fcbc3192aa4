"""Tensors, arrays and random generators that a model holds beside its Keras variables."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lr._keras.replicas import replicas, variable_scope

__all__ = ["HOST_KINDS", "TensorCopies", "tensor_kinds", "torch_gradients"]

HOST_KINDS = (np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
_LARGEST = 2**30  # bytes of an array that is copied


@functools.lru_cache(maxsize=1)
def tensor_kinds() -> tuple[type, ...]:
    """The backend's classes of objects that hold values, beside Keras variables."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return (tf.Variable,)
    if keras.backend.backend() == "torch":
        import torch

        return torch.Tensor, torch.Generator
    return ()


class TensorCopies:
    """Copies of values that are not Keras variables: tensors, arrays, random generators.

    Args:
        parts: `(path, part)` of each.
        earlier: Copies that were made before; only values that have changed since are copied.
    """

    def __init__(
        self, model: Any, parts: list[tuple[str, Any]], earlier: TensorCopies | None = None
    ) -> None:
        self._model = model
        self._copies: dict[int, tuple[Any, Any]] = {}
        for path, part in parts:
            copied = earlier._copies.get(id(part)) if earlier else None
            if copied is None and _size(part) > _LARGEST:
                if earlier is not None:
                    _warn_of_size(path, _size(part))
                continue
            if copied is None or not _is_as(part, copied[1]):
                copied = part, _read(part)
            self._copies[id(part)] = copied

    def restore(self) -> None:
        with variable_scope(self._model):
            for part, value in self._copies.values():
                _write(part, value)


def _size(part: Any) -> int:
    """Bytes of an array or a tensor that is copied only because training might write to it."""
    if isinstance(part, np.ndarray):
        return int(part.nbytes)
    if type(part).__name__ == "Parameter" or not hasattr(part, "dtype"):
        return 0
    return int(np.prod(part.shape)) * int(getattr(part.dtype, "itemsize", 0) or part.dtype.size)


def _read(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    if isinstance(part, random.Random):
        return part.getstate()
    if hasattr(part, "get_state"):  # generators of NumPy's legacy class, and of torch
        return part.get_state()
    if hasattr(part, "detach"):
        return part.detach().cpu().clone()
    return [np.array(each) for each in replicas(part)]


def _write(part: Any, value: Any) -> None:
    if isinstance(part, np.ndarray):
        np.copyto(part, value)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = value
    elif isinstance(part, random.Random):
        part.setstate(value)
    elif hasattr(part, "set_state"):
        part.set_state(value)
    elif hasattr(part, "detach"):
        part.data.copy_(value)
    else:
        for each, array in zip(replicas(part), value, strict=True):
            each.assign(array)


def _is_as(part: Any, value: Any) -> bool:
    """Whether an array or a tensor still has the value that was copied."""
    if isinstance(part, np.ndarray):
        return bool(part.tobytes() == value.tobytes())
    if hasattr(part, "detach"):
        import torch

        return torch.equal(part.detach().cpu(), value)
    return False


def _warn_of_size(path: str, size: int) -> None:
    warnings.warn(
        f"The model holds an array of {size / 2**30:.1f} GiB, {path}, which is not copied. If "
        "training writes to it, it cannot be restored. Make it read-only, or a variable.",
        UserWarning,
        stacklevel=2,
    )


def torch_gradients(model: Any, tensors: list[Any]) -> Callable[[], None]:
    """A function that restores `.grad` of tensors: training sets it, or adds to it.

    Keras's own step clears gradients first; a custom step may accumulate them.
    """
    own = type(model).train_step is keras.Model.train_step
    leaves = [tensor for tensor in tensors if getattr(tensor, "is_leaf", False)]
    kept = [
        (leaf, None if leaf.grad is None or own else leaf.grad.detach().cpu().clone())
        for leaf in leaves
        if leaf.grad is None or not own
    ]

    def restore() -> None:
        for leaf, gradient in kept:
            if gradient is None:
                leaf.grad = None
            else:
                leaf.grad = gradient.to(leaf.device, copy=True)

    return restore
