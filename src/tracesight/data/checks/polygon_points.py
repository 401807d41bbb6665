"""Polygons that are no areas: of two points or fewer, or with half a point."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

KIND = Kind("polygon-points", "error", "polygons of fewer than three points", "correct or remove it", "left out")


def polygon_points(record: Record, labels: Labels) -> Found:
    """A polygon needs x and y of three or more points. An object whose last polygon goes has no mask then."""

    def judge(annotation: Annotation) -> Verdict | None:
        parts = annotation.segmentation
        if not isinstance(parts, list | tuple):  # `Polygons` have been checked
            return None
        sound = [part for part in parts if len(part) >= 6 and len(part) % 2 == 0]
        if len(sound) == len(parts):
            return None
        wrong = next(part for part in parts if len(part) < 6 or len(part) % 2)
        message = f"a polygon must be x, y of three or more points, not {len(wrong)} numbers"
        return KIND, message, replace(annotation, segmentation=sound or None)

    return each(record, labels, judge)
