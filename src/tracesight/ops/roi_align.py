"""RoIAlign over a feature pyramid: "Mask R-CNN" (2017), section 3, with the level rule of FPN (2017), equation 1.

All levels lie in one table of channels-last vectors, and every bin is a weighted sum of rows of it: sampling points ×
4 neighbours. The same sum, transposed, is the gradient. Both are an embedding bag, which is threaded, runs in bf16 and
needs no loop over regions, pictures or levels.

Letters: R regions, C channels, S sampling points a bin side, P output size, T rows of the table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tracesight.ops.boxes import box_area

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4


def pyramid_levels(boxes: Tensor, levels: int) -> Tensor:
    """Index (R,) of the level, 0 for P2, that boxes (R, 4) are read from: FPN, equation 1."""
    side = box_area(boxes).clamp(min=1e-12).sqrt()
    # The small constant keeps a side of exactly 112 or 224 on its level in spite of rounding, as in torchvision.
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE) + 1e-6) - 2
    return level.clamp(min=0, max=levels - 1).to(torch.int64)


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    picture: Tensor,
    strides: tuple[int, ...],
    *,
    output_size: int,
    sampling: int,
    aligned: bool,
) -> Tensor:
    """Features (R, C, P, P), channels-last in memory, of regions of a pyramid.

    features: a level each, (N, C, Hi, Wi), finest first; strides: picture pixels a cell, a level each.
    boxes (R, 4) in picture pixels; picture (R,) int64, which of the N each belongs to.
    sampling: points a bin side; aligned: whether a cell's value sits at its centre (half a cell off its index).
    Regions are at least one cell large unless `aligned`. Float32, float64 and bfloat16; differentiable in `features`.
    """
    level = pyramid_levels(boxes, len(features))
    table = torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in features])
    heights, widths, bases = [], [], []
    base = 0
    for feature in features:
        heights.append(feature.shape[2])
        widths.append(feature.shape[3])
        bases.append(base)
        base += feature.shape[0] * feature.shape[2] * feature.shape[3]

    def per_region(values: list) -> Tensor:
        return torch.tensor(values, device=boxes.device)[level]

    height, width = per_region(heights), per_region(widths)
    scale = per_region([1.0 / s for s in strides]).to(boxes.dtype).unsqueeze(1)
    start = boxes * scale - (0.5 if aligned else 0.0)
    y, y_weight = _axis(start[:, 1], start[:, 3], height, output_size, sampling, aligned)
    x, x_weight = _axis(start[:, 0], start[:, 2], width, output_size, sampling, aligned)
    row = y * width[:, None, None] + (per_region(bases) + picture * height * width)[:, None, None]
    # (R, P, 1, 2S, 1) with (R, 1, P, 1, 2S): every row of a bin meets every column of it.
    index = row[:, :, None, :, None] + x[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / sampling**2
    points = 4 * sampling**2
    pooled = _weighted_rows(table, index.reshape(-1, points), weight.reshape(-1, points))
    return pooled.view(len(boxes), output_size, output_size, table.shape[1]).permute(0, 3, 1, 2)


def _axis(
    low: Tensor, high: Tensor, cells: Tensor, output_size: int, sampling: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Cells and weights (R, P, 2S) along one axis: two neighbours of each of S sampling points of each of P bins."""
    length = high - low
    if not aligned:
        length = length.clamp(min=1.0)
    bins = torch.arange(output_size, device=low.device, dtype=low.dtype)
    points = torch.arange(sampling, device=low.device, dtype=low.dtype) + 0.5
    # Added up in torchvision's order: at 300 cells from the origin a rounding more moves the result by 1e-5.
    size = (length / output_size)[:, None, None]
    position = (low[:, None, None] + bins[:, None] * size + points * size / sampling).flatten(1)
    limit = cells[:, None].to(low.dtype)
    # Beyond one cell outside there is nothing; nearer, the border's value goes on.
    inside = (position >= -1.0) & (position <= limit)
    position = position.clamp(min=0).minimum(limit - 1)
    lower = position.floor()
    fraction = position - lower
    weight = torch.stack((1.0 - fraction, fraction), dim=-1) * inside[..., None]
    lower = lower.to(torch.int64)
    index = torch.stack((lower, (lower + 1).minimum(cells[:, None] - 1)), dim=-1)
    shape = (len(low), output_size, 2 * sampling)
    return index.view(shape), weight.view(shape)


def _weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sums (B, C) of rows of `table` (T, C): out_b = sum_k weight_bk * table[index_bk]; index and weight are (B, K)."""
    # 32 bits sort in half the time; no pyramid has 2^31 cells.
    index, weight = index.to(torch.int32), weight.to(table.dtype)
    if torch.is_grad_enabled() and table.requires_grad:
        return _WeightedRows.apply(table, index, weight)
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")


class _WeightedRows(torch.autograd.Function):
    """An embedding bag whose gradient is one too: the transposed sum, row by row of the table.

    PyTorch's own gradient of it is single-threaded on CPUs and does not know bfloat16.
    """

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.rows = table.shape[0]
        return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:
        index, weight = ctx.saved_tensors
        row, order = index.flatten().sort(stable=True)
        bag = torch.div(order, index.shape[1], rounding_mode="floor").to(torch.int32)
        # searchsorted and not bincount, whose result's length would depend on the data.
        starts = torch.arange(ctx.rows, device=row.device, dtype=torch.int32)
        offsets = torch.searchsorted(row, starts, out_int32=True)
        grad = grads[0].contiguous()
        return (
            F.embedding_bag(bag, grad, offsets, per_sample_weights=weight.flatten()[order], mode="sum"),
            None,
            None,
        )
