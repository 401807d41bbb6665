"""YOLO out: `images/`, `labels/` and a `data.yaml` with classes 0, 1, 2, … as other programs want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tracesight.data.formats.losses import categories_of, counted, losses
from tracesight.data.formats.outlines import APART, one_polygon
from tracesight.data.formats.places import ALL, folder_of
from tracesight.data.formats.placing import place
from tracesight.data.formats.yolo_places import label_of
from tracesight.data.record import Annotation, Dataset, Record

KEPT = {"objects", "masks of objects", "the mark of crowds", "the mark of difficult objects"}


def write_yolo(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write all sets into one folder. An object is its polygon where it has a mask, its box where it has none.

    Crowds and difficult objects are left out: the format cannot say that they are no objects to learn. Ids other than
    0, 1, 2, … go into `category_ids` of `data.yaml`, from where the reader takes them.
    """
    categories = categories_of(sets)
    indices = {number: index for index, number in enumerate(categories)}
    table: dict[str, Any] = {"path": "."}
    counts: Counter[str] = Counter()
    (folder / "images").mkdir()
    for split, dataset in sets.items():
        pictures, taken = folder_of(folder / "images", split), set()
        pictures.mkdir(exist_ok=True)
        for record in dataset:
            file = label_of(folder, pictures / place(record, pictures, taken))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(_lines(record, indices, counts)), encoding="utf-8")
        if split != ALL:
            table[split] = f"images/{split}"
    table["names"] = dict(enumerate(categories.values()))
    if list(categories) != list(range(len(categories))):
        table["category_ids"] = list(categories)
    text = yaml.safe_dump(table, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return [
        *losses(sets, "yolo", KEPT),
        *counted(counts["ignored"], "yolo has no place for crowds and difficult objects: {} objects left out"),
        *counted(counts["moved"], "yolo has polygons or boxes: {} boxes became those around their polygons"),
    ]


def _lines(record: Record, indices: Mapping[int, int], counts: Counter[str]) -> Iterator[str]:
    for annotation in record.annotations:
        if annotation.ignored:
            counts["ignored"] += 1
            continue
        polygon = one_polygon(annotation, record.height, record.width)
        if polygon is not None:
            counts["moved"] += _is_apart(annotation, polygon)
        x1, y1, x2, y2 = annotation.box
        values = polygon or ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        sides = (record.width, record.height)
        words = " ".join(_short(value / sides[at % 2]) for at, value in enumerate(values))
        yield f"{indices[annotation.category_id]} {words}\n"


def _is_apart(annotation: Annotation, polygon: list[float]) -> bool:
    xs, ys = polygon[0::2], polygon[1::2]
    around = (min(xs), min(ys), max(xs), max(ys))
    return max(abs(a - b) for a, b in zip(around, annotation.box)) > APART


def _short(value: float) -> str:
    return f"{value:.8f}".rstrip("0").rstrip(".")
