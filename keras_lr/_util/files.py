"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_write", "check_writable"]


def atomic_write(
    path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any] | bytes | str
) -> Path:
    """Write a temporary file in the same folder, then rename it to `path`.

    A reader sees the old file or the new one, never half of it. An exception or Ctrl-C leaves the
    old file unchanged. A symbolic link stays a link, and the file keeps its permissions.

    Args:
        path: The file to create or replace.
        write: The content: bytes, text (UTF-8), or a function that takes a binary file and writes
            to it. The function gets a file in memory, since drawing a picture takes longer than
            writing it and a process killed in between would leave a temporary file behind.

    Returns:
        `path`, as a `Path`.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))
    check_writable(path)
    if callable(write):
        memory = io.BytesIO()
        write(memory)
        # Not getbuffer(): Python 3.12.1 crashes if `memory` is freed before the buffer.
        content = memory.getvalue()
    else:
        content = write.encode("utf-8") if isinstance(write, str) else write
    with _replacing(place) as file:
        file.write(content)
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check, before a long run, that `path` can be written.

    Raises:
        OSError: If its folder is missing or read-only, or `path` is a folder or a read-only file.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"The folder of {path} does not exist; create {place.parent}.")
    if place.exists() and not (place.is_file() and os.access(place, os.W_OK)):
        raise PermissionError(f"{path} cannot be written; choose another file.")
    # os.access says yes on a read-only mount and to root, so create a file.
    try:
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise PermissionError(
            f"The folder {place.parent} cannot be written ({error.strerror}); choose another."
        ) from error


@contextlib.contextmanager
def _replacing(place: Path) -> Iterator[IO[bytes]]:
    mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
