"""The tags of a TIFF file, and of the EXIF block of any other picture, which has the same form.

Only what is asked for is read, and no more than the file holds: a header of a few bytes can claim gigabytes of tags.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Collection
from typing import Any, BinaryIO

ORIENTATION, XMP = 274, 700

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # type of the tag → struct's letter
_BYTES = (2, 7)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

Tags = dict[int, Any]


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF, of either byte order and either size of offsets."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tags(stream: BinaryIO, wanted: Collection[int]) -> Tags:
    """The `wanted` tags of the first directory: a tuple of integers, or bytes; other kinds are left out.

    Raises ValueError or struct.error for what is no TIFF, is cut short, or claims more than the file holds.
    """
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    if not is_tiff(head):
        raise ValueError("not a TIFF header")
    order, large = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    offset, counter, entry = (8, "Q", "HHQ8s") if large else (4, "H", "HHI4s")
    entry = struct.Struct(order + entry)
    (start,) = struct.unpack_from(order + ("Q" if large else "I"), head, offset)
    stream.seek(_inside(start, length))
    counter = struct.Struct(order + counter)
    (count,) = counter.unpack(stream.read(counter.size))
    if count * entry.size > length:
        raise ValueError("its directory is longer than the file")
    entries, claimed, tags = stream.read(count * entry.size), 0, {}
    for tag, kind, items, value in entry.iter_unpack(entries):
        size = items * _SIZES.get(kind, 0)
        claimed += size
        if claimed > length:
            raise ValueError("its tags claim more than the file holds")
        if tag in wanted and (kind in _INTEGERS or kind in _BYTES):
            if size > len(value):
                stream.seek(_inside(struct.unpack(order + ("Q" if large else "I"), value)[0], length))
                value = stream.read(size)
            content = value[:size]
            tags[tag] = content if kind in _BYTES else struct.unpack(f"{order}{items}{_INTEGERS[kind]}", content)
    return tags


def orientation_of(tags: Tags) -> int:
    """1 to 8, out of the tag or else out of XMP; 1, upright, where nobody says anything that makes sense."""
    said = tags.get(ORIENTATION)
    if isinstance(said, tuple) and len(said) == 1:
        return said[0] if said[0] in range(1, 9) else 1
    xmp = tags.get(XMP, b"")
    return xmp_orientation(bytes(xmp))


def exif_orientation(block: bytes) -> int | None:
    """1 to 8, out of an EXIF block; None where it does not say, or is damaged, as many are in files that are sound."""
    try:
        tags = read_tags(io.BytesIO(block.removeprefix(b"Exif\0\0")), (ORIENTATION,))
    except (ValueError, struct.error):
        return None
    return orientation_of(tags) if tags else None


def xmp_orientation(packet: bytes) -> int:
    """1 to 8, out of an XMP packet; 1 where it does not say."""
    found = _XMP_ORIENTATION.search(packet)
    return int(found[1]) if found else 1


def _inside(offset: int, length: int) -> int:
    if offset >= length:
        raise ValueError("a tag points behind the end of the file")
    return offset
