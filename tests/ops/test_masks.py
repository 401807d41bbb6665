"""Mask targets against torchvision's sampling of whole masks."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from tracesight.ops.masks import _sampled, mask_targets


def objects():
    """Four full masks (4, 90, 120) and the flat crops of their own boxes."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
    masks = torch.stack(
        [
            (x - 60) ** 2 + (y - 40) ** 2 < 30**2,
            (x - 100).abs() + (y - 80).abs() < 25,
            (x < 12) & (y < 9),
            ((x - 30) ** 2 + (y - 60) ** 2 < 20**2) & ((x + y) % 5 > 0),
        ]
    )
    pixels, offsets, sizes, boxes = [], [], [], []
    for mask in masks:
        rows, columns = mask.any(1).nonzero().squeeze(1), mask.any(0).nonzero().squeeze(1)
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        offsets.append(sum(len(p) for p in pixels))
        pixels.append(mask[y0:y1, x0:x1].flatten().to(torch.uint8))
        sizes.append((y1 - y0, x1 - x0))
        boxes.append((x0, y0, x1, y1))
    return masks, torch.cat(pixels), torch.tensor(offsets), torch.tensor(sizes), torch.tensor(boxes).float()


def regions(boxes, count=40):
    torch.manual_seed(1)
    index = torch.randint(0, len(boxes), (count,))
    near = boxes[index] + torch.randn(count, 4) * 5
    near[:, 2:] = near[:, 2:].maximum(near[:, :2] + 0.5)
    return index, near.clamp(min=0).minimum(torch.tensor([120.0, 90, 120, 90]))


@pytest.mark.parametrize("size", [28, 7])
def test_targets_equal_torchvisions(size):
    masks, pixels, offsets, sizes, boxes = objects()
    index, near = regions(boxes)
    ours = mask_targets(
        pixels,
        offsets[index],
        sizes[index],
        boxes[index],
        near,
        torch.tensor([90, 120]).expand(len(near), 2),
        output_size=size,
        aligned=False,
    )
    theirs = project_masks_on_boxes(masks.to(torch.uint8), near, index, size)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_padded_samples_change_nothing():
    _, pixels, offsets, sizes, boxes = objects()
    index, near = regions(boxes)
    bins = torch.ceil((near[:, 2:] - near[:, :2]) / 7).to(torch.int64)
    arguments = (pixels, offsets[index], sizes[index], boxes[index], near, torch.tensor([90, 120]).expand(40, 2), bins)
    most = int(bins.max())
    exact = _sampled(*arguments, most, 7, False)
    assert torch.allclose(_sampled(*arguments, most + 3, 7, False), exact, atol=1e-6)


def test_aligned_targets_of_an_objects_own_box_cover_it():
    # A filled box, and a crop of half the network's resolution: every bin is full, without a half-pixel rim.
    pixels = torch.ones(100, dtype=torch.uint8)
    box = torch.tensor([[20.0, 20, 40, 40]])
    arguments = (pixels, torch.tensor([0]), torch.tensor([[10, 10]]), box, box, torch.tensor([[90, 120]]))
    aligned = mask_targets(*arguments, output_size=10, aligned=True)
    assert (aligned[:, 1:-1, 1:-1] == 1).all()
    assert torch.allclose(aligned, aligned.flip(1).flip(2))


@pytest.mark.parametrize("padded", [False, True])
def test_targets_of_boxes_that_are_not_finite_or_without_area_and_of_none(monkeypatch, padded):
    if padded:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    nan, inf = float("nan"), float("inf")
    awkward = torch.tensor(
        [[nan, 0, 9, 9], [0, 0, inf, 9], [20, 20, 20, 20], [30, 30, 20, 20], [-1e30, -1e30, 1e30, 1e30]]
    )
    _, pixels, offsets, sizes, boxes = objects()
    index = torch.zeros(len(awkward), dtype=torch.int64)
    size = torch.tensor([90, 120])
    for aligned in (False, True):
        found = mask_targets(
            pixels,
            offsets[index],
            sizes[index],
            boxes[index],
            awkward,
            size.expand(len(awkward), 2),
            output_size=7,
            aligned=aligned,
        )
        assert (found[:2] == 0).all()
        assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    none = index[:0]
    empty = mask_targets(
        pixels, offsets[none], sizes[none], boxes[none], boxes[none], size.expand(0, 2), output_size=7, aligned=True
    )
    assert empty.shape == (0, 7, 7)
