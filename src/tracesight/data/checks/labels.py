"""Checks of the labels of one picture, without the picture: what they look like and in which order they run.

A check takes a record and gives it back put right, with what it found. Each one sees what those before it left, so
that a fault is told once: a box whose corners were swapped is not without area as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from tracesight.data.checks.box_alike import box_alike, box_alike_doubts
from tracesight.data.checks.box_empty import box_empty
from tracesight.data.checks.box_inverted import box_inverted
from tracesight.data.checks.box_outside import box_outside
from tracesight.data.checks.box_small import box_small, box_small_doubts
from tracesight.data.checks.box_twice import box_twice
from tracesight.data.checks.category_unknown import category_unknown
from tracesight.data.checks.keypoint_count import keypoint_count
from tracesight.data.checks.keypoint_off_box import keypoint_off_box, keypoint_off_box_doubts
from tracesight.data.checks.keypoint_outside import keypoint_outside
from tracesight.data.checks.label_check import Found, LabelCheck, Labels
from tracesight.data.checks.many import Many, Thorough, many
from tracesight.data.checks.mask_in_box import mask_in_box, mask_in_box_doubts
from tracesight.data.checks.mask_size import mask_size
from tracesight.data.checks.polygon_crossing import polygon_crossing, polygon_crossing_doubts
from tracesight.data.checks.polygon_points import polygon_points
from tracesight.data.finding import Finding
from tracesight.data.points import Keypoints
from tracesight.data.record import FIELDS_OF_ANNOTATION, Record

# Quick enough for every label that is read; none of them draws a mask or opens a picture.
LABEL_CHECKS: tuple[LabelCheck, ...] = (
    category_unknown, box_inverted, box_empty, box_outside, polygon_points, mask_size, keypoint_count, keypoint_outside,
    box_twice,
)  # fmt: skip
_CATEGORY, _BOX, _SEGMENTATION, _KEYPOINTS = map(
    FIELDS_OF_ANNOTATION.index, ("category_id", "box", "segmentation", "keypoints")
)
# The others, for `tracesight data check` and before a training.
THOROUGH_CHECKS: tuple[Thorough, ...] = (
    Thorough(box_small, box_small_doubts),
    Thorough(mask_in_box, mask_in_box_doubts),
    Thorough(polygon_crossing, polygon_crossing_doubts),
    Thorough(keypoint_off_box, keypoint_off_box_doubts),
    Thorough(box_alike, box_alike_doubts),
)


def checked(
    record: Record,
    categories: Mapping[int, str],
    path: Path,
    checks: Sequence[LabelCheck] = LABEL_CHECKS,
    points: Mapping[int, Keypoints] | None = None,
) -> Found:
    """The record put right, and what was wrong with it.

    path: the file or folder that holds the set's labels. points: of the categories whose objects have keypoints.
    """
    if checks is LABEL_CHECKS and _plainly_sound(record, categories):
        return record, ()
    labels, findings = Labels(categories, path, points or {}), []
    for check in checks:
        record, found = check(record, labels)
        findings += found
    return record, findings


def looked_through(
    records: Sequence[Record], labels: Labels, mend: Callable[[Sequence[Finding]], bool]
) -> tuple[list[Record], list[Finding], Many]:
    """`THOROUGH_CHECKS` of records that have been `checked`: the records, what was found, and their objects.

    mend: whether what a check found is to be put right.
    """
    position = {number: place for place, number in enumerate(sorted(labels.categories))}
    objects = many(records, position)
    doubts = [one.doubts(objects) for one in THOROUGH_CHECKS]
    result, findings = list(records), []
    for at in np.any(doubts, axis=0).nonzero()[0].tolist():
        for one, doubtful in zip(THOROUGH_CHECKS, doubts):
            if doubtful[at]:
                mended, found = one.check(result[at], labels)
                findings += found
                if mend(found):
                    result[at] = mended
    same = all(after is before for after, before in zip(result, records))
    return result, findings, objects if same else many(result, position)


def _plainly_sound(record: Record, categories: Mapping[int, str]) -> bool:
    """Whether one look tells that none of `LABEL_CHECKS` would find anything, as on nearly every picture.

    It takes a tenth of their time. What one of them finds has to be doubtful here, which its tests make sure of.
    """
    width, height = record.width, record.height
    left = []
    for plain in record.plain_annotations():
        x1, y1, x2, y2 = plain[_BOX]
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or plain[_CATEGORY] not in categories:
            return False
        shape = plain[_SEGMENTATION]  # text and bytes: sound polygons, and a mask of the picture's size
        if shape is not None and type(shape) is not str and type(shape) is not bytes:
            return False
        if len(plain) > _KEYPOINTS and plain[_KEYPOINTS] is not None:
            return False
        left.append(x1)
    left.sort()
    if any(b - a <= 0.2 for a, b in pairwise(left)):  # two may be the same to a tenth of a pixel
        return False
    return all(number in categories for number in record.labels)
