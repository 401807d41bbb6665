"""Keypoints by name: those that a category's objects have, those of a set, and those of one object for a scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tracesight.errors import UserError
from tracesight.scene.scene import Keypoint

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset


@dataclass(frozen=True)
class Keypoints:
    """The points that the objects of one category have.

    names: in the order of `Annotation.keypoints`. skeleton: which of them are joined, as pairs of positions from 0.
    swaps: pairs of positions of points that a mirror makes of each other; None: the names tell.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    swaps: tuple[tuple[int, int], ...] | None = None

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each point the position of the one that it is in a mirror: a left eye becomes a right one.

        Without `swaps` these are the points whose names differ in "left" and "right" alone; any other is its own.
        """
        place = list(range(len(self.names)))
        swaps = self.swaps
        if swaps is None:
            lower = [name.lower() for name in self.names]
            twins = {name: name.replace("left", "right", 1) for name in lower if "left" in name}
            swaps = [(lower.index(a), lower.index(b)) for a, b in twins.items() if b in lower]
        for a, b in swaps:
            place[a], place[b] = b, a
        return tuple(place)


# COCO's person, the points in COCO's order; its skeleton joins them as pairs of positions from 0.
PERSON = Keypoints(
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    (
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
)  # fmt: skip


def with_points(dataset: Dataset) -> Dataset:
    """The same data, where `keypoints` has every category whose objects have points: those without names get "1", "2"…

    Raises UserError: an object has other points than its category; two points of a category have one name.
    """
    known = dict(dataset.keypoints)
    for record in dataset:
        for a in record.annotations:
            if a.keypoints is None:
                continue
            points = known.setdefault(a.category_id, numbered_points(len(a.keypoints)))
            if len(a.keypoints) != len(points.names):
                raise UserError(
                    f"{record.path}: annotation {a.id} has {len(a.keypoints)} keypoints, and its category "
                    f"{len(points.names)}; correct its labels"
                )
    for number, points in known.items():
        if len(set(points.names)) < len(points.names):
            raise UserError(f"{dataset.path}: category {number} has two keypoints of one name; rename one")
    return dataset if known == dataset.keypoints else replace(dataset, keypoints=dict(sorted(known.items())))


def numbered_points(count: int, swaps: tuple[tuple[int, int], ...] | None = None) -> Keypoints:
    """Points that have no names: "1", "2"…"""
    return Keypoints(tuple(str(number) for number in range(1, count + 1)), swaps=swaps)


def named_points(values: Iterable[tuple[float, float, float]] | None, points: Keypoints | None) -> dict[str, Any]:
    """`keypoints` and `skeleton` of a `SceneObject`, of rows (x, y, score) in the order of `points`; {} without those.

    Points of score 0 are not there.
    """
    if points is None or values is None:
        return {}
    rows = [Keypoint(name, *row) for name, row in zip(points.names, values) if row[2] > 0]
    if not rows:
        return {}
    return {"keypoints": tuple(rows), "skeleton": tuple((points.names[a], points.names[b]) for a, b in points.skeleton)}


def points_to_json(points: Mapping[int, Keypoints]) -> list[dict[str, Any]]:
    """As a bundle keeps them."""
    return [
        {"id": number, "names": list(p.names), "skeleton": [list(pair) for pair in p.skeleton],
         "swaps": None if p.swaps is None else [list(pair) for pair in p.swaps]}
        for number, p in points.items()
    ]  # fmt: skip


def points_from_json(rows: Iterable[Mapping[str, Any]]) -> dict[int, Keypoints]:
    """Of what `points_to_json` gave."""

    def pairs(values: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
        return tuple((int(a), int(b)) for a, b in values)

    return {
        int(row["id"]): Keypoints(
            tuple(map(str, row["names"])), pairs(row["skeleton"]), None if row["swaps"] is None else pairs(row["swaps"])
        )
        for row in rows
    }
