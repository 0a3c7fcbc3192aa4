"""The extension of a file: capitals and a compression do not count."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import io
import os
import types
from collections.abc import Iterator
from typing import IO, Any

from .errors import BadInput, one_line

__all__ = ["extension", "opened_text"]

_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".log")


@functools.cache
def _compressed() -> Any:
    """The module `keras_lr._util.compressed`, loaded by itself.

    `import keras_lr` imports Keras, which is to wait until the options are checked.
    """
    package = importlib.util.find_spec("keras_lr")
    folder = next(iter(package.submodule_search_locations or ())) if package else ""
    place = os.path.join(folder, "_util", "compressed.py")
    loader = importlib.machinery.SourceFileLoader("keras_lr_cli._compressed", place)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    return module


def extension(path: str) -> str:
    """The extension of a file in lower case; that of the text in a compressed file of text.

    >>> [extension(name) for name in ("Train.CSV", "train.tsv.gz", "data.npz.gz", "folder")]
    ['.csv', '.tsv', '.gz', '']
    """
    stem, suffix = os.path.splitext(path.lower())
    inner = os.path.splitext(stem)[1]
    return inner if inner in _TEXTS and suffix in _compressed().SUFFIXES else suffix


@contextlib.contextmanager
def opened_text(path: str) -> Iterator[IO[str]]:
    """A text file in UTF-8, perhaps compressed; its line ends are kept.

    Raises:
        BadInput: If it is an archive of several files, damaged, or needs a password.
    """
    compressed = _compressed()
    try:
        with (
            open(path, "rb") as file,
            compressed.unpacked(file, path) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text,
        ):
            yield text
    except compressed.CannotUnpack as error:
        raise BadInput(one_line(error)) from error
