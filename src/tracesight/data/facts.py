"""What can be told of a picture file by reading it once: digest, size, orientation, channels, looks, what ails it.

Every file is decoded to its end, so that one that was cut short is found. JPEG files are decoded at down to
an eighth of their size: that reads every bit of the stream, and stops at the same faults as decoding in full does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from tracesight.data.cache import cached
from tracesight.data.crew import Share
from tracesight.data.limits import check_pixels, max_pixels
from tracesight.data.phash import image_hash, perceptual_hash
from tracesight.data.pictures import image_orientation, open_any, stored_size
from tracesight.errors import UserError

_VERSION = 2
_CHUNK = 16  # pictures that a process is given at a time
# What a picture takes about; processes are started where it comes to more than they take to start and to be stopped.
_A_FILE, _A_BYTE = 0.6e-3, 1 / 60e6  # seconds
_SHORT = 0.2  # seconds
_JPEG = b"\xff\xd8\xff"
_LEAST = 56  # pixels that the shorter side keeps at least: then the hash is hardly another than in full


class Facts(NamedTuple):
    """Of one picture file.

    sha256: hex, of its bytes; "" where it cannot be read. height, width: of the upright picture; 0 where it cannot be
    decoded. orientation: EXIF's, 1 to 8. channels: without transparency. phash: `perceptual_hash`; "" where it cannot
    be decoded. problem: why it cannot, one line without its path, and what to do after the last "; "; "" where it can.
    missing: there is no such file.
    """

    sha256: str
    height: int = 0
    width: int = 0
    orientation: int = 1
    channels: int = 0
    phash: str = ""
    problem: str = ""
    missing: bool = False


def facts_of(
    paths: Sequence[Path | str], share: Share, progress: Callable[[int, int], None] | None = None, fresh: bool = False
) -> list[Facts]:
    """The facts of each file, from the cache where it has not changed since.

    share: who decodes. progress: called with (pictures done, pictures). fresh: the cache is not asked.
    """

    def compute(unknown: Sequence[Path | str]) -> Iterable[list[Any]]:
        chunks = [[str(path) for path in unknown[k : k + _CHUNK]] for k in range(0, len(unknown), _CHUNK)]
        for rows in share(_rows, chunks, many=_seconds(unknown) > _SHORT):
            yield from rows

    if fresh:
        rows = []
        for row in compute(paths):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(paths))
    else:
        rows = cached(paths, _kind(), _VERSION, compute, progress)
    return [Facts(*row) for row in rows]


def _seconds(paths: Sequence[Path | str]) -> float:
    """How long these files may take one process."""
    seconds = 0.0
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            seconds += _A_FILE + os.stat(path).st_size * _A_BYTE  # noqa: PTH116 — as below
        if seconds > _SHORT:
            break
    return seconds


def _kind() -> str:
    """What the facts depend on beside the file: who decodes it, and how large it may be."""
    extras = [name for name in ("tifffile", "imagecodecs", "pydicom") if importlib.util.find_spec(name)]
    return " ".join(("facts of a picture", f"Pillow {PIL.__version__}", f"limit {max_pixels()}", *extras))


def picture_facts(path: Path | str) -> Facts:
    """The facts of one file, read now."""
    digest = ""
    with contextlib.suppress(OSError):  # told below, in the words used everywhere else
        # Without Path, which takes a tenth of the time that a small picture does.
        if os.path.isfile(path):  # noqa: PTH113 — opening a pipe would wait for whoever writes into it
            with open(path, "rb") as stream:  # noqa: PTH123
                head = stream.read(len(_JPEG))
                if head == _JPEG:
                    content = head + stream.read()
                    digest = hashlib.sha256(content).hexdigest()
                    with contextlib.suppress(Exception):  # whatever it was: below it is tried in full
                        return _of_jpeg(content, digest)
                    del content
                else:
                    stream.seek(0)
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        pixels, orientation = open_any(path), stored_size(path)[2]
    except UserError as error:
        return Facts(digest, problem=str(error).removeprefix(f"{path}: "), missing=not Path(path).exists())
    height, width, channels = pixels.shape
    return Facts(digest, height, width, orientation, channels, perceptual_hash(pixels))


def _rows(paths: Sequence[str]) -> list[list[Any]]:
    return [list(picture_facts(path)) for path in paths]


def _of_jpeg(content: bytes, digest: str) -> Facts:
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        width, height = image.size
        check_pixels("", height, width)
        orientation, channels = image_orientation(image), 1 if image.mode == "L" else 3
        image.draft("L", (_LEAST, _LEAST))
        image.load()
        size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
        looks = image_hash(image.convert("F")) if image.mode == "L" else perceptual_hash(np.asarray(image))
        return Facts(digest, *size, orientation, channels, looks)
