"""Pictures for a training without labels, read before the first step."""

from __future__ import annotations

from tracesight.data.unlabelled import Unreadable, read_unlabelled
from tracesight.training.prepare import Data, Splits
from tracesight.training.progress import Display


def read_pictures(data: Data, format: str | None, side: int, unreadable: Unreadable, display: Display) -> Splits:
    """The pictures, and what is to be said of them; of those that cannot be read `unreadable` says more at the end.

    side: of a view, in pixels.

    Raises UserError: nothing there, no pictures, or too many that cannot be read.
    """
    train, val = read_unlabelled(data, format, unreadable)
    notes = []
    small = sum(min(record.width, record.height) < side for record in train)
    if small:
        notes.append(f"{small} of {len(train)} pictures are smaller than image_size={side}: views of them are enlarged")
    for line in (*unreadable.notes(), *notes):
        display.say(f"note: {line}")
    return Splits(train, val, tuple(notes))
