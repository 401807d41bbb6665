"""Keypoints that cannot be where the labels say: seen outside the picture, or labelled at the origin of coordinates."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

SLACK = 1.0  # pixels, as of a box
VISIBLE = 2

OUTSIDE = Kind(
    "keypoint-outside", "error", "visible keypoints outside their picture", "correct it, or mark it as not labelled",
    "taken for not labelled",
)  # fmt: skip
ORIGIN = Kind(
    "keypoint-at-origin", "warning", "keypoints at (0, 0), outside their box, that are marked as labelled",
    "mark it as not labelled", "taken for not labelled",
)  # fmt: skip


def keypoint_outside(record: Record, labels: Labels) -> Found:
    """Points at (0, 0) first: there labels put those that nobody labelled."""
    if not any(annotation.keypoints for annotation in record.annotations):
        return record, ()
    record, origin = each(record, labels, _at_origin)

    def judge(annotation: Annotation) -> Verdict | None:
        points = annotation.keypoints or ()
        far = [k for k, (x, y, seen) in enumerate(points) if seen == VISIBLE and _out(x, y, record) > SLACK]
        if not far:
            return None
        x, y, _ = points[far[0]]
        message = f"keypoint {far[0] + 1} at {brief((x, y))} is visible outside the picture of "
        return OUTSIDE, f"{message}{record.width} × {record.height}{_more(far)}", _not_labelled(annotation, far)

    record, outside = each(record, labels, judge)
    return record, [*origin, *outside]


def _at_origin(annotation: Annotation) -> Verdict | None:
    x1, y1, _, _ = annotation.box
    points = annotation.keypoints or ()
    at = [k for k, (x, y, seen) in enumerate(points) if x == y == 0 and seen > 0 and (x1 > SLACK or y1 > SLACK)]
    if not at:
        return None
    return ORIGIN, f"keypoint {at[0] + 1} is marked as labelled at (0, 0){_more(at)}", _not_labelled(annotation, at)


def _not_labelled(annotation: Annotation, which: list[int]) -> Annotation:
    assert annotation.keypoints is not None
    points = tuple((x, y, 0) if k in which else (x, y, seen) for k, (x, y, seen) in enumerate(annotation.keypoints))
    return replace(annotation, keypoints=points)


def _out(x: float, y: float, record: Record) -> float:
    """By how many pixels a point lies outside."""
    return max(-x, -y, x - record.width, y - record.height)


def _more(which: list[int]) -> str:
    return f" (and {len(which) - 1} more)" if len(which) > 1 else ""
