"""Anchors: "Faster R-CNN" (2015), section 3.1.1, one size a pyramid level as FPN (2017), section 4.1 has them."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Anchors (A, 4) around the origin, `sizes` being square roots of areas and `ratios` height over width.

    Rounded to whole pixels, all sizes of a ratio together, as torchvision's weights expect.
    """
    size, ratio = torch.tensor(sizes, dtype=torch.float32), torch.tensor(ratios, dtype=torch.float32)
    height = torch.sqrt(ratio)
    width = 1 / height
    width, height = (width[:, None] * size).flatten(), (height[:, None] * size).flatten()
    return (torch.stack((-width, -height, width, height), dim=1) / 2).round()


def grid_anchors(cell: Tensor, shape: tuple[int, int], picture: tuple[int, int]) -> Tensor:
    """Anchors (H × W × A, 4) of a feature map of `shape` (H, W) over a padded picture of (height, width) pixels.

    `cell` (A, 4) is put down every height // H and width // W pixels. Where P5 has an odd side, that is a little under
    P6's true stride of 64; torchvision's weights expect it.
    """
    y = torch.arange(shape[0], device=cell.device, dtype=cell.dtype) * (picture[0] // shape[0])
    x = torch.arange(shape[1], device=cell.device, dtype=cell.dtype) * (picture[1] // shape[1])
    y, x = y[:, None].expand(shape), x[None, :].expand(shape)
    shifts = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)
