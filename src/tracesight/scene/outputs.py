"""Scenes of many pictures as one table: COCO results, and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from tracesight.scene.scene import Scene, SceneObject
from tracesight.scene.values import write_whole

_COLUMNS = ["picture", "sha256", "object", "category", "category_id", "score", "x1", "y1", "x2", "y2", "area", "track"]


def coco_results(scenes: Iterable[Scene], image_ids: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """COCO results of all scenes in one list. Pictures are numbered 0, 1, 2, … unless `image_ids` says how.

    Raises ValueError when there are more or fewer ids than scenes.
    """
    if image_ids is None:
        return [result for image_id, scene in zip(count(), scenes) for result in scene.to_coco(image_id)]
    return [result for image_id, scene in zip(image_ids, scenes, strict=True) for result in scene.to_coco(image_id)]


def coco_images(scenes: Iterable[Scene], image_ids: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """COCO's `images` for the same scenes and numbers: which picture each `image_id` of the results means."""
    numbered = zip(count(), scenes) if image_ids is None else zip(image_ids, scenes, strict=True)
    return [
        {"id": image_id, "file_name": scene.picture.path, "width": scene.picture.width, "height": scene.picture.height}
        for image_id, scene in numbered
    ]


def write_csv(scenes: Iterable[Scene], path: str | Path) -> None:
    """Write one row an object: UTF-8, commas, a header; `area` is the mask's in pixels, empty without one.

    Each kind of measurement that occurs gets a column of its own, named with its unit as in "length [mm]", and each
    keypoint two, as in "left_eye x [px]".
    The file is there whole or not at all.
    """
    rows = [_row(scene, number, item) for scene in scenes for number, item in enumerate(scene.objects)]
    measured = sorted({key for row in rows for key in row} - set(_COLUMNS))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*_COLUMNS, *measured], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def write_categories_csv(scenes: Iterable[Scene], path: str | Path) -> None:
    """Write one row a category of a picture as a whole, in the order of the scene; else as `write_csv`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "sha256", "rank", "category", "category_id", "score"])
    for scene in scenes:
        for rank, item in enumerate(scene.categories, start=1):
            row = [scene.picture.path, scene.picture.sha256, rank, item.category, item.category_id, item.score]
            writer.writerow(row)
    write_whole(path, text.getvalue())


def _row(scene: Scene, number: int, item: SceneObject) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    row: dict[str, Any] = {"picture": scene.picture.path, "sha256": scene.picture.sha256, "object": number}
    row |= {"category": item.category, "category_id": item.category_id, "score": item.score}
    row |= {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    row["area"] = None if item.mask is None else item.mask.area
    row["track"] = None if item.track is None else item.track.id
    for point in item.keypoints:
        row |= {f"{point.name} x [px]": point.x, f"{point.name} y [px]": point.y}
    for measurement in item.measurements:
        # Brackets keep a measurement called like a column apart from it.
        row[f"{measurement.name} [{measurement.unit}]"] = measurement.value
    return row
