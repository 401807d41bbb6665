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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.coco_writer import write_coco
from tracesight.data.formats.reading import (
    ANNOTATION_ID,
    NO_PICTURE,
    OUTSIDE_FOLDER,
    PICTURE_ID,
    UNREADABLE,
    Format,
    Reading,
)
from tracesight.data.record import Annotation, Box, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

_HEAD = 1 << 16  # bytes at the start of a file from which its format is told
_SMALL = 1 << 20  # files up to this size are parsed for it


@dataclass
class _Reading:
    """What is known half-way through a file: the tables to check against, and what was left out so far."""

    path: Path
    categories: dict[int, str] = field(default_factory=dict)
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    seen: set[int | str] = field(default_factory=set)

    def fault(self, kind: Kind, who: str, message: str) -> None:
        self.faults.append(Finding(kind, f"{self.path}: {who}", message))


def read_coco(path: Path, split: str | None = None) -> Reading:
    """Read COCO instances: a .json file, or a folder with one, or with COCO's `annotations/instances_SPLIT*.json`.

    Pictures are looked for in the usual places: `images/` and the folder of the file itself, and beside an
    `annotations` folder COCO's `train2017/` and the like.

    Polygons of several parts, both forms of run lengths, crowds, category ids and annotation ids of any value and
    pictures without objects are kept, as are LVIS's lists of the categories that are absent from a picture or not
    labelled to the last object on it (`Record.absent`, `Record.not_exhaustive`).

    Raises UserError, one line with the file: not COCO, or several files to choose from.
    """
    file = path if path.is_file() else _file_of(path, split)
    data = _load(file)
    reading = _Reading(file)
    _categories(reading, data)
    _pictures(reading, data)
    licences = {row.get("id"): row.get("name") for row in data.get("licenses") or [] if isinstance(row, dict)}
    root = _picture_root(file, reading.pictures)
    annotations = _by_picture(reading, data["annotations"])
    del data
    return Reading(file, reading.categories, _records(reading, annotations, root, licences), faults=reading.faults)


def fits_coco(path: Path) -> bool:
    """Whether a file, or a file in a folder, is COCO's by its keys; a lone .json that is no other format's is taken to
    be meant so."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _looks_like_coco(path) is not False
    if splits_of_coco(path):
        return True
    looks = [_looks_like_coco(file) for file in sorted(path.glob("*.json"))]
    return True in looks or looks == [None]


def splits_of_coco(path: Path) -> Sequence[str]:
    """The parts for which a folder has `annotations/instances_*.json`."""
    return [split for split in ("train", "val", "test") if _instances(path, split)] if path.is_dir() else []


def _instances(folder: Path, split: str) -> list[Path]:
    return sorted((folder / "annotations").glob(f"instances_{split}*.json"))


def _file_of(folder: Path, split: str | None) -> Path:
    """The one label file of a folder."""
    if split is not None:
        files = likely = _instances(folder, split)
    else:
        files = sorted(folder.glob("*.json"))
        likely = files if len(files) == 1 else [file for file in files if _looks_like_coco(file)]
    if len(likely) == 1:
        return likely[0]
    names = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
    raise UserError(f"{folder}: {len(files)} label files ({names}); give the path of the one you mean")


def _looks_like_coco(file: Path) -> bool | None:
    """None: not even JSON, or of nobody's keys, so that it may be meant to be."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_SMALL + 1)
        keys = set(json.loads(head)) if len(head) <= _SMALL else set(re.findall(r'"(\w+)"\s*:', head[:_HEAD].decode()))
    except (OSError, ValueError, RecursionError, TypeError):
        return None
    if keys & {"images", "annotations", "categories"}:
        return True
    return False if keys & {"shapes", "imagePath"} else None


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


def _categories(reading: _Reading, data: dict[str, Any]) -> None:
    """Names by id. Without them nothing else can be told, so what is wrong here is raised."""
    path, names = reading.path, reading.categories
    for row in data["categories"]:
        number, name = row.get("id"), row.get("name")
        if not _is_id(number) or not isinstance(name, str) or not name:
            raise UserError(f"{path}: category {number!r} needs a whole number as id and a name")
        if number in names:
            raise UserError(f"{path}: category id {number} occurs twice; give each category its own")
        names[number] = name
    if not names:
        raise UserError(f"{path}: not COCO instances: 'categories' is empty")


def _pictures(reading: _Reading, data: dict[str, Any]) -> None:
    for row in data["images"]:
        number, name = row.get("id"), row.get("file_name")
        if name is None and isinstance(url := row.get("coco_url"), str):
            row["file_name"] = name = "/".join(url.split("/")[-2:])
        problem = _picture_problem(row, number, name)
        if problem is not None:
            reading.fault(*problem)
        elif number in reading.pictures:
            reading.fault(PICTURE_ID, f"picture {name}", f"picture id {number} occurs twice")
        else:
            reading.pictures[number] = row
    if not reading.pictures:
        if reading.faults:
            raise UserError(str(reading.faults[0]))
        raise UserError(f"{reading.path}: no pictures in it")


def _picture_problem(row: dict[str, Any], number: Any, name: Any) -> tuple[Kind, str, str] | None:
    """What is wrong with a picture's row: kind, who, what."""
    if not _is_id(number) or not isinstance(name, str) or not name:
        return UNREADABLE, f"picture {number!r}", "it needs a whole number as id and a file_name"
    who = f"picture {name} (id {number})"
    for side in ("width", "height"):
        if not _is_id(row.get(side)) or row[side] < 1:
            return UNREADABLE, who, f"it needs a {side} in whole pixels"
    inside = os.path.normpath(name)
    if inside.startswith("..") or Path(inside).is_absolute():
        return OUTSIDE_FOLDER, who, "it lies outside the folder"
    return None


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
    """Annotations by the id of their picture; ids that occur twice get a suffix."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    for position, row in enumerate(rows):
        number = row.get("id")
        if isinstance(number, bool) or not isinstance(number, int | str):
            reading.fault(UNREADABLE, f"annotation number {position + 1}", "it has no id")
            continue
        picture = row.get("image_id")
        if not _is_id(picture) or picture not in reading.pictures:
            reading.fault(NO_PICTURE, f"annotation {number}", f"there is no picture with id {picture!r}")
            continue
        if number in reading.seen:
            reading.fault(ANNOTATION_ID, f"annotation {number}", f"annotation id {number} occurs twice")
            row["id"] = _free(number, reading.seen)
        reading.seen.add(row["id"])
        grouped.setdefault(picture, []).append(row)
    return grouped


def _free(number: int | str, seen: set[int | str]) -> str:
    count = 2
    while f"{number}~{count}" in seen:
        count += 1
    return f"{number}~{count}"


def _records(
    reading: _Reading,
    annotations: dict[int, list[dict[str, Any]]],
    root: Path,
    licences: dict[Any, Any],
) -> Iterator[Record]:
    for number, row in reading.pictures.items():
        width, height = row["width"], row["height"]
        # Popped, so that the parsed rows go as the packed records grow.
        objects = (_annotation(reading, a, row) for a in annotations.pop(number, ()))
        yield Record(
            number, root / row["file_name"], width, height, tuple(a for a in objects if a is not None),
            licence=_text(licences.get(row.get("license"))), source=_text(row.get("source") or row.get("coco_url")),
            sensor=_text(row.get("sensor")), captured_at=_text(row.get("date_captured")),
            absent=_category_list(reading, row, "neg_category_ids"),
            not_exhaustive=_category_list(reading, row, "not_exhaustive_category_ids") or (), name=row["file_name"],
        )  # fmt: skip


def _category_list(reading: _Reading, picture: dict[str, Any], key: str) -> tuple[int, ...] | None:
    """One of LVIS's lists of category ids, ascending; None where the picture has no such list."""
    values = picture.get(key)
    if values is None:
        return None
    who = f"picture {picture['file_name']} (id {picture['id']})"
    if not isinstance(values, list):
        reading.fault(UNREADABLE, who, f"{key} must be a list of category ids, not {_brief(values)}")
        return None
    known = [value for value in values if _is_id(value) and value in reading.categories]
    if len(known) < len(values):
        wrong = next(value for value in values if value not in known)
        reading.fault(UNREADABLE, who, f"{key}: there is no category with id {_brief(wrong)}")
    return tuple(sorted(set(known)))


def _annotation(reading: _Reading, row: dict[str, Any], picture: dict[str, Any]) -> Annotation | None:
    """None where the row cannot be read, which `reading.faults` then says."""
    try:
        box, shape = _box(row.get("bbox")), _segmentation(row.get("segmentation"))
        if not _is_id(row.get("category_id")):
            raise ValueError(f"there is no category with id {row.get('category_id')!r}")
    except ValueError as error:
        reading.fault(UNREADABLE, f"annotation {row['id']} on {picture['file_name']}", str(error))
        return None
    area = row.get("area")
    return Annotation(
        row["id"], row["category_id"], box, shape, bool(row.get("iscrowd", 0)),
        float(area) if isinstance(area, int | float) else None,
        _text(row.get("annotator")), _text(row.get("tool")), _text(row.get("time")),
    )  # fmt: skip


def _box(values: Any) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2)."""
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(_is_number(v) for v in values):
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {_brief(values)}")
    x, y, w, h = (float(v) for v in values)
    return x, y, x + w, y + h


def _segmentation(value: Any) -> list[list[float]] | Mask | None:
    """Polygons as they are, run lengths in their compressed form; an empty one is none."""
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        return Mask.from_coco(value)
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        raise ValueError(f"segmentation must be a list of polygons or run lengths, not {_brief(value)}")
    for part in value:
        if not all(_is_number(v) for v in part):
            raise ValueError(f"a polygon must be x, y of three or more points, not {_brief(part)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


FORMAT = Format(fits_coco, splits_of_coco, read_coco, write_coco)
