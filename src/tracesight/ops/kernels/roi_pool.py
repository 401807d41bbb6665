"""RoIPool on a GPU: two Triton kernels, one for the greatest value of each bin and one that spreads its gradient.

A program of `_greatest` is a bin and a block of channels: it works out which cells the bin has, step by step as
torchvision does, walks over them line by line, each a load of neighbouring channels, and keeps the greatest value and
the row it came from. A program of `_spread` adds a bin's gradient to those rows; bins share rows, so that the sums are
atomic and their order is not fixed. The host is told nothing, so that a CUDA graph can hold both. Rows are counted in
32 bits, what is rows × channels in 64. This file imports triton: import it where it is needed.

Letters as in `tracesight.ops.roi_pool`: R regions, L levels, C channels, P output size, B bins, T rows of the table.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_CHANNELS = 256  # of a program
BYTES = 16  # that a thread loads at once


def greatest_rows(
    rows: Tensor,
    corners: Tensor,
    picture: Tensor,
    level: Tensor,
    height: Tensor,
    width: Tensor,
    base: Tensor,
    output_size: int,
    choose: bool,
) -> tuple[Tensor, Tensor]:
    """Greatest values (B, C) of the bins of R regions in the table `rows` (T, C), 0 where a bin has no cell.

    corners (R, 4): in cells of the region's level, float64 for float64 rows and else float32; picture (R,) int64,
    negative for a region without cells; level (R,) int64; height, width, base (L,) int64. Second, with `choose`: the
    rows (B, C) int32 that the values came from, the first of equal ones, T for none; else (0, C).
    """
    count, channels = rows.shape
    bins = corners.shape[0] * output_size**2
    values = rows.new_empty((bins, channels))
    chosen = rows.new_empty((bins if choose else 0, channels), dtype=torch.int32)
    if values.numel():
        inputs = rows.contiguous(), corners.contiguous(), picture.contiguous(), level.contiguous()
        grid, settings = _launch(values)
        settings |= {"P": output_size, "CHOOSE": choose}
        with torch.cuda.device_of(rows):
            _greatest[grid](*inputs, height, width, base, values, chosen, count, channels, **settings)
    return values, chosen


def spread(grad: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Gradient (`count`, C) of the table's rows, from grad (B, C) of the values that were `chosen` (B, C) from them.

    float64 for float64 and else float32, in which sums of bfloat16 do not stop growing.
    """
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    gradient = grad.new_zeros((count, grad.shape[1]), dtype=dtype)
    if gradient.numel() and grad.numel():
        grid, settings = _launch(grad)
        with torch.cuda.device_of(grad):
            _spread[grid](grad.contiguous(), chosen.contiguous(), gradient, count, grad.shape[1], **settings)
    return gradient


def _launch(values: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid over values (B, C), and the size of its programs: as many threads as loads of `BYTES` fill."""
    block = min(triton.next_power_of_2(values.shape[1]), MOST_CHANNELS)
    warps = max(1, block * values.element_size() // (32 * BYTES))
    return (values.shape[0], triton.cdiv(values.shape[1], block)), {
        "BLOCK": block,
        "num_warps": warps,
        # A fused multiply-add rounds once where torchvision rounds twice.
        "enable_fp_fusion": False,
    }


@triton.jit
def _round(value):
    """The nearest whole number, int32; halves go away from zero, as in C."""
    size = tl.abs(value)
    whole = tl.floor(size)
    # Not floor(x + 0.5): that sum rounds 0.49999997 up to 1.
    nearest = (whole + tl.where(size - whole >= 0.5, 1.0, 0.0)).to(tl.int32)
    return tl.where(value < 0, -nearest, nearest)


@triton.jit
def _edges(low, high, index, cells, P: tl.constexpr):
    """First cell and the one past the last of bin `index` of P, of a region from `low` to `high`, of `cells` cells."""
    start = _round(low)
    size = tl.maximum(_round(high) - start + 1, 1).to(low.dtype)
    bins = tl.full((), P, tl.int32).to(low.dtype)
    # `/` is an approximation in float32.
    if low.dtype == tl.float32:
        size = tl.div_rn(size, bins)
    else:
        size = size / bins
    first = tl.floor(index.to(low.dtype) * size).to(tl.int32) + start
    last = tl.ceil((index + 1).to(low.dtype) * size).to(tl.int32) + start
    return tl.minimum(tl.maximum(first, 0), cells), tl.minimum(tl.maximum(last, 0), cells)


@triton.jit
def _greatest(
    rows,
    corners,
    picture,
    level,
    height,
    width,
    base,
    values,
    chosen,
    count,
    channels,
    P: tl.constexpr,
    CHOOSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    bag = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = channel < channels
    region = bag // (P * P)
    place = (bag - region * (P * P)).to(tl.int32)
    at = tl.load(level + region)
    lines, columns = tl.load(height + at), tl.load(width + at)
    corner = corners + region * 4
    top, bottom = _edges(tl.load(corner + 1), tl.load(corner + 3), place // P, lines.to(tl.int32), P)
    left, right = _edges(tl.load(corner), tl.load(corner + 2), place % P, columns.to(tl.int32), P)
    owner = tl.load(picture + region)
    bottom = tl.where(owner < 0, top, bottom)
    start = tl.load(base + at) + owner * lines * columns
    # torchvision's least value is float32's, in float64 too; bfloat16, compared in float32, rounds it to -inf.
    if rows.dtype.element_ty == tl.bfloat16:
        best = tl.full((BLOCK,), float("-inf"), tl.float32)
    else:
        best = tl.full((BLOCK,), -3.4028234663852886e38, corners.dtype.element_ty)
    source = tl.full((BLOCK,), 0, tl.int32) + count
    for y in range(top, bottom):
        line = start + y * columns
        for x in range(left, right):
            row = line + x
            value = tl.load(rows + row * channels + channel, mask=real, other=0.0).to(best.dtype)
            # False for NaN, and for what is as great as an earlier one.
            better = value > best
            best = tl.where(better, value, best)
            if CHOOSE:
                source = tl.where(better, row.to(tl.int32), source)
    best = tl.where((bottom > top) & (right > left), best, 0.0)
    out = bag * channels + channel
    tl.store(values + out, best.to(values.dtype.element_ty), mask=real)
    if CHOOSE:
        tl.store(chosen + out, source, mask=real)


@triton.jit
def _spread(grad, chosen, gradient, count, channels, BLOCK: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = channel < channels
    row = tl.load(chosen + bag * channels + channel, mask=real, other=count)
    value = tl.load(grad + bag * channels + channel, mask=real, other=0.0).to(gradient.dtype.element_ty)
    tl.atomic_add(gradient + row.to(tl.int64) * channels + channel, value, mask=real & (row < count), sem="relaxed")
