"""RoIPool over one feature map or a pyramid: Girshick, "Fast R-CNN" (2015), section 2.1, with torchvision's rounding.

A region's edges are rounded to cells, both of them belong to it, and it is cut into P × P bins that share a cell where
they do not divide; a bin is the greatest value of its cells, and the gradient goes to the cell it came from. All levels
lie in one table of channels-last vectors, so that a bin is a bag of rows of it, as many as it has cells.

Three ways lead to the same bits. In eager mode on the CPU a bag is a row of a sparse matrix of ones, whose product with
the table takes the greatest and not the sum: threaded and vectorised. On GPUs it is a kernel of our own
(`kernels/roi_pool.py`). While compiling for the CPU, exporting, and on other devices, it is torchvision's operator on
each level.

Letters: L levels, N pictures, C channels, R regions, P output size, B = R × P × P bins, E entries, a cell of a bin
each, T rows of the table.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_pool as torchvision_roi_pool

from tracesight.ops.kernels.available import triton_works
from tracesight.ops.memory import fresh
from tracesight.ops.pyramid import FeatureTable, region_levels
from tracesight.ops.trim import exporting, may_read

# Corners further out than this, in pixels, count as this far out: their cells are still numbers of 32 bits.
FURTHEST = 2.0**29
# torchvision's maximum begins at this value, in float64 too: smaller ones, -inf and NaN are never chosen.
LEAST = torch.finfo(torch.float32).min
# Values that are read and written at a time, so that they stay in the cache from one step to the next.
AT_A_TIME = 1 << 23
# Entries that are listed at a time; each takes about 50 bytes.
ENTRIES = 1 << 20


def multilevel_roi_pool(
    table: FeatureTable,
    boxes: Tensor,
    picture: Tensor,
    strides: tuple[int, ...],
    *,
    output_size: int,
) -> Tensor:
    """Greatest values (R, C, P, P), channels-last in memory, of the bins of regions of one feature map or a pyramid.

    table: of features that are float32, float64 or bfloat16; differentiable in them, once. boxes (R, 4) in picture
    pixels; picture (R,) int64, which of the N each belongs to; strides: picture pixels a cell, a level each, doubling.
    output_size: P, bins a side.

    The result is `torchvision.ops.roi_pool`'s on the region's level, to the bit in float32 and float64, and so is the
    cell that the gradient goes to: of equal values the first, by rows. Hence a box without area is one cell large, a
    bin that lies outside is 0, and NaN is passed over (a bin of nothing else is -3.4e38, -inf in bfloat16, without a
    gradient). A box that is not finite gives zeros and no gradient. Raises ValueError for strides that do not double
    and, in eager mode on the CPU, for a picture that is not there.
    """
    # Cells are counted in the features' own precision, as torchvision does, and never in half of one.
    dtype = _sum_dtype(table.rows.dtype)
    finite = torch.isfinite(boxes).all(1)
    boxes = boxes.masked_fill(~finite[:, None], 0.0).clamp(-FURTHEST, FURTHEST).to(dtype)
    level, scale = region_levels(boxes, strides)
    choose = torch.is_grad_enabled() and table.rows.requires_grad
    if may_read(boxes):
        _check_pictures(picture, table.shapes[0][0])
        bags = _bags(table, boxes * scale[:, None], picture, level, finite, output_size)
        pooled = _GreatestRows.apply(table.rows, bags) if choose else _greatest_rows(table.rows, bags)[0]
    elif not exporting() and _has_kernel(boxes.device):
        corners, picture = boxes * scale[:, None], picture.masked_fill(~finite, -1)
        places = table.height, table.width, table.base
        pooled, _ = _greatest_on_gpu(table.rows, corners, picture, level, *places, output_size, choose)
    else:
        return _pool_levels(table, boxes, picture, level, finite, strides, output_size)
    return pooled.view(boxes.shape[0], output_size, output_size, table.rows.shape[1]).permute(0, 3, 1, 2)


def _check_pictures(picture: Tensor, count: int) -> None:
    """Raise ValueError if `picture` (R,) names one that is not among the `count` there are: it would read elsewhere."""
    if picture.numel() and not (int(picture.min()) >= 0 and int(picture.max()) < count):
        raise ValueError(f"regions of pictures {int(picture.min())} to {int(picture.max())}, of {count}")


@torch.compiler.assume_constant_result
def _has_kernel(device: torch.device) -> bool:
    """Whether the kernel can be built, which compiled code asks once, while it is traced."""
    return device.type == "cuda" and triton_works(device, _try_kernel)


def _try_kernel(device: torch.device) -> None:
    from tracesight.ops.kernels.roi_pool import greatest_rows

    one = torch.ones(1, 4, device=device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    greatest_rows(one, one, zero, zero, zero + 1, zero + 1, zero, 1, True)


@torch.library.custom_op("tracesight::roi_pool", mutates_args=())
def _greatest_on_gpu(
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
    """`kernels.roi_pool.greatest_rows`; what the compiler sees as one operator."""
    from tracesight.ops.kernels.roi_pool import greatest_rows

    return greatest_rows(rows, corners, picture, level, height, width, base, output_size, choose)


@_greatest_on_gpu.register_fake
def _(rows, corners, picture, level, height, width, base, output_size, choose):
    bins = corners.shape[0] * output_size**2
    chosen = rows.new_empty((bins if choose else 0, rows.shape[1]), dtype=torch.int32)
    return rows.new_empty((bins, rows.shape[1])), chosen


@torch.library.custom_op("tracesight::roi_pool_backward", mutates_args=())
def _spread_on_gpu(grad: Tensor, chosen: Tensor, count: int) -> Tensor:
    """`kernels.roi_pool.spread`; where repeatable algorithms are asked for, sums in a fixed order."""
    from tracesight.ops.kernels.roi_pool import spread

    if not torch.are_deterministic_algorithms_enabled():
        return spread(grad, chosen, count)
    values = grad.to(_sum_dtype(grad.dtype))
    gradient = values.new_zeros((count + 1, grad.shape[1]))
    channel = torch.arange(grad.shape[1], device=grad.device)
    return gradient.index_put_((chosen.to(torch.int64), channel), values, accumulate=True)[:-1].clone()


@_spread_on_gpu.register_fake
def _(grad, chosen, count):
    return grad.new_empty((count, grad.shape[1]), dtype=_sum_dtype(grad.dtype))


def _keep_chosen(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.rows, ctx.dtype = inputs[0].shape[0], inputs[0].dtype
    ctx.save_for_backward(output[1])


def _gradient_on_gpu(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _spread_on_gpu(grad, ctx.saved_tensors[0], ctx.rows).to(ctx.dtype), *[None] * 8


_greatest_on_gpu.register_autograd(_gradient_on_gpu, setup_context=_keep_chosen)


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which cells are counted and gradients added up: float64 for float64, and else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _pool_levels(
    table: FeatureTable,
    boxes: Tensor,
    picture: Tensor,
    level: Tensor,
    finite: Tensor,
    strides: tuple[int, ...],
    output_size: int,
) -> Tensor:
    """Bins (R, C, P, P) by torchvision's operator: every region on every level, of which its own is kept."""
    # torchvision does not know bfloat16; its values and their order survive the way to float32 and back.
    rois = torch.cat((picture[:, None].to(boxes.dtype), boxes), 1)
    rows = table.rows.to(boxes.dtype).split([pictures * height * width for pictures, height, width in table.shapes])
    keep = finite[:, None, None, None]
    pooled = boxes.new_zeros(())
    for index, (part, shape, stride) in enumerate(zip(rows, table.shapes, strides)):
        feature = part.view(*shape, table.rows.shape[1]).permute(0, 3, 1, 2)
        of_level = torchvision_roi_pool(feature, rois, output_size, 1.0 / stride)
        pooled = torch.where(keep & (level == index)[:, None, None, None], of_level, pooled)
    return pooled.to(table.rows.dtype).contiguous(memory_format=torch.channels_last)


class _Bags(NamedTuple):
    """The bins as bags of rows of the table, each field (B,) int64: the first row, and lines × columns of them.

    width: rows from one line to the next.
    """

    first: Tensor
    lines: Tensor
    columns: Tensor
    width: Tensor


def _bags(
    table: FeatureTable, corners: Tensor, picture: Tensor, level: Tensor, finite: Tensor, output_size: int
) -> _Bags:
    """The bins of regions whose corners are (R, 4) in cells of their level."""
    height, width = table.height[level], table.width[level]
    top, bottom = _edges(corners[:, 1], corners[:, 3], height, output_size)
    left, right = _edges(corners[:, 0], corners[:, 2], width, output_size)
    start = table.base[level] + picture * height * width
    lines = (bottom - top).clamp(min=0) * finite[:, None]
    columns = (right - left).clamp(min=0)
    # (R, P, 1) with (R, 1, P): every line of a bin meets every column of it.
    first = (start[:, None] + top * width[:, None])[:, :, None] + left[:, None, :]
    return _Bags(
        first.flatten(),
        lines[:, :, None].expand_as(first).flatten(),
        columns[:, None, :].expand_as(first).flatten(),
        width[:, None, None].expand_as(first).flatten(),
    )


def _edges(low: Tensor, high: Tensor, cells: Tensor, output_size: int) -> tuple[Tensor, Tensor]:
    """First cell and the one past the last, (R, P) int64 each, of bins of regions from `low` to `high` (R,), in cells.

    Step by step as in torchvision: where bins meet on a cell's border, the rounding says which cells they have.
    """
    start, end = _round(low), _round(high)
    size = (end - start + 1).clamp(min=1).to(low.dtype) / output_size
    bins = torch.arange(output_size + 1, dtype=low.dtype) * size[:, None]
    first = bins[:, :-1].floor().to(torch.int64) + start[:, None]
    last = bins[:, 1:].ceil().to(torch.int64) + start[:, None]
    limit = cells[:, None]
    return first.clamp(min=0).minimum(limit), last.clamp(min=0).minimum(limit)


def _round(values: Tensor) -> Tensor:
    """Nearest whole numbers, int64; halves go away from zero, as in C, and not to the even one, as in `torch.round`."""
    whole = values.trunc()
    # Not floor(x + 0.5): that sum rounds 0.49999997 up to 1.
    return (whole + ((values - whole).abs() >= 0.5) * values.sign()).to(torch.int64)


class _GreatestRows(torch.autograd.Function):
    """`_greatest_rows`, whose gradient goes to the rows that the values came from, bin after bin as in torchvision."""

    @staticmethod
    def forward(ctx, table: Tensor, bags: _Bags) -> Tensor:
        pooled, chosen = _greatest_rows(table, bags, choose=True)
        ctx.save_for_backward(chosen)
        ctx.rows, ctx.dtype = table.shape[0], table.dtype
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        (chosen,) = ctx.saved_tensors
        channels = chosen.shape[1]
        dtype = _sum_dtype(ctx.dtype)
        # One row more than the table has: what came from none of it goes there.
        gradient = fresh(ctx.rows + 1, channels, dtype).zero_()
        # Fewer at a time than in the forward pass: they are as wide again, and each meets a row of the gradient.
        step = max(1, AT_A_TIME // 32 // max(1, channels))
        for start in range(0, chosen.shape[0], step):
            index = chosen[start : start + step].to(torch.int64)
            gradient.scatter_add_(0, index, grads[0][start : start + step].to(dtype))
        return gradient[:-1].to(ctx.dtype), None


def _greatest_rows(table: Tensor, bags: _Bags, *, choose: bool = False) -> tuple[Tensor, Tensor]:
    """Greatest values (B, C) of each bag of rows of `table` (T, C), 0 for an empty one.

    Second, with `choose`: the rows (B, C) int32 that they came from, the first of equal ones, T for none; else empty.
    """
    count, channels = bags.first.shape[0], table.shape[1]
    pooled = fresh(count, channels, table.dtype)
    chosen = fresh(count if choose else 0, channels, torch.int32)
    if pooled.numel() == 0:
        return pooled, chosen
    _hear_of_beta()
    # The autograd graph of the product is made for its index of the greatest, and dropped.
    source = table.detach().contiguous().requires_grad_(choose)
    end = 0
    for size in _cut(bags.lines * bags.columns + 1, ENTRIES):
        start, end = end, end + size
        group = _Bags(*(field[start:end] for field in bags))
        _fill(source, *_entries(group), pooled[start:end], chosen[start:end])
    return pooled, chosen


def _cut(cost: Tensor, most: int) -> list[int]:
    """How many of what costs `cost` (B,) to take at a time, so that it costs about `most`; one at least."""
    return torch.unique_consecutive(cost.cumsum(0).div_(most, rounding_mode="floor"), return_counts=True)[1].tolist()


def _entries(bags: _Bags) -> tuple[Tensor, Tensor]:
    """Offsets (B + 1,) of the bags and rows (E,) of the table, both int32: bag by bag, line by line."""
    offsets = F.pad((bags.lines * bags.columns).cumsum(0), (1, 0))
    line = _runs(bags.first, bags.lines, bags.width)
    rows = _runs(line, bags.columns.repeat_interleave(bags.lines, output_size=line.shape[0]))
    return offsets.to(torch.int32), rows.to(torch.int32)


def _runs(start: Tensor, length: Tensor, step: Tensor | None = None) -> Tensor:
    """Whole numbers from each start on, as many as its length, `step` (1) apart, one run after the other."""
    end = length.cumsum(0)
    total = int(end[-1]) if end.numel() else 0
    before = end - length
    place = torch.arange(total)
    if step is None:
        return place.add_(torch.repeat_interleave(start - before, length, output_size=total))
    place *= torch.repeat_interleave(step, length, output_size=total)
    return place.add_(torch.repeat_interleave(start - before * step, length, output_size=total))


def _fill(table: Tensor, offsets: Tensor, rows: Tensor, pooled: Tensor, chosen: Tensor) -> None:
    """Fill `pooled` (B, C), and `chosen` (B, C) unless it is empty, from bags of rows of `table`; see `_entries`."""
    ones = torch.ones(rows.shape[0], dtype=table.dtype)
    least = torch.tensor(LEAST).to(table.dtype).item()
    none = rows.new_full((1,), table.shape[0])
    usable: Tensor | None = None
    end = 0
    for size in _cut(offsets.diff() + 1, max(1, AT_A_TIME // table.shape[1])):
        start, end = end, end + size
        first, last = int(offsets[start]), int(offsets[end])
        part = offsets[start : end + 1] - first, rows[first:last], ones[first:last]
        values, entry = _product(table, *part)
        # Almost never: NaN, which the product prefers, or nothing that torchvision would choose.
        odd = not values.amin().item() > least
        if odd:
            if usable is None:
                usable = torch.where(table > least, table.detach(), least).requires_grad_(table.requires_grad)
            values, entry = _product(usable, *part)
        pooled[start:end] = values
        if entry is not None:
            # An empty bag's entry is one more than there are: it stands for no row.
            torch.index_select(torch.cat((part[1], none)), 0, entry.flatten(), out=chosen[start:end].view(-1))
            if odd:
                chosen[start:end].masked_fill_(values <= least, table.shape[0])


def _product(table: Tensor, offsets: Tensor, rows: Tensor, ones: Tensor) -> tuple[Tensor, Tensor | None]:
    """Greatest values (B, C), and if `table` (T, C) requires a gradient, their entries (B, C) int32, E for no entry."""
    count, channels = offsets.shape[0] - 1, table.shape[1]
    if not rows.shape[0]:
        # torch leaves the entries out.
        return table.new_zeros(count, channels), rows.new_zeros(count, channels) if table.requires_grad else None
    matrix = torch.sparse_csr_tensor(offsets, rows, ones, (count, table.shape[0]), check_invariants=False)
    if not table.requires_grad:
        return torch.sparse.mm(matrix, table, "amax"), None
    # What `torch.sparse.mm` calls, for the second result that it keeps to itself.
    with torch.enable_grad():
        values, entry = torch.ops.aten._sparse_mm_reduce_impl(matrix, table, "amax")
    return values.detach(), entry


@functools.cache
def _hear_of_beta() -> None:
    """Have torch say, where nobody hears it, that its sparse matrices are in beta: it says so once a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)
