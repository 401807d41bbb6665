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
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.coco_rows import POLYGONS, Rows, rows_of
from tracesight.data.formats.coco_writer import write_coco
from tracesight.data.formats.files import inside, picture_named
from tracesight.data.formats.reading import (
    ANNOTATION_ID,
    NO_PICTURE,
    OUTSIDE_FOLDER,
    PICTURE_ID,
    UNREADABLE,
    Format,
    Reading,
)
from tracesight.data.record import Annotation, Box, Keypoints, Polygons, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

_HEAD = 1 << 16  # bytes at the start of a file from which its format is told
_SMALL = 1 << 20  # files up to this size are parsed for it
_LOOKED_AT = 50  # pictures that are looked for to tell where they lie
_NUMBERS = frozenset({int, float})


BOX_MISSING = Kind(
    "box-missing", "warning", "objects without a box", "nothing need be done", "given the box around their mask"
)


@dataclass
class _Reading:
    """What is known half-way through a file: its rows, the tables to check against, and what was left out so far."""

    path: Path
    rows: Rows
    root: Path = Path()
    categories: dict[int, str] = field(default_factory=dict)
    licences: dict[Any, Any] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    keypoints: dict[int, Keypoints] = field(default_factory=dict)
    parents: dict[int, str] = field(default_factory=dict)

    def fault(self, kind: Kind, who: str, message: str, picture: Path | None = None) -> None:
        self.faults.append(Finding(kind, f"{self.path}: {who}", message, picture))


def read_coco(path: Path, split: str | None = None) -> Reading:
    """Read COCO instances: a .json file, or a folder with one, or with COCO's `annotations/instances_SPLIT*.json` (or
    `person_keypoints_SPLIT*.json`, where there are no instances).

    Pictures are looked for in the usual places: `images/` and the folder of the file itself, and beside an
    `annotations` folder COCO's `train2017/` and the like.

    Polygons of several parts, both forms of run lengths, crowds, keypoints, category ids and annotation ids of any
    value and pictures without objects are kept, as are LVIS's lists of the categories that are absent from a picture or
    not labelled to the last object on it (`Record.absent`, `Record.not_exhaustive`).

    Raises UserError, one line with the file: not COCO, or several files to choose from.
    """
    file = path if path.is_file() else _file_of(path, split)
    reading = _Reading(file, rows_of(file))
    _categories(reading)
    reading.licences = {
        row.get("id"): row.get("name") or row.get("url") for row in reading.rows.licences if isinstance(row, dict)
    }
    images = _sound_images(reading)
    reading.root = _picture_root(reading, images)
    renumbered = _number_annotations(reading, images)
    return Reading(
        file, reading.categories, _records(reading, images, renumbered), faults=reading.faults,
        keypoints=reading.keypoints, parents=reading.parents,
    )  # fmt: skip


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
    files = ((folder / "annotations").glob(f"{what}_{split}*.json") for what in ("instances", "person_keypoints"))
    return next((found for found in map(sorted, files) if found), [])


def _file_of(folder: Path, split: str | None) -> Path:
    """The one label file of a folder."""
    if split is not None:
        files = likely = _instances(folder, split)
    else:
        files = sorted(folder.glob("*.json"))
        likely = files if len(files) == 1 else [file for file in files if _looks_like_coco(file)]
    if len(likely) == 1:
        return likely[0]
    if not files:
        raise UserError(f"{folder}: no coco labels in it (a .json file with images, annotations and categories)")
    names = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
    raise UserError(f"{folder}: {len(files)} label files ({names}); give the path of the one you mean")


def _looks_like_coco(file: Path) -> bool | None:
    """None: not even JSON, or of nobody's keys, so that it may be meant to be."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_SMALL + 1)
        if re.search(
            rb'"format": "tracesight |"@context"', head[:200]
        ):  # a manifest or a split that lies with the data
            return False
        keys = set(json.loads(head)) if len(head) <= _SMALL else set(re.findall(r'"(\w+)"\s*:', head[:_HEAD].decode()))
    except (OSError, ValueError, RecursionError, TypeError):
        return None
    if keys & {"images", "annotations", "categories"}:
        return True
    return False if keys & {"shapes", "imagePath"} else None


def _categories(reading: _Reading) -> None:
    """Names by id. Without them nothing else can be told, so what is wrong here is raised."""
    path, names = reading.path, reading.categories
    for row in reading.rows.categories:
        number, name = row.get("id"), row.get("name")
        if number is None or not _is_id(number) or not isinstance(name, str) or not name:
            raise UserError(f"{path}: category {number!r} needs a whole number as id and a name")
        if number in names:
            raise UserError(f"{path}: category id {number} occurs twice; give each category its own")
        names[number] = name
        if isinstance(parent := row.get("supercategory"), str) and parent:
            reading.parents[number] = parent
        try:
            if row.get("keypoints"):
                reading.keypoints[number] = _points_of_category(row["keypoints"], row.get("skeleton") or [])
        except (TypeError, ValueError) as error:
            reading.fault(UNREADABLE, f"category {number}", f"its keypoints cannot be read: {error}")
    if not names:
        raise UserError(f"{path}: not COCO instances: 'categories' is empty")


def _points_of_category(names: Any, skeleton: Any) -> Keypoints:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints must be a list of names, not {_brief(names)}")
    pairs = tuple((a - 1, b - 1) for a, b in skeleton)  # counted from 1 in the file
    if not all(0 <= end < len(names) for pair in pairs for end in pair):
        raise ValueError(f"skeleton must be pairs of numbers from 1 to {len(names)}")
    return Keypoints(tuple(names), pairs)


def _sound_images(reading: _Reading) -> list[tuple[int, Any]]:
    """Position and id of the rows of pictures that can be read."""
    images: dict[Any, int] = {}
    for position, row in enumerate(reading.rows.images):
        problem = _picture_problem(row)
        if problem is not None:
            reading.fault(*problem)
        elif row["id"] in images:
            reading.fault(PICTURE_ID, f"picture {_file_name(row)}", f"picture id {row['id']} occurs twice")
        else:
            images[row["id"]] = position
    if not images:
        if reading.faults:
            raise UserError(str(reading.faults[0]))
        raise UserError(f"{reading.path}: no pictures in it")
    return [(position, number) for number, position in images.items()]


def _file_name(row: dict[str, Any]) -> Any:
    """The name of a picture's file; the end of its address where LVIS gives only that."""
    name, url = row.get("file_name"), row.get("coco_url")
    return "/".join(url.split("/")[-2:]) if name is None and isinstance(url, str) else name


def _picture_problem(row: dict[str, Any]) -> tuple[Kind, str, str] | None:
    """What is wrong with a picture's row: kind, who, what."""
    number, name = row.get("id"), _file_name(row)
    if not _is_id(number) or not isinstance(name, str) or not name:
        return UNREADABLE, f"picture {number!r}", "it needs a whole number as id and a file_name"
    who = f"picture {name} (id {number})"
    for side in ("width", "height"):
        if not _is_id(row.get(side)) or row[side] < 1:
            return UNREADABLE, who, f"it needs a {side} in whole pixels"
    if inside(name) is None:
        return OUTSIDE_FOLDER, who, "it lies outside the folder"
    return None


def _picture_root(reading: _Reading, images: list[tuple[int, Any]]) -> Path:
    """The first of the usual places where one of the first pictures lies."""
    path, folder = reading.path, reading.path.parent
    places = [folder / "images", folder]
    if folder.name == "annotations":
        base = folder.parent
        subset = path.stem.rsplit("_", 1)[-1]  # "train2017" of "instances_train2017"
        places += [base / subset, base / "images" / subset, base / "images", base]
    names = [_file_name(reading.rows.images[position]) for position, _ in images[:_LOOKED_AT]]
    for name in names:
        for place in places:
            if (found := picture_named(place, name)) is not None and found.is_file():
                return place
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"{path}: picture {names[0]} is in none of {looked}; put the pictures there")


def _number_annotations(reading: _Reading, images: list[tuple[int, Any]]) -> dict[int, str]:
    """New ids, by position, of annotations whose id another has; says so, and which have no id or no picture."""
    rows, sound, renumbered = reading.rows, {number for _, number in images}, {}
    for position in rows.nameless:
        reading.fault(UNREADABLE, f"annotation number {position + 1}", "it has no id")
    known = np.array([*(number in sound for number in rows.pictures), True])  # the last one is nobody's: -1
    for position in np.flatnonzero(~known[rows.owner_array()]).tolist():
        row = rows.annotations[position]
        message = f"there is no picture with id {_brief(row.get('image_id'))}"
        reading.fault(NO_PICTURE, f"annotation {row['id']}", message)
    for position in rows.twice:
        number = rows.annotations[position]["id"]
        reading.fault(ANNOTATION_ID, f"annotation {number}", f"annotation id {number} occurs twice")
        count = 2
        while (new := f"{number}~{count}") in rows.ids:
            count += 1
        rows.ids.add(new)
        renumbered[position] = new
    return renumbered


def _records(reading: _Reading, images: list[tuple[int, Any]], renumbered: dict[int, str]) -> Iterator[Record]:
    rows = reading.rows
    order, starts = rows.by_picture()
    for position, number in images:
        row = rows.images[position]
        name = _file_name(row)
        path = picture_named(reading.root, name) or reading.root / name
        owner = rows.pictures.get(number)
        mine = [] if owner is None else order[starts[owner] : starts[owner + 1]].tolist()
        objects = [_annotation(reading, renumbered.get(at), rows.annotations[at], name, row, path) for at in mine]
        yield Record(
            number, path, row["width"], row["height"], tuple(a for a in objects if a is not None),
            licence=_text(reading.licences.get(row.get("license"))),
            source=_text(row.get("source") or row.get("coco_url")), sensor=_text(row.get("sensor")),
            captured_at=_text(row.get("date_captured")), absent=_category_list(reading, row, "neg_category_ids"),
            not_exhaustive=_category_list(reading, row, "not_exhaustive_category_ids") or (),
            name=inside(name) or name, group=_text(row.get("group")),
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


def _annotation(
    reading: _Reading, number: str | None, row: dict[str, Any], name: str, picture: dict[str, Any], path: Path
) -> Annotation | None:
    """None where the row cannot be read, which `reading.faults` then says. number: instead of its id."""
    who: Any = number or row["id"]
    get: Callable[..., Any] = row.get
    try:
        text = get(POLYGONS)
        shape = Polygons(text) if text is not None else _segmentation(get("segmentation"))
        box = get("bbox")
        if box is None and shape is not None:
            box = _box_around(shape, picture)
            reading.fault(BOX_MISSING, f"annotation {who} on {name}", "it has no box", path)
        else:
            box = _box(box)
        category = get("category_id")
        if type(category) is not int:
            raise ValueError(f"there is no category with id {_brief(category)}")
        points = None if "keypoints" not in row else _keypoints(row["keypoints"])
    except ValueError as error:
        reading.fault(UNREADABLE, f"annotation {who} on {name}", str(error), path)
        return None
    area = get("area")
    return Annotation(
        who, category, box, shape, bool(get("iscrowd", 0)),
        float(area) if type(area) in (int, float) else None,
        _text(get("annotator")), _text(get("tool")), _text(get("time")), points,
        bool(get("difficult", 0)), bool(get("truncated", 0)),
    )  # fmt: skip


def _box(values: Any) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2)."""
    if type(values) is not list or len(values) != 4 or not _are_numbers(values):
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {_brief(values)}")
    x, y, w, h = values
    return float(x), float(y), float(x + w), float(y + h)


def _box_around(shape: list[list[float]] | Polygons | Mask, picture: dict[str, Any]) -> Box:
    if isinstance(shape, Mask):
        if shape.size != (picture["height"], picture["width"]) or not shape.area:
            raise ValueError("it has no box, and no mask that fits the picture")
        return shape.box
    xs = [x for part in shape for x in part[0::2]]
    ys = [y for part in shape for y in part[1::2]]
    if not xs or not ys:
        raise ValueError("it has no box, and a polygon without points")
    return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))


def _segmentation(value: Any) -> list[list[float]] | Mask | None:
    """Polygons as they are, run lengths in their compressed form; an empty one is none."""
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        return Mask.from_coco(value)
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        raise ValueError(f"segmentation must be a list of polygons or run lengths, not {_brief(value)}")
    for part in value:
        if not _are_numbers(part):
            raise ValueError(f"a polygon must be x, y of three or more points, not {_brief(part)}")
    return value


def _keypoints(values: Any) -> tuple[tuple[float, float, int], ...]:
    if not isinstance(values, list) or len(values) % 3 or not _are_numbers(values):
        raise ValueError(f"keypoints must be x, y and visibility of each point, not {_brief(values)}")
    return tuple((float(x), float(y), int(v)) for x, y, v in zip(values[0::3], values[1::3], values[2::3]))


def _are_numbers(values: list[Any]) -> bool:
    try:
        return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))
    except OverflowError:  # a whole number with hundreds of digits
        return False


def _is_id(value: Any) -> bool:
    return type(value) is int


def _brief(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


FORMAT = Format(fits_coco, splits_of_coco, read_coco, write_coco)
