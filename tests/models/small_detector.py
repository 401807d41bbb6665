"""A detector small enough for tests, and a batch for it."""

from __future__ import annotations

from typing import Any

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


def small_args(name: str) -> dict[str, Any]:
    """Arguments with which the detector `name` of the catalogue is small."""
    args = {key: SMALL[key] for key in ("norm", "roi")}
    if "mask" in name:
        args["mask_channels"] = 16
    if name.startswith("rcnn_"):
        return {**args, "crop_size": 40, "crop_context": 4}
    args["rpn"] = SMALL["rpn"]
    if "_fpn" not in name:
        args["anchor_sizes"] = ((8, 16, 32),)
        return {**args, "box_channels": 32} if name.endswith("_dc5") else {**args, "pool_size": 6}
    args |= {key: SMALL[key] for key in ("fpn_channels", "box_channels", "anchor_sizes")}
    return {**args, "head_norm": "group"} if name.endswith("_v2") else args


def given(batch: Batch, count: int = 12) -> Batch:
    """The batch with proposals all over the pictures, the last of each row being none."""
    torch.manual_seed(1)
    corner, side = torch.rand(2, count, 2) * 40, torch.rand(2, count, 2) * 30 + 5
    boxes = torch.cat((corner, corner + side), dim=2)
    boxes[:, 0] = torch.tensor([8.0, 9, 41, 39])
    return batch._replace(proposals=boxes, proposals_valid=torch.arange(count).expand(2, -1) < count - 1)


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
        valid[..., None, None].float() * torch.tensor([[20.0, 15, 2], [30, 30, 1], [50, 20, 2], [25, 35, 0]]),
    )
    return batch, targets
