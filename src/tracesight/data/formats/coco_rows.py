"""The arrays of a COCO file, read once: every annotation becomes an `Annotation` as it comes, in any order of keys."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tracesight.data.finding import Finding
from tracesight.data.formats.files import brief
from tracesight.data.formats.json_rows import NotJSON, scan_rows
from tracesight.data.formats.polygon_text import polygons_only
from tracesight.data.formats.reading import ANNOTATION_ID, UNREADABLE
from tracesight.data.polygons import Polygons
from tracesight.data.record import Annotation, Box
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

NEEDED = ("images", "annotations", "categories")
# What is kept of a picture's row.
OF_IMAGES = (
    "id", "file_name", "coco_url", "width", "height", "license", "source", "sensor", "date_captured", "group",
    "neg_category_ids", "not_exhaustive_category_ids",
)  # fmt: skip

# Polygons stay text, under a key of their own: to parse all of their numbers would take longer than all the rest. Only
# what is well-formed and of three or more points is kept so; the rest is parsed, and what is wrong with it found.
POLYGONS = "segmentation as text"
_LIKELY = re.compile(r'"segmentation"\s*+:\s*+(\[\s*+\[[-0-9.,\[\] \t\r\n]*\])', re.ASCII)
_NUMBER = r"-?+(?:0|[1-9]\d*+)(?:\.\d++)?+"
_PAIR = rf"{_NUMBER},\s*+{_NUMBER}"
_PART = rf"\[\s*+{_PAIR}(?:,\s*+{_PAIR}){{2,}}+\s*+\]"
_SEGMENTATION = re.compile(rf'"segmentation"\s*+:\s*+(\[\s*+{_PART}(?:\s*+,\s*+{_PART})*+\s*+\])', re.ASCII)
_NUMBERS = frozenset({int, float})
# The fields of most annotations; only what has others is looked through for them.
_USUAL = frozenset({"id", "image_id", "category_id", "bbox", "segmentation", POLYGONS, "area", "iscrowd"})


# The values of an annotation that has no others: id, category, box, polygons as text or another mask, crowd, area.
Plain = tuple[int | str, int, Box, Any, bool, float | None]


class Wrong(NamedTuple):
    """An annotation that cannot be read."""

    id: int | str
    message: str


@dataclass
class Rows:
    """What a file holds.

    objects: by image_id, in the order of the file, most as plain values, which take less room (`take`). ids: of
    annotations. boxless: ids of those whose box is that of their mask. about: texts and numbers of `info`. faults: what
    is wrong with annotations and needs no picture to be told.
    """

    path: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    licences: list[Any] = field(default_factory=list)
    objects: dict[Any, list[Annotation | Plain | Wrong]] = field(default_factory=dict)
    ids: set[int | str] = field(default_factory=set)
    boxless: set[int | str] = field(default_factory=set)
    about: dict[str, str] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    count: int = 0

    def set_about(self, info: Any) -> None:
        if isinstance(info, dict):
            texts = {key: str(value).strip() for key, value in info.items() if isinstance(value, str | int | float)}
            self.about = {key: value for key, value in texts.items() if value}

    def add_image(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'images' must be a list of objects")
        self.images.append({key: row[key] for key in OF_IMAGES if key in row})

    def add_category(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'categories' must be a list of objects")
        self.categories.append(row)

    def add_annotation(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'annotations' must be a list of objects")
        self.count += 1
        number, picture = row.get("id"), row.get("image_id")
        if type(number) is not int and type(number) is not str:
            who = f"{self.path}: annotation number {self.count}"
            self.faults.append(Finding(UNREADABLE, who, "it has no id"))
            return
        if number in self.ids:
            message = f"annotation id {number} occurs twice"
            self.faults.append(Finding(ANNOTATION_ID, f"{self.path}: annotation {number}", message))
            number = self._free(number)
        self.ids.add(number)
        try:
            item = _annotation(number, row)
        except ValueError as error:
            item = Wrong(number, str(error))
        else:
            if row.get("bbox") is None:
                self.boxless.add(number)
        key = picture if type(picture) is int else brief(picture)
        mine = self.objects.get(key)
        if mine is None:
            self.objects[key] = [item]
        else:
            mine.append(item)

    def take(self, picture: Any) -> list[Annotation | Wrong]:
        """The objects of a picture, which are not kept any longer, so that they go as what is made of them grows."""
        objects = self.objects.pop(picture, ())
        return [item if isinstance(item, Annotation | Wrong) else _whole(item) for item in objects]

    def _free(self, number: int | str) -> str:
        count = 2
        while f"{number}~{count}" in self.ids:
            count += 1
        return f"{number}~{count}"


def rows_of(path: Path) -> Rows:
    """Read a file once. Raises UserError: not JSON, not COCO's arrays, or not to be read at all."""
    rows = Rows(path)
    take = {
        "images": rows.add_image, "annotations": rows.add_annotation, "categories": rows.add_category,
        "licenses": rows.licences.append,
    }  # fmt: skip
    try:
        keys = scan_rows(path, take, keep_polygons, {"info": rows.set_about})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (NotJSON, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({' '.join(str(error).split())})") from None
    except ValueError as error:
        raise UserError(f"{path}: not COCO instances: {' '.join(str(error).split())}") from None
    missing = [key for key in NEEDED if key not in keys]
    if missing:
        raise UserError(f"{path}: not COCO instances: it has no {missing[0]!r}")
    return rows


def keep_polygons(content: str) -> str:
    """JSON with well-formed polygons made strings. Inside a string the quotes before them would be escaped."""
    pieces = _LIKELY.split(content)
    polygons = pieces[1::2]
    if any(mark in content for mark in "\n\r\t"):
        polygons = list(map(_in_one_line, polygons))
    if not polygons_only(polygons):
        return _SEGMENTATION.sub(lambda found: f'"{POLYGONS}":"{_in_one_line(found[1])}"', content)
    pieces[1::2] = [f'"{POLYGONS}":"{text}"' for text in polygons]
    return "".join(pieces)


def _in_one_line(polygons: str) -> str:
    """Without the line breaks and tabs that a string must not hold, and without space after numbers and brackets."""
    return " ".join(polygons.split()).replace(" ,", ",").replace(" ]", "]")


def _annotation(number: int | str, row: dict[str, Any]) -> Annotation | Plain:
    """The annotation of a row. Raises ValueError that says what is wrong with it."""
    get: Callable[..., Any] = row.get
    shape = get(POLYGONS)
    if shape is None:
        shape = _segmentation(get("segmentation"))
    values, area, category = get("bbox"), get("area"), get("category_id")
    box = _box_around(shape) if values is None and shape is not None else _box(values)
    if type(category) is not int:
        raise ValueError(f"there is no category with id {brief(category)}")
    area = float(area) if type(area) in _NUMBERS else None
    if _USUAL.issuperset(row):
        return number, category, box, shape, bool(get("iscrowd")), area
    return Annotation(
        number, category, box, _shape(shape), bool(get("iscrowd")), area, text(get("annotator")), text(get("tool")),
        text(get("time")), _keypoints(row["keypoints"]) if "keypoints" in row else None, bool(get("difficult")),
        bool(get("truncated")),
    )  # fmt: skip


def _whole(plain: Plain) -> Annotation:
    number, category, box, shape, crowd, area = plain
    return Annotation.usual(number, category, box, _shape(shape), crowd, area)


def _shape(shape: Any) -> Any:
    return Polygons(shape) if type(shape) is str else shape


def _box(values: Any) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2)."""
    if type(values) is not list or len(values) != 4:
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {brief(values)}")
    x, y, w, h = values
    if type(x) is type(y) is type(w) is type(h) is float and math.isfinite(x + y + w + h):  # nearly always
        return x, y, x + w, y + h
    if not _are_numbers(values):
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {brief(values)}")
    return float(x), float(y), float(x + w), float(y + h)


def _box_around(shape: list[list[float]] | str | Mask) -> Box:
    if isinstance(shape, str):
        shape = Polygons(shape).parts
    if isinstance(shape, Mask):
        if not shape.area:
            raise ValueError("it has no box, and its mask no pixel")
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
        raise ValueError(f"segmentation must be a list of polygons or run lengths, not {brief(value)}")
    for part in value:
        if not _are_numbers(part):
            raise ValueError(f"a polygon must be x, y of three or more points, not {brief(part)}")
    return value


def _keypoints(values: Any) -> tuple[tuple[float, float, int], ...]:
    if not isinstance(values, list) or len(values) % 3 or not _are_numbers(values):
        raise ValueError(f"keypoints must be x, y and visibility of each point, not {brief(values)}")
    return tuple((float(x), float(y), int(v)) for x, y, v in zip(values[0::3], values[1::3], values[2::3]))


def _are_numbers(values: list[Any]) -> bool:
    try:
        return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))
    except OverflowError:  # a whole number with hundreds of digits
        return False


def text(value: Any) -> str | None:
    """A value as text, None as None."""
    return None if value is None else str(value)
