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
PICTURES = [(800, 1200), (3000, 4000)]  # (height, width)
LARGE, WANTED, WANTED_LARGE, WANTED_GPU = 10_000_000, 30.0, 50.0, 20.0
# torchvision's canvases of a large picture take 10 GB and most of a minute.
REPEATS_LARGE = 1


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """A figure for each size of the picture: those of `in_turn`, case, wanted (the least ratio) and same (whether all
    strings are; on a GPU, where torchvision rounds otherwise, whether every mask has an IoU of 0.999). Raises Missing.

    device: where masks and boxes lie at first, and where torchvision pastes.
    """
    shapes = _labelled_boxes()
    return [_compared(shapes, size, device, repeats) for size in PICTURES]


def _compared(shapes: Tensor, size: tuple[int, int], device: str, repeats: int) -> dict[str, Any]:
    height, width = size
    boxes = (shapes * torch.tensor([width, height] * 2, dtype=torch.float32)).to(device)
    masks = _smooth_masks().to(device)
    large = height * width >= LARGE
    # Nothing is timed cold.
    _ours(masks[:1], boxes[:1], size), _peer(masks[:1], boxes[:1], size)
    found: dict[str, list[bytes]] = {}
    figure = in_turn(
        lambda: found.update(ours=_ours(masks, boxes, size)),
        lambda: found.update(peer=_peer(masks, boxes, size)),
        min(repeats, REPEATS_LARGE) if large else repeats,
        device,
    )
    wanted = WANTED_GPU if device != "cpu" else WANTED_LARGE if large else WANTED
    same = found["ours"] == found["peer"] if device == "cpu" else _nearly(found["ours"], found["peer"], size)
    return {"case": f"{MASKS} masks to run lengths, {width} × {height}", **figure, "wanted": wanted, "same": same}


def _ours(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    return [mask.counts for mask in Mask.from_edges(*mask_runs(masks, boxes, size), size)]


def _peer(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    pasted = (paste_masks_in_image(masks[:, None], boxes, size) > 0.5).cpu().numpy()
    encode = pycocotools.mask.encode
    return [encode(np.array(mask[0, :, :, None], dtype=np.uint8, order="F"))[0]["counts"] for mask in pasted]


def _nearly(ours: list[bytes], peer: list[bytes], size: tuple[int, int]) -> bool:
    one, other = ([Mask(size, counts) for counts in side] for side in (ours, peer))
    return all(a == b or a.iou(b) >= 0.999 for a, b in zip(one, other, strict=True))


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
