"""Pictures that are decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracesight.data.pictures import open_picture

# To decode a small picture takes longer than all that is done with it: each process keeps so many, of so many bytes.
KEPT, SMALL = 60_000, 5_000
# Larger ones are kept as long as all of them that have been asked for fit into so many bytes.
ROOM = 1 << 28


class KeptPictures:
    """`open_picture` that decodes once what is small, and all of a set that fits into memory.

    Calling it gives pixels (H, W, channels), not to be written to. Raises UserError as `open_picture` does.
    """

    def __init__(self) -> None:
        self._small: dict[Path, np.ndarray] = {}
        self._large: dict[Path, np.ndarray] = {}
        self._room = ROOM

    def __call__(self, path: Path, channels: int = 3) -> np.ndarray:
        known = self._small.get(path)
        if known is None:
            known = self._large.get(path)
        if known is not None:
            return known
        image = open_picture(path, channels)
        image.flags.writeable = False
        if image.nbytes > SMALL:
            self._keep_large(path, image)
        elif len(self._small) < KEPT:
            self._small[path] = image
        return image

    def _keep_large(self, path: Path, image: np.ndarray) -> None:
        """A set that does not fit is read again and again: to keep a part of it would cost more than it gives."""
        if self._room > 0:
            self._large[path] = image
            self._room -= image.nbytes
            if self._room < 0:
                self._large.clear()
