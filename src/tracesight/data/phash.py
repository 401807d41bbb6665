"""A perceptual hash: pictures that look the same have hashes that differ in few bits.

The signs of the low frequencies of the picture's cosine transform, as in Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions" (2010), section 3.2.1, with 16 × 16 of them in place of 8 × 8, for among pictures from
one microscope 64 bits tell too little apart.

It does not change with size, brightness or contrast, hardly with compression or blur, and little with a cut of 2 % of
the sides. A mirrored or turned picture has another one. `docs/split.md` has the figures that `NEAR` was chosen by.
`data/facts.py` keeps hashes between commands: who changes them raises its version.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

BITS = 256
NEAR = 40  # bits in which two pictures may differ and still count as the same one
_GRID = 32  # the picture is brought to this size before it is transformed
_KEPT = 16  # frequencies a side: their square is BITS
_COSINES = np.cos(np.pi * np.arange(_KEPT)[:, None] * (2 * np.arange(_GRID) + 1)[None] / (2 * _GRID))
_ROWS = 256  # hashes that are compared with all others at once


def perceptual_hash(pixels: np.ndarray) -> str:
    """64 hex digits, of (H, W) or (H, W, C) of any real type. Pictures without any structure have zeros only."""
    return image_hash(_image(pixels))


def image_hash(image: Image.Image) -> str:
    """`perceptual_hash` of an image of mode RGB or F."""
    grid = np.frombuffer(_on_grid(image).tobytes(), np.float32).reshape(_GRID, _GRID)
    spectrum = _COSINES @ grid.astype(np.float64) @ _COSINES.T
    spectrum = spectrum.round(3).ravel()  # what a flat picture has beside its mean is rounding
    spectrum[0] = 0  # the mean is brightness
    ascending = np.sort(spectrum)
    middle = (ascending[BITS // 2 - 1] + ascending[BITS // 2]) / 2  # the median, in a tenth of the time
    return np.packbits(spectrum > middle).tobytes().hex()


def near_pairs(hashes: Sequence[str | None], limit: int = NEAR) -> list[tuple[int, int, int]]:
    """(i, j, bits that differ) for i < j, ascending, of all that differ in `limit` bits or fewer. None is near nothing.

    Every hash is compared with every other: 10,000 of them take less than a second, 100,000 about a minute.
    """
    rows, signs = _signs(hashes)
    found = []
    for start in range(0, len(rows), _ROWS):
        # Equal bits less different ones, which single precision holds exactly.
        agreement = signs[start : start + _ROWS] @ signs[start:].T
        i, j = np.nonzero(np.triu(agreement >= BITS - 2 * limit, k=1))
        bits = (BITS - agreement[i, j].astype(np.int64)) // 2
        found += list(zip(rows[start + i].tolist(), rows[start + j].tolist(), bits.tolist()))
    return found


def near_groups(hashes: Sequence[str | None], limit: int = NEAR) -> list[int]:
    """For each hash the position of the first one of its group: those that a chain of near pairs joins.

    Takes no memory for the pairs, of which a film has as many as its pictures squared.
    """
    group = np.arange(len(hashes))
    rows, signs = _signs(hashes)
    for start in range(0, len(rows), _ROWS):
        near = signs[start : start + _ROWS] @ signs[start:].T >= BITS - 2 * limit
        for at in np.flatnonzero(near.sum(1) > 1):
            joined = np.unique(group[rows[start:][near[at]]])
            if joined.size > 1:
                group[np.isin(group, joined)] = joined[0]
    return group.tolist()


def nearest(hashes: Sequence[str | None], others: Sequence[str | None], limit: int = NEAR) -> list[int | None]:
    """For each of `hashes` the position of the nearest one of `others`, None where none is near."""
    result: list[int | None] = [None] * len(hashes)
    (rows, signs), (columns, other) = _signs(hashes), _signs(others)
    for start in range(0, len(rows) if len(columns) else 0, _ROWS):
        agreement = signs[start : start + _ROWS] @ other.T
        for at, best in enumerate(agreement.argmax(1).tolist()):
            if agreement[at, best] >= BITS - 2 * limit:
                result[rows[start + at]] = int(columns[best])
    return result


def _signs(hashes: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Which of `hashes` there are (n,), and their bits (n, 256) as -1 and 1."""
    rows = np.array([row for row, value in enumerate(hashes) if value is not None], np.int64)
    packed = np.frombuffer(b"".join(bytes.fromhex(hashes[row] or "") for row in rows), np.uint8)
    return rows, np.unpackbits(packed.reshape(len(rows), BITS // 8), axis=1).astype(np.float32) * 2 - 1


def _image(pixels: np.ndarray) -> Image.Image:
    """8-bit RGB as it is, all else as levels of grey in floating point."""
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]  # which is transparency nearly always
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(pixels))
    plane = pixels.astype(np.float32)
    return Image.fromarray(plane.mean(-1) if plane.ndim == 3 else plane)


def _on_grid(image: Image.Image) -> Image.Image:
    """Levels of grey on the grid, in floating point."""
    width, height = image.size
    factor = max(1, min(height, width) // (4 * _GRID))  # by whole numbers first, which is several times as fast
    image = image.reduce(factor) if factor > 1 else image
    image = image.convert("L") if image.mode == "RGB" else image
    box = (0, 0, width / factor, height / factor)  # the last cells of a reduced picture may hang over its edge
    image = image if image.mode == "F" else image.convert("F")
    return image.resize((_GRID, _GRID), Image.Resampling.BILINEAR, box=box)
