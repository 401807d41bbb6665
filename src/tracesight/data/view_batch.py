"""One or two views of each picture in tensors: what a training without labels learns from.

Letters: N pictures; C channels; S side of a view; V views a picture; P numbers of a change (`views.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tracesight.data.batch import Batch
from tracesight.data.dataset import Dataset
from tracesight.data.kept import KeptPictures
from tracesight.data.random import generator
from tracesight.data.record import Record
from tracesight.data.views import NUMBERS, View, changed
from tracesight.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PURPOSES = ("first view", "second view")
_TRIES = 20  # pictures that are tried in the place of one that cannot be read


class Views(NamedTuple):
    """The rest of a batch whose `images` are the first views.

    second: (N, C, S, S), as `images`: float32 in 0–1, or uint8 that is still to be changed; None where there is one
    view. changes: (N, V, P) float32, what is to be done to them. broken: (N,) int64, how many pictures in the place of
    this one could not be read.
    """

    second: Tensor | None
    changes: Tensor
    broken: Tensor


@dataclass(frozen=True, eq=False)
class ViewBatches:
    """A `loader.Make`: one or two views of each picture, each by its own random numbers.

    views: of the first and the second. raw: views stay uint8 and their changes are for the device (`finished`).
    channels: of the pictures, as in `open_picture`; other than 3 they are float32 in 0–1, and nothing is changed.
    In the place of a picture that cannot be read comes another of `dataset`, drawn by the same key. Raises UserError if
    many in a row cannot be read, naming the last.
    """

    dataset: Dataset
    views: tuple[View, ...]
    raw: bool
    channels: int = 3
    _kept: KeptPictures = field(default_factory=KeptPictures, init=False)

    def __call__(self, records: Sequence[Record], keys: np.ndarray) -> tuple[Batch, Views]:
        import torch

        sides, kind = self.views[0].sides, torch.uint8 if self.channels == 3 else torch.float32
        images = [torch.empty((len(records), self.channels, *sides), dtype=kind) for _ in self.views]
        changes = np.zeros((len(records), len(self.views), NUMBERS), np.float32)
        broken = np.zeros(len(records), np.int64)
        for row, (record, (seed, draw)) in enumerate(zip(records, keys.tolist())):
            pixels, broken[row] = self._readable(record, seed, draw)
            for place, (view, purpose) in enumerate(zip(self.views, PURPOSES)):
                seen, changes[row, place] = view(pixels, seed, draw, purpose)
                images[place][row] = seen.float() / 255 if kind != seen.dtype else seen
        sizes = torch.tensor([sides] * len(records), dtype=torch.int64)
        batch = Batch(images[0], sizes, torch.from_numpy(keys))
        views = Views(images[1] if len(images) > 1 else None, torch.from_numpy(changes), torch.from_numpy(broken))
        return (batch, views) if self.raw else finished(batch, views)

    def _readable(self, record: Record, seed: int, draw: int) -> tuple[np.ndarray, int]:
        """Pixels of the picture, or of the first that can be read in its place; how many could not."""
        others = generator(seed, draw, "another picture")
        for failed in range(_TRIES):
            try:
                return self._kept(record.path, self.channels), failed
            except UserError as error:
                reason = error
                record = self.dataset[int(others.integers(len(self.dataset)))]
        raise UserError(f"{reason} ({_TRIES} pictures in a row could not be read)")


def finished(batch: Batch, views: Views) -> tuple[Batch, Views]:
    """The views as float32 in 0–1; where they are that already, as they are."""
    import torch

    if batch.images.dtype != torch.uint8:
        return batch, views
    raw = [batch.images] if views.second is None else [batch.images, views.second]
    done = [changed(part, views.changes[:, row]) for row, part in enumerate(raw)]
    return batch._replace(images=done[0]), views._replace(second=done[1] if len(done) > 1 else None)
