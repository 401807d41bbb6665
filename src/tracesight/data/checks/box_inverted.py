"""Boxes whose corners are the wrong way round."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

KIND = Kind("box-inverted", "error", "boxes with corners swapped", "correct or remove it", "their corners swapped back")


def box_inverted(record: Record, labels: Labels) -> Found:
    """A box with x2 < x1 or y2 < y1."""

    def judge(annotation: Annotation) -> Verdict | None:
        x1, y1, x2, y2 = annotation.box
        if x1 <= x2 and y1 <= y2:
            return None
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        return KIND, f"the box {brief(annotation.box)} is inverted", replace(annotation, box=box)

    return each(record, labels, judge)
