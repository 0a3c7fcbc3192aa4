"""Files of text that may be compressed: with gzip, bzip2 or xz, or in a zip archive of one file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["SUFFIXES", "CannotUnpack", "unpacked"]

# What the name of a compressed file ends with; the first bytes decide, as files are renamed.
SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_UNREAD = {
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_TAR = b"ustar"  # from the 257th byte on
_BEGIN = 512  # bytes that show what a file is
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a]")


class CannotUnpack(ValueError):
    """The file is an archive of several files, is damaged, or needs a password."""


@contextlib.contextmanager
def unpacked(file: IO[bytes], path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file without its compression; a file without one is returned as it is.

    Args:
        file: An open file that can be rewound.
        path: Its name, for messages.

    Raises:
        CannotUnpack: If the compressed file is damaged, or is an archive that does not hold exactly
            one file; within the block too, since a damage shows when its place is read.
    """
    with contextlib.ExitStack() as stack:
        try:
            inner = _inner(file, path, stack)
            yield inner
        except zipfile.BadZipFile as error:
            short = "it is cut short" if "not a zip file" in str(error) else error
            raise CannotUnpack(f"{path} is a damaged compressed file: {short}.") from error
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, not of the compression
            raise CannotUnpack(f"{path} is a damaged compressed file: {error}.") from error


def _inner(file: IO[bytes], path: str, stack: contextlib.ExitStack) -> IO[bytes]:
    begin = _begin(file, path)
    if begin.startswith(_ZIP):
        inner = stack.enter_context(_only_file(file, path, stack))
    else:
        opener = next((each for mark, each in _OPENERS.items() if begin.startswith(mark)), None)
        if opener is None:
            suffix = os.path.splitext(path.lower())[1]
            if suffix in SUFFIXES and _BINARY.search(begin):
                raise CannotUnpack(
                    f"{path} is a damaged compressed file: it does not begin as a {suffix} file."
                )
            return file
        inner = stack.enter_context(opener(file, "rb"))
    _begin(inner, path)
    return inner


def _begin(file: IO[bytes], path: str) -> bytes:
    """The first bytes of a file.

    Raises:
        CannotUnpack: If they are those of an archive that is not read.
    """
    begin = file.read(_BEGIN)
    file.seek(0)
    kind = next((kind for mark, kind in _UNREAD.items() if begin.startswith(mark)), None)
    if begin[257:].startswith(_TAR):
        kind = "a tar archive"
    if kind:
        raise CannotUnpack(f"{path} is {kind}, which is not read; unpack it.")
    return begin


def _only_file(file: IO[bytes], path: str, stack: contextlib.ExitStack) -> IO[bytes]:
    """The one file in a zip archive."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    files = [each for each in archive.infolist() if not _is_extra(each.filename)]
    names = [each.filename for each in files]
    if "[Content_Types].xml" in names:
        raise CannotUnpack(f"{path} is a document of an office program; save it as a CSV file.")
    if not files:
        raise CannotUnpack(f"{path} is an archive that holds no file.")
    if len(files) > 1:
        shown = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        if not path.lower().endswith(".zip"):  # such as .keras and .npz
            raise CannotUnpack(
                f"{path} is an archive of {len(files)} files ({shown}), not a file of text."
            )
        raise CannotUnpack(f"{path} must hold one file; it holds {len(files)}: {shown}. Unpack it.")
    if files[0].flag_bits & 1:
        raise CannotUnpack(f"{path} is encrypted; unpack it with its password.")
    try:
        return archive.open(files[0])
    except NotImplementedError as error:  # Deflate64, Zstandard
        raise CannotUnpack(
            f"{path} is compressed by a method that Python does not read; unpack it."
        ) from error


def _is_extra(name: str) -> bool:
    """Whether a member is a folder, or a hidden file, of which macOS adds one for each file."""
    return name.endswith("/") or any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/")
    )
