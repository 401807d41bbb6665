"""YOLO: one text file a picture, one line an object, everything as fractions of the picture's width and height.

A line is the index of a class and then: x and y of the box's centre, its width and its height; or x and y of a
polygon's points, three or more; or, where `data.yaml` has `kpt_shape`, a box and its keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.files import read_text
from tracesight.data.formats.reading import NO_PICTURE, UNREADABLE, Format, Reading, bad_picture
from tracesight.data.formats.yolo_places import (
    CLASS_FILES,
    YAML,
    Layout,
    has_labels,
    label_of,
    layout_of,
    pictures_of,
    strays,
    yaml_of,
)
from tracesight.data.formats.yolo_writer import write_yolo
from tracesight.data.pictures import picture_size
from tracesight.data.points import numbered_points
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError

BACKGROUND = Kind(
    "label-file-missing", "warning", "pictures without a label file", "label them, unless they show no object",
    "taken to show no object",
)  # fmt: skip
_MOST = 1e12  # what fractions of a picture stay below, so that no pixel overflows
_DIGITS = 4  # of a pixel; what fractions of 8 digits give back exactly


def read_yolo(path: Path, split: str | None = None) -> Reading:
    """Read a `data.yaml`, a folder with one, or a folder with `classes.txt`.

    split: what `data.yaml` calls so (a folder, a list of folders, or a .txt file that lists pictures), or the folder of
    that name in `images`; None: `images`, or else all pictures below the folder. The size of a picture comes from its
    header. Polygons get the box around them. A picture whose label file is empty or missing shows no object.
    Raises UserError: no class has a name, a path is missing or leads out of the folder, the YAML is not plain.
    """
    layout = layout_of(path)
    if split is not None and split not in layout.parts:
        raise UserError(f"{layout.file}: has no {split}")
    pictures = pictures_of(layout, split)
    for stray in strays(layout, [file for _, file in pictures]):
        if stray.name not in CLASS_FILES:
            layout.faults.append(Finding(NO_PICTURE, str(stray), "there is no picture of this name"))
    categories = {layout.ids[number]: name for number, name in layout.names.items()}
    points = layout.point_names
    if layout.points is not None and layout.swaps is not None:
        unnamed = numbered_points(layout.points[0])
        points = {number: replace(points.get(number, unnamed), swaps=layout.swaps) for number in categories}
    return Reading(layout.file, categories, _records(layout, pictures), faults=layout.faults, keypoints=points)


def fits_yolo(path: Path) -> bool:
    """Whether a file or folder is one, by a .yaml file that names classes, or by label files of numbers."""
    if path.is_file():
        return path.suffix.lower() in YAML
    try:
        if yaml_of(path) is not None:
            return True
    except UserError:  # several of them, which reading then says
        return True
    return has_labels(path)


def splits_of_yolo(path: Path) -> Sequence[str]:
    """The parts that `data.yaml` has, or the folders of parts in `images`."""
    if not fits_yolo(path):
        return []
    try:
        return list(layout_of(path).parts)
    except UserError:  # which reading then says
        return []


def _records(layout: Layout, pictures: Sequence[tuple[str, Path]]) -> Iterator[Record]:
    number = 0
    for name, path in pictures:
        try:
            height, width = picture_size(path)
        except UserError as error:
            layout.faults.append(bad_picture(error, path))
            continue
        number += 1
        file = label_of(layout.base, path)
        yield Record(
            number, path, width, height, _objects(layout, file, path, width, height), name=name, label_file=file
        )


def _objects(layout: Layout, file: Path, picture: Path, width: int, height: int) -> tuple[Annotation, ...]:
    if not file.is_file():
        layout.faults.append(Finding(BACKGROUND, str(picture), f"there is no label file {file.name}", picture))
        return ()
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        layout.faults.append(Finding(UNREADABLE, str(file), str(error), picture))
        return ()
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_object(layout, number, line.split(), width, height))
        except ValueError as error:
            layout.faults.append(Finding(UNREADABLE, f"{file}: line {number}", str(error), picture))
    return tuple(objects)


def _object(layout: Layout, number: int, words: Sequence[str], width: int, height: int) -> Annotation:
    """The object of a line. Raises ValueError that says what is wrong with it."""
    try:
        index, *values = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"a line must be numbers, not {' '.join(words)[:60]!r}") from None
    if not all(abs(value) < _MOST for value in (index, *values)) or index != int(index):
        raise ValueError(f"a line must be a whole number and finite ones, not {' '.join(words)[:60]!r}")
    category = layout.ids.get(int(index), int(index))  # one without a name is for the checks to find
    if layout.points is not None and len(values) != 4:
        count, size = layout.points
        if len(values) != 4 + count * size:
            wanted = f"a box and {count} keypoints of {size} numbers"
            raise ValueError(f"a line must be a class and {wanted}, not {len(values)} numbers")
        rows = [values[at : at + size] for at in range(4, len(values), size)]
        points = tuple(_point(row, width, height) for row in rows)
        return Annotation(number, category, _box(values[:4], width, height), keypoints=points)
    if len(values) == 4:
        return Annotation(number, category, _box(values, width, height))
    if len(values) < 6 or len(values) % 2:
        wanted = "a class and x, y, width, height, or x, y of three or more points"
        raise ValueError(f"a line must be {wanted}, not a class and {len(values)} numbers")
    xs = [round(value * width, _DIGITS) for value in values[0::2]]
    ys = [round(value * height, _DIGITS) for value in values[1::2]]
    polygon = [value for point in zip(xs, ys) for value in point]
    return Annotation(number, category, (min(xs), min(ys), max(xs), max(ys)), [polygon])


def _box(values: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    x, y, w, h = values
    left, top, right, bottom = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    return round(left, _DIGITS), round(top, _DIGITS), round(right, _DIGITS), round(bottom, _DIGITS)


def _point(values: Sequence[float], width: int, height: int) -> tuple[float, float, int]:
    """A keypoint; one without a visibility is seen unless it lies at the origin."""
    if len(values) > 2 and values[2] not in (0, 1, 2):
        said = f"0 (not labelled), 1 (hidden) or 2 (visible), not {values[2]:g}"
        raise ValueError(f"the visibility of a keypoint must be {said}")
    x, y = round(values[0] * width, _DIGITS), round(values[1] * height, _DIGITS)
    return x, y, int(values[2]) if len(values) > 2 else 2 if x or y else 0


FORMAT = Format(fits_yolo, splits_of_yolo, read_yolo, write_yolo)
