"""YOLO out: `images/`, `labels/` and a `data.yaml` with classes 0, 1, 2, … as other programs want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tracesight.data.dataset import Dataset
from tracesight.data.formats.losses import categories_of, counted, losses
from tracesight.data.formats.outlines import APART, one_polygon
from tracesight.data.formats.places import ALL, folder_of
from tracesight.data.formats.placing import Names, place, renamed
from tracesight.data.formats.yolo_places import label_of
from tracesight.data.record import Annotation, Record

KEPT = {"objects", "the mark of crowds", "the mark of difficult objects"}  # the marks have a sentence of their own
MASKS, POINTS = {"masks of objects"}, {"keypoints of objects", "names of keypoints"}
UNDIVIDED = "# One set: train and val are the same pictures, which other programs want to be given. Divide it first.\n"


def write_yolo(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write all sets into one folder. An object is its polygon where it has a mask, its box where it has none.

    Where objects have keypoints, and all of them as many, each is its box and its keypoints, and masks are left out.
    Crowds and difficult objects are left out: the format cannot say that they are no objects to learn. Ids other than
    0, 1, 2, … go into `category_ids` of `data.yaml`, from where the reader takes them.
    """
    categories = categories_of(sets)
    indices = {number: index for index, number in enumerate(categories)}
    points = _points(sets)
    table: dict[str, Any] = {"path": "."}
    counts: Counter[str] = Counter()
    given: list[tuple[str, str]] = []
    (folder / "images").mkdir()
    for split, dataset in sets.items():
        pictures, taken = folder_of(folder / "images", split), Names()
        pictures.mkdir(exist_ok=True)
        for record in dataset:
            file = label_of(folder, pictures / place(record, pictures, taken))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(_lines(record, indices, points, counts)), encoding="utf-8")
        given += taken.values()
        table |= {split: f"images/{split}"} if split != ALL else {"train": "images", "val": "images", "undivided": True}
    table["names"] = dict(enumerate(categories.values()))
    if list(categories) != list(range(len(categories))):
        table["category_ids"] = list(categories)
    if points is not None:
        table |= {"kpt_shape": [points, 3], "kpt_names": _names_of_points(sets, indices, points)}
        table |= _mirrored_points(sets, points)
    text = yaml.safe_dump(table, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(f"{UNDIVIDED if ALL in sets else ''}{text}", encoding="utf-8")
    return [
        *losses(sets, "yolo", KEPT | (MASKS if points is None else POINTS)),
        *counted(counts["pointless"], "yolo has keypoints for every object: {} without have them as not labelled"),
        *counted(counts["ignored"], "yolo has no place for crowds and difficult objects: {} objects left out"),
        *counted(counts["moved"], "yolo has polygons or boxes: {} boxes became those around their polygons"),
        *renamed(given, "pictures"),
    ]


def _points(sets: Mapping[str, Dataset]) -> int | None:
    """How many keypoints objects have; None where none has any, or some have more than others."""
    objects = (a for dataset in sets.values() for record in dataset for a in record.annotations if not a.ignored)
    counts = {len(a.keypoints) for a in objects if a.keypoints}
    return counts.pop() if len(counts) == 1 else None


def _names_of_points(sets: Mapping[str, Dataset], indices: Mapping[int, int], points: int) -> dict[int, list[str]]:
    """Names of keypoints by class, where they are known."""
    known = {number: rows.names for dataset in sets.values() for number, rows in dataset.keypoints.items()}
    return {indices[number]: list(names) for number, names in sorted(known.items()) if len(names) == points}


def _mirrored_points(sets: Mapping[str, Dataset], points: int) -> dict[str, list[int]]:
    """`flip_idx`, where pairs are told and the same for all classes; the names tell others."""
    known = [rows for dataset in sets.values() for rows in dataset.keypoints.values() if len(rows.names) == points]
    told = {rows.swaps for rows in known}
    return {"flip_idx": list(known[0].mirrored)} if len(told) == 1 and None not in told else {}


def _lines(record: Record, indices: Mapping[int, int], points: int | None, counts: Counter[str]) -> Iterator[str]:
    sides = (record.width, record.height)
    for annotation in record.annotations:
        if annotation.ignored:
            counts["ignored"] += 1
            continue
        polygon = one_polygon(annotation, record.height, record.width) if points is None else None
        if polygon is not None:
            counts["moved"] += _is_apart(annotation, polygon)
        x1, y1, x2, y2 = annotation.box
        values = polygon or ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        words = [_short(value / sides[at % 2]) for at, value in enumerate(values)]
        if points is not None:
            counts["pointless"] += not annotation.keypoints
            for x, y, visibility in annotation.keypoints or ((0.0, 0.0, 0),) * points:
                words += [_short(x / record.width), _short(y / record.height), str(visibility)]
        yield f"{indices[annotation.category_id]} {' '.join(words)}\n"


def _is_apart(annotation: Annotation, polygon: list[float]) -> bool:
    xs, ys = polygon[0::2], polygon[1::2]
    around = (min(xs), min(ys), max(xs), max(ys))
    return max(abs(a - b) for a, b in zip(around, annotation.box)) > APART


def _short(value: float) -> str:
    return f"{value:.8f}".rstrip("0").rstrip(".")
