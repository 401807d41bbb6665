"""Two small pictures with labels, and results that make each kind of mistake once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

SIDE = 120
CATEGORIES = {0: "bolt & <nut>", 5: "washer"}


def block(x: int, y: int, width: int, height: int) -> Mask:
    return Mask.from_crop(np.ones((height, width), bool), (y, x), (SIDE, SIDE))


def annotation(number: int, category_id: int, mask: Mask, **more: bool) -> Annotation:
    return Annotation(number, category_id, mask.box, mask.to_coco(), area=float(mask.area), **more)


def result(image_id: int, category_id: int, score: float, mask: Mask, drawn: Mask | None = None) -> dict:
    x0, y0, x1, y1 = mask.box
    box = [x0, y0, x1 - x0, y1 - y0]
    segmentation = (drawn or mask).to_coco()
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score, "segmentation": segmentation}


RIGHT, POOR, MISSED, TWICE = block(5, 5, 20, 20), block(40, 5, 20, 20), block(80, 5, 30, 20), block(5, 40, 20, 20)
CALLED, CROWD, NOWHERE = block(40, 40, 20, 20), block(70, 60, 50, 50), block(5, 80, 20, 30)


def made(folder: Path) -> tuple[Dataset, dict[int, list[dict]]]:
    rng = np.random.default_rng(0)
    for name in ("a <1>.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / name)
    labels = [annotation(i, 0, mask) for i, mask in enumerate((RIGHT, POOR, MISSED, TWICE, CALLED))]
    labels.append(annotation(9, 0, CROWD, crowd=True))
    records = [
        Record(4, folder / "a <1>.png", SIDE, SIDE, tuple(labels)),
        Record(8, folder / "b.png", SIDE, SIDE),
    ]
    results = [
        result(4, 0, 0.99, RIGHT),
        result(4, 0, 0.97, POOR, block(40, 5, 20, 6)),
        result(4, 0, 0.2, MISSED),
        result(4, 0, 0.95, TWICE),
        result(4, 0, 0.91, block(6, 41, 20, 20)),
        result(4, 5, 0.9, CALLED),
        result(4, 0, 0.89, block(80, 70, 20, 20)),  # within the crowd
        result(8, 5, 0.88, NOWHERE),
    ]
    return Dataset.of(records, CATEGORIES), {4: results[:-1], 8: results[-1:]}
