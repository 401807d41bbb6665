"""Boxes without area."""

from __future__ import annotations

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

KIND = Kind("box-empty", "error", "boxes without area", "correct or remove it", "removed")


def box_empty(record: Record, labels: Labels) -> Found:
    """A box with x1 = x2 or y1 = y2."""

    def judge(annotation: Annotation) -> Verdict | None:
        x1, y1, x2, y2 = annotation.box
        return None if x1 != x2 and y1 != y2 else (KIND, f"the box {brief(annotation.box)} has no area", None)

    return each(record, labels, judge)
