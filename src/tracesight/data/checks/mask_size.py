"""Masks drawn on a picture of another size."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

KIND = Kind("mask-size", "error", "masks of another size than their picture", "draw it on this picture", "left out")


def mask_size(record: Record, labels: Labels) -> Found:
    """Run lengths are of (height, width) pixels, which must be the picture's."""
    size = (record.height, record.width)

    def judge(annotation: Annotation) -> Verdict | None:
        mask = annotation.segmentation
        if not isinstance(mask, Mask) or mask.size == size:
            return None
        message = f"its mask is of size {list(mask.size)}, the picture of {list(size)}"
        return KIND, message, replace(annotation, segmentation=None)

    return each(record, labels, judge)
