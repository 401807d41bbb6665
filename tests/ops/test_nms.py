"""NMS: torchvision's result, one shape, and the fixpoint that devices use gives the same."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import batched_nms

from tracesight.ops.nms import _nms_fixpoint, _nms_loop, nms


def crowded(seed: int, pictures: int = 2, count: int = 300):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(pictures, count, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + 5 + torch.rand(pictures, count, 2, generator=generator) * 40), -1)
    scores = torch.rand(pictures, count, generator=generator)
    group = torch.randint(0, 4, (pictures, count), generator=generator)
    valid = torch.rand(pictures, count, generator=generator) < 0.8
    return boxes, scores, group, valid


@pytest.mark.parametrize("seed", range(5))
def test_keeps_what_torchvision_keeps(seed):
    boxes, scores, group, valid = crowded(seed)
    index, kept = nms(boxes, scores, group, valid, 0.5, 300)
    for n in range(len(boxes)):
        rows = valid[n].nonzero().squeeze(1)
        expected = rows[batched_nms(boxes[n, rows], scores[n, rows], group[n, rows], 0.5)]
        assert index[n, kept[n]].tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_fixpoint_equals_loop(seed):
    boxes, scores, group, valid = crowded(seed)
    assert torch.equal(_nms_fixpoint(boxes, scores, group, valid, 0.3), _nms_loop(boxes, scores, group, valid, 0.3))


def test_one_shape_with_nothing_and_with_too_few():
    boxes, scores, group, valid = crowded(0)
    for mask in (torch.zeros_like(valid), valid):
        index, kept = nms(boxes[:, :20], scores[:, :20], group[:, :20], mask[:, :20], 0.5, 50)
        assert index.shape == kept.shape == (2, 50)
        assert (kept.sum(1) <= mask[:, :20].sum(1)).all()
        assert (index[~kept] == 0).all()


def test_equal_scores_keep_their_order():
    boxes = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]]])
    index, kept = nms(boxes, torch.full((1, 3), 0.5), torch.zeros(1, 3).long(), torch.ones(1, 3).bool(), 0.5, 3)
    assert index.tolist() == [[0, 1, 2]]
    assert kept.all()
