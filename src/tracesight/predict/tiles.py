"""Objects that were found on the tiles of one picture, put together.

The rule: an object that no seam cuts comes before one that a seam cuts, then the higher score comes first. One after
the other is kept unless one that is kept, of its category, overlaps it by an IoU of more than a half, or, if a seam
cuts it, covers more than half of it. So the part of an object yields to the whole of it.

D detections of all tiles; boxes are `xyxy` in pixels of the whole picture.
"""

from __future__ import annotations

import numpy as np

from tracesight.bundle import Bundle
from tracesight.data.tiles import Tiling
from tracesight.data.transforms import Window

SAME = 0.5
NEAR = 2.0  # pixels: a box that comes so near to an inner edge of its tile is cut by it


def tiling_of(bundle: Bundle) -> Tiling | None:
    """How the bundle's pictures are cut into tiles; None: they are not."""
    tile = bundle.preprocessing.get("tile")
    return None if tile is None else Tiling(**tile)


def cut_by_seam(boxes: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Which boxes (d, 4) end at an edge of the tile `window` that is not an edge of the picture of `size`: (d,)."""
    top, left, height, width = window
    bottom, right = top + height, left + width
    return (
        ((boxes[:, 0] < left + NEAR) & (left > 0))
        | ((boxes[:, 1] < top + NEAR) & (top > 0))
        | ((boxes[:, 2] > right - NEAR) & (right < size[1]))
        | ((boxes[:, 3] > bottom - NEAR) & (bottom < size[0]))
    )


def merged(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray, most: int) -> np.ndarray:
    """Positions of the detections (D,) that are kept, the best score first, `most` at most."""
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for place in np.lexsort((-scores, cut)):
        others = [other for other in kept if labels[other] == labels[place]]
        if others:
            low, high = np.maximum(boxes[others, :2], boxes[place, :2]), np.minimum(boxes[others, 2:], boxes[place, 2:])
            shared = np.clip(high - low, 0, None).prod(axis=1)
            over = shared > SAME * (area[others] + area[place] - shared)
            if cut[place]:
                over |= shared > SAME * area[place]
            if over.any():
                continue
        kept.append(int(place))
    order = sorted(kept, key=lambda place: -scores[place])
    return np.array(order[:most], np.int64)
