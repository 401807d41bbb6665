"""The arrays of a COCO file, read once: every annotation becomes an `Annotation` as it comes, in any order of keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from tracesight.data.finding import Finding
from tracesight.data.formats.coco_columns import NONE, POLYGONS, Columns, Texts, are_numbers, by_picture, columns_of
from tracesight.data.formats.files import brief
from tracesight.data.formats.json_rows import NotJSON, scan_rows
from tracesight.data.formats.reading import ANNOTATION_ID, UNREADABLE
from tracesight.data.polygons import Polygons
from tracesight.data.record import Annotation, Box, Plain
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

NEEDED = ("images", "annotations", "categories")
# What is kept of a picture's row.
OF_IMAGES = (
    "id", "file_name", "coco_url", "width", "height", "license", "source", "sensor", "date_captured", "group",
    "neg_category_ids", "not_exhaustive_category_ids",
)  # fmt: skip

# The fields of most annotations; only what has others is looked through for them.
_USUAL = frozenset({"id", "image_id", "category_id", "bbox", "segmentation", POLYGONS, "area", "iscrowd"})


class Wrong(NamedTuple):
    """An annotation that cannot be read."""

    id: int | str
    message: str


@dataclass
class Rows:
    """What a file holds.

    columns: the usual annotations; odd: by image_id the others, with their places in the file's array. texts: polygons.
    ids: of annotations. boxless: ids of those whose box is that of their mask. about: texts and numbers of `info`.
    faults: what is wrong with annotations and needs no picture to be told. count: of annotations so far.
    """

    path: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    licences: list[Any] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=lambda: [NONE])
    odd: dict[Any, list[tuple[int, Annotation | Wrong]]] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)
    ids: set[int | str] = field(default_factory=set)
    boxless: set[int | str] = field(default_factory=set)
    about: dict[str, str] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    count: int = 0

    def set_about(self, info: Any) -> None:
        if isinstance(info, dict):
            texts = {key: str(value).strip() for key, value in info.items() if isinstance(value, str | int | float)}
            self.about = {key: value for key, value in texts.items() if value}

    def add_images(self, rows: Sequence[Any]) -> None:
        _only_objects(rows, "images")
        self.images += [{key: row[key] for key in OF_IMAGES if key in row} for row in rows]

    def add_categories(self, rows: Sequence[Any]) -> None:
        _only_objects(rows, "categories")
        self.categories += rows

    def add_annotations(self, rows: Sequence[Any]) -> None:
        _only_objects(rows, "annotations")
        columns = columns_of(rows, self.count, self.texts)
        if columns is None or not self.ids.isdisjoint(numbers := columns.id.tolist()):
            for row in rows:
                self._add_annotation(row)
            return
        self.count += len(rows)
        self.ids.update(numbers)
        self.columns.append(columns)

    def _add_annotation(self, row: dict[str, Any]) -> None:
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
            item = _annotation(number, row, self.texts)
        except ValueError as error:
            item = Wrong(number, str(error))
        else:
            if row.get("bbox") is None:
                self.boxless.add(number)
        self.odd.setdefault(picture if type(picture) is int else brief(picture), []).append((self.count - 1, item))

    def objects(self, pictures: Sequence[int]) -> Iterator[tuple[list[Plain], list[Annotation | Wrong]]]:
        """The objects of each of these pictures, in the order of the file: as plain values where all of them are usual,
        else as what they are. Nothing can be added any more once they are asked for."""
        for picture, (places, plain) in zip(pictures, by_picture(self.columns, self.texts, pictures)):
            if picture not in self.odd:
                yield plain, []
            else:
                every = [*zip(places, map(whole, plain)), *self.odd[picture]]
                yield [], [item for _, item in sorted(every, key=itemgetter(0))]

    def pictures(self) -> set[Any]:
        """Every image_id of an annotation."""
        return {*self.odd, *(number for columns in self.columns for number in columns.picture.tolist())}

    def _free(self, number: int | str) -> str:
        count = 2
        while f"{number}~{count}" in self.ids:
            count += 1
        return f"{number}~{count}"


def rows_of(path: Path) -> Rows:
    """Read a file once. Raises UserError: not JSON, not COCO's arrays, or not to be read at all."""
    rows = Rows(path)
    take = {
        "images": rows.add_images, "annotations": rows.add_annotations, "categories": rows.add_categories,
        "licenses": rows.licences.extend,
    }  # fmt: skip
    try:
        keys = scan_rows(path, take, rows.texts.keep, {"info": rows.set_about})
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


def _only_objects(rows: Sequence[Any], key: str) -> None:
    if not {dict}.issuperset(map(type, rows)):
        raise ValueError(f"{key!r} must be a list of objects")


def _annotation(number: int | str, row: dict[str, Any], texts: Texts) -> Annotation:
    """The annotation of a row. Raises ValueError that says what is wrong with it."""
    get: Callable[..., Any] = row.get
    shape = _segmentation(get("segmentation"))
    if (text_number := get(POLYGONS)) is not None:
        if type(text_number) is not int or not 0 <= text_number < len(texts):
            raise ValueError(f"{POLYGONS!r} is a name that is used here; call it something else")
        shape = Polygons(texts[text_number])
    values, area, category = get("bbox"), get("area"), get("category_id")
    box = _box_around(shape) if values is None and shape is not None else _box(values)
    if type(category) is not int:
        raise ValueError(f"there is no category with id {brief(category)}")
    area = float(area) if are_numbers([area]) else None
    if _USUAL.issuperset(row):
        return Annotation(number, category, box, shape, bool(get("iscrowd")), area)
    return Annotation(
        number, category, box, shape, bool(get("iscrowd")), area, text(get("annotator")), text(get("tool")),
        text(get("time")), _keypoints(get("keypoints")), bool(get("difficult")),
        bool(get("truncated")),
    )  # fmt: skip


def whole(plain: Plain) -> Annotation:
    """The annotation of a usual row."""
    number, category, box, shape, crowd, area = plain
    return Annotation(number, category, box, None if shape is None else Polygons(shape), crowd, area)


def _box(values: Any) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2)."""
    if type(values) is not list or len(values) != 4:
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {brief(values)}")
    x, y, w, h = values
    if type(x) is type(y) is type(w) is type(h) is float and math.isfinite(x + y + w + h):  # nearly always
        return x, y, x + w, y + h
    if not are_numbers(values):
        raise ValueError(f"bbox must be four numbers [x, y, width, height], not {brief(values)}")
    return float(x), float(y), float(x + w), float(y + h)


def _box_around(shape: Sequence[list[float]] | Mask) -> Box:
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
        if not are_numbers(part):
            raise ValueError(f"a polygon must be x, y of three or more points, not {brief(part)}")
    return value


def _keypoints(values: Any) -> tuple[tuple[float, float, int], ...] | None:
    if values is None or values == []:
        return None
    if not isinstance(values, list) or len(values) % 3 or not are_numbers(values):
        raise ValueError(f"keypoints must be x, y and visibility of each point, not {brief(values)}")
    odd = next((seen for seen in values[2::3] if seen not in (0, 1, 2)), None)
    if odd is not None:
        raise ValueError(f"the visibility of a keypoint must be 0 (not labelled), 1 (hidden) or 2 (visible), not {odd}")
    return tuple((float(x), float(y), int(v)) for x, y, v in zip(values[0::3], values[1::3], values[2::3]))


def text(value: Any) -> str | None:
    """A value as text, None as None."""
    return None if value is None else str(value)
