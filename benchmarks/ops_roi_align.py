"""RoIAlign of a thousand regions on a pyramid: forward in float32 and bf16, forward and backward, beside torchvision.

1000 regions × 256 channels × 7 × 7, two samples a bin side, over four levels of one padded 800 × 1344 picture. Ours
starts from the four feature maps, channels-last as the network has them, and includes joining them to one table;
torchvision's `MultiScaleRoIAlign` starts from contiguous ones, in float32, since its CPU kernel knows no bf16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from figures import in_turn
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from tracesight.ops.pyramid import feature_table
from tracesight.ops.roi_align import multilevel_roi_align

HEIGHT, WIDTH, STRIDES, CHANNELS, REGIONS, SIZE = 800, 1344, (4, 8, 16, 32), 256, 1000, 7
FORWARD, FORWARD_BF16, BOTH, ON_GPU = 5.0, 10.0, 4.0, 2.0
# bfloat16 has 8 bits of mantissa: a sum of a few products of values around 1.
CLOSE, CLOSE_BF16 = 1e-4, 0.05


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """A figure a case: those of `in_turn`, case, wanted (the least ratio), same (outputs and gradients agree)."""
    torch.manual_seed(0)
    maps = [torch.randn(1, CHANNELS, HEIGHT // stride, WIDTH // stride).to(device) for stride in STRIDES]
    boxes, picture = _regions(device)
    last = [one.contiguous(memory_format=torch.channels_last) for one in maps]
    half = [one.bfloat16() for one in last]
    pool = MultiScaleRoIAlign([str(level) for level in range(len(STRIDES))], SIZE, 2)

    def ours(features: list[Tensor]) -> Tensor:
        table = feature_table(features)
        return multilevel_roi_align(table, boxes, picture, STRIDES, output_size=SIZE, sampling=2, aligned=False)

    def theirs(features: list[Tensor]) -> Tensor:
        named = OrderedDict((str(level), feature) for level, feature in enumerate(features))
        return pool(named, [boxes], [(HEIGHT, WIDTH)])

    with torch.no_grad():
        expected = theirs(maps)
        figures = []
        for name, features, wanted, close in (
            ("RoIAlign forward, fp32", last, FORWARD, CLOSE),
            ("RoIAlign forward, bf16", half, FORWARD_BF16, CLOSE_BF16),
        ):
            same = bool((ours(features).float() - expected).abs().max() <= close)
            figure = in_turn(lambda: ours(features), lambda: theirs(maps), repeats, device)  # noqa: B023 (used at once)
            figures.append({"case": name, **figure, "wanted": ON_GPU if device != "cpu" else wanted, "same": same})
    figures.append(_with_gradient(ours, theirs, maps, last, repeats, device))
    return figures


def _with_gradient(ours: Callable, theirs: Callable, maps: list[Tensor], last: list[Tensor], repeats: int, device: str):
    leaves = [[one.detach().requires_grad_() for one in side] for side in (last, maps)]
    cotangent = torch.randn(REGIONS, CHANNELS, SIZE, SIZE, device=device)
    cotangents = cotangent.contiguous(memory_format=torch.channels_last), cotangent

    def both(pool: Callable, side: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(pool(leaves[side]), leaves[side], cotangents[side])

    gradients = both(ours, 0), both(theirs, 1)
    same = all(bool((a - b).abs().max() <= CLOSE * b.abs().max()) for a, b in zip(*gradients))
    figure = in_turn(lambda: both(ours, 0), lambda: both(theirs, 1), repeats, device)
    wanted = BOTH if device == "cpu" else ON_GPU
    return {"case": "RoIAlign forward and backward, fp32", **figure, "wanted": wanted, "same": same}


def _regions(device: str) -> tuple[Tensor, Tensor]:
    """Boxes (1000, 4) with sides from 16 to 512 pixels, log-uniform, inside the picture, of picture 0."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(REGIONS, 2, generator=generator) * torch.tensor([WIDTH * 0.8, HEIGHT * 0.8])
    side = 2 ** (torch.rand(REGIONS, 2, generator=generator) * 5 + 4)
    boxes = torch.cat((corner, (corner + side).minimum(torch.tensor([float(WIDTH), HEIGHT]))), 1)
    return boxes.to(device), torch.zeros(REGIONS, dtype=torch.int64, device=device)
