"""A feature pyramid as one table: which level a region is read from, where that level's cells lie, the best of each.

The level rule is FPN's (Lin et al., "Feature Pyramid Networks for Object Detection", 2017), equation 1.
Letters: L levels, R regions, C channels, T rows of the table, N pictures, A anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tracesight.ops.boxes import box_area
from tracesight.ops.memory import fresh
from tracesight.ops.trim import may_read

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4


def region_levels(boxes: Tensor, strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Index (R,) of the level that boxes (R, 4) are read from: FPN, equation 1; and (R,) its cells a picture pixel.

    strides: picture pixels a cell, a level each. Raises ValueError where they do not double from level to level.
    """
    if any(stride != strides[0] << level for level, stride in enumerate(strides)):
        raise ValueError(f"strides {strides} do not double from level to level")
    side = box_area(boxes).clamp(min=1e-12).sqrt()
    # The small constant keeps a side of exactly 112 or 224 on its level in spite of rounding, as in torchvision.
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE) + 1e-6) - (strides[0].bit_length() - 1)
    level = level.clamp(min=0, max=len(strides) - 1)
    return level.to(torch.int64), torch.exp2(-level) / strides[0]


class FeatureTable(NamedTuple):
    """All cells of all levels of all pictures as rows of channels.

    rows (T, C): level by level, picture by picture, row-major. height, width, base (L,) int64: cells of each level, and
    the row of its first picture's first cell. shapes: (N, Hi, Wi), a level each.
    """

    rows: Tensor
    height: Tensor
    width: Tensor
    base: Tensor
    shapes: tuple[tuple[int, int, int], ...]


def feature_table(features: Sequence[Tensor]) -> FeatureTable:
    """The table of features (N, C, Hi, Wi), a level each; no copy of one level that is channels-last in memory."""
    rows = [feature.permute(0, 2, 3, 1).flatten(0, 2) for feature in features]
    shapes = tuple((feature.shape[0], feature.shape[2], feature.shape[3]) for feature in features)
    base = [0]
    for pictures, height, width in shapes[:-1]:
        base.append(base[-1] + pictures * height * width)
    device = features[0].device
    return FeatureTable(
        _joined(rows),
        constants([height for _, height, _ in shapes], device),
        constants([width for _, _, width in shapes], device),
        constants(base, device),
        shapes,
    )


def _joined(rows: list[Tensor]) -> Tensor:
    """Tensors (Ti, C) one after the other."""
    if len(rows) == 1:
        return rows[0]
    return _Join.apply(*rows) if may_read(rows[0]) else torch.cat(rows)


class _Join(torch.autograd.Function):
    """`torch.cat` into memory that is used again, since a table is many megabytes and lives for one step."""

    @staticmethod
    def forward(ctx, *rows: Tensor) -> Tensor:
        ctx.counts = [part.shape[0] for part in rows]
        return torch.cat(rows, out=fresh(sum(ctx.counts), rows[0].shape[1], rows[0].dtype))

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads[0].split(ctx.counts)


def best_of_each_level(logits: Tensor, base: Tensor, count: Tensor, most: int, best: int) -> tuple[Tensor, Tensor]:
    """The `best` largest logits of each level (N, L, best), largest first, and their indices into logits (N, A).

    base and count (L,): where each level begins among the A, and how many it has; most: the largest count. All levels
    are read at that size and `best` more: what a level lacks has the logit -inf and some index.
    """
    place = torch.arange(most + best, device=logits.device)
    index = (base[:, None] + place).clamp(max=logits.shape[1] - 1)
    padded = logits[:, index].masked_fill(place >= count[:, None], -torch.inf)
    score, local = padded.topk(best, dim=2)
    return score, (local + base[:, None]).clamp(max=logits.shape[1] - 1)


def constants(values: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers, a level each, as (L,) int64 on `device`, without the host copy that `torch.tensor` would be."""
    return torch.stack([torch.full((), value, dtype=torch.int64, device=device) for value in values])
