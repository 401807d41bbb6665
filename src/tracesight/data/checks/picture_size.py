"""Pictures of another size than their labels were drawn on."""

from __future__ import annotations

from tracesight.data.checks.picture_check import Outcome, without
from tracesight.data.facts import Facts
from tracesight.data.finding import Kind
from tracesight.data.record import Record

KIND = Kind("picture-size", "error", "pictures of another size than their labels say", "correct the labels",
            "left out")  # fmt: skip


def picture_size(record: Record, facts: Facts) -> Outcome:
    """An upright picture that is not as large as its labels say; whether the boxes fit it nobody knows."""
    message = size_message(record, facts.height, facts.width) if facts.height else None
    return (record, ()) if message is None else without(KIND, record, message)


def size_message(record: Record, height: int, width: int) -> str | None:
    """What to say where the upright picture is not as large as its labels say."""
    if (height, width) == (record.height, record.width):
        return None
    real, said = f"{width} × {height}", f"{record.width} × {record.height}"
    return f"the picture is {real} pixels when upright, its labels say {said}"
