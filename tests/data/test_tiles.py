"""Tiles: where they lie, what becomes of an object on a seam, and how often each is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracesight.data.dataset import Dataset
from tracesight.data.record import Record
from tracesight.data.sample import Sample
from tracesight.data.tiles import SEAM_SHARE, Tiling, one_tile, tile_weights
from tracesight.data.transforms import resize_crop
from tracesight.predict.tiles import cut_by_seam, merged


def test_tiles_cover_the_picture_and_overlap():
    assert Tiling(100, 0.2).windows(80, 100) == [(0, 0, 80, 100)]
    # 250 pixels by tiles of 100, each at most 80 after the one before.
    assert Tiling(100, 0.2).windows(100, 250) == [(0, 0, 100, 100), (0, 75, 100, 100), (0, 150, 100, 100)]
    assert Tiling(100, 0.0).windows(200, 100) == [(0, 0, 100, 100), (100, 0, 100, 100)]
    for height, width in ((333, 1001), (64, 65), (129, 64)):
        seen = np.zeros((height, width), int)
        for top, left, tall, wide in Tiling(64, 0.25).windows(height, width):
            assert top + tall <= height and left + wide <= width
            seen[top : top + tall, left : left + wide] += 1
        assert seen.min() >= 1


def sample(boxes: list, masks: tuple | None = None, mask_boxes: list | None = None) -> Sample:
    box = np.array(boxes, np.float32)
    return Sample(
        np.zeros((100, 200, 3), np.uint8),
        box,
        np.arange(1, len(box) + 1),
        np.zeros(len(box), bool),
        masks,
        box if mask_boxes is None else np.array(mask_boxes, np.float32),
    )


def test_an_object_belongs_to_the_tiles_that_show_half_of_it():
    # Of 40 pixels 20, 19 and none lie left of the seam at 100.
    objects = sample([[80, 10, 120, 30], [81, 40, 121, 60], [150, 10, 190, 30], [10, 10, 20, 20]])
    left = resize_crop(objects, (100, 200), (0, 0, 100, 100), seam=SEAM_SHARE)
    assert left.labels.tolist() == [1, 2, 4]
    assert left.crowd.tolist() == [False, True, False]
    assert left.boxes.tolist() == [[80, 10, 100, 30], [81, 40, 100, 60], [10, 10, 20, 20]]
    right = resize_crop(objects, (100, 200), (0, 100, 100, 100), seam=SEAM_SHARE)
    assert right.labels.tolist() == [1, 2, 3]
    assert not right.crowd.any()


def test_half_of_a_mask_counts_and_not_half_of_its_box():
    mask = np.zeros((20, 40), np.uint8)
    mask[:, :4] = 1  # nearly all of it lies left
    mask[0] = 1
    objects = sample([[80, 10, 120, 30]], (mask,))
    left, right = (resize_crop(objects, (100, 200), (0, x, 100, 100), seam=SEAM_SHARE) for x in (0, 100))
    assert left.crowd.tolist() == [False]
    assert right.crowd.tolist() == [True]
    assert right.masks[0].size == 0
    # What is ignored is all that may be of it.
    assert right.boxes.tolist() == [[0, 10, 20, 30]]


def test_every_tile_of_a_picture_is_drawn():
    objects, seen = sample([[80, 10, 120, 30]]), set()
    for seed in range(40):
        tile = one_tile(objects, np.random.default_rng(seed), tiling=Tiling(100, 0.0), then=lambda s, rng: s)
        assert tile.size == (100, 100)
        seen.add(tuple(tile.boxes[0].tolist()))
    assert seen == {(80, 10, 100, 30), (0, 10, 20, 30)}


def test_a_picture_is_drawn_as_often_as_it_has_tiles():
    records = (Record(i, Path(f"{i}.png"), width, 100) for i, width in enumerate((100, 200, 400)))
    data = Dataset.of(records, {})
    assert tile_weights(data, Tiling(100, 0.0), None).tolist() == [1, 2, 4]
    assert tile_weights(data, Tiling(100, 0.0), np.array([1.0, 0.5, 2.0])).tolist() == [1, 1, 8]
    assert tile_weights(data, None, None) is None


def test_a_seam_cuts_what_ends_at_an_inner_edge():
    boxes = np.array([[0, 0, 50, 50], [60, 10, 99.5, 30], [10, 60, 40, 100], [20, 20, 40, 40]], np.float32)
    # The first of two tiles side by side: its right edge alone is a seam.
    assert cut_by_seam(boxes, (0, 0, 100, 100), (100, 200)).tolist() == [False, True, False, False]
    assert cut_by_seam(boxes + [100, 0] * 2, (0, 100, 100, 100), (100, 200)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("flipped", [False, True])
def test_parts_yield_to_the_whole(flipped):
    boxes = np.array(
        [
            [80, 10, 120, 30],  # whole, in a tile that overlaps the seam
            [80, 10, 100, 30],  # its left half, cut, with a better score
            [81, 11, 121, 31],  # the whole again, from another tile
            [80, 10, 100, 30],  # the same place, another category
            [95, 60, 100, 80],  # cut, and nowhere whole: it stays
        ],
        np.float32,
    )
    scores, labels = np.array([0.7, 0.9, 0.6, 0.8, 0.5]), np.array([1, 1, 1, 2, 1])
    cut = np.array([False, True, False, True, True])
    order = np.arange(5)[::-1] if flipped else np.arange(5)
    kept = order[merged(boxes[order], scores[order], labels[order], cut[order], 10)]
    assert kept.tolist() == [3, 0, 4]
    assert order[merged(boxes[order], scores[order], labels[order], cut[order], 1)].tolist() == [3]
