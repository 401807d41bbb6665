"""TIFF files that Pillow does not read in full: other than 1, 3 or 4 channels, colours of 16 bits, channels in pages.

They need tifffile, of the extra `science`. It decodes what is not compressed, and deflate and PackBits; LZW, JPEG and
others only where imagecodecs is installed too.

Letters: Y, X height and width; S samples of a pixel; C channels that lie in pages of their own, as ImageJ and OME have
them; other axes are time, depth and the like, of which the first place is read.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tracesight.data.channels import upright, wrong_channels
from tracesight.data.limits import check_pixels
from tracesight.data.tags import ORIENTATION, XMP, orientation_of, read_tags
from tracesight.errors import UserError

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _EXTRA, _KIND = 256, 257, 258, 262, 270, 277, 338, 339
_WANTED = (_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _EXTRA, _KIND, ORIENTATION, XMP)
_GREY, _RGB, _PALETTE, _CMYK = (0, 1), 2, 3, 5  # values of _PHOTOMETRIC; 0 is grey with white at 0
_PLAIN, _DEFLATE = (
    (1, 32773),
    (8, 32946),
)  # compressions: none and PackBits, which hardly swells; deflate by two numbers
_ALPHA = (1, 2)  # values of _EXTRA: transparency; 0 is a channel of data


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory of a TIFF says.

    height, width: pixels as stored. samples: of a pixel, transparency counted; alpha: how many of them are that.
    bits: of a sample. described: channels, pages included, of which the description of ImageJ or OME speaks; else 1.
    """

    height: int
    width: int
    samples: int
    alpha: int
    bits: int
    photometric: int
    described: int
    orientation: int


def tiff_header(stream: BinaryIO, path: Path | str) -> TiffHeader:
    """Raises UserError for pixels of more than 16 bits, signed or floating-point; for damage as `read_tags`."""
    tags = read_tags(stream, _WANTED)
    width, height = tags.get(_WIDTH, ()), tags.get(_HEIGHT, ())
    if len(width) != 1 or len(height) != 1:
        raise ValueError("it does not say its size")
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_KIND, (1,))
    if any(kind in (2, 3) for kind in kinds) or max(bits) > 16:
        what = "floating-point" if 3 in kinds else "signed" if 2 in kinds else f"{max(bits)}-bit"
        raise UserError(f"{path}: {what} pixels have no known range; save the picture with 8 or 16 bits, unsigned")
    return TiffHeader(
        height=height[0],
        width=width[0],
        samples=tags.get(_SAMPLES, (1,))[0],
        alpha=sum(extra in _ALPHA for extra in tags.get(_EXTRA, ())),
        bits=max(bits),
        photometric=tags.get(_PHOTOMETRIC, (1,))[0],
        described=_described(tags.get(_DESCRIPTION, b"")),
        orientation=orientation_of(tags),
    )


def needs_tifffile(header: TiffHeader, channels: int | None) -> bool:
    """Whether Pillow would lose channels or bits of what is wanted. It hangs on nothing that is installed."""
    if header.described > header.samples:
        return True
    if header.photometric in (_RGB, *_GREY):
        colours = 3 if header.photometric == _RGB else 1
        if header.samples - header.alpha != colours or header.alpha > 1:
            return True
        if header.samples > 1 and header.bits > 8 and (channels != 3 or colours == 1):
            return True
        return header.samples == 1 and channels not in (None, 1, 3)  # its pages may be the channels
    return header.photometric not in (_PALETTE, _CMYK) and header.samples > 4


def mended(pixels: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Pixels as Pillow has read them; 12 bits fill the range of 16, and white is the highest value of 16 bits too."""
    if pixels.dtype != np.uint16:
        return pixels
    if header.bits == 12:
        pixels = ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
    return 65535 - pixels if header.photometric == 0 else pixels


def read_with_tifffile(path: Path | str, header: TiffHeader, channels: int | None) -> tuple[np.ndarray, bool]:
    """Upright pixels (Y, X, C × S), uint8, uint16 or float32 in 0–1, and whether the last channel is transparency.

    channels: as in `channels.fit_channels`. Where they are neither 1 nor 3, pages of one sample count as channels if
    there are as many. Raises UserError: tifffile is not installed, the wrong number of channels, a
    compression that nothing here decodes.
    """
    try:
        import tifffile
    except ImportError:
        raise UserError(
            f"{path}: a TIFF of this kind needs tifffile; install it by `pip install 'tracesight[science]'`"
        ) from None
    # It tells about odd files there, and where nobody listens Python prints that.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        key: Any = series.keyframe
        axes, leading, numbers = _pages(series, key, channels)
        samples = key.shape[axes.index("S")] if "S" in axes else 1
        has, alpha = len(numbers) * samples, header.alpha == 1 and len(numbers) == 1
        if channels not in (None, has, has - alpha) and {has - alpha, channels} != {1, 3}:
            raise wrong_channels(path, has - alpha, channels)
        height, width = (key.shape[axes.index(axis)] for axis in "YX")
        check_pixels(path, height, width * max(1, has // max(4, channels or 4)))
        _check_compression(file, key, path)
        planes = _planes(series, key, leading, numbers, path)
        pixels = np.concatenate([_last(plane, axes) for plane in planes], axis=2)
        return upright(_levels(pixels, key, path), header.orientation), bool(alpha)


def _described(description: bytes) -> int:
    """Channels of which the description of ImageJ or OME speaks; 1 where it is neither."""
    if description.startswith(b"ImageJ="):
        found = re.search(rb"^channels=(\d{1,4})", description, re.MULTILINE)
    else:
        found = re.search(rb'<OME\b.*?\bSizeC="(\d{1,4})"', description, re.DOTALL)
    return int(found[1]) if found else 1


def _pages(series: Any, key: Any, channels: int | None) -> tuple[str, tuple[int, ...], list[int]]:
    """Axes of a page; lengths of the axes before them; numbers of the pages that hold the channels, in order."""
    page, every, shape = key.axes, series.get_axes(False), series.get_shape(False)
    if len(key.shape) != len(page):
        raise ValueError("its axes and its shape disagree")
    # Axes of length 1 may be left out of either.
    before = [(axis, length) for axis, length in zip(every, shape) if axis not in "YXS"]
    if sorted(set(page) - {"S"}) != ["X", "Y"]:
        raise ValueError(f"its pages have the axes {page}")
    if "C" not in page and not any(axis == "C" and length > 1 for axis, length in before):
        several = [place for place, (_, length) in enumerate(before) if length > 1]
        unsaid = channels not in (None, 1, 3) and "S" not in page and len(several) == 1
        if unsaid and before[several[0]][1] == channels:
            before[several[0]] = ("C", before[several[0]][1])
    lengths = tuple(length for _, length in before)
    if math.prod(lengths) * math.prod(key.shape) != math.prod(shape):
        raise ValueError("its pages and its description disagree")
    chosen = [range(length) if axis == "C" else range(1) for axis, length in before]
    grid = np.meshgrid(*chosen, indexing="ij") if chosen else []
    numbers = np.ravel_multi_index([part.ravel() for part in grid], lengths).tolist() if chosen else [0]
    return page, lengths, numbers


def _check_compression(file: Any, key: Any, path: Path | str) -> None:
    """Raises UserError for what cannot be decoded here, and for pieces that swell to more than their place."""
    if key.compression in _PLAIN or importlib.util.find_spec("imagecodecs") is not None:
        return
    if key.compression not in _DEFLATE:
        how = getattr(key.compression, "name", key.compression)
        raise UserError(
            f"{path}: a TIFF of this kind with {how} compression; save it uncompressed or with deflate, or "
            "`pip install imagecodecs`"
        )
    # tifffile's own deflate does not stop at the size that a piece must have.
    most = math.prod(key.chunks) * key.dtype.itemsize
    for offset, count in zip(key.dataoffsets, key.databytecounts):
        file.filehandle.seek(offset)
        if len(zlib.decompressobj().decompress(file.filehandle.read(count), most + 1)) > most:
            raise ValueError("a piece of it is larger than its place")


def _planes(series: Any, key: Any, leading: tuple[int, ...], numbers: list[int], path: Path | str) -> list[np.ndarray]:
    """The pages of these numbers, without reading the others."""
    if series.dataoffset is not None and key.is_final:  # they may lie in one piece, with one directory for all
        kind = np.dtype(series.parent.byteorder + key.dtype.char)
        whole = np.memmap(path, kind, "r", series.dataoffset, (math.prod(leading), *key.shape))
        return [np.array(whole[number]).astype(key.dtype, copy=False) for number in numbers]
    planes = []
    for number in numbers:
        page = series.pages[number]
        if page is None:
            raise ValueError(f"page {number} is missing")
        planes.append(page.asarray())
    return planes


def _last(plane: np.ndarray, axes: str) -> np.ndarray:
    """A page as (Y, X, S)."""
    if "S" not in axes:
        return plane[..., None]
    return np.moveaxis(plane, [axes.index(axis) for axis in "YXS"], (0, 1, 2))


def _levels(pixels: np.ndarray, key: Any, path: Path | str) -> np.ndarray:
    """Pixels whose whole range is in use, and whose white is the highest value."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path}: {pixels.dtype} pixels have no known range; save the picture with 8 or 16 bits, unsigned"
        )
    white = (1 << key.bitspersample) - 1
    if key.photometric == 0:
        pixels = white - pixels
    if key.bitspersample in (8, 16):
        return pixels
    return pixels / np.float32(white)
