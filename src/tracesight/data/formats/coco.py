"""COCO instances: the JSON file of Lin et al., "Microsoft COCO: Common Objects in Context" (2014).

Format: https://cocodataset.org/#format-data. Everything is checked while it is read, so that what comes out can be
trained on; what a JSON file cannot say about its pictures is `checks.check_pictures`'s to find out.

LVIS (Gupta, Dollár, Girshick 2019; https://www.lvisdataset.org/dataset) is this format with two more fields a picture,
`neg_category_ids` and `not_exhaustive_category_ids`, and since version 1 without `file_name`: the end of `coco_url`,
such as `val2017/000000397133.jpg`, stands for it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracesight.data.record import Annotation, Box, Dataset, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

SLACK = 1.0  # pixels by which a box may stick out; it is clipped and counted
ROUNDING = 1e-3  # what sticks out by less comes from adding x and width, and is not worth a note


@dataclass
class _Reading:
    """What is known half-way through a file: the tables to check against, and what was put right so far."""

    path: Path
    categories: dict[int, str]
    pictures: dict[int, dict[str, Any]]
    clipped: int = 0
    seen: set[int | str] = field(default_factory=set)


def read_coco(path: Path | str, picture_root: Path | str | None = None, split: str | None = None) -> Dataset:
    """Read COCO instances.

    path: the JSON file. picture_root: the folder that `file_name` is relative to; without it the usual places are
    tried: `images/` and the folder of the file itself, and beside an `annotations` folder COCO's `train2017/` and the
    like. split: written into every record.

    Polygons of several parts, both forms of run lengths, crowds, category ids and annotation ids of any value and
    pictures without objects are kept, as are LVIS's lists of the categories that are absent from a picture or not
    labelled to the last object on it (`Record.absent`, `Record.not_exhaustive`). Boxes up to 1 px outside their picture
    are clipped and counted in `notes`.

    Raises UserError, one line with the file and the annotation: not COCO; a picture or category that is not there; an
    id twice; a box without area or further outside; a segmentation that is none or of another size.
    """
    path = Path(path)
    data = _load(path)
    reading = _Reading(path, _categories(path, data), _pictures(path, data))
    licences = {row.get("id"): row.get("name") for row in data.get("licenses") or [] if isinstance(row, dict)}
    root = Path(picture_root) if picture_root is not None else _picture_root(path, reading.pictures)
    annotations = _by_picture(reading, data["annotations"])
    del data
    records = _records(reading, annotations, root, licences, split)
    # `of` drains the generator before `notes` is read, so the count is complete.
    dataset = Dataset.of(records, reading.categories, path)
    if not reading.clipped:
        return dataset
    said = f"{reading.clipped} boxes reached up to {SLACK:g} px outside their picture and were clipped"
    note = f"{path.parent.name}/{path.name}: {said}"
    return replace(dataset, notes=(note,))


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({' '.join(str(error).split())})") from None
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(data, dict) or k not in data]
    if missing:
        raise UserError(f"{path}: not COCO instances: it has no {missing[0]!r}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data[key], list) or not all(isinstance(row, dict) for row in data[key]):
            raise UserError(f"{path}: not COCO instances: {key!r} must be a list of objects")
    return data


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _categories(path: Path, data: dict[str, Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in data["categories"]:
        number, name = row.get("id"), row.get("name")
        if not _is_id(number) or not isinstance(name, str):
            raise UserError(f"{path}: category {number!r} needs a whole number as id and a name")
        if number in names:
            raise UserError(f"{path}: category id {number} occurs twice; give each category its own")
        names[number] = name
    if not names:
        raise UserError(f"{path}: not COCO instances: 'categories' is empty")
    return names


def _pictures(path: Path, data: dict[str, Any]) -> dict[int, dict[str, Any]]:
    pictures: dict[int, dict[str, Any]] = {}
    for row in data["images"]:
        number, name = row.get("id"), row.get("file_name")
        if name is None and isinstance(url := row.get("coco_url"), str):
            row["file_name"] = name = "/".join(url.split("/")[-2:])
        if not _is_id(number) or not isinstance(name, str) or not name:
            raise UserError(f"{path}: picture {number!r} needs a whole number as id and a file_name")
        if number in pictures:
            raise UserError(f"{path}: picture id {number} occurs twice; give each picture its own")
        for side in ("width", "height"):
            if not _is_id(row.get(side)) or row[side] < 1:
                raise UserError(f"{path}: picture {name} (id {number}) needs a {side} in whole pixels")
        inside = os.path.normpath(name)
        if inside.startswith("..") or Path(inside).is_absolute():
            raise UserError(f"{path}: picture {name} (id {number}) lies outside the folder; make the path relative")
        pictures[number] = row
    if not pictures:
        raise UserError(f"{path}: no pictures in it")
    return pictures


def _picture_root(path: Path, pictures: dict[int, dict[str, Any]]) -> Path:
    """The first of the usual places where the first picture lies."""
    folder = path.parent
    places = [folder / "images", folder]
    if folder.name == "annotations":
        base = folder.parent
        subset = path.stem.rsplit("_", 1)[-1]  # "train2017" of "instances_train2017"
        places += [base / subset, base / "images" / subset, base / "images", base]
    name = next(iter(pictures.values()))["file_name"]
    for place in places:
        if (place / name).is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"{path}: picture {name} is in none of {looked}; put the pictures there")


def _by_picture(reading: _Reading, rows: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Annotations by the id of their picture; every id is checked."""
    path, grouped = reading.path, {}
    for position, row in enumerate(rows):
        number = row.get("id")
        if isinstance(number, bool) or not isinstance(number, int | str):
            raise UserError(f"{path}: annotation number {position + 1} has no id")
        if number in reading.seen:
            raise UserError(f"{path}: annotation id {number} occurs twice; give each annotation its own")
        reading.seen.add(number)
        picture, category = row.get("image_id"), row.get("category_id")
        if not _is_id(picture) or picture not in reading.pictures:
            raise UserError(f"{path}: annotation {number}: there is no picture with id {picture!r}")
        if not _is_id(category) or category not in reading.categories:
            raise UserError(f"{path}: annotation {number}: there is no category with id {category!r}")
        grouped.setdefault(picture, []).append(row)
    return grouped


def _records(
    reading: _Reading,
    annotations: dict[int, list[dict[str, Any]]],
    root: Path,
    licences: dict[Any, Any],
    split: str | None,
) -> Iterator[Record]:
    for number, row in reading.pictures.items():
        width, height = row["width"], row["height"]
        # Popped, so that the parsed rows go as the packed records grow.
        objects = tuple(_annotation(reading, a, row) for a in annotations.pop(number, ()))
        yield Record(
            number, root / row["file_name"], width, height, objects, split,
            licence=_text(licences.get(row.get("license"))), source=_text(row.get("source") or row.get("coco_url")),
            sensor=_text(row.get("sensor")), captured_at=_text(row.get("date_captured")),
            absent=_category_list(reading, row, "neg_category_ids"),
            not_exhaustive=_category_list(reading, row, "not_exhaustive_category_ids") or (),
        )  # fmt: skip


def _category_list(reading: _Reading, picture: dict[str, Any], key: str) -> tuple[int, ...] | None:
    """One of LVIS's lists of category ids, ascending; None where the picture has no such list."""
    values = picture.get(key)
    if values is None:
        return None
    where = f"{reading.path}: picture {picture['file_name']} (id {picture['id']})"
    if not isinstance(values, list):
        raise UserError(f"{where}: {key} must be a list of category ids, not {_brief(values)}")
    for value in values:
        if not _is_id(value) or value not in reading.categories:
            raise UserError(f"{where}: {key}: there is no category with id {_brief(value)}")
    return tuple(sorted(set(values)))


def _annotation(reading: _Reading, row: dict[str, Any], picture: dict[str, Any]) -> Annotation:
    width, height = picture["width"], picture["height"]
    where = f"{reading.path}: annotation {row['id']} on {picture['file_name']}"
    area = row.get("area")
    return Annotation(
        row["id"], row["category_id"], _box(reading, row.get("bbox"), width, height, where),
        _segmentation(row.get("segmentation"), width, height, where), bool(row.get("iscrowd", 0)),
        float(area) if isinstance(area, int | float) else None,
        _text(row.get("annotator")), _text(row.get("tool")), _text(row.get("time")),
    )  # fmt: skip


def _box(reading: _Reading, values: Any, width: int, height: int, where: str) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2) inside the picture."""
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(_is_number(v) for v in values):
        raise UserError(f"{where}: bbox must be four numbers [x, y, width, height], not {_brief(values)}")
    x, y, w, h = (float(v) for v in values)
    if w <= 0 or h <= 0:
        raise UserError(f"{where}: the box {_brief(values)} has no area; correct or remove it")
    out = max(-x, -y, x + w - width, y + h - height)
    if out > SLACK:
        beyond = f"reaches {out:g} px outside the picture of {width} × {height}"
        raise UserError(f"{where}: the box {_brief(values)} {beyond}; correct it")
    box = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{where}: the box {_brief(values)} has no area inside the picture; correct or remove it")
    reading.clipped += out > ROUNDING
    return box


def _segmentation(value: Any, width: int, height: int, where: str) -> list[list[float]] | Mask | None:
    """Polygons as they are, run lengths in their compressed form; an empty one is none."""
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        try:
            mask = Mask.from_coco(value)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if mask.size != (height, width):
            raise UserError(f"{where}: its mask is of size {list(mask.size)}, the picture of {[height, width]}")
        return mask
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        raise UserError(f"{where}: segmentation must be a list of polygons or run lengths, not {_brief(value)}")
    for part in value:
        if len(part) < 6 or len(part) % 2 or not all(_is_number(v) for v in part):
            raise UserError(f"{where}: a polygon must be x, y of three or more points, not {_brief(part)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
