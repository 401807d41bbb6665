"""The usual annotations of a COCO file as columns, and all of its polygons as one text.

A million annotations as Python objects lie scattered over the memory, and to fetch them from there takes longer than to
read the file. In columns they take a tenth of the room, and become objects again a few pictures at a time.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from tracesight.data.formats.polygon_text import polygons_only
from tracesight.data.record import Plain

# Polygons stay text, and in their place, under a key of their own, stands their number: to parse all of their numbers
# would take longer than all the rest. Only what is well-formed and of three or more points is kept so; the rest is
# parsed, and what is wrong with it found.
POLYGONS = "segmentation as text"
_LIKELY = re.compile(r'"segmentation"\s*+:\s*+(\[\s*+\[[-0-9.,\[\] \t\r\n]*\])', re.ASCII)
_NUMBER = r"-?+(?:0|[1-9]\d*+)(?:\.\d++)?+"
_PAIR = rf"{_NUMBER},\s*+{_NUMBER}"
_PART = rf"\[\s*+{_PAIR}(?:,\s*+{_PAIR}){{2,}}+\s*+\]"
_SEGMENTATION = re.compile(rf'"segmentation"\s*+:\s*+(\[\s*+{_PART}(?:\s*+,\s*+{_PART})*+\s*+\])', re.ASCII)

# What a usual annotation has, and all that it may have.
_NEEDED = {"id", "image_id", "category_id", "bbox"}
_USUAL = _NEEDED | {POLYGONS, "segmentation", "iscrowd", "area"}
_NO_POLYGONS = -1
_NUMBERS = frozenset({int, float})
_TOGETHER = 512  # pictures whose annotations become objects together, few enough for a cache


class Texts:
    """Polygons as text, one behind the other. `[number]` is one of them."""

    def __init__(self) -> None:
        self.joined, self.starts = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> str:
        return self.joined[self.starts[number] : self.starts[number + 1] - 1].decode()

    def some(self, numbers: np.ndarray) -> list[str]:
        """Several at once, and a text that is none behind them."""
        starts, joined = np.frombuffer(self.starts, np.int64), memoryview(self.joined)
        spans = zip(starts[numbers].tolist(), starts[numbers + 1].tolist())
        return b"".join([joined[start:stop] for start, stop in spans]).decode().split(";")

    def keep(self, content: str) -> str:
        """JSON with numbers in the place of well-formed polygons. In a string the quotes before them are escaped."""
        pieces = _LIKELY.split(content)
        polygons = pieces[1::2]
        if not polygons:
            return content
        if any(mark in content for mark in "\n\r\t"):
            polygons = list(map(_in_one_line, polygons))
        joined = ";".join(polygons).encode()
        if not polygons_only(joined):
            return _SEGMENTATION.sub(
                lambda found: f'"{POLYGONS}":{self._add(_in_one_line(found[1]).encode())[0]}', content
            )
        pieces[1::2] = [f'"{POLYGONS}":{number}' for number in self._add(joined)]
        return "".join(pieces)

    def _add(self, joined: bytes) -> range:
        """The numbers of these texts, between which stand semicolons."""
        first, before = len(self), len(self.joined)
        self.joined += joined
        self.joined += b";"
        ends = np.flatnonzero(np.frombuffer(joined + b";", np.uint8) == ord(";"))
        self.starts.frombytes((ends + before + 1).astype(np.int64).tobytes())
        return range(first, len(self))


class Columns(NamedTuple):
    """Annotations. place (n,) int64: where in the file's array. picture, id, category, polygons (n,) int64: its
    image_id and so on, and the number of its polygons in `Texts`, -1 for none. box (n, 4) float64: corners. crowd (n,)
    bool. area (n,) float64, NaN for none.
    """

    place: np.ndarray
    picture: np.ndarray
    id: np.ndarray
    category: np.ndarray
    polygons: np.ndarray
    box: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


_NO = np.zeros(0, np.int64)
NONE = Columns(_NO, _NO, _NO, _NO, _NO, np.zeros((0, 4)), np.zeros(0, np.bool_), np.zeros(0))


def columns_of(rows: Sequence[dict[str, Any]], first: int, texts: Texts) -> Columns | None:
    """Rows of the file's array, the first of which stands at `first`; None where one of them has to be looked at
    alone."""
    keys = rows[0].keys()
    if not _NEEDED <= keys <= _USUAL or set(map(len, rows)) != {len(keys)}:
        return None
    try:
        columns = dict(zip(keys, zip(*map(itemgetter(*keys), rows))))
    except KeyError:
        return None
    numbers, pictures, categories, boxes = (columns[key] for key in ("id", "image_id", "category_id", "bbox"))
    polygons, areas = columns.get(POLYGONS, ()), columns.get("area", ())
    if set(map(type, chain(numbers, pictures, categories, polygons))) != {int} or len(set(numbers)) < len(rows):
        return None
    if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
        return None
    values = list(chain.from_iterable(boxes))
    if not are_numbers(values) or not are_numbers(areas):
        return None
    if any(shape is not None and shape != [] for shape in columns.get("segmentation", ())):
        return None
    try:
        whole = np.array([numbers, pictures, categories, polygons or [_NO_POLYGONS] * len(rows)], np.int64)
    except OverflowError:
        return None
    if polygons and (min(polygons) < 0 or max(polygons) >= len(texts)):
        return None
    box = np.array(values, np.float64).reshape(-1, 4)
    box[:, 2:] += box[:, :2]
    number, picture, category, text = whole
    place = np.arange(first, first + len(rows))
    crowd = np.array([*map(bool, columns.get("iscrowd", ()))] or [False] * len(rows), np.bool_)
    area = np.array(areas or [np.nan] * len(rows), np.float64)
    return Columns(place, picture, number, category, text, box, crowd, area)


def by_picture(
    blocks: Sequence[Columns], texts: Texts, pictures: Sequence[int]
) -> Iterator[tuple[list[int], list[Plain]]]:
    """Of each of these pictures the places and plain values of its annotations, in the order of the file."""
    columns = Columns(*map(np.concatenate, zip(*blocks)))
    order = columns.picture.argsort(kind="stable")
    found, first = np.unique(columns.picture[order], return_index=True)
    spans = dict(zip(found.tolist(), zip(first.tolist(), [*first[1:].tolist(), len(order)])))
    for begin in range(0, len(pictures), _TOGETHER):
        some = [spans.get(picture, (0, 0)) for picture in pictures[begin : begin + _TOGETHER]]
        rows = np.concatenate([order[start:stop] for start, stop in some])
        shapes, areas = _shapes(texts, columns.polygons[rows]), columns.area[rows].tolist()
        plain = list(zip(
            columns.id[rows].tolist(), columns.category[rows].tolist(), map(tuple, columns.box[rows].tolist()), shapes,
            columns.crowd[rows].tolist(),
            [None if area != area else area for area in areas],  # NaN is not itself
        ))  # fmt: skip
        places, at = columns.place[rows].tolist(), 0
        for start, stop in some:
            yield places[at : at + stop - start], plain[at : at + stop - start]
            at += stop - start


def _shapes(texts: Texts, numbers: np.ndarray) -> Sequence[str | None]:
    """Polygons as text, None where there are none; perhaps more of them than numbers."""
    there = numbers != _NO_POLYGONS
    if there.all():
        return texts.some(numbers)
    found = iter(texts.some(numbers[there]))
    return [next(found) if there else None for there in there.tolist()]


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether all are numbers, and their sum is finite."""
    try:
        return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))
    except OverflowError:  # a whole number with hundreds of digits
        return False


def _in_one_line(polygons: str) -> str:
    """Without the line breaks and tabs that a string must not hold, and without space after numbers and brackets."""
    return " ".join(polygons.split()).replace(" ,", ",").replace(" ]", "]")
