"""Pictures that are missing, damaged, or not of the size that their labels were drawn on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tracesight.data.pictures import open_picture
from tracesight.data.record import Dataset, Record
from tracesight.errors import UserError


def check_pictures(
    dataset: Dataset, progress: Callable[[int, int], None] | None = None, channels: int | None = 3
) -> None:
    """Decode every picture in full, so that no truncated one is met in the middle of a training.

    progress: called with (pictures done, pictures). Decoders work outside Python's lock, so threads use all cores.
    channels: that each must have, as in `open_picture`.
    Raises UserError: the first culprit in the dataset's order, and how many more there are.
    """
    total, problems = len(dataset), []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        findings = pool.map(lambda index: _problem(dataset[index], channels), range(total))
        for done, finding in enumerate(findings, start=1):
            if finding is not None:
                problems.append(finding)
            if progress is not None:
                progress(done, total)
    if problems:
        more = f" (and {len(problems) - 1} more such pictures)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)


def size_problem(record: Record, height: int, width: int) -> str | None:
    """One line where the upright picture is not as large as its labels say."""
    if (height, width) == (record.height, record.width):
        return None
    real, said = f"{width} × {height}", f"{record.width} × {record.height}"
    return f"{record.path}: the picture is {real} pixels when upright, its labels say {said}; correct the labels"


def _problem(record: Record, channels: int | None) -> str | None:
    try:
        height, width = open_picture(record.path, channels).shape[:2]
    except UserError as error:
        return str(error)
    return size_problem(record, height, width)
