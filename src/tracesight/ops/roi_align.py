"""RoIAlign over a feature pyramid: He et al., "Mask R-CNN" (2017), section 3.

All levels lie in one table of channels-last vectors, and every bin is a weighted sum of rows of it: sampling points ×
4 neighbours. The same sum, transposed, is the gradient. Both are an embedding bag, which is threaded, runs in bf16 and
needs no loop over regions, pictures or levels.

Letters: R regions, C channels, P output size, S sampling points a bin side, K cells a bin side that they read (2S at
most), B = R × P × P bins, E entries, a row and its weight each, T rows of the table.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tracesight.ops.memory import LEAST, fresh
from tracesight.ops.pyramid import FeatureTable, region_levels
from tracesight.ops.trim import may_read

# Adaptive sampling: points a bin side, in general and where a count may be read (there, against boxes without end).
MOST_SAMPLES, MOST_SAMPLES_READ = 8, 1024


def multilevel_roi_align(
    table: FeatureTable,
    boxes: Tensor,
    picture: Tensor,
    strides: tuple[int, ...],
    *,
    output_size: int,
    sampling: int,
    aligned: bool,
) -> Tensor:
    """Features (R, C, P, P), channels-last in memory, of regions of a pyramid.

    table: of features that are float32, float64 or bfloat16; differentiable in them. boxes (R, 4) in picture pixels;
    picture (R,) int64, which of the N each belongs to; strides: picture pixels a cell, a level each, doubling.
    sampling: points a bin side; 0 for adaptive, as many as a bin has cells along that side, rounded up; elsewhere than
    in eager mode on the CPU at most 8, which a warning says once. aligned: whether a cell's value sits at its centre
    (half a cell off its index). Regions are at least one cell large unless `aligned`. A box that is not finite gives
    zeros, and so does what lies more than a cell outside the picture. Raises ValueError for strides that do not double.
    """
    finite = torch.isfinite(boxes).all(1)
    boxes = boxes.masked_fill(~finite[:, None], 0.0)
    level, scale = region_levels(boxes, strides)
    start = boxes * scale.unsqueeze(1) - (0.5 if aligned else 0.0)
    height, width = table.height[level], table.width[level]
    rows = _axis(start[:, 1], start[:, 3], height, output_size, sampling, aligned)
    columns = _axis(start[:, 0], start[:, 2], width, output_size, sampling, aligned)
    first = table.base[level] + picture * height * width
    rows = rows._replace(
        index=rows.index * width[:, None, None] + first[:, None, None],
        weight=rows.weight * finite[:, None, None],
    )
    if may_read(boxes):
        pooled = _pool_ragged(table.rows, rows, columns)
    else:
        pooled = _pool_padded(table.rows, rows, columns)
    return pooled.view(boxes.shape[0], output_size, output_size, table.rows.shape[1]).permute(0, 3, 1, 2)


class _Axis(NamedTuple):
    """Cells that bins read along one axis: index int64 and weight (R, P, K), and how many of the K count (R, P)."""

    index: Tensor
    weight: Tensor
    count: Tensor


def _axis(low: Tensor, high: Tensor, cells: Tensor, output_size: int, sampling: int, aligned: bool) -> _Axis:
    """Two neighbours of each of S sampling points of each of P bins of regions from `low` to `high` (R,), in cells."""
    length = high - low
    if not aligned:
        length = length.clamp(min=1.0)
    size = (length / output_size)[:, None, None]
    used: Tensor | None = None
    points: Tensor | int = sampling
    if sampling == 0:
        points, sampling = _adaptive(size)
        used = torch.arange(sampling, device=low.device) < points
        points = points.clamp(min=1)
    bins = torch.arange(output_size, device=low.device, dtype=low.dtype)
    step = torch.arange(sampling, device=low.device, dtype=low.dtype) + 0.5
    # Added up in torchvision's order: at 300 cells from the origin a rounding more moves the result by 1e-5.
    position = (low[:, None, None] + bins[:, None] * size) + step * size / points
    limit = cells[:, None, None].to(low.dtype)
    # Beyond one cell outside there is nothing; nearer, the border's value goes on.
    inside = (position >= -1.0) & (position <= limit)
    if used is not None:
        inside = inside & used
    position = position.clamp(min=0).minimum(limit - 1)
    lower = position.floor()
    fraction = position - lower
    share = inside / points
    weight = torch.stack(((1.0 - fraction) * share, fraction * share), dim=-1).flatten(2)
    lower = lower.to(torch.int64)
    index = torch.stack((lower, (lower + 1).minimum(cells[:, None, None] - 1)), dim=-1).flatten(2)
    if not may_read(low):
        return _Axis(index, weight, torch.full_like(index[..., 0], index.shape[2]))
    return _merged(lower, index, weight)


def _adaptive(size: Tensor) -> tuple[Tensor, int]:
    """Sampling points (R, 1, 1) a bin side of `size` (R, 1, 1) cells, and room for the most of them.

    A bin without area has none, as in torchvision, and gives zeros.
    """
    points = torch.ceil(size).clamp(min=0)
    if may_read(size):
        points = points.clamp(max=MOST_SAMPLES_READ)
        return points, max(int(points.max()), 1) if points.numel() else 1
    if not torch.compiler.is_compiling():
        warnings.warn(f"adaptive RoIAlign takes at most {MOST_SAMPLES} samples a bin side here", stacklevel=2)
    return points.clamp(max=MOST_SAMPLES), MOST_SAMPLES


def _merged(lower: Tensor, index: Tensor, weight: Tensor) -> _Axis:
    """Neighbours (R, P, 2S) of points whose lower cells are `lower` (R, P, S), each cell once: two thirds as many."""
    # A point in its predecessor's cell shares both neighbours with it, one in the next cell shares one.
    step = (lower[..., 1:] - lower[..., :-1]).clamp(max=2)
    slot = F.pad(step.cumsum(2), (1, 0))
    slot = torch.stack((slot, slot + 1), dim=-1).flatten(2)
    return _Axis(
        torch.zeros_like(index).scatter_(2, slot, index),
        torch.zeros_like(weight).scatter_add_(2, slot, weight),
        slot[..., -1] + 1,
    )


def _pool_padded(table: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Sums (B, C) over bins of one size each, K × K entries."""
    # (R, P, 1, K, 1) with (R, 1, P, 1, K): every row of a bin meets every column of it.
    index = rows.index[:, :, None, :, None] + columns.index[:, None, :, None, :]
    weight = rows.weight[:, :, None, :, None] * columns.weight[:, None, :, None, :]
    bags, entries = index.shape[0] * index.shape[1] * index.shape[2], index.shape[3] * index.shape[4]
    index = index.reshape(bags * entries).to(torch.int32)
    offsets = torch.arange(bags, device=index.device, dtype=torch.int32) * entries
    return _weighted_rows(table, index, offsets, weight.reshape(bags * entries).to(table.dtype))


def _pool_ragged(table: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Sums (B, C) over bins that have as many entries as they need."""
    regions, bins, most = rows.index.shape
    # 32 bits throughout: half of what is gathered, and sorted in half the time. No pyramid has 2^31 cells.
    tall, wide = rows.count.to(torch.int32), columns.count.to(torch.int32).flatten()
    lines = tall[:, :, None].expand(-1, -1, bins).flatten()
    # Every bin's rows in a line, then every row's cells: what is expanded last is only gathered and added.
    bag = torch.repeat_interleave(lines)
    place = _count_up(bag) - (_sum_up(lines) - lines).index_select(0, bag)
    band = torch.div(bag, bins, rounding_mode="floor")
    row = band * most + place
    span = torch.div(band, bins, rounding_mode="floor") * bins + bag - band * bins
    cells = wide.index_select(0, span)
    line = torch.repeat_interleave(cells)
    column = (span * columns.index.shape[2] - (_sum_up(cells) - cells)).index_select(0, line)
    column += _count_up(line)
    first = rows.index.to(torch.int32).flatten().index_select(0, row).index_select(0, line)
    index = first.add_(columns.index.to(torch.int32).flatten().index_select(0, column))
    weight = rows.weight.flatten().index_select(0, row).index_select(0, line)
    weight = weight.mul_(columns.weight.flatten().index_select(0, column)).to(table.dtype)
    counts = lines * wide.view(regions, 1, bins).expand(-1, bins, -1).flatten()
    return _weighted_rows(table, index, _sum_up(counts) - counts, weight)


def _count_up(like: Tensor) -> Tensor:
    return torch.arange(like.shape[0], dtype=torch.int32)


def _sum_up(values: Tensor) -> Tensor:
    return values.cumsum(0, dtype=torch.int32)


def _weighted_rows(table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Sums (B, C) of rows of `table` (T, C): those at index (E,) from one of the offsets (B,) to the next, weighted."""
    if torch.is_grad_enabled() and table.requires_grad:
        return _WeightedRows.apply(table, index, offsets, weight)
    return _sums(table, index, offsets, weight)


def _sums(table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """An embedding bag; a large one on the CPU in parts, into memory that is used again."""
    bags, channels = offsets.shape[0], table.shape[1]
    bytes_a_bag = channels * table.element_size()
    if not may_read(table) or bags * bytes_a_bag <= LEAST:
        return F.embedding_bag(index, table, offsets, per_sample_weights=weight, mode="sum")
    sums = fresh(bags, channels, table.dtype)
    step = max(1, LEAST // 2 // bytes_a_bag)
    cuts = [*offsets[::step].tolist(), index.shape[0]]
    for bag, (start, end) in zip(range(0, bags, step), pairwise(cuts)):
        part = slice(bag, bag + step)
        sums[part] = F.embedding_bag(
            index[start:end], table, offsets[part] - start, per_sample_weights=weight[start:end], mode="sum"
        )
    return sums


class _WeightedRows(torch.autograd.Function):
    """An embedding bag whose gradient is one too: the transposed sum, row by row of the table.

    PyTorch's own gradient of it is single-threaded on CPUs and does not know bfloat16.
    """

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, offsets, weight)
        ctx.rows = table.shape[0]
        return _sums(table, index, offsets, weight)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        index, offsets, weight = ctx.saved_tensors
        row, order = index.sort(stable=True)
        # searchsorted and not repeat_interleave or bincount, whose results' lengths would depend on the data.
        bag = torch.searchsorted(offsets, order.to(torch.int32), right=True, out_int32=True) - 1
        starts = torch.arange(ctx.rows, device=row.device, dtype=torch.int32)
        offsets = torch.searchsorted(row, starts, out_int32=True)
        return _sums(grads[0].contiguous(), bag, offsets, weight[order]), None, None, None
