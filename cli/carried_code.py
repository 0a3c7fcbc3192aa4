"""What a model file would run when it is loaded, found without loading it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any

__all__ = ["carried_code"]

# Layers whose config holds code, or names a file that holds some.
_CARRIERS = {
    "TorchModuleWrapper": "a pickled PyTorch module",
    "TFSMLayer": "a TensorFlow SavedModel",
}


def carried_code(path: str) -> str | None:
    """What kind of code a model file runs when Keras loads it; None if it runs none.

    Keras refuses such files in its safe mode, but only from 3.11.3 on for an `.h5` file, and each
    version knows other layers.

    Args:
        path: A `.keras` or `.h5` file. What cannot be read says nothing: Keras will say more.
    """
    for config in _configs(path):
        for part in _dictionaries(config):
            found = _code_in(part)
            if found is not None:
                return found
    return None


def _code_in(part: dict[str, Any]) -> str | None:
    name = part.get("class_name")
    if not isinstance(name, str):
        return None
    name = name.rpartition(">")[2]  # "package>name" in what is registered
    if name == "__lambda__":
        return "a Lambda layer or another lambda"
    config = part.get("config")
    # Keras 2 wrote the marshalled function as a list, or for a named one its name.
    if name == "Lambda" and isinstance(config, dict):
        for entry in ("function", "output_shape", "mask"):
            if config.get(f"{entry}_type") == "lambda":
                return "a Lambda layer"
        if isinstance(config.get("function"), list):
            return "a Lambda layer"
    return _CARRIERS.get(name)


def _configs(path: str) -> Iterator[Any]:
    texts: list[Any] = []
    try:
        if path.endswith(".keras"):  # as Keras chooses: a file can be both
            with zipfile.ZipFile(path) as archive:
                texts.append(archive.read("config.json"))
        else:
            import h5py

            with h5py.File(path, "r") as file:
                texts += [file.attrs.get(name) for name in ("model_config", "training_config")]
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        pass
    for text in texts:
        try:
            yield json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue


def _dictionaries(config: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a config, however deep."""
    left = [config]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part
            left += part.values()
        elif isinstance(part, list):
            left += part
