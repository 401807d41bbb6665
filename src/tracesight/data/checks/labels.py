"""Checks of the labels of one picture, without the picture: what they look like and in which order they run.

A check takes a record and gives it back put right, with what it found. Each one sees what those before it left, so
that a fault is told once: a box whose corners were swapped is not without area as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tracesight.data.checks.box_alike import box_alike
from tracesight.data.checks.box_empty import box_empty
from tracesight.data.checks.box_inverted import box_inverted
from tracesight.data.checks.box_outside import box_outside
from tracesight.data.checks.box_small import box_small
from tracesight.data.checks.box_twice import box_twice
from tracesight.data.checks.category_unknown import category_unknown
from tracesight.data.checks.label_check import Found, LabelCheck, Labels
from tracesight.data.checks.mask_in_box import mask_in_box
from tracesight.data.checks.mask_size import mask_size
from tracesight.data.checks.polygon_crossing import polygon_crossing
from tracesight.data.checks.polygon_points import polygon_points
from tracesight.data.finding import Finding
from tracesight.data.record import Record


def boxes(record: Record, labels: Labels) -> Found:
    """Boxes that are inverted, empty or outside, unless one look at all of them tells that none is."""
    width, height = record.width, record.height
    for annotation in record.annotations:
        x1, y1, x2, y2 = annotation.box
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            break
    else:
        return record, ()
    return in_turn((box_inverted, box_empty, box_outside), record, labels)


def in_turn(checks: Sequence[LabelCheck], record: Record, labels: Labels) -> Found:
    """The record put right by each check after the other, and what all of them found."""
    findings: list[Finding] = []
    for check in checks:
        record, found = check(record, labels)
        findings += found
    return record, findings


# Quick enough for every label that is read; none of them draws a mask or opens a picture.
LABEL_CHECKS: tuple[LabelCheck, ...] = (category_unknown, boxes, polygon_points, mask_size, box_twice)
# The others, for `tracesight data check` and before a training.
THOROUGH_CHECKS: tuple[LabelCheck, ...] = (box_small, mask_in_box, polygon_crossing, box_alike)


def checked(
    record: Record, categories: Mapping[int, str], path: Path, checks: Sequence[LabelCheck] = LABEL_CHECKS
) -> Found:
    """The record put right, and what was wrong with it. path: the file or folder that holds the set's labels."""
    return in_turn(checks, record, Labels(categories, path))
