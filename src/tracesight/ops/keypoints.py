"""Keypoints between pictures and the heatmaps that networks see: He et al., "Mask R-CNN" (2017), section 5.

A point is one cell of a grid over its region. Letters: R regions, K points of an object, S side of the grid, P parts of
a region, T places in each that are looked at along a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tracesight.ops.trim import may_read

# Pixels along each side of a region that are looked at: over all of it, two in a cell of 56; then around each of the
# best few, which is enough for regions of 1,300 pixels.
GRID, PLACES, PEAKS = 112, 24, 4
WHOLE = 50_000  # pixels of a region that is resized whole, where sizes may be read
CUBIC = -0.75  # PyTorch's and OpenCV's bicubic kernel
NEAR = 2  # cells around a point that count as the point, where it is said how sure it is


def keypoint_targets(points: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which cell of a size × size grid over each box its points lie in: index and valid (R, K); index int64, row-major.

    points (R, K, 3): x, y in pixels and visibility. boxes (R, 4). The cell is what the place in the box is rounded down
    to; the right and lower edge belong to the last one. Not valid, with index 0: points that are not labelled
    (visibility 0) or lie outside, as in torchvision; a hidden point (1) is valid.
    """
    corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    cell = ((points[..., :2] - corner) * (size / side)).floor()
    cell = torch.where(points[..., :2] == boxes[:, None, 2:], size - 1.0, cell)
    valid = ((cell >= 0) & (cell < size)).all(-1) & (points[..., 2] > 0)
    x, y = cell.masked_fill(~valid.unsqueeze(-1), 0.0).to(torch.int64).unbind(-1)
    return y * size + x, valid


def keypoint_peaks(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Where each heatmap is highest: points (R, K, 2), x and y in the pixels of boxes (R, 4), and the values (R, K).

    logits (R, K, S, S), float32 or float64, are resized to their region's size in whole pixels, bicubically, and the
    point is the middle of the best pixel, as in torchvision. In eager mode on the CPU small regions are resized whole.
    Of others at most `GRID` pixels a side are computed, evenly spread, then those around the `PEAKS` highest maxima
    among them: fixed in number, and fewer. Up to `GRID` pixels a side nothing is left out.
    """
    if not may_read(boxes):
        return _peaks_of_parts(logits, boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    whole = sides.ceil()
    small = whole.prod(1) <= WHOLE
    points, values = logits.new_empty(*logits.shape[:2], 2), logits.new_empty(logits.shape[:2])
    large = (~small).nonzero().squeeze(1)
    points[large], values[large] = _peaks_of_parts(logits[large], boxes[large])
    for row in small.nonzero().squeeze(1).tolist():
        width, height = (int(side) for side in whole[row])
        resized = F.interpolate(logits[row, None], size=(height, width), mode="bicubic", align_corners=False)[0]
        values[row], index = resized.flatten(1).max(-1)
        place = torch.stack((index % width, torch.div(index, width, rounding_mode="floor")), dim=-1)
        points[row] = boxes[row, :2] + (place + 0.5) * (sides[row] / whole[row])
    return points, values


def _peaks_of_parts(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """`keypoint_peaks` of any regions, whatever their sizes."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    whole = sides.ceil()
    device = logits.device
    step = torch.arange(GRID, device=device)
    places = [
        ((step + 0.5) * (length / GRID).clamp(min=1)).floor() for length in whole[:, :, None, None, None].unbind(1)
    ]
    grid, places = _looked_at(logits, whole, places)
    # Of each hill its top alone, or one hill would take all the places.
    tops = grid.squeeze(2)
    tops = tops.masked_fill(tops < F.max_pool2d(tops, 3, stride=1, padding=1), -torch.inf).flatten(2)
    index = tops.topk(PEAKS, dim=-1).indices
    centres = [
        place.squeeze(2).expand(*index.shape[:2], GRID).gather(2, cell).unsqueeze(3)
        for place, cell in zip(places, (index % GRID, torch.div(index, GRID, rounding_mode="floor")))
    ]
    step = torch.arange(PLACES, device=device)
    # Near an edge the window is moved, not cut off.
    limits = (whole[:, :, None, None, None] - PLACES).unbind(1)
    places = [(c - PLACES // 2).minimum(limit).clamp(min=0) + step for c, limit in zip(centres, limits)]
    near, places = _looked_at(logits, whole, places)
    value, index = near.flatten(2).max(-1, keepdim=True)
    peak, index = torch.div(index, PLACES**2, rounding_mode="floor"), index % PLACES**2
    cells = (index % PLACES, torch.div(index, PLACES, rounding_mode="floor"))
    best = [place.flatten(2).gather(2, peak * PLACES + cell) for place, cell in zip(places, cells)]
    point = boxes[:, None, :2] + (torch.cat(best, dim=-1) + 0.5) * (sides / whole)[:, None]
    return point, value.squeeze(2)


def _looked_at(logits: Tensor, whole: Tensor, places: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Heatmaps (R, K, S, S) as large as `whole` (R, 2) at pixels `places`, columns and rows (R, 1 or K, P, T) each:
    values (R, K, P, T, T), and the places, limited to the map."""
    size, lengths = logits.shape[-1], whole[:, :, None, None, None].unbind(1)
    places = [place.minimum(length - 1) for place, length in zip(places, lengths)]
    columns, rows = (
        _weights((place + 0.5) * (size / length) - 0.5, size) for place, length in zip(places, lengths)
    )  # fmt: skip
    # In double precision, which autocast leaves alone.
    values = rows @ (logits.double().unsqueeze(2) @ columns.transpose(-1, -2))
    return values.to(logits.dtype), places


def _weights(position: Tensor, size: int) -> Tensor:
    """Bicubic weights (…, T, size), float64, of the cells of a line at positions (…, T) of it; its ends go on."""
    low, total = position.floor(), position.new_zeros(*position.shape, size, dtype=torch.float64)
    for tap in range(-1, 3):
        distance = (position - low - tap).abs()
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
        far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
        weight = torch.where(distance <= 1, near, far).to(torch.float64)
        cell = (low + tap).clamp(min=0, max=size - 1).to(torch.int64)
        total.scatter_add_(-1, cell.unsqueeze(-1), weight.unsqueeze(-1))
    return total


def keypoint_certainty(logits: Tensor) -> Tensor:
    """How much of the probability that each heatmap spreads lies within two cells of its best one: (R, K), 0–1.

    logits (R, K, S, S).
    """
    shares = logits.flatten(2).softmax(-1).view_as(logits)
    side = 2 * NEAR + 1
    near = F.avg_pool2d(shares, side, stride=1, padding=NEAR) * side**2
    best = logits.flatten(2).argmax(-1, keepdim=True)
    return near.flatten(2).gather(2, best).squeeze(2).clamp(max=1)
