"""Made labels and results: several categories, crowds, polygons and run lengths, annotation id 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

SIDE = 260
CATEGORIES = {0: "bolt", 7: "nut", 90: "washer", 91: "never there"}


def ellipse(x: float, y: float, rx: float, ry: float) -> Mask:
    left, top = int(x - rx) - 1, int(y - ry) - 1
    rows, columns = np.mgrid[: int(2 * ry) + 3, : int(2 * rx) + 3] + 0.5
    inside = ((columns + left - x) / rx) ** 2 + ((rows + top - y) / ry) ** 2 <= 1
    return Mask.from_crop(inside, (top, left), (SIDE, SIDE))


def annotation(number: int, category_id: int, mask: Mask, **more: object) -> Annotation:
    return Annotation(number, category_id, mask.box, mask.to_coco(), area=float(mask.area), **more)


def result(image_id: int, category_id: int, score: float, mask: Mask) -> dict:
    x0, y0, x1, y1 = mask.box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": mask.to_coco(),
        "score": score,
    }


def made(seed: int = 0, pictures: int = 6, objects: int = 40) -> tuple[Dataset, list[dict]]:
    """A data set, and results that are its objects shaken, some left out, some doubled, some of a wrong class."""
    rng = np.random.default_rng(seed)
    records, results, number = [], [], 0
    for image_id in range(pictures):
        annotations = []
        for place in range(0 if image_id == 1 else objects):
            x, y = rng.uniform(5, SIDE - 5, 2)
            rx, ry = rng.uniform(60, 90, 2) if place % 9 == 0 else rng.uniform(3, 20, 2)
            category_id = int(rng.choice([0, 7, 90], p=[0.1, 0.8, 0.1]))
            annotations.append(annotation(number, category_id, ellipse(x, y, rx, ry), crowd=place % 13 == 5))
            number += 1
            for _ in range(int(rng.integers(0, 3))):
                shaken = ellipse(x + rng.normal(0, 1.5), y + rng.normal(0, 1.5), rx * rng.uniform(0.8, 1.2), ry)
                called = int(rng.choice([0, 7, 90])) if rng.random() < 0.15 else category_id
                score = round(float(rng.uniform(0.05, 1)), 2)  # rounded, so that some are equal
                if shaken.area:
                    results.append(result(image_id, called, score, shaken))
        records.append(Record(image_id, Path(f"{image_id}.png"), SIDE, SIDE, tuple(annotations)))
    return Dataset.of(records, CATEGORIES), results
