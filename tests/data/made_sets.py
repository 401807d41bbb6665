"""Small labelled sets that the tests of this room make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset
from tracesight.scene.mask import Mask


def blob(height: int, width: int, rng: np.random.Generator, least: int = 8) -> np.ndarray:
    """A random ellipse (H, W), bool, at least `least` pixels across, that may touch the edge."""
    ry, rx = rng.uniform(least / 2, height / 3), rng.uniform(least / 2, width / 3)
    cy, cx = rng.uniform(0.15, 0.85) * height, rng.uniform(0.15, 0.85) * width
    y, x = np.mgrid[:height, :width] + 0.5
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def tight(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def row(number: int, image: int, mask: np.ndarray, category: int = 1, **more: Any) -> dict[str, Any]:
    """A COCO annotation with a compressed RLE."""
    x1, y1, x2, y2 = tight(mask)
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": Mask.from_array(mask).to_coco(), "area": int(mask.sum()), "iscrowd": 0, **more,
    }  # fmt: skip


def write_set(
    folder: Path,
    sizes: list[tuple[int, int]],
    objects: int = 3,
    seed: int = 0,
    suffix: str = ".png",
    categories: tuple[tuple[int, str], ...] = ((1, "cell"),),
) -> dict[str, Any]:
    """Pictures of noise with random ellipses and `instances.json`; gives what the JSON holds. Annotation ids from 0."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": i, "name": name} for i, name in categories],
    }  # fmt: skip
    for number, (height, width) in enumerate(sizes):
        name = f"picture{number}{suffix}"
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        data["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for _ in range(objects):
            category = categories[len(data["annotations"]) % len(categories)][0]
            mask = blob(height, width, rng)
            data["annotations"].append(row(len(data["annotations"]), number, mask, category))
    write_json(folder, data)
    return data


def write_json(folder: Path, data: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(data))
    return path


def make_set(folder: Path, sizes: list[tuple[int, int]], **options: Any) -> Dataset:
    write_set(folder, sizes, **options)
    return read_dataset(folder)
