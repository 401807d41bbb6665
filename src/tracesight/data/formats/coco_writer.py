"""COCO instances and keypoints out: a folder with `instances.json` and `images/` for each set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tracesight.data.dataset import Dataset
from tracesight.data.formats.losses import OF_OBJECTS, OF_PICTURES, OF_SETS, losses
from tracesight.data.formats.places import folder_of
from tracesight.data.formats.placing import Names, place, renamed
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

NO_PLACE = {"categories of a picture as a whole"}


def write_coco(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write each set into a folder of its own; ids stay what they are where no two objects share one.

    What COCO has no field for is written as the reader takes it: `annotator`, `tool`, `time`, `difficult` of an
    annotation, `source`, `sensor`, `group` of a picture.
    """
    given = [pair for name, dataset in sets.items() for pair in _write(dataset, folder_of(folder, name))]
    kept = {*OF_OBJECTS, *OF_PICTURES, *OF_SETS} - NO_PLACE
    return [*losses(sets, "coco", kept), *renamed(given, "pictures")]


def _write(dataset: Dataset, folder: Path) -> Iterable[tuple[str, str]]:
    """Write a set; the names that its pictures have, and those that they were given."""
    taken: Names = {}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = sorted({record.licence for record in dataset if record.licence is not None})
    licences = {name: number for number, name in enumerate(names, start=1)}
    with (folder / "instances.json").open("w", encoding="utf-8") as file:
        file.write("{")
        if dataset.about:
            file.write(f'"info": {json.dumps(dataset.about)},\n')
        if licences:
            _array(file, "licenses", ({"id": number, "name": name} for name, number in licences.items()))
            file.write(",\n")
        _array(file, "categories", _categories(dataset))
        file.write(",\n")
        _array(file, "images", _images(dataset, folder / "images", licences, taken))
        file.write(",\n")
        _array(file, "annotations", _annotations(dataset))
        file.write("}\n")
    return taken.values()


def _array(file: TextIO, name: str, rows: Iterable[dict[str, Any]]) -> None:
    file.write(f'"{name}": [')
    for number, row in enumerate(rows):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(row, separators=(",", ":")))
    file.write("\n]")


def _categories(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for number, name in dataset.categories.items():
        row: dict[str, Any] = {"id": number, "name": name}
        if number in dataset.parents:
            row["supercategory"] = dataset.parents[number]
        if (points := dataset.keypoints.get(number)) is not None:
            row["keypoints"] = list(points.names)
            row["skeleton"] = [[a + 1, b + 1] for a, b in points.skeleton]
            if points.swaps is not None:
                row["flip_pairs"] = [[a + 1, b + 1] for a, b in points.swaps]
        yield row


def _images(dataset: Dataset, folder: Path, licences: Mapping[str, int], taken: Names) -> Iterator[dict[str, Any]]:
    for record in dataset:
        row: dict[str, Any] = {
            "id": record.id, "file_name": place(record, folder, taken), "width": record.width, "height": record.height,
        }  # fmt: skip
        yield row | _said(
            license=None if record.licence is None else licences[record.licence],
            source=record.source, sensor=record.sensor, date_captured=record.captured_at, group=record.group,
            neg_category_ids=record.absent, not_exhaustive_category_ids=record.not_exhaustive or None,
        )  # fmt: skip


def _annotations(dataset: Dataset) -> Iterator[dict[str, Any]]:
    unique = _ids_are_unique(dataset)
    number = 0
    for record in dataset:
        for a in record.annotations:
            number += 1
            x1, y1, x2, y2 = a.box
            row: dict[str, Any] = {
                "id": a.id if unique else number, "image_id": record.id, "category_id": a.category_id,
                "bbox": [_short(x1), _short(y1), _short(x2 - x1), _short(y2 - y1)], "area": _short(_area(a, record)),
                "iscrowd": int(a.crowd),
            }  # fmt: skip
            if a.segmentation is not None:
                row["segmentation"] = _shape(a.segmentation)
            if a.keypoints is not None:
                row["keypoints"] = [_short(v) for point in a.keypoints for v in point]
                row["num_keypoints"] = sum(visibility > 0 for _, _, visibility in a.keypoints)
            yield row | _said(annotator=a.annotator, tool=a.tool, time=a.time, difficult=int(a.difficult) or None,
                              truncated=int(a.truncated) or None)  # fmt: skip


def _shape(shape: Any) -> Any:
    if isinstance(shape, dict):
        return shape
    return shape.to_coco() if isinstance(shape, Mask) else [list(part) for part in shape]


def _ids_are_unique(dataset: Dataset) -> bool:
    seen: set[int | str] = set()
    for record in dataset:
        before = len(seen)
        seen.update(a.id for a in record.annotations)
        if len(seen) - before < len(record.annotations):
            return False
    return True


def _area(annotation: Annotation, record: Record) -> float:
    """What the labels say, or else the area of the mask, or else that of the box."""
    if annotation.area is not None:
        return annotation.area
    mask = annotation.mask(record.height, record.width)
    x1, y1, x2, y2 = annotation.box
    return (x2 - x1) * (y2 - y1) if mask is None else mask.area


def _short(value: float) -> float | int:
    """Without the digits that adding and subtracting leaves behind."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
