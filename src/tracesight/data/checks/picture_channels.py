"""Pictures of other channels than the network takes."""

from __future__ import annotations

from tracesight.data.checks.picture_check import Outcome, without
from tracesight.data.facts import Facts
from tracesight.data.finding import Kind
from tracesight.data.pictures import open_picture
from tracesight.data.record import Record
from tracesight.errors import UserError

KIND = Kind("picture-channels", "error", "pictures of other channels than the network takes",
            "convert them, or train with other in_channels", "left out")  # fmt: skip


def picture_channels(record: Record, facts: Facts, channels: int) -> Outcome:
    """A picture of which `open_picture` does not make `channels`. Grey and colour become each other."""
    if not facts.channels or facts.channels == channels or {facts.channels, channels} == {1, 3}:
        return record, ()
    try:
        open_picture(record.path, channels)  # transparency may make up the number
    except UserError as error:
        what, _, remedy = str(error).removeprefix(f"{record.path}: ").rpartition("; ")
        return without(KIND, record, what or remedy, remedy if what else None)
    return record, ()
