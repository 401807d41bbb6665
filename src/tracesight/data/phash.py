"""A perceptual hash: pictures that look the same have hashes that differ in few bits.

The signs of the low frequencies of the picture's cosine transform, as in Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions" (2010), section 3.2.1, with 16 × 16 of them in place of 8 × 8, for among pictures from
one microscope 64 bits tell too little apart.

It does not change with size, brightness or contrast, hardly with compression or blur, and little with a cut of 2 % of
the sides. A mirrored or turned picture has another one. `docs/split.md` has the figures that `NEAR` was chosen by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tracesight.data.cache import cached
from tracesight.data.pictures import open_picture
from tracesight.errors import UserError

BITS = 256
NEAR = 40  # bits in which two pictures may differ and still count as the same one
VERSION = 3
_GRID = 32  # the picture is brought to this size before it is transformed
_KEPT = 16  # frequencies a side: their square is BITS
_COSINES = np.cos(np.pi * np.arange(_KEPT)[:, None] * (2 * np.arange(_GRID) + 1)[None] / (2 * _GRID))
_ROWS = 512  # hashes that are compared with all others at once


def perceptual_hash(pixels: np.ndarray) -> str:
    """64 hex digits, of (H, W) or (H, W, C) of any real type. Pictures without any structure have zeros only."""
    image = _grey(pixels)
    spectrum = _COSINES @ np.asarray(image, np.float64) @ _COSINES.T
    spectrum = spectrum.round(3).ravel()  # what a flat picture has beside its mean is rounding
    spectrum[0] = 0  # the mean is brightness
    return np.packbits(spectrum > np.median(spectrum)).tobytes().hex()


def perceptual_hashes(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[str | None]:
    """The hash of each picture file, None where it cannot be decoded; kept between commands.

    progress: called with (pictures done, pictures). Decoders work outside Python's lock, so threads use all cores.
    """

    def compute(unknown: list[Path]) -> Iterator[str | None]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            yield from pool.map(_hash_of_file, unknown)

    return cached(paths, "phash", VERSION, compute, progress)


def near_pairs(hashes: Sequence[str | None], limit: int = NEAR) -> list[tuple[int, int, int]]:
    """(i, j, bits that differ) for i < j, ascending, of all that differ in `limit` bits or fewer. None is near nothing.

    Every hash is compared with every other: 10,000 of them take less than a second, 100,000 about a minute.
    """
    rows = np.array([row for row, value in enumerate(hashes) if value is not None], np.int64)
    if not len(rows):
        return []
    packed = np.frombuffer(b"".join(bytes.fromhex(hashes[row] or "") for row in rows), np.uint8)
    signs = np.unpackbits(packed.reshape(len(rows), -1), axis=1).astype(np.float32) * 2 - 1
    found = []
    for start in range(0, len(rows), _ROWS):
        # Equal bits less different ones, which single precision holds exactly.
        agreement = signs[start : start + _ROWS] @ signs[start:].T
        i, j = np.nonzero(np.triu(agreement >= BITS - 2 * limit, k=1))
        bits = (BITS - agreement[i, j].astype(np.int64)) // 2
        found += list(zip(rows[start + i].tolist(), rows[start + j].tolist(), bits.tolist()))
    return found


def _hash_of_file(path: Path) -> str | None:
    try:
        return perceptual_hash(open_picture(path, None))
    except UserError:
        return None


def _grey(pixels: np.ndarray) -> Image.Image:
    """Levels of grey on the grid, in floating point."""
    height, width = pixels.shape[:2]
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]  # which is transparency nearly always
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels))
    else:
        plane = pixels.astype(np.float32)
        image = Image.fromarray(plane.mean(-1) if plane.ndim == 3 else plane)
    factor = max(1, min(height, width) // (4 * _GRID))  # by whole numbers first, which is several times as fast
    image = image.reduce(factor) if factor > 1 else image
    image = image.convert("L") if image.mode == "RGB" else image
    box = (0, 0, width / factor, height / factor)  # the last cells of a reduced picture may hang over its edge
    return image.convert("F").resize((_GRID, _GRID), Image.Resampling.BILINEAR, box=box)
