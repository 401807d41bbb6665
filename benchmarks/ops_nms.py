"""Is `ops.nms` as fast as torchvision's? In turn, in one run, on the same boxes; the results are compared first.

Cases: 12,000 small boxes scattered over one picture; 12,000 in heaps; and proposals of two pictures on five levels,
against torchvision's `batched_nms` picture by picture. For heaps nothing is wanted: next to nothing is compared there,
so that sorting decides.
"""

from __future__ import annotations

from typing import Any

import torch
from figures import in_turn
from torch import Tensor
from torchvision.ops import batched_nms

from tracesight.ops.nms import nms

WANTED, ON_GPU = 1.0, 3.0


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """A figure a case: those of `in_turn`, case, wanted (the least ratio, None where none is), same (boxes agree)."""
    return [_case(*case, device, repeats) for case in _cases(WANTED if device == "cpu" else ON_GPU)]


def _cases(wanted: float) -> list[tuple[str, Tensor, Tensor, float, float | None]]:
    """Name, boxes (N, K, 4), group (N, K), limit and the ratio wanted."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def around(centre: Tensor, side: Tensor) -> Tensor:
        return torch.cat((centre - side / 2, centre + side / 2), -1)

    def heaps(count: int, heaps: int, side: float, spread: float, extent: float) -> Tensor:
        """Boxes of about `side` around as many centres as there are heaps."""
        centre = (uniform(heaps, 2) * extent)[torch.randint(heaps, (count,), generator=generator)]
        moved = centre + torch.randn(count, 2, generator=generator) * side * spread
        return around(moved, side * (0.6 + 0.8 * uniform(count, 2)))

    one = torch.zeros(1, 12_000, dtype=torch.int64)
    scattered = around(uniform(1, 12_000, 2) * 1000, 10 + 30 * uniform(1, 12_000, 2))
    found = [
        ("NMS, 12,000 scattered", scattered, one, 0.5, wanted),
        ("NMS, 12,000 in 50 heaps", heaps(12_000, 50, 40, 0.05, 1000)[None], one, 0.5, None),
    ]
    for count in (1000, 2000):
        levels = [[heaps(count, 60, 32 * 2**level, 0.2, 800) for level in range(5)] for _ in range(2)]
        boxes = torch.stack([torch.cat(picture) for picture in levels])
        group = torch.arange(5).repeat_interleave(count).expand(2, -1).contiguous()
        found.append((f"NMS, 2 pictures, 5 levels of {count}", boxes, group, 0.7, wanted))
    return found


def _case(
    name: str, boxes: Tensor, group: Tensor, iou: float, wanted: float | None, device: str, repeats: int
) -> dict[str, Any]:
    # All different: `batched_nms` puts equal scores in any order.
    scores = torch.rand(group.shape, generator=torch.Generator().manual_seed(1)).argsort().float()
    boxes, group, scores = boxes.to(device), group.to(device), scores.to(device)
    valid = torch.ones_like(group, dtype=torch.bool)
    most = group.shape[1]

    def ours() -> tuple[Tensor, Tensor]:
        return nms(boxes, scores, group, valid, iou, most)

    def theirs() -> list[Tensor]:
        return [batched_nms(*picture, iou) for picture in zip(boxes, scores, group)]

    index, kept = ours()
    same = all(torch.equal(index[n, kept[n]], peer) for n, peer in enumerate(theirs()))
    return {"case": name, **in_turn(ours, theirs, repeats, device), "wanted": wanted, "same": same}
