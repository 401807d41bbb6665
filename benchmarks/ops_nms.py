"""Is `ops.nms` as fast as torchvision's? In turn, in one run, on the same boxes; the results are compared first.

Cases: 12,000 small boxes scattered over one picture; 12,000 in heaps; and proposals of two pictures on five levels,
against torchvision's `batched_nms` picture by picture. Exit status 1 if the boxes kept differ, or where ours is slower
than a case wants. For heaps nothing is wanted: next to nothing is compared there, so that sorting decides.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from figures import held, in_turn, machine, row, run, show, write
from torch import Tensor
from torchvision.ops import batched_nms

from tracesight.ops.nms import nms

WIDTHS = (34, 10, 10, 7, 7, 6)


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """A figure a case: those of `in_turn`, case, wanted (the least ratio, None where none is), same (boxes agree)."""
    return [_case(*case, device, repeats) for case in _cases()]


def _cases() -> list[tuple[str, Tensor, Tensor, float, float | None]]:
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
        ("12,000 scattered, 1 set", scattered, one, 0.5, 1.0),
        ("12,000 in 50 heaps, 1 set", heaps(12_000, 50, 40, 0.05, 1000)[None], one, 0.5, None),
    ]
    for count in (1000, 2000):
        levels = [[heaps(count, 60, 32 * 2**level, 0.2, 800) for level in range(5)] for _ in range(2)]
        boxes = torch.stack([torch.cat(picture) for picture in levels])
        group = torch.arange(5).repeat_interleave(count).expand(2, -1).contiguous()
        found.append((f"2 pictures, 5 levels of {count}", boxes, group, 0.7, 1.0))
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


def main() -> bool:
    """Whether all results agree and no ratio is under the one wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    cases = measure(arguments.device, arguments.repeats)
    row(("NMS", "ours ms", "peer ms", "ratio", "wanted", "same"), WIDTHS)
    for case in cases:
        times = f"{case['ours'] * 1e3:.1f}", f"{case['peer'] * 1e3:.1f}"
        wanted = "-" if case["wanted"] is None else f"{case['wanted']:g}"
        row((case["case"], *times, f"{case['ratio']:.2f}", wanted, "yes" if case["same"] else "NO"), WIDTHS)
    write(arguments.json, facts, {"cases": cases})
    return all(held(case) for case in cases)


if __name__ == "__main__":
    run(main)
