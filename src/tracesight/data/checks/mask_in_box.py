"""Masks that do not belong to their box: outside it, larger or far smaller than it, or without a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tracesight.data.checks.box_outside import clipped
from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each, polygons
from tracesight.data.checks.many import Many
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Box, Record
from tracesight.scene.mask import Mask

ELSEWHERE = Kind("mask-elsewhere", "error", "masks that lie outside their box", "draw the box or the mask anew",
                 "left out")  # fmt: skip
OFF = Kind("mask-off-box", "warning", "masks that do not fit their box", "look which of the two is right")
EMPTY = Kind("mask-empty", "warning", "masks without a single pixel", "draw it anew or remove it")
SLACK = 2.0  # pixels by which a mask may reach out of its box: contours go through pixels' centres or round them,
SHARE = 0.05  # or this share of the box's longer side, if that is more: some draw boxes by hand
LEAST = 0.5  # of box and mask's extent, intersection over union: less is no matter of taste, but a mask of what is
# visible in a box of the whole object may be so


def mask_in_box(record: Record, labels: Labels) -> Found:
    """A mask whose extent is not that of its box; where they do not even touch, one of the two is another object's."""
    shaped = [a for a in record.annotations if a.segmentation is not None and not a.ignored]
    if not shaped:
        return record, ()
    extents = {id(a): extent for a, extent in zip(shaped, _extents(shaped, record)) if extent != a.box}
    if not extents:
        return record, ()

    def judge(annotation: Annotation) -> Verdict | None:
        if id(annotation) not in extents:
            return None
        extent = extents[id(annotation)]
        if extent is None:
            return EMPTY, "its mask has no pixel", annotation
        box = annotation.box
        across = min(extent[2], box[2]) - max(extent[0], box[0])
        down = min(extent[3], box[3]) - max(extent[1], box[1])
        what = f"its mask spans {brief(extent)}, its box {brief(box)}"
        if across <= 0 or down <= 0:
            return ELSEWHERE, what, replace(annotation, segmentation=None)
        slack = max(SLACK, SHARE * max(box[2] - box[0], box[3] - box[1]))
        beyond = max(box[0] - extent[0], box[1] - extent[1], extent[2] - box[2], extent[3] - box[3])
        shared = across * down
        small = shared < LEAST * (_area(extent) + _area(box) - shared)
        if beyond > slack or (small and max(abs(x - y) for x, y in zip(extent, box)) > slack):
            return OFF, what, annotation
        return None

    return each(record, labels, judge)


def mask_in_box_doubts(many: Many) -> np.ndarray:
    """See `Thorough`. Sound is a mask that spans what its box does to `SLACK`."""
    asked = many.masked & ~many.ignored
    extent = np.full((len(asked), 4), np.nan)  # of what is not found below, so that it is in doubt
    outlines, first = many.outlines, many.outlines.counts.cumsum() - many.outlines.counts
    if len(first):
        objects, begins = np.unique(outlines.owner, return_index=True)
        begins = first[begins]
        low, high = (of.reduceat(outlines.points, begins) for of in (np.minimum, np.maximum))
        size = many.size[objects, ::-1]
        extent[objects] = np.concatenate([low.clip(0, size), high.clip(0, size)], 1)
        extent[objects[(extent[objects, 2:] - extent[objects, :2] < 1).any(1)]] = np.nan
    runs = [at for at in asked.nonzero()[0].tolist() if type(many.shapes[at]) is bytes]
    if runs:
        sizes = many.size[runs].tolist()
        extent[runs] = _spans([{"size": size, "counts": many.shapes[at]} for at, size in zip(runs, sizes)])
    box = many.box
    meet = (np.minimum(extent, box)[:, 2:] > np.maximum(extent, box)[:, :2]).all(1)
    sound = meet & (np.abs(extent - box) <= SLACK).all(1)
    return many.any_of(asked & ~sound)


def _spans(runs: Sequence[dict[str, Any]]) -> np.ndarray:
    """(n, 4) corners of what masks in COCO's form span; NaN for one without a pixel."""
    from faster_coco_eval.mask_api_new_cpp import toBbox

    boxes = np.asarray(toBbox(runs), np.float64).reshape(-1, 4)
    boxes[~(boxes[:, 2:] > 0).all(1)] = np.nan
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _extents(annotations: Sequence[Annotation], record: Record) -> list[Box | None]:
    """What each mask spans inside its picture; None for one without a pixel.

    Of polygons it is told from their points, and only those less than a pixel wide are drawn.
    """
    extents: list[Box | None] = [None] * len(annotations)
    masks: list[tuple[int, Mask]] = []
    for place, annotation in enumerate(annotations):
        if isinstance(annotation.segmentation, Mask):
            masks.append((place, annotation.segmentation))
            continue
        extent, parts = None, polygons(annotation)
        if parts is not None:
            points = [value for part in parts for value in part]
            x, y = points[0::2], points[1::2]
            extent = clipped((min(x), min(y), max(x), max(y)), record.width, record.height)
        if extent is not None and extent[2] - extent[0] >= 1 and extent[3] - extent[1] >= 1:
            extents[place] = extent
        elif (mask := annotation.mask(record.height, record.width)) is not None:
            masks.append((place, mask))
    if masks:
        spans = _spans([{"size": mask.size, "counts": mask.counts} for _, mask in masks]).tolist()
        for (place, _), (x1, y1, x2, y2) in zip(masks, spans):
            extents[place] = (x1, y1, x2, y2) if x1 == x1 else None  # NaN is not itself
    return extents


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
