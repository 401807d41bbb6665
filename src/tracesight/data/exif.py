"""What a camera wrote into a picture file: make, model, lens, time; serial number and place where they are asked for.

Exif 2.32 (CIPA DC-008-2019), section 4.6, in JPEG, PNG and WebP. Only the headers are walked, no pixel is decoded. Who
owned the camera, and all else that it may have noted, is left where it is.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO

_LARGEST = 1 << 20  # bytes; a JPEG has room for 64 kB
_LONGEST = 200  # letters of a text
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

    private: serial number and place too.
    """
    stream = BytesIO(file) if isinstance(file, bytes) else file
    try:
        block = _block(stream)
        return None if block is None else _parsed(block, private)
    except Exception:  # whatever a damaged file leads Pillow and struct to
        return None


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
    from PIL import ExifTags, Image

    tags = Image.Exif()
    tags.load(block)
    base, camera = ExifTags.Base, tags.get_ifd(ExifTags.IFD.Exif)
    found = Exif(
        make=_text(tags.get(base.Make)),
        model=_text(tags.get(base.Model)),
        lens=_text(camera.get(base.LensModel)),
        captured_at=_time(camera.get(base.DateTimeOriginal), camera.get(base.OffsetTimeOriginal)),
        serial=_text(camera.get(base.BodySerialNumber)) if private else None,
        **(_place(tags.get_ifd(ExifTags.IFD.GPSInfo)) if private else {}),
    )
    return found if found != Exif() else None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = " ".join("".join(c if c.isprintable() else " " for c in value.split("\0")[0]).split())
    return text[:_LONGEST] or None


def _time(value: Any, offset: Any) -> str | None:
    with suppress(TypeError, ValueError):
        time = datetime.strptime((_text(value) or "")[:19], "%Y:%m:%d %H:%M:%S")
        zone = _text(offset) or ""
        return time.isoformat() + (zone if _OFFSET.fullmatch(zone) else "")
    return None


def _place(gps: dict[int, Any]) -> dict[str, float]:
    from PIL import ExifTags

    place = {}
    for name, letter, value, negative, limit in (
        ("latitude", ExifTags.GPS.GPSLatitudeRef, ExifTags.GPS.GPSLatitude, "S", 90),
        ("longitude", ExifTags.GPS.GPSLongitudeRef, ExifTags.GPS.GPSLongitude, "W", 180),
    ):
        with suppress(TypeError, ValueError, ZeroDivisionError):
            degrees, minutes, seconds = (float(part) for part in gps.get(value, ()))
            angle = degrees + minutes / 60 + seconds / 3600
            if abs(angle) <= limit:  # which also drops what is not a number
                place[name] = round(-angle if _text(gps.get(letter)) == negative else angle, 6)
    return place if len(place) == 2 else {}
