"""Masks as one polygon each, along the edges of their pixels, that fills to the very same mask again.

A single polygon has no place for holes and second parts, so every ring after the first is tied to the one before by a
slit: a line gone along and come back on, which encloses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracesight.data.record import Annotation
from tracesight.scene.mask import Mask

APART = 0.5  # pixels between a box and that of its mask from which it is worth a word that only the mask is kept


def one_polygon(annotation: Annotation, height: int, width: int) -> list[float] | None:
    """The object's segmentation as one polygon [x, y, x, y, …] in pixels; None where it has none, or an empty mask.

    Polygons stay what they are, several parts tied together; where those overlap it is drawn around their pixels.
    Raises ValueError for run lengths that do not fit the picture.
    """
    shape = annotation.segmentation
    if shape is None:
        return None
    if isinstance(shape, Sequence):
        if len(shape) == 1:
            return [float(v) for v in shape[0]]
        tied = _tied([list(zip(part[0::2], part[1::2], strict=True)) for part in shape])
        mask = annotation.mask(height, width)
        joined = Annotation(0, 0, annotation.box, [tied]).mask(height, width)
        return tied if joined == mask else outline(mask) if mask is not None else None
    mask = annotation.mask(height, width)
    return None if mask is None else outline(mask)


def outline(mask: Mask) -> list[float] | None:
    """One polygon around all pixels of a mask; None for an empty one."""
    crop, (top, left) = mask.to_crop()
    if crop.size == 0:
        return None
    return _tied([[(x + left, y + top) for x, y in ring] for ring in _rings(crop)])


def _tied(rings: Sequence[Sequence[tuple[float, float]]]) -> list[float]:
    """Rings one after the other, each closed, and back along the slits between their first points."""
    points = [point for ring in rings for point in (*ring, ring[0])] if len(rings) > 1 else list(rings[0])
    points += [ring[0] for ring in rings[-2:0:-1]]
    return [float(v) for point in points for v in point]


def _rings(pixels: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed lines (x, y) between object and background of an (h, w) array, without points on straight lines."""
    h, w = pixels.shape
    padded = np.zeros((h + 2, w + 2), np.int8)
    padded[1:-1, 1:-1] = pixels
    turns = np.diff(padded, axis=0)[:, 1:-1]  # (h + 1, w): 1 where the object begins below a horizontal edge
    sides = np.diff(padded, axis=1)[1:-1]  # (h, w + 1): 1 where it begins to the right of a vertical edge
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edges, (dx, dy), (ex, ey) in (
        (turns == 1, (0, 0), (1, 0)), (turns == -1, (1, 0), (0, 0)),
        (sides == 1, (0, 1), (0, 0)), (sides == -1, (0, 0), (0, 1)),
    ):  # fmt: skip
        for y, x in np.argwhere(edges).tolist():
            ends.setdefault((x + dx, y + dy), []).append((x + ex, y + ey))
    rings = []
    while ends:
        start = next(iter(ends))
        ring, at = [], start
        while not ring or at != start:
            ring.append(at)
            onwards = ends[at]
            after = onwards.pop()
            if not onwards:
                del ends[at]
            at = after
        rings.append([
            point for before, point, after in zip([ring[-1], *ring], ring, [*ring[1:], ring[0]])
            if (point[0] - before[0]) * (after[1] - point[1]) != (point[1] - before[1]) * (after[0] - point[0])
        ])  # fmt: skip
    return rings
