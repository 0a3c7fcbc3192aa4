"""`module:function` on the command line: the user's code makes the model or the data."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import BadInput, one_line

__all__ = ["call", "import_modules", "is_function"]


def is_function(spec: str) -> bool:
    """Whether `spec` has the form module:function and is not an existing path."""
    return bool(re.fullmatch(r"[\w.]+:[\w.]+", spec)) and not os.path.exists(spec)


def call(spec: str) -> Any:
    """Import the module, from the current folder first, and call the function.

    Raises:
        BadInput: If the module or the function is missing or raises.
    """
    module_name, _, path = spec.partition(":")
    with _current_folder_first():
        made = _imported(module_name)
        for name in path.split("."):
            if not hasattr(made, name):
                raise BadInput(f"The module {module_name} has no {path}.")
            made = getattr(made, name)
        if not callable(made):
            raise BadInput(f"{spec} is not a function; it is {type(made).__name__}.")
        try:
            return made()
        except Exception as error:
            raise BadInput(_raised(spec, error)) from error


def import_modules(names: Sequence[str]) -> None:
    """Import modules, from the current folder first, which register classes with Keras.

    Raises:
        BadInput: If a module is missing or raises.
    """
    with _current_folder_first():
        for name in names:
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
                raise BadInput(
                    f"--import takes the name of a module, as in package.layers; got {name!r}."
                )
            _imported(name)


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name + ".").startswith(error.name + "."):
            raise BadInput(
                f"There is no module {error.name} in the current folder or the installed packages."
            ) from error
        raise BadInput(f"{name} imports {error.name}, which is not installed.") from error
    except Exception as error:
        raise BadInput(_raised(name, error)) from error


def _raised(spec: str, error: Exception) -> str:
    return f"{spec} raised {type(error).__name__}: {one_line(error)}"
