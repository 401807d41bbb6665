"""What a check of one picture and its labels is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracesight.data.facts import Facts
from tracesight.data.finding import Change, Finding, Kind
from tracesight.data.record import Record

# The record put right, None where the picture is left out; and what was wrong.
Outcome = tuple[Record | None, Sequence[Finding]]
PictureCheck = Callable[[Record, Facts], Outcome]


def left_out(record: Record) -> Change:
    """What is lost with a picture."""
    return Change({"picture": record.name, "objects": len(record.annotations)}, None)


def without(kind: Kind, record: Record, message: str, remedy: str | None = None) -> Outcome:
    """The picture is left out, with this finding."""
    return None, [Finding(kind, str(record.path), message, record.path, change=left_out(record), remedy=remedy)]
