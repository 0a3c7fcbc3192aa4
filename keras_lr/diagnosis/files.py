"""The text of a log file, of any encoding, and of a compressed one."""

from __future__ import annotations

import codecs
import io
import os
import re

from keras_lr._util.compressed import unpacked

__all__ = ["LARGEST_FILE", "text_in", "text_of_bytes"]

LARGEST_FILE = 256 * 2**20
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",  # PowerShell writes it: python train.py > train.log
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROL = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f]")


def text_in(path: str) -> str:
    """The text of a file.

    Raises:
        ValueError: If it is too large, damaged, or not text.
        OSError: If it cannot be read.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist.")
    with open(path, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    return text_of_bytes(raw, path)


def text_of_bytes(raw: bytes, path: str) -> str:
    """The text in the bytes of a file; `path` names it in messages."""
    if len(raw) <= LARGEST_FILE:
        with unpacked(io.BytesIO(raw), path) as file:
            raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE >> 20} MiB.")
    marked = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    try:
        text = raw.decode(marked or "utf-8")
    except ValueError:
        text = raw.decode("latin-1")  # of which each byte is a letter
    if "\0" in text or len(_CONTROL.findall(text[:10_000])) > len(text[:10_000]) // 100:
        raise ValueError(
            f"{path} is not a text file; a log is a CSV file, a JSON file, text, or a TensorBoard "
            "folder."
        )
    return text
