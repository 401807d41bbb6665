"""COCO instances: the JSON file of Lin et al., "Microsoft COCO: Common Objects in Context" (2014).

Format: https://cocodataset.org/#format-data. Everything is checked while it is read, so that what comes out can be
trained on; what a JSON file cannot say about its pictures is `checks.everything`'s to find out.

LVIS (Gupta, Dollár, Girshick 2019; https://www.lvisdataset.org/dataset) is this format with two more fields a picture,
`neg_category_ids` and `not_exhaustive_category_ids`, and since version 1 without `file_name`: the end of `coco_url`,
such as `val2017/000000397133.jpg`, stands for it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracesight.data.checks import category_names
from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.coco_rows import Rows, Wrong, rows_of, text
from tracesight.data.formats.coco_writer import write_coco
from tracesight.data.formats.files import brief, inside, is_ours, picture_named
from tracesight.data.formats.reading import (
    NO_PICTURE,
    OUTSIDE_FOLDER,
    PICTURE_ID,
    UNREADABLE,
    Format,
    Reading,
)
from tracesight.data.points import Keypoints
from tracesight.data.record import PATH_TEXT, Annotation, Record
from tracesight.errors import UserError

_HEAD = 1 << 16  # bytes at the start of a file from which its format is told
_SMALL = 1 << 20  # files up to this size are parsed for it
_LOOKED_AT = 50  # pictures that are looked for to tell where they lie


BOX_MISSING = Kind(
    "box-missing", "warning", "objects without a box", "nothing need be done", "given the box around their mask"
)


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
    rows = rows_of(file)
    reading = Reading(file, {}, iter(()), faults=rows.faults, about=rows.about)
    _categories(reading, rows)
    images = _sound_images(reading, rows)
    root = _picture_root(file, images)
    _without_picture(reading, rows, images)
    reading.records = _records(reading, rows, images, root)
    return reading


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
        if is_ours(file):
            return False
        with file.open("rb") as stream:
            head = stream.read(_SMALL + 1)
        keys = set(json.loads(head)) if len(head) <= _SMALL else set(re.findall(r'"(\w+)"\s*:', head[:_HEAD].decode()))
    except (OSError, ValueError, RecursionError, TypeError):
        return None
    if keys & {"images", "annotations", "categories"}:
        return True
    return False if keys & {"shapes", "imagePath"} else None


def _categories(reading: Reading, rows: Rows) -> None:
    """Names by id. Without them nothing else can be told, so what is wrong here is raised."""
    path, names = reading.path, reading.categories
    for row in rows.categories:
        number, name = row.get("id"), row.get("name")
        if type(number) is not int:
            raise UserError(f"{path}: category {name or number!r} needs a whole number as id")
        if number in names:
            raise UserError(f"{path}: category id {number} occurs twice; give each category its own")
        names[number] = str(name) if type(name) in (str, int, float) and str(name).strip() else f"category {number}"
        if names[number] != name:
            message = f"its name is {brief(name)}, so that it is called {names[number]!r}"
            reading.faults.append(Finding(category_names.NONE, f"{path}: category {number}", message))
        if isinstance(parent := row.get("supercategory"), str) and parent:
            reading.parents[number] = parent
        try:
            if row.get("keypoints"):
                reading.keypoints[number] = _points_of_category(row)
        except (TypeError, ValueError) as error:
            message = f"its keypoints cannot be read: {error}"
            reading.faults.append(Finding(UNREADABLE, f"{path}: category {number}", message))
    if not names:
        raise UserError(f"{path}: not COCO instances: 'categories' is empty")


def _points_of_category(row: dict[str, Any]) -> Keypoints:
    names, swaps = row["keypoints"], row.get("flip_pairs")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints must be a list of names, not {brief(names)}")
    pairs = tuple((a - 1, b - 1) for a, b in row.get("skeleton") or [])  # counted from 1 in the file
    mirrors = None if swaps is None else tuple((a - 1, b - 1) for a, b in swaps)
    for key, ends in (("skeleton", pairs), ("flip_pairs", mirrors or ())):
        if not all(0 <= end < len(names) for pair in ends for end in pair):
            raise ValueError(f"{key} must be pairs of numbers from 1 to {len(names)}")
    return Keypoints(tuple(names), pairs, mirrors)


class _Image(NamedTuple):
    """A picture's row, its name as it stands there, and in normal form."""

    row: dict[str, Any]
    name: str
    normal: str


def _sound_images(reading: Reading, rows: Rows) -> dict[int, _Image]:
    """The rows of pictures that can be read, by id."""
    images: dict[int, _Image] = {}
    for row in rows.images:
        name = _file_name(row)
        found = _picture_problem(row, name)
        if isinstance(found, str) and row["id"] in images:
            found = PICTURE_ID, f"picture {name}", f"picture id {row['id']} occurs twice"
        if isinstance(found, str):
            images[row["id"]] = _Image(row, name, found)
        else:
            kind, who, message = found
            reading.faults.append(Finding(kind, f"{reading.path}: {who}", message))
    if not images:
        if reading.faults:
            raise UserError(str(reading.faults[0]))
        raise UserError(f"{reading.path}: no pictures in it")
    return images


def _file_name(row: dict[str, Any]) -> Any:
    """The name of a picture's file; the end of its address where LVIS gives only that."""
    name, url = row.get("file_name"), row.get("coco_url")
    return "/".join(url.split("/")[-2:]) if name is None and isinstance(url, str) else name


def _picture_problem(row: dict[str, Any], name: Any) -> tuple[Kind, str, str] | str:
    """What is wrong with a picture's row: kind, who, what; its name in normal form where nothing is."""
    number = row.get("id")
    if type(number) is not int or not isinstance(name, str) or not name:
        return UNREADABLE, f"picture {number!r}", "it needs a whole number as id and a file_name"
    for side in ("width", "height"):
        if type(row.get(side)) is not int or row[side] < 1:
            return UNREADABLE, f"picture {name} (id {number})", f"it needs a {side} in whole pixels"
    return inside(name) or (OUTSIDE_FOLDER, f"picture {name} (id {number})", "it lies outside the folder")


def _picture_root(file: Path, images: dict[int, _Image]) -> Path:
    """The first of the usual places where one of the first pictures lies."""
    folder = file.parent
    places = [folder / "images", folder]
    if folder.name == "annotations":
        base = folder.parent
        subset = file.stem.rsplit("_", 1)[-1]  # "train2017" of "instances_train2017"
        places += [base / subset, base / "images" / subset, base / "images", base]
    names = [image.name for image in itertools.islice(images.values(), _LOOKED_AT)]
    for name in names:
        for place in places:
            if (found := picture_named(place, name)) is not None and found.is_file():
                return place
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"{file}: picture {names[0]} is in none of {looked}; put the pictures there")


def _without_picture(reading: Reading, rows: Rows, images: dict[int, _Image]) -> None:
    lost = list(rows.pictures() - images.keys())
    for picture, (plain, others) in zip(lost, rows.objects(lost) if lost else ()):
        message = f"there is no picture with id {picture}"
        for number in [*(values[0] for values in plain), *(item.id for item in others)]:
            who = f"{reading.path}: annotation {number}"
            reading.faults.append(Finding(NO_PICTURE, who, message))


def _records(reading: Reading, rows: Rows, images: dict[int, _Image], root: Path) -> Iterator[Record]:
    licences = {row.get("id"): row.get("name") or row.get("url") for row in rows.licences if isinstance(row, dict)}
    folder = str(root / "x")[:-1]
    for (number, (row, name, normal)), (plain, others) in zip(images.items(), rows.objects([*images])):
        get = row.get
        fields: dict[str, Any] = {
            "id": number,
            PATH_TEXT: str(picture_named(root, name) or root / name) if "\\" in name else folder + normal,
            "width": row["width"],
            "height": row["height"],
            "licence": text(licences.get(get("license"))),
            "source": text(get("source") or get("coco_url")),
            "sensor": text(get("sensor")),
            "captured_at": text(get("date_captured")),
            "absent": _category_list(reading, row, "neg_category_ids"),
            "not_exhaustive": _category_list(reading, row, "not_exhaustive_category_ids") or (),
            "name": normal,
            "group": text(get("group")),
        }
        if others:
            picture = Path(fields.pop(PATH_TEXT))
            _say_what_is_wrong(reading, rows, others, name, picture)
            sound = tuple(item for item in others if isinstance(item, Annotation))
            yield Record(path=picture, annotations=sound, **fields)
        else:
            yield Record.plain(plain, fields)


def _say_what_is_wrong(
    reading: Reading, rows: Rows, objects: Sequence[Annotation | Wrong], name: str, picture: Path
) -> None:
    for item in objects:
        who = f"{reading.path}: annotation {item.id} on {name}"
        if isinstance(item, Wrong):
            reading.faults.append(Finding(UNREADABLE, who, item.message, picture))
        elif item.id in rows.boxless:
            reading.faults.append(Finding(BOX_MISSING, who, "it has no box", picture, item.id, item.box))


def _category_list(reading: Reading, picture: dict[str, Any], key: str) -> tuple[int, ...] | None:
    """One of LVIS's lists of category ids, ascending; None where the picture has no such list."""
    values = picture.get(key)
    if values is None:
        return None
    who = f"{reading.path}: picture {_file_name(picture)} (id {picture['id']})"
    if not isinstance(values, list):
        message = f"{key} must be a list of category ids, not {brief(values)}"
        reading.faults.append(Finding(UNREADABLE, who, message))
        return None
    known = [value for value in values if type(value) is int and value in reading.categories]
    if len(known) < len(values):
        wrong = next(value for value in values if value not in known)
        reading.faults.append(Finding(UNREADABLE, who, f"{key}: there is no category with id {brief(wrong)}"))
    return tuple(sorted(set(known)))


FORMAT = Format(fits_coco, splits_of_coco, read_coco, write_coco)
