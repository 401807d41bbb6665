"""Picture files that cannot be decoded to their end."""

from __future__ import annotations

from tracesight.data.checks.picture_check import Outcome, without
from tracesight.data.facts import Facts
from tracesight.data.finding import Kind
from tracesight.data.record import Record

KIND = Kind("picture-unreadable", "error", "pictures that cannot be read, or were cut short", "replace or remove it",
            "left out")  # fmt: skip


def picture_unreadable(record: Record, facts: Facts) -> Outcome:
    """A file that is no picture, is damaged or was cut short, is too large, or may not be read."""
    if not facts.problem or facts.missing:
        return record, ()
    what, _, remedy = facts.problem.rpartition("; ")
    return without(KIND, record, what or remedy, remedy if what else None)
