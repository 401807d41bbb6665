"""Objects of one category whose boxes lie almost on each other: one object labelled twice, or two that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from tracesight.data.checks.label_check import Found, Labels, changed, finding
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

NEARLY = Kind(
    "box-nearly-twice", "warning", "objects that seem to be labelled twice", "look at both and remove one",
    "the later one removed",
)  # fmt: skip
OVERLAP = Kind("box-overlap", "note", "boxes of one category that share much of their area", "look at both")
SAME = 0.8  # intersection over union from which they are taken for one object,
MUCH = 0.4  # and from which they are worth a look
_BLOCK = 512


def box_alike(record: Record, labels: Labels) -> Found:
    """Boxes of one category that overlap; where both objects have masks, their masks have to overlap as well."""
    objects = [a for a in record.annotations if not a.ignored]
    findings, removed = [], []
    for first, second, box_iou in _pairs(objects):
        if any(gone is first or gone is second for gone in removed):
            continue
        iou = _mask_iou(first, second, record, box_iou)
        if iou < MUCH:
            continue
        what = "mask" if first.segmentation is not None and second.segmentation is not None else "box"
        message = f"its {what} and that of annotation {first.id} overlap with IoU {iou:.2f}"
        if iou >= SAME:
            removed.append(second)
            findings.append(finding(NEARLY, record, labels, message, second, changed(second, None)))
        else:
            findings.append(finding(OVERLAP, record, labels, message, second))
    if removed:
        kept = tuple(a for a in record.annotations if all(a is not gone for gone in removed))
        record = replace(record, annotations=kept)
    return record, findings


def _pairs(objects: list[Annotation]) -> Iterator[tuple[Annotation, Annotation, float]]:
    """(earlier, later, IoU of their boxes) of one category, from `MUCH` up."""
    if len(objects) < 2:
        return
    boxes = np.fromiter(chain.from_iterable([a.box for a in objects]), np.float64).reshape(-1, 4)
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    category = [a.category_id for a in objects]
    area = (x2 - x1) * (y2 - y1)
    for begin in range(0, len(objects), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        across = np.minimum(x2[rows, None], x2) - np.maximum(x1[rows, None], x1)
        down = np.minimum(y2[rows, None], y2) - np.maximum(y1[rows, None], y1)
        inter = np.maximum(across, 0) * np.maximum(down, 0)
        much = inter >= MUCH * (area[rows, None] + area - inter)
        for row, column in zip(*(at.tolist() for at in np.nonzero(much))):
            if column < begin + row and category[begin + row] == category[column]:  # the later one's row
                shared = float(inter[row, column])
                iou = shared / float(area[begin + row] + area[column] - shared)
                yield objects[column], objects[begin + row], iou


def _mask_iou(a: Annotation, b: Annotation, record: Record, box_iou: float) -> float:
    """Of the masks where both have one, else of the boxes."""
    if a.segmentation is None or b.segmentation is None:
        return box_iou
    crops = []
    for annotation in (a, b):
        mask = annotation.mask(record.height, record.width)
        crops.append(mask.to_crop() if mask is not None else (np.zeros((0, 0), np.bool_), (0, 0)))
    (one, (y1, x1)), (two, (y2, x2)) = crops
    top, left = max(y1, y2), max(x1, x2)
    bottom, right = min(y1 + one.shape[0], y2 + two.shape[0]), min(x1 + one.shape[1], x2 + two.shape[1])
    if top >= bottom or left >= right:
        return 0.0
    shared = one[top - y1 : bottom - y1, left - x1 : right - x1] & two[top - y2 : bottom - y2, left - x2 : right - x2]
    both = int(shared.sum())
    return both / max(1, int(one.sum()) + int(two.sum()) - both)
