"""A pyramid as one table, by hand."""

from __future__ import annotations

import pytest
import torch

from tracesight.ops.pyramid import best_of_each_level, feature_table, region_levels


def test_rows_are_cells_level_by_level_and_picture_by_picture():
    features = [torch.arange(2 * 3 * 2 * 4.0).view(2, 3, 2, 4), torch.arange(2 * 3 * 1 * 2.0).view(2, 3, 1, 2) + 100]
    table = feature_table(features)
    assert table.height.tolist() == [2, 1] and table.width.tolist() == [4, 2] and table.base.tolist() == [0, 16]
    for level, feature in enumerate(features):
        _, height, width = table.shapes[level]
        for n in range(2):
            for y in range(height):
                for x in range(width):
                    row = int(table.base[level]) + (n * height + y) * width + x
                    assert torch.equal(table.rows[row], feature[n, :, y, x])


def test_one_level_that_is_channels_last_is_not_copied():
    feature = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert feature_table([feature]).rows.data_ptr() == feature.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_joining_with_and_without_gradients_is_the_same(dtype):
    features = [torch.randn(1, 8, 4, 4, dtype=dtype), torch.randn(1, 8, 2, 2, dtype=dtype)]
    plain = feature_table(features).rows
    for feature in features:
        feature.requires_grad_()
    learning = feature_table(features).rows
    assert torch.equal(plain, learning) and plain.dtype == dtype
    learning.sum().backward()
    assert (features[1].grad == 1).all()


def test_levels_of_the_paper():
    # FPN, section 4.2: a region of 224 × 224 is read from P4, one of half that side from P3.
    boxes = torch.tensor([[0.0, 0, 224, 224], [0, 0, 112, 112], [0, 0, 111, 111], [0, 0, 448, 448], [0, 0, 1, 1]])
    level, scale = region_levels(boxes, (4, 8, 16, 32))
    assert level.tolist() == [2, 1, 0, 3, 0]
    assert scale.tolist() == [1 / 16, 1 / 8, 1 / 4, 1 / 32, 1 / 4]


def test_best_of_each_level_by_hand():
    logits = torch.tensor([[3.0, 9, 1, 5, 2, 4, 7, 8]])
    base, count = torch.tensor([0, 6]), torch.tensor([6, 2])
    score, index = best_of_each_level(logits, base, count, 6, 4)
    assert score.tolist() == [[[9, 5, 4, 3], [8, 7, -torch.inf, -torch.inf]]]
    assert index[0, 0].tolist() == [1, 3, 5, 0] and index[0, 1, :2].tolist() == [7, 6]
    # More than there are: padded, never out of bounds.
    score, index = best_of_each_level(logits, base, count, 6, 10)
    assert score.shape == (1, 2, 10) and (score > -torch.inf).sum().item() == 8 and index.max() < 8
