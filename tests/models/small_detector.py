"""A detector small enough for tests, and a batch for it."""

from __future__ import annotations

import torch

from tracesight.data.batch import Batch, Targets

SMALL = {
    "norm": "group",
    "fpn_channels": 16,
    "box_channels": 32,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "rpn": {"pre_nms_train": 50, "post_nms_train": 20, "pre_nms_test": 50, "post_nms_test": 20},
    "roi": {"batch": 16, "max_objects": 7, "score_threshold": 0.0},
}


def batch_of(objects: int) -> tuple[Batch, Targets]:
    torch.manual_seed(0)
    batch = Batch(torch.rand(2, 3, 64, 96), torch.tensor([[64, 96], [50, 70]]), torch.tensor([[0, 0], [0, 1]]))
    boxes = torch.zeros(2, 32, 4)
    boxes[:, :objects] = torch.tensor([10.0, 10, 40, 40])
    valid = torch.zeros(2, 32, dtype=torch.bool)
    valid[:, :objects] = True
    targets = Targets(
        boxes,
        valid.long() * 2,
        valid,
        torch.zeros_like(valid),
        boxes,
        valid[..., None].long().expand(2, 32, 2) * 6,
        torch.zeros(2, 32).long(),
        torch.ones(64, dtype=torch.uint8),
    )
    return batch, targets
