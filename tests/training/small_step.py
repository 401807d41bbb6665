"""One step of a small Mask R-CNN: its network, and a batch of two pictures."""

from __future__ import annotations

import torch
from small_networks import small_model

from tracesight.data.batch import Batch, Loaded, Targets

PICTURES = ["a.png", "b.png"]


def network() -> torch.nn.Module:
    return small_model(norm="batch", roi={"batch": 16}, rpn={"pre_nms_train": 50, "post_nms_train": 20}).train()


def batch() -> Loaded:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    boxes = torch.zeros(2, 32, 4)
    boxes[:, :3] = torch.tensor([10.0, 10, 40, 40])
    valid = torch.zeros(2, 32, dtype=torch.bool)
    valid[:, :3] = True
    sizes = valid[..., None].long().expand(2, 32, 2) * 6
    targets = Targets(
        boxes, valid.long() * 2, valid, torch.zeros_like(valid), boxes.clone(), sizes,
        torch.zeros(2, 32).long(), torch.ones(64, dtype=torch.uint8), torch.zeros(2, 32, 0, 3),
    )  # fmt: skip
    shown = Batch(images, torch.tensor([[64, 96], [50, 70]]), torch.tensor([[0, 0], [0, 1]]))
    return Loaded(shown, targets, [5, 2], [(64, 96), (50, 70)])
