"""Boxes too small to be of an object: of a single pixel, or less than a pixel wide or high."""

from __future__ import annotations

import numpy as np

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.checks.many import Many
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

PIXEL = Kind(
    "box-one-pixel", "warning", "boxes of a single pixel and no mask: a click instead of a box", "draw it or remove it",
    "removed",
)  # fmt: skip
THIN = Kind("box-thin", "warning", "boxes less than a pixel wide or high", "look whether there is an object")
_ONE = 1.0 + 1e-6  # a pixel, after adding and subtracting


def box_small(record: Record, labels: Labels) -> Found:
    """A box of at most one pixel without a mask (VOC's xmin = xmax and ymin = ymax), or with a side under a pixel."""

    def judge(annotation: Annotation) -> Verdict | None:
        x1, y1, x2, y2 = annotation.box
        w, h = x2 - x1, y2 - y1
        if w > _ONE and h > _ONE:
            return None
        if w <= _ONE and h <= _ONE and annotation.segmentation is None and not annotation.ignored:
            return PIXEL, f"the box {brief(annotation.box)} is one pixel, and there is no mask", None
        if min(w, h) < 1 - 1e-6:
            return THIN, f"the box {brief(annotation.box)} is {w:.3g} × {h:.3g} pixels", annotation
        return None

    return each(record, labels, judge)


def box_small_doubts(many: Many) -> np.ndarray:
    """See `Thorough`."""
    sides = many.box[:, 2:] - many.box[:, :2]
    return many.any_of(sides.min(1) <= _ONE)
