"""A thousand regions, 256 channels, 7 × 7 bins: how much faster is RoIPool? Ours and torchvision's in turn.

One feature map of stride 16, and a pyramid of strides 4 to 32 where torchvision's operator is called level by level and
its results are put in order. The picture is a padded 800 × 1344. Either side has its features, and the gradient of its
result, in the order of memory that it works in: ours channels-last, as our networks give them, torchvision's not. It
has no bfloat16, so that ours in bfloat16 is compared with its float32. Ours is to be
slower nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from figures import in_turn
from torch import Tensor
from torchvision.ops import roi_pool

from tracesight.ops.pyramid import feature_table, region_levels
from tracesight.ops.roi_pool import multilevel_roi_pool

REGIONS, CHANNELS, SIDE, SEED = 1000, 256, 7, 0
HEIGHT, WIDTH = 800, 1344
LAYOUTS = {"stride 16": (16,), "pyramid": (4, 8, 16, 32)}
WANTED = 1.0


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """A figure for each layout, precision and direction: those of `in_turn`, case, wanted, same."""
    boxes = _boxes().to(device)
    return [
        _compared(layout, boxes, dtype, backward, repeats)
        for layout in LAYOUTS
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    ]


def _compared(layout: str, boxes: Tensor, dtype: torch.dtype, backward: bool, repeats: int) -> dict[str, Any]:
    strides = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(SEED)
    # Rounded to `dtype`, so that both sides see the same values.
    theirs = [
        torch.randn(1, CHANNELS, HEIGHT // s, WIDTH // s, generator=generator).to(boxes.device, dtype).float()
        for s in strides
    ]
    cotangent = torch.randn(REGIONS, CHANNELS, SIDE, SIDE, generator=generator).to(boxes.device, dtype).float()
    last = {"dtype": dtype, "memory_format": torch.channels_last}
    our_work = partial(_work, partial(_ours, boxes, strides), [f.to(**last) for f in theirs], cotangent.to(**last))
    their_work = partial(_work, partial(_theirs, boxes, strides), theirs, cotangent)
    same = _same(our_work(backward), their_work(backward), dtype)
    figure = in_turn(lambda: our_work(backward), lambda: their_work(backward), repeats, boxes.device.type)
    what = f"{layout}, {str(dtype)[6:]}, {'forward + backward' if backward else 'forward'}"
    return {"case": f"RoIPool {what}", **figure, "wanted": WANTED, "same": same}


def _work(
    pool: Callable[[list[Tensor]], Tensor], features: list[Tensor], cotangent: Tensor, backward: bool
) -> tuple[Tensor, ...]:
    """The result, and with `backward` the gradients of the features."""
    if not backward:
        with torch.no_grad():
            return (pool(features),)
    features = [feature.detach().requires_grad_() for feature in features]
    pooled = pool(features)
    return pooled.detach(), *torch.autograd.grad(pooled, features, cotangent)


def _ours(boxes: Tensor, strides: tuple[int, ...], features: list[Tensor]) -> Tensor:
    picture = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return multilevel_roi_pool(feature_table(features), boxes, picture, strides, output_size=SIDE)


def _theirs(boxes: Tensor, strides: tuple[int, ...], features: list[Tensor]) -> Tensor:
    rois = torch.cat((boxes.new_zeros(len(boxes), 1), boxes), 1)
    if len(strides) == 1:
        return roi_pool(features[0], rois, SIDE, 1 / strides[0])
    level = region_levels(boxes, strides)[0]
    pooled = boxes.new_zeros(len(boxes), CHANNELS, SIDE, SIDE)
    for index, (feature, stride) in enumerate(zip(features, strides)):
        of_level = (level == index).nonzero().squeeze(1)
        pooled[of_level] = roi_pool(feature, rois[of_level], SIDE, 1 / stride)
    return pooled


def _same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
    """Whether the values are equal, and gradients as near as sums in another order, and a rounding to `dtype`, are."""
    limit = 1e-4 if dtype == torch.float32 else 1e-2
    return torch.equal(ours[0].float(), theirs[0]) and all(
        torch.allclose(our.float(), their, rtol=limit, atol=limit) for our, their in zip(ours[1:], theirs[1:])
    )


def _boxes() -> Tensor:
    """Boxes (1000, 4) inside the picture, sides of 32 to 512 pixels, as many of each octave."""
    generator = torch.Generator().manual_seed(SEED)
    size = torch.tensor([WIDTH, HEIGHT])
    centre = torch.rand(REGIONS, 2, generator=generator) * size
    side = 2 ** (5 + 4 * torch.rand(REGIONS, 2, generator=generator))
    corners = (centre - side / 2).clamp(min=0), (centre + side / 2).minimum(size)
    return torch.cat(corners, 1)
