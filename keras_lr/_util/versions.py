"""The software that made a result."""

from __future__ import annotations

import platform
import sys
from typing import Any

import keras

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """The backend, and the versions of Python and of the packages that compute."""
    backend = keras.backend.backend()
    packages = ("keras_lr", "keras", backend, "numpy")
    versions = {name: sys.modules[name].__version__ for name in packages}
    return {
        "backend": backend,
        "versions": {**versions, "python": platform.python_version()},
    }
