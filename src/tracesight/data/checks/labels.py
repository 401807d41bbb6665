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
from tracesight.data.checks.label_check import LabelCheck, Labels
from tracesight.data.checks.mask_in_box import mask_in_box
from tracesight.data.checks.mask_size import mask_size
from tracesight.data.checks.polygon_crossing import polygon_crossing
from tracesight.data.checks.polygon_points import polygon_points
from tracesight.data.finding import Finding
from tracesight.data.record import Record

# Quick enough for every label that is read; none of them draws a mask or opens a picture.
LABEL_CHECKS: tuple[LabelCheck, ...] = (
    category_unknown, box_inverted, box_empty, box_outside, polygon_points, mask_size, box_twice,
)  # fmt: skip
# The others, for `tracesight data check` and before a training.
THOROUGH_CHECKS: tuple[LabelCheck, ...] = (box_small, mask_in_box, polygon_crossing, box_alike)


def checked(
    record: Record, categories: Mapping[int, str], path: Path, checks: Sequence[LabelCheck] = LABEL_CHECKS
) -> tuple[Record, list[Finding]]:
    """The record put right, and what was wrong with it. path: the file or folder that holds the set's labels."""
    labels, findings = Labels(categories, path), []
    for check in checks:
        record, found = check(record, labels)
        findings += found
    return record, findings
