"""Greedy non-maximum suppression with one output shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops import while_loop

from tracesight.ops.boxes import box_area
from tracesight.ops.kernels.available import triton_works
from tracesight.ops.kernels.nms_cpu import keep_sets
from tracesight.ops.precision import full_precision
from tracesight.ops.trim import exporting, may_read

# Boxes settled at once by the fixpoint: memory is N x K x BLOCK numbers, and K / BLOCK steps are taken.
BLOCK = 64


def nms(boxes: Tensor, scores: Tensor, group: Tensor, valid: Tensor, iou: float, max_out: int) -> tuple[Tensor, Tensor]:
    """Keep the best boxes of each group, dropping those that overlap a better one of it by more than `iou`.

    boxes (N, K, 4); scores (N, K); group (N, K) int64, level or class: only boxes of one group compete; valid (N, K).
    A box or score that is not finite counts as not valid. N and K may be 0.
    Returns index (N, max_out) int64 into K by descending score and its valid (N, max_out); index is 0 where not valid.
    Equal scores keep their order. It is the same everywhere, and equals torchvision's on the CPU: an overlap is
    computed in the boxes' precision (at least float32) and compared with `iou` itself, not with `iou` rounded.

    In eager mode on the CPU `kernels.nms_cpu` does it, on NVIDIA's and AMD's GPUs `kernels.nms`; compiled code calls
    these as one operator. An exported program holds the fixpoint instead, whose loops every runtime knows. In eager
    mode on other devices, and on GPUs without Triton, the fixpoint's loops read their end from the device.
    """
    # Places have no gradient; half precision would be too coarse for pixels.
    boxes, scores = full_precision(boxes.detach()), scores.detach()
    live = valid & boxes.isfinite().all(-1) & scores.isfinite()
    order = scores.masked_fill(~live, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    group, live = group.gather(1, order), live.gather(1, order)
    if exporting():
        keep = _fixpoint(boxes, group, live, _exact(iou, boxes.dtype), while_loop)
    elif may_read(boxes):
        keep = keep_sets(boxes, group, live, _exact(iou, boxes.dtype))
    else:
        keep = _keep(boxes, group, live, iou)
    # One place more than asked for takes all that is left over.
    slot = (keep.cumsum(1) - 1).clamp(max=max_out).masked_fill(~keep, max_out)
    index = order.new_zeros(order.shape[0], max_out + 1).scatter(1, slot, order)[:, :max_out]
    kept = torch.arange(max_out, device=boxes.device) < keep.sum(1, keepdim=True)
    return index.contiguous(), kept


def _exact(iou: float, dtype: torch.dtype) -> float:
    """The greatest number of `dtype` that is not over `iou`: an IoU of that dtype is over both or over neither."""
    if dtype == torch.float64:
        return iou
    fraction, exponent = math.frexp(iou)
    return math.ldexp(math.floor(math.ldexp(fraction, 24)), exponent - 24)


@torch.library.custom_op("tracesight::nms_keep", mutates_args=())
def _keep(boxes: Tensor, group: Tensor, live: Tensor, iou: float) -> Tensor:
    """Which boxes stay (N, K) bool, for rows of boxes by falling score; what the compiler sees as one operator."""
    limit = _exact(iou, boxes.dtype)
    if boxes.device.type == "cpu":
        return keep_sets(boxes, group, live, limit)
    if boxes.device.type == "cuda" and triton_works(boxes.device, _try_kernel):
        from tracesight.ops.kernels.nms import keep_boxes

        return keep_boxes(boxes, group, live, limit)
    return _fixpoint(boxes, group, live, limit, _loop)


@_keep.register_fake
def _(boxes: Tensor, group: Tensor, live: Tensor, iou: float) -> Tensor:
    return torch.empty_like(live)


def _try_kernel(device: torch.device) -> None:
    from tracesight.ops.kernels.nms import keep_boxes

    one = torch.ones(1, 1, 4, device=device)
    keep_boxes(one, one[..., 0].long(), one[..., 0].bool(), 0.5)


def _fixpoint(boxes: Tensor, group: Tensor, live: Tensor, limit: float, loop: Callable) -> Tensor:
    """Which boxes stay (N, K) bool: the fixpoint of keep_j = live_j and no i before j with keep_i and IoU_ij > limit.

    Rows by falling score. Block after block is settled: first by what earlier blocks keep, then within itself, in as
    many passes as its longest chain of suppressions has links. `loop` takes what while_loop takes, and returns it. No
    shape but N and K, so that one graph takes any of them. What loops hold may not be a float, a size or two views of
    one tensor.
    """
    count = live.shape[1]
    # The last block is filled up, with what is not live.
    boxes = torch.nn.functional.pad(boxes, (0, 0, 0, BLOCK))
    group, live = torch.nn.functional.pad(group, (0, BLOCK)), torch.nn.functional.pad(live, (0, BLOCK))
    place = torch.arange(count + BLOCK, device=boxes.device)
    block = torch.arange(BLOCK, device=boxes.device)
    # What is live comes first in every row.
    todo = live.any(0).sum()
    over_this = boxes.new_full((), limit)

    def unsettled(start: Tensor, keep: Tensor) -> Tensor:
        return start < todo

    def settle(start: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        these = start + block
        over = _iou(boxes.index_select(1, these), boxes) > over_this
        over &= group.index_select(1, these).unsqueeze(2) == group.unsqueeze(1)
        over &= place < these.unsqueeze(1)
        # Nothing is kept yet from this block on.
        free = live.index_select(1, these) & ~(over & keep.unsqueeze(1)).any(2)
        over = over.index_select(2, these)

        def moving(now: Tensor, last: Tensor) -> Tensor:
            return (now != last).any()

        def again(now: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
            return free & ~(over & now.unsqueeze(1)).any(2), now.clone()

        now, _ = loop(moving, again, (free.clone(), ~free))
        return start + BLOCK, keep.index_copy(1, these, now)

    start = torch.zeros((), dtype=torch.int64, device=boxes.device)
    return loop(unsettled, settle, (start, torch.zeros_like(live)))[1][:, :count]


def _loop(unfinished: Callable, step: Callable, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """while_loop for eager mode, where it would compile; the end is read on the host."""
    while unfinished(*state):
        state = step(*state)
    return state


def _iou(left: Tensor, right: Tensor) -> Tensor:
    """Intersection over union (N, P, Q) of boxes (N, P, 4) and (N, Q, 4), in torchvision's order; NaN for 0 / 0."""
    left, right = left.unsqueeze(2), right.unsqueeze(1)
    width = left[..., 2].minimum(right[..., 2]).sub_(left[..., 0].maximum(right[..., 0])).clamp_(min=0)
    height = left[..., 3].minimum(right[..., 3]).sub_(left[..., 1].maximum(right[..., 1])).clamp_(min=0)
    shared = width.mul_(height)
    return shared / (box_area(left) + box_area(right) - shared)
