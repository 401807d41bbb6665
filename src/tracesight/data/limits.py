"""How large a picture may be: a file of a few kilobytes can claim to be one that fills the memory."""

from __future__ import annotations

import os
from pathlib import Path

from tracesight.errors import UserError

# Pixels of a picture, whatever its channels: Pillow's own limit for an error.
MAX_PIXELS = 178_956_970
VARIABLE = "TRACESIGHT_MAX_PIXELS"  # another limit, for all commands, processes and threads


def max_pixels() -> int:
    """The limit in force. Raises UserError for a variable that is no number above 0."""
    said = os.environ.get(VARIABLE, "")
    if not said:
        return MAX_PIXELS
    if not said.isascii() or not said.isdigit() or int(said) < 1:
        raise UserError(f"{VARIABLE}={said}: give a whole number of pixels, such as {MAX_PIXELS}")
    return int(said)


def check_pixels(path: Path | str, height: int, width: int) -> None:
    """Raises UserError, before anything is decoded, for a picture that claims more pixels than the limit."""
    if height * width > max_pixels():
        raise too_many_pixels(path, height * width)


def too_many_pixels(path: Path | str, pixels: int | None) -> UserError:
    """What to say of a picture that claims to be of so many pixels."""
    return UserError(
        f"{path}: {pixels or 'too many'} pixels, and more than {max_pixels()} could exhaust the memory; cut it into "
        f"tiles, or raise the limit: {VARIABLE}={pixels or '…'}"
    )
