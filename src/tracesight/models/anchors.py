"""Anchors: "Faster R-CNN" (2015), section 3.1.1, one size a pyramid level as FPN (2017), section 4.1 has them.

L levels, a anchors a cell, A anchors of all levels: level by level, row by row, cell by cell, anchor by anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tracesight.ops.pyramid import constants


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Anchors (a, 4) around the origin, `sizes` being square roots of areas and `ratios` height over width.

    Rounded to whole pixels, all sizes of a ratio together, as torchvision's weights expect.
    """
    size, ratio = torch.tensor(sizes, dtype=torch.float32), torch.tensor(ratios, dtype=torch.float32)
    height = torch.sqrt(ratio)
    width = 1 / height
    width, height = (width[:, None] * size).flatten(), (height[:, None] * size).flatten()
    return (torch.stack((-width, -height, width, height), dim=1) / 2).round()


class AnchorGrid(NamedTuple):
    """Where the anchors of a pyramid lie: all but `cells` and `most` (L,) int64.

    cells (L, a, 4): the anchors of each level around the origin. width: cells a row. down, right: pixels from cell to
    cell. count: anchors. base: the index of its first anchor among all. most: the largest count.
    """

    cells: Tensor
    width: Tensor
    down: Tensor
    right: Tensor
    count: Tensor
    base: Tensor
    most: int


def anchor_grid(cells: Tensor, features: Sequence[Tensor], picture: tuple[int, int]) -> AnchorGrid:
    """The grid of feature maps (N, C, Hi, Wi) of a padded picture of (height, width) pixels.

    Cells lie height // Hi and width // Wi pixels apart. Where P5 has an odd side, that is a little under P6's true
    stride of 64; torchvision's weights expect it.
    """
    shapes = [(feature.shape[2], feature.shape[3]) for feature in features]
    counts = [height * width * cells.shape[1] for height, width in shapes]
    columns = (
        [width for _, width in shapes],
        [picture[0] // height for height, _ in shapes],
        [picture[1] // width for _, width in shapes],
        counts,
        [sum(counts[:level]) for level in range(len(counts))],
    )
    # The finest level comes first and is the largest.
    return AnchorGrid(cells, *(constants(column, cells.device) for column in columns), most=counts[0])


def anchors_at(grid: AnchorGrid, index: Tensor) -> Tensor:
    """Anchors (..., 4) in pixels at `index` (...), 0 to A - 1: computed where they lie, not looked up."""
    level = (index.unsqueeze(-1) >= grid.base).sum(-1) - 1
    per_cell = grid.cells.shape[1]
    local = index - grid.base[level]
    cell = torch.div(local, per_cell, rounding_mode="floor")
    width = grid.width[level]
    row = torch.div(cell, width, rounding_mode="floor")
    y, x = row * grid.down[level], (cell - row * width) * grid.right[level]
    return grid.cells[level, local - cell * per_cell] + torch.stack((x, y, x, y), dim=-1)
