from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tracesight.data.image_batch import ImageBatches
from tracesight.data.image_labels import ImageLabels
from tracesight.data.record import Record
from tracesight.data.whole import TrainView
from tracesight.errors import UserError


def made(folder: Path, side: int) -> list[Record]:
    rng = np.random.default_rng(side)
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{number}.png")
    return [Record(n, folder / f"{n}.png", side, side, labels=(3 + 4 * n,)) for n in range(2)]


def batches() -> ImageBatches:
    return ImageBatches(ImageLabels(False, False), {3: 0, 7: 1}, TrainView(32, "padded", colour=0.5))


def test_small_pictures_are_decoded_once(tmp_path: Path) -> None:
    records, keys, make = made(tmp_path, 32), np.array([[5, 0], [5, 1]]), batches()
    batch, targets = make(records, keys)
    assert (batch.images.shape, targets.shares.tolist()) == ((2, 3, 32, 32), [[1, 0], [0, 1]])
    other = make(records, keys + 2)[0].images
    (tmp_path / "0.png").unlink()
    assert torch.equal(make(records, keys)[0].images, batch.images)
    assert not torch.equal(other, batch.images)
    with pytest.raises(UserError, match=r"0\.png: no such picture"):
        batches()(records, keys)


def test_large_ones_are_decoded_once_while_all_of_them_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, keys, bytes_of_one = made(tmp_path, 48), np.array([[5, 0], [5, 1]]), 48 * 48 * 3
    monkeypatch.setattr("tracesight.data.kept.ROOM", 2 * bytes_of_one)
    fits = batches()
    before = fits(records, keys)[0].images
    monkeypatch.setattr("tracesight.data.kept.ROOM", 2 * bytes_of_one - 1)
    does_not = batches()
    assert torch.equal(does_not(records, keys)[0].images, before)
    (tmp_path / "0.png").unlink()
    assert torch.equal(fits(records, keys)[0].images, before)
    with pytest.raises(UserError, match=r"0\.png: no such picture"):
        does_not(records, keys)
