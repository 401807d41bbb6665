"""The objects of several pictures as arrays: a first look that tells which of them a check has to look at.

Nearly all labels are sound. To find that out of one picture after the other takes most of a check's time, and of many
together hardly any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from pydantic_core import from_json

from tracesight.data.checks.label_check import LabelCheck
from tracesight.data.record import FIELDS_OF_ANNOTATION, Record

_CATEGORY, _BOX, _SHAPE, _CROWD, _KEYPOINTS, _DIFFICULT = map(
    FIELDS_OF_ANNOTATION.index, ("category_id", "box", "segmentation", "crowd", "keypoints", "difficult")
)


@dataclass(frozen=True, eq=False)
class Many:
    """The objects of some records.

    counts (records,) int64: how many each has. record (n,) int64: whose they are, ascending. category (n,) int64: its
    position. box (n, 4) float64. crowd, ignored (n,) bool. size (n, 2) int64: (height, width) of the picture. shapes:
    n masks, as in `record.Plain`. keypoints: of each object, as in `Annotation`; empty where none has any.
    """

    counts: np.ndarray
    record: np.ndarray
    category: np.ndarray
    box: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    size: np.ndarray
    shapes: Sequence[Any]
    keypoints: Sequence[Any]

    @cached_property
    def masked(self) -> np.ndarray:
        """(n,) bool: there is a mask."""
        return np.array([shape is not None for shape in self.shapes], np.bool_)

    @cached_property
    def outlines(self) -> Outlines:
        """The polygons of all objects that have some and are not ignored."""
        owner: list[int] = []
        parts: list[Sequence[float]] = []
        some_have = not {str, list}.isdisjoint(map(type, self.shapes))
        for at, shape in enumerate(self.shapes if some_have else ()):
            if (type(shape) is str or type(shape) is list) and not self.ignored[at]:
                some = from_json(shape) if isinstance(shape, str) else shape
                owner += [at] * len(some)
                parts += some
        counts = np.fromiter(map(len, parts), np.int64, len(parts)) // 2
        points = np.fromiter(chain.from_iterable(parts), np.float64).reshape(-1, 2)
        return Outlines(np.array(owner, np.int64), counts, points)

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of all objects: whose they are (p,) int64, ascending, and x, y and visibility (p, 3)."""
        each = [points or () for points in self.keypoints]
        owner = np.repeat(np.arange(len(each)), np.fromiter(map(len, each), np.int64, len(each)))
        flat = np.fromiter(chain.from_iterable(chain.from_iterable(each)), np.float64, 3 * len(owner))
        return owner, flat.reshape(-1, 3)

    def any_of(self, objects: np.ndarray) -> np.ndarray:
        """(records,) bool: of each record whether this holds for one of its objects: (n,) bool, or those that it does
        as positions."""
        return np.bincount(self.record[objects], minlength=len(self.counts)) > 0


@dataclass(frozen=True, eq=False)
class Outlines:
    """Polygons. owner (parts,): the objects, ascending. counts (parts,): points of each. points (all of them, 2)."""

    owner: np.ndarray
    counts: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Thorough:
    """A check of labels, and which pictures it has to look at: (records,) bool, True where it may find something."""

    check: LabelCheck
    doubts: Callable[[Many], np.ndarray]


def many(records: Sequence[Record], position: Mapping[int, int]) -> Many:
    """position: of each category id."""
    plain = [record.plain_annotations() for record in records]
    counts = np.fromiter(map(len, plain), np.int64, len(plain))
    record = np.repeat(np.arange(len(plain)), counts)
    columns = [*zip_longest(*chain.from_iterable(plain))] or [()] * len(FIELDS_OF_ANNOTATION)
    boxes = np.fromiter(chain.from_iterable(columns[_BOX]), np.float64, 4 * len(record)).reshape(-1, 4)
    crowd = np.array(columns[_CROWD], np.bool_)
    difficult = np.array(columns[_DIFFICULT] if len(columns) > _DIFFICULT else crowd, np.bool_)
    size = np.array([(record.height, record.width) for record in records], np.int64).reshape(-1, 2)
    return Many(
        counts, record, np.array([position[number] for number in columns[_CATEGORY]], np.int64), boxes,
        crowd, crowd | difficult, size[record], columns[_SHAPE],
        columns[_KEYPOINTS] if len(columns) > _KEYPOINTS else (),
    )  # fmt: skip
