"""Labelled pictures whose file is not there."""

from __future__ import annotations

from tracesight.data.checks.picture_check import Outcome, without
from tracesight.data.facts import Facts
from tracesight.data.finding import Kind
from tracesight.data.record import Record

KIND = Kind("picture-missing", "error", "pictures whose file is not there", "restore it or remove its labels",
            "left out")  # fmt: skip


def picture_missing(record: Record, facts: Facts) -> Outcome:
    """A path at which there is no file."""
    return without(KIND, record, "no such picture file") if facts.missing else (record, ())
