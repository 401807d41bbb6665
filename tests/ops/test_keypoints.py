"""Keypoint targets by hand and as torchvision has them; the highest place of a heatmap against torchvision's."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypoints_to_heatmap

from tracesight.ops.keypoints import _peaks_of_parts, keypoint_certainty, keypoint_peaks, keypoint_targets


def test_targets_by_hand():
    """A box of 8 × 4 pixels from (10, 20), on a grid of 4 × 4: a cell is 2 × 1 pixels."""
    points = torch.tensor(
        [[
            [10.0, 20, 2],  # the corner
            [13.9, 21.5, 1],  # rounded down; hidden points count
            [18, 24, 2],  # right and lower edge: the last cell
            [18, 20, 2],  # the right edge alone
            [18.1, 22, 2],  # outside
            [9.9, 22, 2],
            [12, 22, 0],  # not labelled
        ]]
    )  # fmt: skip
    index, valid = keypoint_targets(points, torch.tensor([[10.0, 20, 18, 24]]), 4)
    assert valid.tolist() == [[True, True, True, True, False, False, False]]
    assert index.tolist() == [[0, 1 * 4 + 1, 3 * 4 + 3, 3, 0, 0, 0]]


def test_targets_equal_torchvisions():
    torch.manual_seed(0)
    boxes = torch.rand(40, 4) * 60
    boxes[:, 2:] += boxes[:, :2] + 1
    points = torch.cat((torch.rand(40, 17, 2) * 80, torch.randint(0, 3, (40, 17, 1))), dim=-1)
    points[:, 0, 0], points[:, 1, 1] = boxes[:, 2], boxes[:, 3]  # on the edges
    index, valid = keypoint_targets(points, boxes, 56)
    expected, counts = keypoints_to_heatmap(points, boxes, 56)
    assert torch.equal(valid, counts.bool())
    assert torch.equal(index[valid], expected[valid])
    assert 0.05 < valid.float().mean() < 0.9


def test_a_box_without_area_has_no_targets():
    index, valid = keypoint_targets(torch.tensor([[[5.0, 6, 2], [4, 6, 2]]]), torch.tensor([[5.0, 6, 5, 9]]), 56)
    assert valid.tolist() == [[True, False]]  # on its right edge, and beside it
    assert index.tolist() == [[55, 0]]
    assert keypoint_targets(torch.zeros(0, 3, 3), torch.zeros(0, 4), 56)[0].shape == (0, 3)


@pytest.mark.parametrize("side", [(5.5, 9), (30, 56), (63.2, 64), (65, 130.7), (200, 420), (1300, 40)])
def test_peaks_equal_torchvisions(side):
    """Heatmaps as the head makes them: 28 × 28 cells doubled."""
    torch.manual_seed(1)
    logits = torch.nn.functional.interpolate(torch.randn(12, 3, 28, 28) * 4, scale_factor=2.0, mode="bilinear")
    boxes = torch.tensor([[3.25, 7.5, 3.25 + side[0], 7.5 + side[1]]]).expand(12, 4)
    expected, scores = heatmaps_to_keypoints(logits, boxes)
    for found in (keypoint_peaks, _peaks_of_parts):
        points, values = found(logits, boxes)
        assert (points - expected[..., :2]).abs().max() < 1e-3
        assert torch.allclose(values, scores, atol=1e-4)


def test_a_peak_at_the_border_stays_inside():
    logits = torch.zeros(1, 4, 56, 56)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 55] = logits[0, 2, 55, 0] = logits[0, 3, 55, 55] = 5.0
    for side in (0.2, 10.0, 640.0):
        box = torch.tensor([[1.0, 2, 1 + side, 2 + side]])
        expected = heatmaps_to_keypoints(logits, box)[0][..., :2]
        assert torch.allclose(keypoint_peaks(logits, box)[0], expected, atol=1e-3)
        assert torch.allclose(_peaks_of_parts(logits, box)[0], expected, atol=1e-3)


def test_certainty_is_the_share_near_the_peak():
    logits = torch.zeros(1, 3, 56, 56)
    logits[0, 1, 20, 30] = 100.0
    logits[0, 2, 10, 10] = logits[0, 2, 40, 40] = 100.0
    sure = keypoint_certainty(logits)[0].tolist()
    assert sure[0] == pytest.approx(9 / 56**2)  # all alike: of the first cell's 5 × 5, 3 × 3 are on the map
    assert sure[1:] == pytest.approx([1.0, 0.5])
    assert math.isfinite(sum(sure))
