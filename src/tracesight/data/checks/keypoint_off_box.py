"""Keypoints that lie far from the box of their object."""

from __future__ import annotations

import numpy as np

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.checks.many import Many
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

FAR = 0.25  # of the box's longer side, between its edge and the point

KIND = Kind(
    "keypoint-off-box", "warning", "keypoints far outside the box of their object", "look which of the two is right"
)


def keypoint_off_box(record: Record, labels: Labels) -> Found:
    """Labelled ones. A box around what is visible may leave out a hidden foot, and rarely more."""

    def judge(annotation: Annotation) -> Verdict | None:
        if annotation.crowd or not annotation.keypoints:
            return None
        x1, y1, x2, y2 = annotation.box
        far = FAR * max(x2 - x1, y2 - y1)
        for number, (x, y, seen) in enumerate(annotation.keypoints, start=1):
            out = max(x1 - x, y1 - y, x - x2, y - y2)
            if seen > 0 and out > far:
                message = (
                    f"keypoint {number} at {brief((x, y))} lies {out:.3g} px outside the box {brief(annotation.box)}"
                )
                return KIND, message, annotation
        return None

    return each(record, labels, judge)


def keypoint_off_box_doubts(many: Many) -> np.ndarray:
    """See `Thorough`."""
    owner, points = many.points
    box, place = many.box[owner], points[:, :2]
    out = np.maximum(box[:, :2] - place, place - box[:, 2:]).max(1)
    return many.any_of(owner[(points[:, 2] > 0) & (out > FAR * (box[:, 2:] - box[:, :2]).max(1))])
