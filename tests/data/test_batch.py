"""Few, fixed shapes; nothing is cut off; masks travel as crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_transforms import sample_of

from tracesight.data.batch import Targets, collate, padded_count, predict_batch
from tracesight.data.sample import Sample, decoded
from tracesight.data.transforms import resize, resized_size


def boxes_only(count: int, height: int = 10, width: int = 10) -> Sample:
    boxes = np.tile(np.array([1, 1, 5, 5], np.float32), (count, 1))
    labels, crowd = np.ones(count, np.int64), np.arange(count) % 3 == 2
    return Sample(np.full((height, width, 3), 255, np.uint8), boxes, labels, crowd, None, boxes)


def test_counts_are_padded_in_few_steps() -> None:
    counts = [0, 1, 32, 33, 128, 129, 512, 513, 2048, 2049, 4096, 4097]
    assert [padded_count(c) for c in counts] == [32, 32, 32, 128, 128, 512, 512, 2048, 2048, 4096, 4096, 6144]


def test_pictures_are_padded_with_zeros_to_multiples_of_32_channels_last() -> None:
    batch, targets = collate([boxes_only(1, 33, 20), boxes_only(40, 10, 64)], [(7, 0), (7, 1)], with_masks=False)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.sizes.tolist() == [[33, 20], [10, 64]]
    assert batch.keys.tolist() == [[7, 0], [7, 1]]
    assert float(batch.images[0].sum()) == 3 * 33 * 20
    assert float(batch.images[0, :, :33, :20].min()) == 1.0
    assert targets.boxes.shape == (2, 128, 4)
    assert targets.valid.sum(1).tolist() == [1, 27]
    assert targets.crowd.sum(1).tolist() == [0, 13]
    assert not (targets.valid & targets.crowd).any()
    assert targets.labels[1].tolist() == [1] * 40 + [0] * 88
    assert targets.mask_pixels.shape == (1,)
    assert int(targets.mask_sizes.sum()) == 0


def test_more_objects_than_any_usual_limit_are_all_there() -> None:
    _, targets = collate([boxes_only(2500)], [(0, 0)], with_masks=False)
    assert targets.labels.shape == (1, 4096)
    assert int((targets.labels > 0).sum()) == 2500


def crop_of(targets: Targets, i: int, j: int) -> np.ndarray:
    h, w = targets.mask_sizes[i, j].tolist()
    start = int(targets.mask_offsets[i, j])
    return targets.mask_pixels[start : start + h * w].numpy().reshape(h, w)


def test_masks_lie_one_after_another_at_the_resolution_they_were_drawn_at() -> None:
    rng = np.random.default_rng(0)
    samples = [decoded(sample_of([rng.random((20, 15)) < 0.3 for _ in range(n)], 20, 15)) for n in (3, 0, 2)]
    _, targets = collate(samples, [(0, i) for i in range(3)])
    used = 0
    for i, sample in enumerate(samples):
        for j, mask in enumerate(sample.masks or ()):
            assert isinstance(mask, np.ndarray)
            np.testing.assert_array_equal(crop_of(targets, i, j), mask)
            assert targets.mask_offsets[i, j] == used
            used += mask.size
    size = targets.mask_pixels.numel()
    assert size & (size - 1) == 0
    assert size // 2 < used <= size
    assert targets.mask_pixels.dtype == torch.uint8


def test_a_batch_without_objects_has_the_shapes_of_one_with_some() -> None:
    _, targets = collate([boxes_only(0)], [(0, 0)], with_masks=False)
    assert targets.boxes.shape == (1, 32, 4)
    assert not targets.valid.any()


def test_what_cannot_be_collated() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        collate([], [])
    with pytest.raises(ValueError, match="not decoded"):
        collate([sample_of([np.ones((4, 4), bool)], 4, 4)], [(0, 0)])
    with pytest.raises(ValueError, match="masks are asked for"):
        collate([boxes_only(1)], [(0, 0)])


def test_prediction_sees_pictures_as_evaluation_does() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 80), (64, 64))]
    batch = predict_batch(images, 64)
    assert batch.images.shape == (2, 3, 64, 128)
    assert batch.sizes.tolist() == [[64, 102], [64, 64]]
    assert batch.keys.tolist() == [[0, 0], [0, 0]]
    expected = resize(images[0], resized_size(50, 80, 64))
    np.testing.assert_array_equal(batch.images[0, :, :64, :102].permute(1, 2, 0).numpy(), expected)
    assert (batch.images[0, :, :, 102:] == 0).all()
