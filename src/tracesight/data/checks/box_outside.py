"""Boxes that reach outside their picture: by up to a pixel, which rounding does, or further."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, brief, each
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Box, Record

SLACK = 1.0  # pixels by which a box may stick out; it is clipped and counted
ROUNDING = 1e-3  # what sticks out by less comes from adding x and width, and is clipped without a word

BEYOND = Kind("box-outside", "error", "boxes that reach outside their picture", "correct it", "clipped")
BARELY = Kind(
    "box-barely-outside", "warning", "boxes that reached up to 1 px outside their picture", "nothing need be done",
    "clipped",
)  # fmt: skip
NOWHERE = Kind("box-off-picture", "error", "boxes without area inside their picture", "correct or remove it", "removed")


def box_outside(record: Record, labels: Labels) -> Found:
    """A box that is not inside (0, 0, width, height)."""
    width, height = record.width, record.height
    if all(min(a.box) >= 0 and a.box[2] <= width and a.box[3] <= height for a in record.annotations):
        return record, ()

    def judge(annotation: Annotation) -> Verdict | None:
        out = _out(annotation.box, width, height)
        if out <= 0:
            return None
        inside = clipped(annotation.box, width, height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            where = f"has no area inside the picture of {width} × {height}"
            return NOWHERE, f"the box {brief(annotation.box)} {where}", None
        where = f"reaches {out:.3g} px outside the picture of {width} × {height}"
        kind = BEYOND if out > SLACK else BARELY
        return kind, f"the box {brief(annotation.box)} {where}", replace(annotation, box=inside)

    record, findings = each(record, labels, judge)
    return record, [f for f in findings if f.kind is not BARELY or _out(f.box, width, height) > ROUNDING]


def clipped(box: Box, width: float, height: float) -> Box:
    """What of a box lies inside the picture."""
    x1, y1, x2, y2 = box
    return (min(max(x1, 0.0), width), min(max(y1, 0.0), height), max(min(x2, width), 0.0), max(min(y2, height), 0.0))


def _out(box: Box | None, width: int, height: int) -> float:
    """By how many pixels a box reaches outside."""
    x1, y1, x2, y2 = box or (0, 0, 0, 0)
    return max(-x1, -y1, x2 - width, y2 - height)
