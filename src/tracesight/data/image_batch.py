"""Whole pictures and the categories they show, into tensors.

Letters: N pictures; S side of a picture; C channels; K categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tracesight.data.batch import Batch, ImageTargets
from tracesight.data.image_labels import ImageLabels
from tracesight.data.kept import KeptPictures
from tracesight.data.mix import Mix
from tracesight.data.random import generator
from tracesight.data.record import Record

View = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """A `loader.Make`: pictures as `view` cuts them, each by its own random numbers, mixed as `mix` says.

    labels: how the set's labels are read. columns: place among the K categories by category id. channels: of the
    pictures, as in `open_picture`. Raises UserError if a picture cannot be read, naming it.
    """

    labels: ImageLabels
    columns: Mapping[int, int]
    view: View
    channels: int = 3
    mix: Mix | None = None
    _kept: KeptPictures = field(default_factory=KeptPictures, init=False)

    def __call__(self, records: Sequence[Record], keys: np.ndarray) -> tuple[Batch, ImageTargets]:
        import torch

        views = [
            self.view(self._kept(record.path, self.channels), generator(seed, draw, "augment"))
            for record, (seed, draw) in zip(records, keys.tolist())
        ]
        images = np.empty((len(views), *views[0].shape), np.float32)
        for row, view in enumerate(views):
            unit = np.float32(255 if view.dtype == np.uint8 else 1)
            for channel in range(view.shape[2]):  # numpy's inner loop would be as long as a pixel where it is flipped
                np.divide(view[..., channel], unit, out=images[row, ..., channel])
        shares = np.zeros((len(views), len(self.columns)), np.float32)
        for row, record in enumerate(records):
            for number in self.labels.of(record):
                shares[row, self.columns[number]] = 1
        if self.mix is not None:
            self.mix(images, shares, keys)
        sizes = torch.tensor([images.shape[1:3]] * len(images), dtype=torch.int64)
        # (N, S, S, C) seen as (N, C, S, S) is what torch calls channels last: nothing is copied.
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)
        return Batch(planes, sizes, torch.from_numpy(keys)), ImageTargets(torch.from_numpy(shares))
