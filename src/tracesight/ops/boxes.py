"""Areas, overlaps and limits of boxes: `xyxy`, pixels, half-open."""

from __future__ import annotations

from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas (..., ) in square pixels of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(left: Tensor, right: Tensor) -> Tensor:
    """Areas (..., P, Q) shared by every pair of boxes (..., P, 4) and (..., Q, 4)."""
    left, right = left.unsqueeze(-2), right.unsqueeze(-3)
    # One side at a time: at 250,000 anchors the (P, Q, 2) temporaries would cost more than the arithmetic.
    width = left[..., 2].minimum(right[..., 2]).sub_(left[..., 0].maximum(right[..., 0])).clamp_(min=0)
    height = left[..., 3].minimum(right[..., 3]).sub_(left[..., 1].maximum(right[..., 1])).clamp_(min=0)
    return width.mul_(height)


def box_iou(left: Tensor, right: Tensor) -> Tensor:
    """Intersection over union (..., P, Q), 0–1, of boxes (..., P, 4) and (..., Q, 4); 0 where both have no area."""
    shared = intersection(left, right)
    union = (box_area(left).unsqueeze(-1) + box_area(right).unsqueeze(-2)).sub_(shared)
    # Never 0 / 0: padding is a box without area.
    return shared.div_(union.clamp_(min=1e-12))


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (N, ..., 4) limited to their pictures, whose (height, width) are `sizes` (N, 2)."""
    limit = sizes.to(boxes.dtype).flip(-1).repeat(1, 2)
    limit = limit.reshape(sizes.shape[0], *[1] * (boxes.ndim - 2), 4)
    return boxes.clamp(min=0).minimum(limit)
