"""Labels that were drawn on a picture as it is stored, while EXIF says that it has to be turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tracesight.data.checks.picture_check import Outcome
from tracesight.data.facts import Facts
from tracesight.data.finding import Change, Finding, Kind
from tracesight.data.record import Annotation, Box, Record
from tracesight.scene.mask import Mask

LYING = Kind("picture-rotated", "error", "pictures whose labels ignore the EXIF rotation",
             "turn the labels as EXIF says, or take the tag away", "their labels turned")  # fmt: skip
UNSURE = Kind("picture-turned", "note", "pictures that EXIF turns, where sizes do not say how labels were drawn",
              "look at one of them")  # fmt: skip


def picture_rotated(record: Record, facts: Facts) -> Outcome:
    """A picture that EXIF turns by a quarter and whose labels have its size as stored; they are turned with it.

    Where it is square, or turned by a half or mirrored, the size is the same either way.
    """
    if facts.orientation == 1 or not facts.height:
        return record, ()
    stored = (facts.width, facts.height) if facts.orientation >= 5 else (facts.height, facts.width)
    if stored == (facts.height, facts.width):
        if not record.annotations:
            return record, ()
        message = f"EXIF orientation {facts.orientation} turns it, and labels of either way have the same size"
        return record, [Finding(UNSURE, str(record.path), message, record.path)]
    if (record.height, record.width) != stored:
        return record, ()
    message = (
        f"its labels are of the {record.width} × {record.height} pixels as stored, but upright, by EXIF orientation "
        f"{facts.orientation}, it has {facts.width} × {facts.height}"
    )
    before: dict[str, Any] = {"width": record.width, "height": record.height}
    change = Change(before, {"width": facts.width, "height": facts.height})
    return turned(record, facts.orientation), [Finding(LYING, str(record.path), message, record.path, change=change)]


def turned(record: Record, orientation: int) -> Record:
    """A record whose labels are of the picture as stored, with those of the upright picture."""
    size = record.height, record.width
    height, width = reversed(size) if orientation >= 5 else size
    objects = tuple(_turned(annotation, orientation, size) for annotation in record.annotations)
    return replace(record, height=height, width=width, annotations=objects)


def _turned(annotation: Annotation, orientation: int, size: tuple[int, int]) -> Annotation:
    shape = annotation.segmentation
    if isinstance(shape, dict | Mask):
        mask = annotation.mask(*size)
        shape = Mask.from_array(_turned_pixels(mask.to_array(), orientation)) if mask is not None else None
    elif shape is not None:
        shape = [_turned_points(np.asarray(part, np.float64).reshape(-1, 2), orientation, size).ravel().tolist()
                 for part in shape]  # fmt: skip
    points = annotation.keypoints
    if points is not None:
        places = _turned_points(np.array([(x, y) for x, y, _ in points]).reshape(-1, 2), orientation, size)
        points = tuple((*place, v) if v else (x, y, v) for place, (x, y, v) in zip(places.tolist(), points))
    return replace(annotation, box=_turned_box(annotation.box, orientation, size), segmentation=shape, keypoints=points)


def _turned_box(box: Box, orientation: int, size: tuple[int, int]) -> Box:
    (xa, ya), (xb, yb) = _turned_points(np.array([box[:2], box[2:]]), orientation, size).tolist()
    return min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)


def _turned_points(points: np.ndarray, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Points (n, 2) of the stored picture of (height, width) in the upright one (EXIF 2.3, tag 274)."""
    (height, width), (x, y) = size, points.T
    right, below = width - x, height - y
    ways = {1: (x, y), 2: (right, y), 3: (right, below), 4: (x, below), 5: (y, x), 6: (below, x), 7: (below, right),
            8: (y, right)}  # fmt: skip
    return np.stack(ways[orientation], axis=1)


def _turned_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) pixels as stored, upright."""
    if orientation >= 5:
        pixels = pixels.T
    # Of the transposed picture, 6 and 7 begin at the right, 7 and 8 at the bottom.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
