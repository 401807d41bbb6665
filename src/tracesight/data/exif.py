"""What a camera wrote into a picture file: make, model, lens, time; serial number and place where they are asked for.

Exif 2.32 (CIPA DC-008-2019), section 4.6, in JPEG, PNG and WebP; of TIFF and DICOM make and model alone. Only the
headers are walked, no pixel is decoded. Who owned the camera, and all else that it may have noted, is left where it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO

from tracesight.data.dicom import MAGIC, dicom_sensor
from tracesight.data.tags import Tags, is_tiff, read_tags
from tracesight.errors import UserError

_LARGEST = 1 << 20  # bytes; a JPEG has room for 64 kB
_SMALL = 1 << 16  # bytes; of files below it, searching is quicker than walking
_LONGEST = 200  # letters of a text
_MAKE, _MODEL, _EXIF_TAGS, _GPS_TAGS = 0x010F, 0x0110, 0x8769, 0x8825
_TIME, _OFFSET_OF_TIME, _SERIAL, _LENS_MODEL = 0x9003, 0x9011, 0xA431, 0xA434
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


@dataclass(frozen=True)
class Exif:
    """Texts as the camera wrote them; None where it did not.

    captured_at: ISO 8601, with the offset from UTC where the camera knew it. latitude, longitude: degrees, north and
    east positive.
    """

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    captured_at: str | None = None
    serial: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def read_exif(file: BinaryIO | bytes, private: bool = False) -> Exif | None:
    """The camera's notes in a file that can be sought, or in its content; None where there are none, or damaged ones.

    private: serial number and place too. DICOM needs the extra `science`, without which there is nothing.
    """
    if isinstance(file, bytes):
        if is_tiff(file) or file[MAGIC] == b"DICM":
            return _of_device(BytesIO(file))
        if len(file) < _SMALL and b"Exif" not in file and b"eXIf" not in file and b"EXIF" not in file:
            return None
        file = BytesIO(file)
    try:
        block = _block(file)
        return _of_device(file) if block is None else _parsed(block, private)
    except Exception:  # whatever a damaged file leads to
        return None


def _of_device(stream: BinaryIO) -> Exif | None:
    """Make and model out of a TIFF or a DICOM file; None where there are none, or damaged ones."""
    try:
        stream.seek(0)
        head = stream.read(MAGIC.stop)
        stream.seek(0)
        if is_tiff(head):
            tags = read_tags(stream, (_MAKE, _MODEL))
            make, model = (_text(tags.get(tag)) for tag in (_MAKE, _MODEL))
        elif head[MAGIC] == b"DICM":
            make, model = dicom_sensor(stream)
        else:
            return None
    except (UserError, ValueError, OSError, struct.error):
        return None
    return Exif(make=make, model=model) if make or model else None


def _block(stream: BinaryIO) -> bytes | None:
    """The TIFF structure that holds the tags."""
    stream.seek(0)
    head = stream.read(12)
    if head.startswith(b"\xff\xd8\xff"):
        return _in_jpeg(stream)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _in_chunks(stream, 8, ">I4s", b"eXIf", 4)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return _in_chunks(stream, 12, "<4sI", b"EXIF", 0)
    return None


def _in_jpeg(stream: BinaryIO) -> bytes | None:
    stream.seek(2)
    while len(head := stream.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker in (0xDA, 0xD9):  # the pixels begin, or the picture ends
            return None
        if marker == 0xE1 and length >= 8:
            segment = stream.read(length - 2)
            if segment.startswith(b"Exif\0\0"):
                return segment[6:]
        else:
            stream.seek(length - 2, 1)
    return None


def _in_chunks(stream: BinaryIO, start: int, form: str, wanted: bytes, after: int) -> bytes | None:
    """The content of a chunk of PNG, or of RIFF, whose chunks are padded to an even length."""
    stream.seek(start)
    while len(head := stream.read(8)) == 8:
        a, b = struct.unpack(form, head)
        name, length = (b, a) if isinstance(b, bytes) else (a, b)
        if name == wanted:
            block = stream.read(length) if length <= _LARGEST else b""
            return block.removeprefix(b"Exif\0\0") or None
        if name == b"IEND":
            return None
        stream.seek(length + (after or length & 1), 1)
    return None


def _parsed(block: bytes, private: bool) -> Exif | None:
    stream = BytesIO(block)
    image = read_tags(stream, (_MAKE, _MODEL, _EXIF_TAGS, _GPS_TAGS), lenient=True)
    camera = _below(stream, image.get(_EXIF_TAGS), (_TIME, _OFFSET_OF_TIME, _SERIAL, _LENS_MODEL))
    found = Exif(
        make=_text(image.get(_MAKE)),
        model=_text(image.get(_MODEL)),
        lens=_text(camera.get(_LENS_MODEL)),
        captured_at=_time(camera.get(_TIME), camera.get(_OFFSET_OF_TIME)),
        serial=_text(camera.get(_SERIAL)) if private else None,
        **(_place(_below(stream, image.get(_GPS_TAGS), range(1, 5))) if private else {}),
    )
    return found if found != Exif() else None


def _below(stream: BinaryIO, pointer: Any, wanted: Collection[int]) -> Tags:
    """The tags of the directory that a tag points to."""
    return read_tags(stream, wanted, pointer[0], lenient=True) if isinstance(pointer, tuple) and pointer else {}


def _text(value: Any) -> str | None:
    if not isinstance(value, bytes):
        return None
    letters = value.split(b"\0")[0].decode("utf-8", "replace")
    text = " ".join("".join(c if c.isprintable() else " " for c in letters).split())
    return text[:_LONGEST] or None


def _time(value: Any, offset: Any) -> str | None:
    with suppress(TypeError, ValueError):
        time = datetime.strptime((_text(value) or "")[:19], "%Y:%m:%d %H:%M:%S")
        zone = _text(offset) or ""
        return time.isoformat() + (zone if _OFFSET.fullmatch(zone) else "")
    return None


def _place(gps: Tags) -> dict[str, float]:
    place = {}
    for name, letter, negative, limit in (("latitude", 1, "S", 90), ("longitude", 3, "W", 180)):
        with suppress(TypeError, ValueError, ZeroDivisionError):
            degrees, minutes, seconds = (above / below for above, below in gps.get(letter + 1, ()))
            angle = degrees + minutes / 60 + seconds / 3600
            if angle <= limit:
                place[name] = round(-angle if _text(gps.get(letter)) == negative else angle, 6)
    return place if len(place) == 2 else {}
