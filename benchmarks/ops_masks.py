"""A hundred masks to run lengths: how much faster without a canvas? Ours and torchvision's in turn, the same strings.

Ours goes from 28 × 28 probabilities and boxes to `Mask` objects with COCO's strings; the other side is torchvision's
`paste_masks_in_image`, `> 0.5` and pycocotools' `encode` of each mask, as torchvision's own evaluation has it. Boxes
are those of labelled objects in photographs, masks are smooth, as networks make them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask
import torch
import torch.nn.functional as F
from figures import Missing, data_folder, in_turn
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tracesight.ops.paste import mask_runs
from tracesight.scene import Mask

MASKS, SIDE, SEED = 100, 28, 0
LARGE, WANTED, WANTED_LARGE = 10_000_000, 30.0, 50.0
# torchvision's canvases of a large picture take 10 GB and most of a minute.
REPEATS_LARGE = 1


def measure(sizes: list[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """A figure for each size (height, width) of the picture: those of `in_turn`, case, wanted (the least ratio) and
    same (whether all strings are). Raises Missing."""
    shapes = _labelled_boxes()
    return [_compared(shapes, size, repeats) for size in sizes]


def _compared(shapes: Tensor, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    height, width = size
    boxes = shapes * torch.tensor([width, height] * 2, dtype=torch.float32)
    masks = _smooth_masks()
    large = height * width >= LARGE
    some = (masks[:1], boxes[:1], size)
    same = _ours(*some) == _peer(*some)  # nothing is timed cold, and all are compared where that takes no minute
    same = same and (large or _ours(masks, boxes, size) == _peer(masks, boxes, size))
    found: dict[str, list[bytes]] = {}
    figure = in_turn(
        lambda: found.update(ours=_ours(masks, boxes, size)),
        lambda: found.update(peer=_peer(masks, boxes, size)),
        min(repeats, REPEATS_LARGE) if large else repeats,
    )
    wanted = WANTED_LARGE if large else WANTED
    case = f"{MASKS} masks to run lengths, {width} × {height}"
    return {"case": case, **figure, "wanted": wanted, "same": same and found["ours"] == found["peer"]}


def _ours(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    return [mask.counts for mask in Mask.from_edges(*mask_runs(masks, boxes, size), size)]


def _peer(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    pasted = (paste_masks_in_image(masks[:, None], boxes, size) > 0.5).numpy()
    encode = pycocotools.mask.encode
    return [encode(np.array(mask[0, :, :, None], dtype=np.uint8, order="F"))[0]["counts"] for mask in pasted]


def _labelled_boxes() -> Tensor:
    """Boxes (100, 4) of objects drawn from the labels of `coco64`, as shares, 0–1, of the picture. Raises Missing."""
    folder = data_folder("coco64") / "labels"
    boxes = []
    for path in sorted(folder.glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            x, y = (np.array([float(number) for number in line.split()[first::2]]) for first in (1, 2))
            boxes.append((x.min(), y.min(), x.max(), y.max()))
    if len(boxes) < MASKS:
        raise Missing(f"{folder}: {len(boxes)} outlines in it (*.txt), where {MASKS} are needed")
    drawn = np.random.default_rng(SEED).choice(len(boxes), MASKS, replace=False)
    return torch.tensor(np.array(boxes)[drawn], dtype=torch.float32)


def _smooth_masks() -> Tensor:
    """Masks (100, 28, 28) with a few blobs each, whose edges are a few values wide."""
    noise = torch.randn(MASKS, 1, 5, 5, generator=torch.Generator().manual_seed(SEED))
    return torch.sigmoid(6 * F.interpolate(noise, size=(SIDE, SIDE), mode="bicubic"))[:, 0]
