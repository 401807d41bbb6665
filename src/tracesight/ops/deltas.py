"""Box regression targets: "Rich feature hierarchies" (R-CNN, 2014), appendix C, with Fast R-CNN's weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# exp() of anything larger would make boxes thousands of times their anchor: limit as in torchvision and detectron2.
LARGEST_LOG_SCALE = math.log(1000.0 / 16)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float]) -> Tensor:
    """Deltas (..., 4) = (dx, dy, dw, dh) that take `anchors` (..., 4) to `boxes` (..., 4).

    `weights` multiply (dx and dy, dw and dh). Boxes without area (padding) give finite deltas.
    """
    centre, size = _centre(boxes)
    anchor_centre, anchor_size = _centre(anchors)
    anchor_size, size = anchor_size.clamp(min=1e-6), size.clamp(min=1e-6)
    shift = weights[0] * (centre - anchor_centre) / anchor_size
    return torch.cat((shift, weights[1] * torch.log(size / anchor_size)), dim=-1)


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) that `deltas` (..., 4) make of `anchors` (..., 4): the inverse of `encode`."""
    centre, size = _centre(anchors)
    centre = deltas[..., :2] / weights[0] * size + centre
    half = 0.5 * (torch.exp((deltas[..., 2:] / weights[1]).clamp(max=LARGEST_LOG_SCALE)) * size)
    return torch.cat((centre - half, centre + half), dim=-1)
