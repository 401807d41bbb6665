"""Greedy non-maximum suppression with one output shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from tracesight.ops.boxes import box_iou
from tracesight.ops.trim import may_read

# Pass p settles every box whose chain of suppressions is p long; real sets of boxes need 2 to 6.
PASSES = 32


def nms(boxes: Tensor, scores: Tensor, group: Tensor, valid: Tensor, iou: float, max_out: int) -> tuple[Tensor, Tensor]:
    """Keep the best boxes of each group, dropping those that overlap a better one of it by more than `iou`.

    boxes (N, K, 4); scores (N, K); group (N, K) int64, level or class: only boxes of one group compete; valid (N, K).
    Returns index (N, max_out) int64 into K by descending score and its valid (N, max_out); index is 0 where not valid.
    Equal scores keep their order. In eager mode on the CPU torchvision's loop does it; elsewhere the fixpoint of
    keep_j = valid_j and no i before j with keep_i and IoU_ij > iou, which gives the same and has one shape.
    """
    if may_read(boxes):
        keep = _nms_loop(boxes, scores, group, valid, iou)
    else:
        keep = _nms_fixpoint(boxes, scores, group, valid, iou)
    ranked = scores.masked_fill(~keep, -torch.inf)
    count = min(max_out, ranked.shape[1])
    # A stable sort: topk would order equal scores as it likes.
    order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    kept = keep.gather(1, order)
    index = order.masked_fill(~kept, 0)
    short = max_out - count
    return torch.nn.functional.pad(index, (0, short)), torch.nn.functional.pad(kept, (0, short))


def _nms_loop(boxes: Tensor, scores: Tensor, group: Tensor, valid: Tensor, iou: float) -> Tensor:
    keep = torch.zeros_like(valid)
    for n in range(len(boxes)):
        rows = valid[n].nonzero().squeeze(1)
        if not len(rows):
            continue
        # By group, then split: one pass over K instead of one for each of 90 classes.
        rows = rows[group[n, rows].argsort(stable=True)]
        sizes = group[n, rows].unique_consecutive(return_counts=True)[1].tolist()
        for part in rows.split(sizes):
            keep[n, part[torchvision_nms(boxes[n, part], scores[n, part], iou)]] = True
    return keep


def _nms_fixpoint(boxes: Tensor, scores: Tensor, group: Tensor, valid: Tensor, iou: float) -> Tensor:
    order = scores.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    group, live = group.gather(1, order), valid.gather(1, order)
    suppresses = (box_iou(boxes, boxes) > iou) & (group.unsqueeze(2) == group.unsqueeze(1))
    # A matrix product counts suppressors; only what comes before (i < j) can suppress.
    suppresses = suppresses.to(boxes.dtype).triu(diagonal=1)
    keep = live
    for _ in range(PASSES):
        keep = live & (keep.to(boxes.dtype).unsqueeze(1) @ suppresses).squeeze(1).eq(0)
    return torch.zeros_like(valid).scatter(1, order, keep)
