"""Copies of values that stay on an accelerator, if its memory is large beside them."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["copies_on_device"]

SHARE = 0.05  # of the free memory of the accelerator, that copies may take


def copies_on_device(values: list[Any]) -> list[Any] | None:
    """Copies on the accelerator that holds all values; None without one, or if it is too full.

    A copy to the host and back takes as long as dozens of training steps of a large model. Keras
    on JAX or torch only: TensorFlow's variables may be mirrored or remote.
    """
    backend = keras.backend.backend()
    if not values or backend not in ("jax", "torch"):
        return None
    if sum(value.nbytes for value in values) > SHARE * free_memory(values):
        return None
    if backend == "torch":
        return [value.detach().clone() for value in values]
    return [value.copy() for value in values]


def free_memory(values: list[Any]) -> int:
    """Free bytes of the one accelerator that holds all values; 0 if there is no such."""
    return (_free_on_jax if keras.backend.backend() == "jax" else _free_on_torch)(values)


def _free_on_jax(values: list[Any]) -> int:
    devices = {device for value in values for device in value.devices()}
    if len(devices) != 1:
        return 0
    (device,) = devices
    found = None if device.platform == "cpu" else device.memory_stats()
    if not found or "bytes_limit" not in found or "bytes_in_use" not in found:
        return 0
    return int(found["bytes_limit"] - found["bytes_in_use"])


def _free_on_torch(values: list[Any]) -> int:
    import torch

    devices = {value.device for value in values}
    if len(devices) != 1:
        return 0
    (device,) = devices
    if device.type != "cuda":
        return 0
    # What the allocator has reserved and does not use is free too.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)
