"""Objects that were labelled twice: the same category, box and mask."""

from __future__ import annotations

from tracesight.data.checks.label_check import Found, Labels, Verdict, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record

KIND = Kind("box-twice", "warning", "objects labelled twice", "nothing need be done", "the later one removed")


def box_twice(record: Record, labels: Labels) -> Found:
    """An object whose category and box, to a tenth of a pixel, are another's too, and its mask where both have one."""
    if len(record.annotations) < 2:
        return record, ()
    first: dict[tuple[object, ...], Annotation] = {}

    def judge(annotation: Annotation) -> Verdict | None:
        x1, y1, x2, y2 = annotation.box
        place = round(x1, 1), round(y1, 1), round(x2, 1), round(y2, 1)
        kind = annotation.category_id, annotation.crowd, annotation.difficult
        other = first.setdefault((*kind, *place), annotation)
        if other is annotation or not _same_shape(annotation, other):
            return None
        return KIND, f"it is annotation {other.id} once more", None

    return each(record, labels, judge)


def _same_shape(a: Annotation, b: Annotation) -> bool:
    return a.segmentation is None or b.segmentation is None or a.segmentation == b.segmentation
