"""The extension of a file: capitals and a compression do not count."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from .errors import BadInput

__all__ = ["DAMAGED", "extension", "opened_text"]

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".log")
# What reading a damaged compressed file raises.
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def extension(path: str) -> str:
    """The extension of a file in lower case; that of the text in a compressed file of text.

    >>> [extension(name) for name in ("Train.CSV", "train.tsv.gz", "data.npz.gz", "folder")]
    ['.csv', '.tsv', '.gz', '']
    """
    stem, suffix = os.path.splitext(path.lower())
    inner = os.path.splitext(stem)[1]
    return inner if suffix in (*_OPENERS, ".zip") and inner in _TEXTS else suffix


@contextlib.contextmanager
def opened_text(path: str) -> Iterator[IO[str]]:
    """A text file in UTF-8, perhaps compressed; its line ends are kept.

    Raises:
        BadInput: If it is an archive of several files.
    """
    suffix = os.path.splitext(path.lower())[1]
    with contextlib.ExitStack() as stack:
        if suffix == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            # macOS adds a hidden file for each file.
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
            if len(names) != 1:
                raise BadInput(f"{path} must hold one file; it holds {len(names)}. Unpack it.")
            raw: Any = stack.enter_context(archive.open(names[0]))
        else:
            raw = stack.enter_context(_OPENERS.get(suffix, open)(path, "rb"))
        yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
