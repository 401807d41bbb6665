"""Objects that have more or fewer keypoints than their category."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

KIND = Kind(
    "keypoint-count", "error", "objects with other keypoints than their category has", "correct or remove them",
    "their keypoints left out",
)  # fmt: skip


def keypoint_count(record: Record, labels: Labels) -> Found:
    """A category whose keypoints have names has as many of them on every object, not labelled ones included."""

    def judge(annotation: Annotation) -> Verdict | None:
        points = labels.points.get(annotation.category_id)
        if annotation.keypoints is None or points is None or len(annotation.keypoints) == len(points.names):
            return None
        message = f"it has {len(annotation.keypoints)} keypoints, its category {len(points.names)}"
        return KIND, message, replace(annotation, keypoints=None)

    return each(record, labels, judge)
