"""A network small enough for tests, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tracesight as ts

SMALL: dict[str, Any] = {
    "fpn_channels": 16,
    "box_channels": 32,
    "mask_channels": 16,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "roi": {"max_objects": 12},
}
CATEGORIES = {7: "nut", 3: "bolt"}


def small_model(name: str = "mask_rcnn_resnet18_fpn", **more: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return ts.build(name, num_classes=3, **{**SMALL, **more})


def small_bundle(**more: Any) -> ts.Bundle:
    model = small_model()
    return ts.Bundle.of(model, CATEGORIES, **{"image_size": 64, **more})


def picture(path: Path, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """A picture file of `size` (height, width) with coarse random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size[::-1]).save(path)
    return path
