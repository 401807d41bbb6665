"""Objects of one category whose boxes lie almost on each other: one object labelled twice, or two that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from tracesight.data.checks.label_check import Found, Labels, changed, finding
from tracesight.data.checks.many import Many
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

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
    masks: dict[int, Mask | None] = {}
    for first, second, box_iou in _pairs(objects):
        if any(gone is first or gone is second for gone in removed):
            continue
        iou = _mask_iou(first, second, record, box_iou, masks)
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


def box_alike_doubts(many: Many) -> np.ndarray:
    """See `Thorough`: two boxes that overlap enough, whatever their masks do."""
    rows = (~many.ignored).nonzero()[0]
    # By record and category, and from left to right: each is compared with those that begin before it ends.
    group = many.record[rows] * (many.category.max(initial=0) + 1) + many.category[rows]
    order = np.lexsort((many.box[rows, 0], group))
    rows, group = rows[order], group[order]
    x1, y1, x2, y2 = np.ascontiguousarray(many.box[rows].T)
    area = (x2 - x1) * (y2 - y1)
    doubtful = np.zeros(len(many.counts), np.bool_)
    first, step = np.arange(len(rows)), 1
    while (first := first[: np.searchsorted(first, len(rows) - step)]).size:
        other = first + step
        near = (group[first] == group[other]) & (x1[other] < x2[first])
        first, other, step = first[near], other[near], step + 1
        across = np.minimum(x2[first], x2[other]) - x1[other]
        down = np.minimum(y2[first], y2[other]) - np.maximum(y1[first], y1[other])
        inter = across * np.maximum(down, 0)
        much = inter >= MUCH * (area[first] + area[other] - inter)
        doubtful[many.record[rows[first[much]]]] = True
    return doubtful


def _mask_iou(a: Annotation, b: Annotation, record: Record, box_iou: float, masks: dict[int, Mask | None]) -> float:
    """Of the masks where both have one, else of the boxes. masks: those that were drawn before, by the annotation's
    `id()`."""
    if a.segmentation is None or b.segmentation is None:
        return box_iou
    for annotation in (a, b):
        if id(annotation) not in masks:
            masks[id(annotation)] = annotation.mask(record.height, record.width)
    from faster_coco_eval.mask_api_new_cpp import iou  # in a tenth of the time of `Mask.iou`

    one, other = ([mask.to_coco()] for a in (a, b) if (mask := masks[id(a)]) is not None)
    return float(np.asarray(iou(one, other, [0]))[0, 0])
