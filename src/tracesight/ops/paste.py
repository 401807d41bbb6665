"""From the small masks that networks give to where objects begin and end in the picture: "Mask R-CNN", section 3.1.

A mask grown to its box changes linearly down every column of pixels between two rows of its grid, so that it crosses
0.5 there once at most. The row is solved for, and no pixel is looked at: time grows with the width of an object, not
with its area. Only where rounding could have a say are pixels computed one by one, as torch rounds them, so that
the result is that of `F.interpolate` and `> 0.5`.

D detections, P × P a mask, G = P + 2 the side of its grid with a border of zeros, H × W the picture. A line of the grid
runs down it; a cell lies between four neighbouring values. It all runs in numpy, on the CPU, and its results are as
long as need be: it comes after the fixed shapes of the other functions here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Where torch's CPU kernels multiply and add with one rounding: on x86 with AVX2, as torch 2.15 does. Other machines and
# versions may differ from what is computed here where a value lies within 1e-6 of 0.5.
_FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
# torch resizes to at most this height + width with another kernel, which rounds differently.
_SMALL = 128
# Values this close to 0.5 are left to `_values`; torch's rounding errors stay below a fifth of it.
_BAND = 1e-6
# What rounding moves a crossing by, in rows of the grid: of the row's own position, and for a slope of 1.
_POSITION_ERROR, _VALUE_ERROR = 1e-5, 1e-6
# Columns of pixels, and pixels, that are worked on at a time: each column takes about 1,000 bytes, each pixel 100.
_COLUMNS, _PIXELS = 1 << 13, 1 << 15
# Boxes that reach further are as good as infinite: their positions are no longer whole pixels.
_FURTHEST = 2.0**40


class _Axis(NamedTuple):
    """The pixels of all crops along one axis, those inside the picture only, one crop after the other."""

    mask: Integers  # to which mask each pixel belongs
    cell: Integers  # the grid value before it
    weight: Floats  # of the grid value after it; the one before has 1 - weight
    starts: Integers  # (D × G + 1,) the first pixel, among all, of each cell of each mask
    first: Integers  # (D,) where in the picture the crop begins
    origin: Integers  # (D,) which number, among all, the pixel there has, or would have if the picture reached so far
    scale: Floats  # (D,) grid values a pixel


class _Grids(NamedTuple):
    """The masks with their borders."""

    lines: Floats  # (D × G, G) values down each line
    small: Bools  # (D,) whether torch takes its kernel for small sizes


def mask_runs(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Integers, Integers]:
    """Where the objects' stretches of pixels begin and end in the picture, without a canvas.

    masks (D, P, P) probabilities, 0–1 (what is not a number counts as 0); boxes (D, 4) in the pixels of a picture of
    `size` (H, W). As in torchvision's `paste_masks_in_image`, a mask with a border of zeros is resized to its box,
    grown to match, whose edges are cut to whole pixels and to which one pixel is added; a pixel above 0.5 belongs to
    the object. Boxes that are not finite, turned inside out or outside the picture give empty masks.

    Returns edges (E,), counted down the columns of the picture (COCO's order) as start, end, start, end, … of one
    object after the other, rising within an object, and counts (D,), how many edges each has: `Mask.from_edges`
    takes both.
    """
    height, width = size
    side = int(masks.shape[-1]) + 2
    corners, seen = _grown(boxes.detach().to("cpu", torch.float32).numpy(), side)
    lengths = corners[:, 2:] - corners[:, :2] + 1
    seen = seen & np.all(lengths > 0, axis=1) & np.all(corners[:, 2:] >= 0, axis=1)
    seen = seen & (corners[:, 0] < width) & (corners[:, 1] < height)
    lengths = np.where(seen[:, None], lengths, 1)
    small = lengths.sum(axis=1) <= _SMALL
    x = _axis(corners[:, 0], lengths[:, 0], seen, width, side, small)
    y = _axis(corners[:, 1], lengths[:, 1], seen, height, side, small)
    # fmax and fmin, unlike clip, replace what is not a number.
    values = np.fmin(np.fmax(masks.detach().to("cpu", torch.float32).numpy(), np.float32(0)), np.float32(1))
    lines = np.pad(values.transpose(0, 2, 1), ((0, 0), (1, 1), (1, 1))).reshape(-1, side)
    # One number for mask, column and row: a mask has height × width + 1 places for edges.
    limits = np.arange(len(masks) + 1) * (height * width + 1)
    begins = limits[:-1] + (x.first - x.origin) * height + y.first - y.origin
    parts = [np.zeros(0, np.int64)]
    for low in range(0, len(x.mask), _COLUMNS):
        column, row = _edges(_Grids(lines, small), x, y, slice(low, low + _COLUMNS))
        parts.append(_without_pairs(np.sort(begins[x.mask[column]] + column * height + row)))
    edges = np.concatenate(parts)
    del parts
    edges = _without_pairs(edges)
    counts = np.diff(np.searchsorted(edges, limits))
    edges -= np.repeat(limits[:-1], counts)
    return edges, counts


def _grown(boxes: Floats, side: int) -> tuple[Integers, Bools]:
    """The first and last pixels (D, 4) that masks with their borders span, and which boxes are numbers at all."""
    with np.errstate(invalid="ignore", over="ignore"):
        centre, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
        half = half * np.float32(side / (side - 2))
        grown = np.concatenate((centre - half, centre + half), axis=1)
        fits = np.all(np.abs(grown) < _FURTHEST, axis=1)
    return np.where(fits[:, None], grown, 0).astype(np.int64), fits


def _axis(first: Integers, length: Integers, seen: Bools, extent: int, side: int, small: Bools) -> _Axis:
    """The pixels along an axis of `extent` pixels of crops that begin at `first` (D,) and have `length` (D,)."""
    low = np.maximum(first, 0)
    count = np.where(seen, np.minimum(first + length, extent) - low, 0)
    mask = np.repeat(np.arange(len(first)), count)
    origin = count.cumsum() - count - (low - first)
    middle = (np.arange(len(mask)) - origin[mask]).astype(np.float32) + np.float32(0.5)
    scale = np.float32(side) / length.astype(np.float32)
    position = scale[mask] * middle - np.float32(0.5)
    if _FUSED:
        exact = scale[mask].astype(np.float64) * middle - 0.5
        position = np.where(small[mask], exact.astype(np.float32), position)
    position = np.maximum(position, np.float32(0))
    cell = np.minimum(position.astype(np.int64), side - 1)
    weight = np.minimum(position - cell.astype(np.float32), np.float32(1))
    starts = np.zeros(len(first) * side + 1, np.int64)
    np.cumsum(np.bincount(mask * side + cell, minlength=len(first) * side), out=starts[1:])
    return _Axis(mask, cell, weight, starts, first, origin, scale)


def _edges(grids: _Grids, x: _Axis, y: _Axis, part: slice) -> tuple[Integers, Integers]:
    """The edges of some columns of pixels: the column, among all, of each, and its row among all."""
    side = grids.lines.shape[1]
    mask, right = x.mask[part], x.weight[part, None]
    line = mask * side + x.cell[part]
    # How far the values where a column crosses the rows of the grid lie above 0.5.
    above = grids.lines[line]
    above *= 1 - right
    above += grids.lines.take(line + 1, axis=0, mode="clip") * right  # to the right of the last line, all is zero
    above -= np.float32(0.5)
    inside = above > 0
    crossed = (inside[:, 1:] != inside[:, :-1]).reshape(-1)
    unsure = _unsure(grids, mask, line, np.flatnonzero(np.abs(above) < _BAND))
    crossed[unsure] = False
    solved = np.flatnonzero(crossed)
    column = solved // (side - 1)
    head, foot = above.reshape(-1)[solved + column], above.reshape(-1)[solved + column + 1]
    row, doubtful = _solved(y, side, mask[column], solved - column * (side - 1), head, foot)
    found = [(column[~doubtful], row[~doubtful])]
    column, cell = np.divmod(np.concatenate((unsure, solved[doubtful])), side - 1)
    of_grid = mask[column] * side + cell
    for some in _portions(y.starts[of_grid + 1] - y.starts[of_grid] + 1):
        at, row = _computed(grids, x, y, column[some] + part.start, cell[some], inside[column[some]])
        found.append((at - part.start, row))
    columns, rows = zip(*found)
    return np.concatenate(columns) + part.start, np.concatenate(rows)


def _unsure(grids: _Grids, mask: Integers, line: Integers, near: Integers) -> Integers:
    """The cells of columns with a value too close to 0.5, out of those in which the object may begin or end.

    mask and line: one a column; near: values, counted down the columns one after the other, as are the cells.
    """
    if not len(near):
        return near
    side = grids.lines.shape[1]
    column = near // side
    # Those above and below; the border of zeros is never near.
    cells = np.unique(np.concatenate((near - column - 1, near - column)))
    column, row = np.divmod(cells, side - 1)
    corners = _corners(grids, line[column], row)
    # Rounding is monotonic: no mean of values up to 0.5 is above it, except in the kernel for small sizes, whose four
    # weights are rounded each and may add up to more than 1.
    floor = np.where(grids.small[mask[column]], 0.5 - _BAND, 0.5).astype(np.float32)
    return cells[(np.maximum.reduce(corners) > floor) & (np.minimum.reduce(corners) < 0.5 + _BAND)]


def _corners(grids: _Grids, line: Integers, cell: Integers) -> list[Floats]:
    """Top left, top right, bottom left and bottom right value of cells (n,)."""
    return [grids.lines[line + right, cell + low] for low in (0, 1) for right in (0, 1)]


def _solved(y: _Axis, side: int, mask: Integers, cell: Integers, head: Floats, foot: Floats) -> tuple[Integers, Bools]:
    """The first row, among all, after each crossing of 0.5, and whether rounding might move it to another row.

    head and foot: how far the values at the cell's two ends lie above 0.5, one of them below it.
    """
    scale = y.scale.astype(np.float64)[mask]
    change = head.astype(np.float64) - foot
    crossing = (cell + head / change + 0.5) / scale - 0.5
    doubtful = np.abs(crossing - np.rint(crossing)) * scale < _POSITION_ERROR + _VALUE_ERROR / np.abs(change)
    row = np.floor(crossing).astype(np.int64) + 1 + y.origin[mask]
    of_grid = mask * side + cell
    return np.minimum(np.maximum(row, y.starts[of_grid]), y.starts[of_grid + 1]), doubtful


def _computed(
    grids: _Grids, x: _Axis, y: _Axis, column: Integers, cell: Integers, inside: Bools
) -> tuple[Integers, Integers]:
    """Edges in cells of columns (n,), pixel by pixel: the column of each, and its row, among all.

    inside (n, G): whether the rows of the grid lie inside the object in that column.
    """
    side = grids.lines.shape[1]
    mask = x.mask[column]
    of_grid = mask * side + cell
    stops = y.starts[of_grid + 1]
    # One row more: where the last pixel and the cell's foot disagree, the edge lies between them.
    owner, row = _expanded(y.starts[of_grid], stops + 1)
    is_foot = row == stops[owner]
    corners = _corners(grids, (mask * side + x.cell[column])[owner], cell[owner])
    down = y.weight[np.minimum(row, len(y.weight) - 1)]
    values = _values(corners, x.weight[column][owner], down, grids.small[mask][owner])
    now = np.where(is_foot, inside[np.arange(len(cell)), cell + 1][owner], values > 0.5)
    before = np.roll(now, 1)
    before[np.flatnonzero(row == y.starts[of_grid][owner])] = inside[np.arange(len(cell)), cell]
    changed = now != before
    return column[owner[changed]], row[changed]


def _values(corners: list[Floats], right: Floats, low: Floats, small: Bools) -> Floats:
    """What `F.interpolate` gives for pixels (n,) between four corners with the weights of the right and low ones."""
    a, b, c, d = corners
    left, high = 1 - right, 1 - low
    # torch 2.15, aten/src/ATen/native/cpu/UpSampleKernel.cpp: first along x, then along y; for small sizes
    # four products of weights.
    twice = _fused(_fused(a, left, b * right), high, _fused(c, left, d * right) * low)
    once = _fused(high * left, a, high * right * b)
    once = _fused(low * right, d, _fused(low * left, c, once))
    return np.where(small, once, twice)


def _fused(one: Floats, other: Floats, summand: Floats) -> Floats:
    """one × other + summand in float32, rounded once where torch's kernels round once."""
    if not _FUSED:
        return one * other + summand
    return (one.astype(np.float64) * other + summand).astype(np.float32)


def _expanded(starts: Integers, stops: Integers) -> tuple[Integers, Integers]:
    """All whole numbers of n ranges, one range after the other: to which range each belongs, and the number."""
    lengths = stops - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    return owner, np.arange(len(owner)) + np.repeat(starts - (lengths.cumsum() - lengths), lengths)


def _portions(work: Integers) -> list[Integers]:
    """Indices of things that take some work (n,) each, in portions of about `_PIXELS`."""
    if not len(work):
        return []
    portion = (work.cumsum() - work) // _PIXELS
    return np.split(np.arange(len(work)), np.flatnonzero(np.diff(portion)) + 1)


def _without_pairs(edges: Integers) -> Integers:
    """Sorted edges without those that cancel out: stretches of no length, and the end of one where another begins."""
    new = edges[1:] != edges[:-1]
    if new.all():
        return edges
    starts = np.flatnonzero(np.concatenate(([True], new)))
    return edges[starts[np.diff(starts, append=len(edges)) % 2 == 1]]
