"""Soft non-maximum suppression: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code" (2017).

Where NMS drops a box that overlaps a better one, its score is lowered here, and only what falls below a least score is
dropped. Letters: N pictures, K candidates a picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops import while_loop

from tracesight.ops.boxes import box_iou
from tracesight.ops.precision import full_precision

METHODS = ("linear", "gaussian")


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    group: Tensor,
    valid: Tensor,
    *,
    method: str,
    iou: float,
    sigma: float,
    least: float,
    max_out: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The `max_out` best boxes by scores that fall with every better box of the group that overlaps them.

    boxes (N, K, 4); scores (N, K), 0–1; group (N, K) int64: only boxes of one group compete; valid (N, K). A box or
    score that is not finite counts as not valid. N and K may be 0.
    method: "linear" multiplies a score by 1 - overlap where that is over `iou` (equation in section 3), "gaussian" by
    exp(-overlap² / sigma) always. What is not over `least` is not valid.
    Returns index (N, max_out) int64 into K by descending score, 0 where not valid; valid (N, max_out); and the scores
    (N, max_out) as they have become, 0 where not valid. Of equal scores the first is taken.

    One box is taken at a time, so this takes `max_out` steps, in a compiled or exported program those of a loop.
    """
    boxes, scores = full_precision(boxes.detach()), full_precision(scores.detach())
    live = valid & boxes.isfinite().all(-1) & scores.isfinite()
    boxes = boxes.masked_fill(~live.unsqueeze(-1), 0.0)
    now = scores.masked_fill(~live, -1.0)
    index, kept = group.new_zeros(group.shape[0], max_out), now.new_full((group.shape[0], max_out), -1.0)
    if boxes.shape[1] == 0:
        return index, kept > 0, kept.clamp(min=0)

    def unfinished(step: Tensor, now: Tensor, index: Tensor, kept: Tensor) -> Tensor:
        return step < max_out

    def take(step: Tensor, now: Tensor, index: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        score, best = now.max(dim=1, keepdim=True)
        overlap = box_iou(boxes.gather(1, best.unsqueeze(-1).expand(-1, 1, 4)), boxes).squeeze(1)
        if method == "linear":
            factor = torch.where(overlap > iou, 1 - overlap, torch.ones_like(overlap))
        else:
            factor = torch.exp(-(overlap**2) / sigma)
        same = group == group.gather(1, best)
        # What is dead stays below 0.
        lowered = torch.where(same & (now > 0), now * factor, now).scatter(1, best, -1.0)
        place = step.view(1)
        return step + 1, lowered, index.index_copy(1, place, best), kept.index_copy(1, place, score)

    loop = while_loop if torch.compiler.is_compiling() else _loop
    state = (torch.zeros((), dtype=torch.int64, device=boxes.device), now, index, kept)
    _, _, index, kept = loop(unfinished, take, state)
    good = kept > max(least, 0.0)
    return index.masked_fill(~good, 0), good, kept.masked_fill(~good, 0.0)


def _loop(unfinished: Callable, take: Callable, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """while_loop for eager mode, where it would compile. The number of steps is known: nothing is read on the host."""
    for _ in range(state[2].shape[1]):
        state = take(*state)
    return state
