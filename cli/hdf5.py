"""Damage of an `.h5` file that its library does not survive."""

from __future__ import annotations

import mmap
import struct

__all__ = ["is_endless"]

_HEADER = struct.Struct("<4sB3sQ")  # mark, version, three zeros, bytes of the whole collection
_OBJECT = struct.Struct("<HHIQ")  # index, references, zeros, bytes that follow


def is_endless(path: str) -> bool:
    """Whether HDF5 would read the strings of a file without end, holding Ctrl-C off.

    It keeps them in global heaps: collections of objects, one behind the other, the last one, of
    index 0, being the free space with its size. Where damage has made a 0 of that size, HDF5 goes
    on from the place where it is.

    Source: HDF5 File Format Specification 3.0, section III.E.
    """
    with open(path, "rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with content:
            place = content.find(b"GCOL")
            while place >= 0:
                if _stands_still(content, place):
                    return True
                place = content.find(b"GCOL", place + 4)
    return False


def _stands_still(content: mmap.mmap, place: int) -> bool:
    if place + _HEADER.size > len(content):
        return False
    _, version, zeros, size = _HEADER.unpack_from(content, place)
    end = place + size
    if version != 1 or any(zeros) or end > len(content):
        return False
    place += _HEADER.size
    while place + _OBJECT.size <= end:
        index, _, _, size = _OBJECT.unpack_from(content, place)
        needed = _OBJECT.size + (size + 7) // 8 * 8 if index else size
        if not needed:
            return True
        place += needed
    return False
