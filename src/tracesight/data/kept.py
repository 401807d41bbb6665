"""Small pictures, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracesight.data.pictures import open_picture

# To decode a small picture takes longer than all that is done with it: each process keeps so many, of so many bytes.
KEPT, SMALL = 60_000, 5_000


class KeptPictures:
    """`open_picture` that decodes small pictures once: calling it gives pixels (H, W, channels), not to be written to.

    Raises UserError as `open_picture` does.
    """

    def __init__(self) -> None:
        self._kept: dict[Path, np.ndarray] = {}

    def __call__(self, path: Path, channels: int = 3) -> np.ndarray:
        if path in self._kept:
            return self._kept[path]
        image = open_picture(path, channels)
        if image.nbytes <= SMALL and len(self._kept) < KEPT:
            image.flags.writeable = False
            self._kept[path] = image
        return image
