"""Which ground-truth object an anchor or a proposal answers for, and which of them train."""

from __future__ import annotations

import torch
from torch import Tensor

from tracesight.ops.boxes import box_area, box_iou, intersection
from tracesight.ops.random import keyed_uniform
from tracesight.ops.trim import may_read, trim_tail

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
# A region this much inside a crowd is no evidence of background (COCO's crowds are ignore regions).
CROWD_OVERLAP = 0.5
# Targets compared at a time: 250,000 anchors × 64 targets stay at 64 MB.
CHUNK = 64


def match(
    gt_boxes: Tensor, valid: Tensor, boxes: Tensor, *, high: float, low: float, best_of_each: bool
) -> tuple[Tensor, Tensor]:
    """Match every box to the object it overlaps most (Faster R-CNN, section 3.1.2).

    gt_boxes (N, M, 4), valid (N, M): objects; boxes (N, K, 4) or (1, K, 4) where all pictures share them.
    IoU of at least `high` is positive, under `low` negative, between them ignored; with `best_of_each` also the
    boxes that overlap an object most, however little (but at all), are positive. A box that is not finite is ignored,
    an object that is not finite matches nothing.
    Returns matched (N, K) int64, the object's index (0 where there is none), and status (N, K) int8.
    """
    valid, gt_boxes = trim_tail(valid, gt_boxes)
    finite, gt_finite = torch.isfinite(boxes).all(-1), torch.isfinite(gt_boxes).all(-1)
    boxes, gt_boxes = boxes.masked_fill(~finite[..., None], 0.0), gt_boxes.masked_fill(~gt_finite[..., None], 0.0)
    valid = valid & gt_finite
    best = torch.full((gt_boxes.shape[0], boxes.shape[1]), -1.0, device=boxes.device, dtype=boxes.dtype)
    matched = torch.zeros(best.shape, dtype=torch.int64, device=boxes.device)
    favourite = torch.zeros_like(best, dtype=torch.bool)
    for start in range(0, gt_boxes.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        iou = box_iou(gt_boxes[:, part], boxes).masked_fill_(~valid[:, part, None], -1.0)
        value, index = iou.max(dim=1)
        better = value > best
        best, matched = torch.where(better, value, best), torch.where(better, index + start, matched)
        if best_of_each and boxes.shape[1]:
            most = iou.amax(dim=2, keepdim=True)
            # Nothing overlapping is nobody's favourite; an equality at 0 would make every box positive.
            favourite |= (iou == most.masked_fill_(most <= 0, 2.0)).any(dim=1)
    status = torch.full_like(best, IGNORED, dtype=torch.int8)
    status = status.masked_fill(best < low, NEGATIVE).masked_fill((best >= high) | favourite, POSITIVE)
    return matched, status.masked_fill(~finite, IGNORED)


def ignore_crowds(status: Tensor, boxes: Tensor, gt_boxes: Tensor, crowd: Tensor) -> Tensor:
    """`status` (N, K) with negatives that lie mostly inside a crowd region ignored.

    boxes (N, K, 4) or (1, K, 4); gt_boxes (N, M, 4) of which `crowd` (N, M) are crowd regions.
    """
    if may_read(crowd) and not bool(crowd.any()):
        return status
    inside = torch.zeros(status.shape, device=boxes.device, dtype=boxes.dtype)
    for start in range(0, gt_boxes.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        shared = intersection(gt_boxes[:, part], boxes) * crowd[:, part, None]
        inside = inside.maximum((shared / box_area(boxes).clamp(min=1e-6).unsqueeze(1)).amax(dim=1))
    return status.masked_fill((status == NEGATIVE) & (inside > CROWD_OVERLAP), IGNORED)


def sample(status: Tensor, keys: Tensor, purpose: str, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Choose `count` boxes a picture to train on, at most `positive_fraction` of them positive.

    status (N, K); keys (N, 2) for `keyed_uniform`. Chosen by top-k over keyed uniforms.
    Returns index (N, count) int64 into K, positives first, and valid (N, count); index is 0 where not valid.
    """
    uniform = keyed_uniform(keys, purpose, status.shape[1])
    positives = min(int(count * positive_fraction), status.shape[1])
    index_positive, taken = _top(uniform, status == POSITIVE, positives)
    index_negative, free = _top(uniform, status == NEGATIVE, min(count, status.shape[1]))
    # Negatives fill whatever the positives leave.
    rank = torch.arange(index_negative.shape[1], device=status.device)
    free = free & (rank < count - taken.sum(1, keepdim=True))
    index = torch.cat((index_positive, index_negative), dim=1)
    valid = torch.cat((taken, free), dim=1)
    # Valid ones to the front, in order; then the fixed count.
    order = (~valid).to(torch.int8).sort(dim=1, stable=True).indices[:, :count]
    valid = valid.gather(1, order)
    return index.gather(1, order).masked_fill(~valid, 0), valid


def _top(uniform: Tensor, allowed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    value, index = uniform.masked_fill(~allowed, -1.0).topk(count, dim=1)
    return index, value >= 0
