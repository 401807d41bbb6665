"""Large pictures (aerial, slides) as tiles: where they lie, how one is drawn, and what becomes of objects on a seam.

The rule: an object belongs to every tile that shows at least half of its area (of its mask, or of its box where it has
none), with the box of the part that is seen. What shows less of one says nothing there: it is a region to ignore,
neither object nor background. With an overlap that is larger than the objects, each lies whole in some tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.sample import Sample
from tracesight.data.transforms import Transform, Window, resize_crop

SEAM_SHARE = 0.5


@dataclass(frozen=True)
class Tiling:
    """size: side of a tile in pixels of the picture; overlap: share of it that neighbours have in common, at least."""

    size: int
    overlap: float

    def windows(self, height: int, width: int) -> list[Window]:
        """(top, left, height, width) of the tiles of a picture, row by row, evenly spread; a small picture is one."""
        rows, columns = (self._starts(length) for length in (height, width))
        tall, wide = min(self.size, height), min(self.size, width)
        return [(top, left, tall, wide) for top in rows for left in columns]

    def _starts(self, length: int) -> list[int]:
        rest = length - self.size
        if rest <= 0:
            return [0]
        count = math.ceil(rest / max(1, math.floor(self.size * (1 - self.overlap)))) + 1
        return [round(number * rest / (count - 1)) for number in range(count)]


def tile_weights(dataset: Dataset, tiling: Tiling | None, weights: np.ndarray | None) -> np.ndarray | None:
    """How often each picture is drawn in an epoch so that each of its tiles is once, on average: (n,) float64.

    weights: how often each picture would be drawn without tiles; None: once.
    """
    if tiling is None:
        return weights
    counts = np.array([len(tiling.windows(record.height, record.width)) for record in dataset], np.float64)
    return counts if weights is None else counts * weights


def one_tile(sample: Sample, rng: np.random.Generator, *, tiling: Tiling, then: Transform) -> Sample:
    """A tile of the picture, drawn evenly from all, after which `then` is done with it."""
    windows = tiling.windows(*sample.size)
    window = windows[int(rng.random() * len(windows))]
    return then(resize_crop(sample, sample.size, window, seam=SEAM_SHARE), rng)
