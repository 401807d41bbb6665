"""labelme: one JSON file a picture, with shapes that people drew (https://github.com/wkentaro/labelme).

Polygons, circles and masks are objects with a mask, rectangles with a box alone. Shapes of one label that share a
`group_id` are parts of one object. Flags of the picture that are set are its categories as a whole; the flags `crowd`,
`difficult` and `truncated` of a shape mean what they say.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.files import by_name, files_below, inside, is_ours, pictures_below, read_text
from tracesight.data.formats.labelme_writer import write_labelme
from tracesight.data.formats.reading import (
    NO_PICTURE,
    OUTSIDE_FOLDER,
    UNLABELLED,
    UNREADABLE,
    Format,
    Numbers,
    Reading,
    size_of_picture,
)
from tracesight.data.pictures import PICTURE_SUFFIXES, PILLOW_FORMATS
from tracesight.data.record import Annotation, Box, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

NO_AREA = Kind(
    "shape-without-area", "warning", "shapes that have no area: points and lines", "draw a polygon or box", "left out"
)
JSON = frozenset({".json"})
_MOST = 1e12  # pixels, below which nothing overflows
_CIRCLE = 72  # corners of the polygon that stands for a circle: within 0.1 % of its radius
_LOOKED_AT = 20  # files from which the format is told


@dataclass
class _Part:
    """One shape: its box and its polygon or mask; neither of those for a rectangle."""

    box: Box
    polygon: list[float] | None = None
    mask: Mask | None = None


@dataclass
class _Object:
    number: int
    label: str
    flags: dict[str, Any]
    parts: list[_Part] = field(default_factory=list)


def read_labelme(path: Path, split: str | None = None) -> Reading:
    """Read all .json files in a folder and below it.

    The picture is `imagePath`, relative to the file, or else the one beside the file that is called like it. A copy of
    the picture inside the file (`imageData`) is not read. Points and lines are left out.
    Raises UserError where there is no such file.
    """
    files = [file for file in files_below(path, JSON) if not is_ours(file)]
    files.sort(key=lambda file: by_name(file.relative_to(path).as_posix()))
    if not files:
        raise UserError(f"{path}: no labelme labels in it (.json files with shapes)")
    reading = Reading(path, {}, iter(()), numbered=True)
    reading.records = _records(reading, files)
    return reading


def fits_labelme(path: Path) -> bool:
    """Whether one of the first .json files in a folder, or below it, has shapes."""
    if not path.is_dir():
        return False
    files = (file for _, file in zip(range(_LOOKED_AT), files_below(path, JSON)))
    return any(_has_shapes(file) for file in files)


def _has_shapes(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(1 << 16).replace(b"\0", b"")
    except OSError:
        return False
    return re.search(rb'"shapes"\s*:\s*\[', head) is not None and b'"images"' not in head


def _records(reading: Reading, files: Sequence[Path]) -> Iterator[Record]:
    root, numbers = reading.path, Numbers(reading.categories)
    pictures = {file.relative_to(root).as_posix(): file for file in pictures_below(root)}
    left, number = set(pictures), 0
    for file in files:
        try:
            data = _loaded(file)
        except ValueError as error:
            reading.faults.append(Finding(UNREADABLE, str(file), str(error)))
            continue
        name = _picture(reading, file, data, pictures)
        if name is None:
            continue
        if name not in left:
            message = f"another file labels {name} too"
            reading.faults.append(Finding(UNREADABLE, str(file), message, pictures[name]))
            continue
        left.discard(name)
        size = _size(reading, file, data, pictures[name])
        if size is None:
            continue
        number += 1
        width, height = size
        flags = data.get("flags")
        labels = [str(key) for key, value in flags.items() if value is True] if isinstance(flags, dict) else []
        yield Record(
            number, pictures[name], width, height, _annotations(reading, file, data, pictures[name], numbers, size),
            name=name, label_file=file, labels=tuple(numbers[label] for label in labels),
        )  # fmt: skip
    for name in sorted(left, key=by_name):
        message = f"there is no {Path(name).stem}.json"
        reading.faults.append(Finding(UNLABELLED, str(pictures[name]), message, pictures[name]))


def _loaded(file: Path) -> dict[str, Any]:
    """Raises ValueError: not text, not JSON, not labelme's."""
    try:
        data = json.loads(read_text(file))
    except RecursionError:
        raise ValueError("not JSON (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise ValueError("not a label file of labelme: it has no list of shapes")
    return data


def _picture(reading: Reading, file: Path, data: dict[str, Any], pictures: dict[str, Path]) -> str | None:
    """The name of the picture that a file is about; None, and a fault, where there is none."""
    stem = file.relative_to(reading.path).with_suffix("").as_posix()
    given = data.get("imagePath")
    if not isinstance(given, str) or not given:
        given = ""
    slashed = given.replace("\\", "/")
    name = inside(posixpath.normpath(posixpath.join(posixpath.dirname(stem), slashed))) if given else None
    if given and inside(slashed) is None and not slashed.startswith("../"):
        name = None  # absolute
    same = (f"{stem}{suffix}" for suffix in sorted(PICTURE_SUFFIXES))
    found = next((n for n in (name, *same) if n in pictures), None)
    if found is None and given and name is None:
        reading.faults.append(Finding(OUTSIDE_FOLDER, str(file), f"its picture {given} lies outside the folder"))
    elif found is None:
        copy = "; a copy of it is in the file, as imageData" if data.get("imageData") else ""
        reading.faults.append(Finding(NO_PICTURE, str(file), f"its picture {given or stem} is not there{copy}"))
    return found


def _size(reading: Reading, file: Path, data: dict[str, Any], picture: Path) -> tuple[int, int] | None:
    """(width, height) as the file says, or else as the picture has it; None where it cannot be read."""
    width, height = data.get("imageWidth"), data.get("imageHeight")
    if type(width) is int and type(height) is int and width > 0 and height > 0:
        return width, height
    return size_of_picture(reading.faults, file, picture)


def _annotations(
    reading: Reading, file: Path, data: dict[str, Any], picture: Path, numbers: Numbers, size: tuple[int, int]
) -> tuple[Annotation, ...]:
    objects: dict[Any, _Object] = {}
    for number, shape in enumerate(data["shapes"], start=1):
        where = f"{file}: shape {number}"
        try:
            label, part = _shape(shape, size)
        except ValueError as error:
            reading.faults.append(Finding(UNREADABLE, where, str(error), picture))
            continue
        if part is None:
            message = f"a {shape.get('shape_type')} has no area"
            reading.faults.append(Finding(NO_AREA, where, message, picture))
            continue
        group, flags = shape.get("group_id"), shape.get("flags")
        key = number if group is None else (label, str(group))
        item = objects.setdefault(key, _Object(number, label, flags if isinstance(flags, dict) else {}))
        item.parts.append(part)
    return tuple(_joined(item, numbers, size) for item in objects.values())


def _shape(shape: Any, size: tuple[int, int]) -> tuple[str, _Part | None]:
    """Label and what is drawn; None where that has no area. Raises ValueError."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise ValueError("it has no label")
    kind = shape.get("shape_type") or "polygon"
    if kind in ("point", "points", "line", "linestrip"):
        return shape["label"], None
    read = _KINDS.get(kind)
    if read is None:
        raise ValueError(f"{str(kind)[:40]!r} is no kind of shape")
    return shape["label"], read(_points(shape.get("points")), shape, size)


def _points(value: Any) -> list[tuple[float, float]]:
    try:
        points = [(float(x), float(y)) for x, y in value]
    except (TypeError, ValueError):
        points = [(math.nan, math.nan)]
    if not all(abs(v) < _MOST for point in points for v in point):
        raise ValueError(f"points must be pairs of numbers, not {' '.join(repr(value).split())[:60]}")
    return points


def _polygon(points: list[tuple[float, float]], shape: Any, size: tuple[int, int]) -> _Part:
    if not points:
        raise ValueError("it has no points")
    return _Part(_around(points), [v for point in points for v in point])


def _rectangle(points: list[tuple[float, float]], shape: Any, size: tuple[int, int]) -> _Part:
    if len(points) not in (2, 4):
        raise ValueError(f"a rectangle must have two or four corners, not {len(points)}")
    return _Part(_around(points))


def _circle(points: list[tuple[float, float]], shape: Any, size: tuple[int, int]) -> _Part:
    if len(points) != 2:
        raise ValueError(f"a circle must have a centre and a point on it, not {len(points)} points")
    (x, y), edge = points
    radius = math.dist(points[0], edge)
    angles = [2 * math.pi * corner / _CIRCLE for corner in range(_CIRCLE)]
    return _polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], shape, size)


def _mask(points: list[tuple[float, float]], shape: Any, size: tuple[int, int]) -> _Part:
    """A picture of the pixels of a box, whose top left one is the first of the points."""
    if len(points) != 2 or not isinstance(shape.get("mask"), str):
        raise ValueError("a mask must have two points and a picture")
    try:
        content = io.BytesIO(base64.b64decode(shape["mask"], validate=True))
        with Image.open(content, formats=PILLOW_FORMATS) as image:
            pixels = np.asarray(image.convert("L")) > 0
    except (binascii.Error, ValueError):
        raise ValueError("its mask is not base64") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ValueError(f"its mask is no picture ({' '.join(str(error).split())[:80]})") from None
    left, top = (math.floor(min(values) + 0.5) for values in zip(*points))
    mask = Mask.from_crop(pixels, (top, left), (size[1], size[0]))
    if not mask.area:
        raise ValueError("its mask has no pixel in the picture")
    return _Part(mask.box, mask=mask)


_KINDS: dict[str, Callable[[list[tuple[float, float]], Any, tuple[int, int]], _Part]] = {
    "polygon": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask,
}  # fmt: skip


def _around(points: Sequence[tuple[float, float]]) -> Box:
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs), max(ys)


def _joined(item: _Object, numbers: Numbers, size: tuple[int, int]) -> Annotation:
    """The object of all parts. Polygons stay polygons; with a mask among them all become one mask."""
    boxes = [part.box for part in item.parts]
    box = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
    polygons = [part.polygon for part in item.parts if part.polygon is not None]
    masks = [part.mask for part in item.parts if part.mask is not None]
    annotation = Annotation(
        item.number, numbers[item.label], box, polygons or None, crowd=item.flags.get("crowd") is True,
        difficult=item.flags.get("difficult") is True, truncated=item.flags.get("truncated") is True,
    )  # fmt: skip
    if not masks:
        return annotation
    if len(masks) > 1 or polygons:
        drawn = annotation.mask(size[1], size[0])
        every = [mask.to_array() for mask in (*masks, *([] if drawn is None else [drawn]))]
        masks = [Mask.from_array(np.logical_or.reduce(every))]
    return replace(annotation, segmentation=masks[0])


FORMAT = Format(fits_labelme, lambda _: (), read_labelme, write_labelme)
