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

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # type of the tag → struct's letter
_BYTES, _FRACTION = (2, 7, 129), 5  # texts, anything, UTF-8
_READ = frozenset({*_INTEGERS, *_BYTES, _FRACTION})
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

Tags = dict[int, Any]


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF, of either byte order and either size of offsets."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tags(
    stream: BinaryIO, wanted: Collection[int], directory: int | None = None, *, lenient: bool = False
) -> Tags:
    """The `wanted` tags of a directory: tuples of integers, or of (above, below) for fractions, or bytes.

    directory: where it starts; the first one by default. Other kinds of values are left out. Of a tag that is there
    twice the first counts. lenient: what is cut short or claims more than there is is passed over, since many programs
    damage the EXIF blocks that they copy; otherwise it raises ValueError or struct.error, as what is no TIFF does.
    """
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    if not is_tiff(head):
        raise ValueError("not a TIFF header")
    order, large = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    first, counter, entry = (8, "Q", "HHQ8s") if large else (4, "H", "HHI4s")
    pointer = struct.Struct(order + ("Q" if large else "I"))
    start = pointer.unpack_from(head, first)[0] if directory is None else directory
    entry, counter = struct.Struct(order + entry), struct.Struct(order + counter)
    if lenient and not 0 < start <= length - counter.size:
        return {}
    stream.seek(_inside(start, length))
    (count,) = counter.unpack(stream.read(counter.size))
    if lenient:
        count = min(count, (length - start - counter.size) // entry.size)
    if count * entry.size > length:
        raise ValueError("its directory is longer than the file")
    entries, claimed, tags = stream.read(count * entry.size), 0, {}
    for tag, kind, items, value in entry.iter_unpack(entries):
        size = items * _SIZES.get(kind, 0)
        claimed += size
        if claimed > length and not lenient:
            raise ValueError("its tags claim more than the file holds")
        if tag in wanted and tag not in tags and kind in _READ:
            if size > len(value):
                (place,) = pointer.unpack(value)
                if lenient and not 0 <= place <= length - size:
                    continue
                stream.seek(_inside(place, length))
                value = stream.read(size)
            tags[tag] = _value(value[:size], kind, items, order)
    return tags


def _value(content: bytes, kind: int, items: int, order: str) -> Any:
    if kind in _BYTES:
        return content
    if kind == _FRACTION:
        numbers = struct.unpack(f"{order}{2 * items}I", content)
        return tuple(zip(numbers[::2], numbers[1::2]))
    return struct.unpack(f"{order}{items}{_INTEGERS[kind]}", content)


def orientation_of(tags: Tags) -> int:
    """1 to 8, out of the tag or else out of XMP; 1, upright, where nobody says anything that makes sense."""
    said = tags.get(ORIENTATION)
    if isinstance(said, tuple) and len(said) == 1:
        return said[0] if said[0] in range(1, 9) else 1
    xmp = tags.get(XMP, b"")
    return xmp_orientation(bytes(xmp))


def exif_orientation(block: bytes) -> int | None:
    """1 to 8, out of an EXIF block; None where it does not say, or is damaged there."""
    try:
        tags = read_tags(io.BytesIO(block.removeprefix(b"Exif\0\0")), (ORIENTATION,), lenient=True)
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
