"""Picture files in: Pillow, EXIF orientation applied, RGB with 8 bits a channel, whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from tracesight.errors import UserError

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Pillow's own limit for an error. A file of a few kilobytes can claim to be a picture that fills the memory.
MAX_PIXELS = 178_956_970

_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def open_picture(path: Path | str) -> np.ndarray:
    """The picture as (H, W, 3) uint8 RGB, upright according to its EXIF orientation.

    Grey, palette, CMYK and transparent pictures are converted (transparency is dropped), 16-bit grey is scaled to 8
    bits, of several frames the first is taken. Raises UserError that names the file: missing, no picture, truncated,
    larger than `MAX_PIXELS`, or of floating-point pixels, whose range no file says.
    """
    with _opened(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(upright, path))


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header where the format allows. Raises UserError."""
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow has turned the size of these already, the tags are as stored
            width, height = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """An open picture; whatever goes wrong with it, inside the block too, becomes a UserError."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture file; restore it or correct the path") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a picture that can be read, or a damaged one; replace or remove it") from None
    except Image.DecompressionBombError:
        message = f"{path}: more than {MAX_PIXELS} pixels, which could exhaust the memory; cut it into tiles"
        raise UserError(message) from None
    except MemoryError:
        raise UserError(f"{path}: the picture does not fit into memory; cut it into tiles") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to: OSError, SyntaxError, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be decoded ({reason}); replace or remove the picture") from error


def _to_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise UserError(f"{path}: floating-point pixels have no known range; save the picture with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # straight to RGB, Pillow warns about palettes that hold transparency
        image = image.convert("RGBA")
    return image.convert("RGB")
