"""Picture files in: upright according to EXIF, of as many channels as are wanted, whatever the file holds.

Pillow reads them. TIFF files that it does not read in full (`tiff.py`) and DICOM (`dicom.py`) need the extra `science`;
which reader a file gets hangs on the file and on the channels that are wanted, never on what is installed.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from tracesight.data.channels import fit_channels, upright, upright_size
from tracesight.data.dicom import MAGIC, dicom_size, read_dicom
from tracesight.data.limits import check_pixels, max_pixels, too_many_pixels
from tracesight.data.tags import exif_orientation, is_tiff, xmp_orientation
from tracesight.data.tiff import mended, needs_tifffile, read_with_tifffile, tiff_header
from tracesight.errors import UserError

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"} | DICOM_SUFFIXES
)

# Of all that Pillow knows: some of the others call programs.
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_TEXTS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # parts of a PNG that may hold an orientation


def open_picture(path: Path | str, channels: int | None = 3) -> np.ndarray:
    """The picture as (H, W, channels), upright according to its EXIF orientation: uint8, or float32 in 0–1.

    channels: 3 gives 8-bit RGB of every kind of picture that is in grey or in colour: 16 bits are scaled to 8. 1 gives
    grey, of colours their luma. Any other number is what the picture must have. None: as many as it has. Where they are
    not 3, what has more than 8 bits comes as float32.

    Palette and CMYK pictures are converted to RGB, transparency is dropped unless it makes up the number, colour
    profiles are passed over, and of several frames the first is taken. Raises UserError that names the file: missing,
    no picture, truncated, with other channels, larger than the limit (`limits.py`), of pixels that are signed,
    floating-point or of more than 16 bits, whose range no file says, or of a kind whose extra is not installed.
    """
    with _opened(path) as (stream, head):
        if _is_dicom(path, head):
            return fit_channels(read_dicom(path), channels, path)
        if is_tiff(head):
            header = tiff_header(stream, path)
            check_pixels(path, header.height, header.width)
            if needs_tifffile(header, channels):
                pixels, alpha = read_with_tifffile(path, header, channels)
            else:
                pixels, alpha = _by_pillow(stream, path)
                pixels = mended(pixels, header)
        else:
            pixels, alpha = _by_pillow(stream, path)
        return fit_channels(pixels, channels, path, alpha=alpha)


def open_any(path: Path | str) -> np.ndarray:
    """The picture with all channels that it has; where only RGB can be made of it here, that. Raises UserError."""
    try:
        return open_picture(path, None)
    except UserError as error:
        with suppress(UserError):
            return open_picture(path)
        raise error


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header alone wherever the format allows. Raises UserError."""
    height, width, orientation = stored_size(path)
    return upright_size(height, width, orientation)


def stored_size(path: Path | str) -> tuple[int, int, int]:
    """(height, width, orientation) of a picture as it is stored, and how EXIF turns it, 1 to 8. Raises UserError."""
    with _opened(path) as (stream, head):
        if _is_dicom(path, head):
            return (*dicom_size(path), 1)
        if is_tiff(head):
            header = tiff_header(stream, path)
            check_pixels(path, header.height, header.width)
            return header.height, header.width, header.orientation
        late = head.startswith(b"\x89PNG") and _late_texts(stream)
        with _image(stream, path) as image:
            if late:
                image.load()
            return image.height, image.width, image_orientation(image)


@contextmanager
def _opened(path: Path | str) -> Iterator[tuple[BinaryIO, bytes]]:
    """The open file and its first bytes; whatever goes wrong with it, inside the block too, becomes a UserError."""
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for whoever writes into it
            what = "a folder" if stat.S_ISDIR(mode) else "no file but a pipe or device"
            raise UserError(f"{path}: {what}, where a picture is wanted; name a picture file")
        with Path(path).open("rb") as stream:
            head = stream.read(MAGIC.stop)
            stream.seek(0)
            yield stream, head
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture file; restore it or correct the path") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a picture that can be read, or a damaged one; replace or remove it") from None
    except Image.DecompressionBombError as error:  # Pillow has looked before we could
        claimed = re.search(r"\d+", str(error))
        raise too_many_pixels(path, int(claimed[0]) if claimed else None) from None
    except MemoryError:
        raise UserError(f"{path}: the picture does not fit into memory; cut it into tiles") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; change its permissions") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to: OSError, SyntaxError, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be decoded ({reason}); replace or remove the picture") from error


def _is_dicom(path: Path | str, head: bytes) -> bool:
    """By its mark, since many have no suffix; a file can be TIFF and DICOM at once, and is then read as TIFF."""
    return not is_tiff(head) and (head[MAGIC] == b"DICM" or Path(path).suffix.lower() in DICOM_SUFFIXES)


@contextmanager
def _image(stream: BinaryIO, path: Path | str) -> Iterator[Image.Image]:
    """An image that Pillow has opened, of no more pixels than the limit."""
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user said so; Pillow's own limit is one for the whole process
    stream.seek(0)
    with Image.open(stream, formats=PILLOW_FORMATS) as image:
        check_pixels(path, image.height, image.width)
        yield image


def _by_pillow(stream: BinaryIO, path: Path | str) -> tuple[np.ndarray, bool]:
    """Upright pixels (H, W, n), uint8 or uint16, and whether the last channel is transparency."""
    with _image(stream, path) as image:
        image.load()
        # Pillow turns TIFF files upright as it loads them.
        orientation = 1 if isinstance(image, TiffImageFile) else image_orientation(image)
        pixels, alpha = _pixels(image, path)
        return upright(pixels, orientation), alpha


def _pixels(image: Image.Image, path: Path | str) -> tuple[np.ndarray, bool]:
    mode = image.mode
    if mode == "F":
        raise UserError(f"{path}: floating-point pixels have no known range; save the picture with 8 or 16 bits")
    if mode == "I" or mode.startswith("I;16"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise UserError(f"{path}: pixels of more than 16 bits have no known range; save it with 8 or 16 bits")
        return levels.astype(np.uint16)[..., None], False
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and "transparency" in image.info)
    if mode in ("1", "L"):
        kept = "L"
    elif mode in ("LA", "La"):
        kept = "LA"
    else:
        kept = "RGBA" if alpha else "RGB"
    array = np.array(image if mode == kept else image.convert(kept))
    return array if array.ndim == 3 else array[..., None], alpha


def image_orientation(image: Image.Image) -> int:
    """1 to 8, from EXIF, or from XMP where that does not say."""
    info: dict[str, Any] = image.info  # type: ignore[assignment]
    block = info.get("exif")
    if block is None and isinstance(
        profile := info.get("Raw profile type exif"), str
    ):  # as ImageMagick keeps it in PNG
        block = bytes.fromhex("".join(profile.split("\n")[3:]))
    said = exif_orientation(block) if isinstance(block, bytes) else None
    if said is not None:
        return said
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    return xmp_orientation(packet.encode() if isinstance(packet, str) else packet)


def _late_texts(stream: BinaryIO) -> bool:
    """Whether a PNG holds texts behind its pixels, which are found only by decoding them all."""
    stream.seek(8)
    pixels = False
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        pixels = pixels or kind == b"IDAT"
        if pixels and kind in _TEXTS:
            return True
        if kind == b"IEND":
            break
        stream.seek(length + 4, os.SEEK_CUR)
    return False
