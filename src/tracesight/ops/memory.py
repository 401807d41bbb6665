"""Memory on the CPU for tables and results of many megabytes.

A system hands out large blocks page by page as they are first written, and takes them back when they are freed. For
what is written once and read a few times that costs as much as the work itself, call after call. So two such blocks
are kept, and used again when no tensor lies in them any more.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from torch import Tensor

# Smaller blocks are kept by the C library, larger ones given back: bytes.
LEAST, MOST = 1 << 25, 1 << 28
KEPT = 2
# Each block with a reference to the array that its tensor holds: dead when the tensor and all views of it are.
_blocks: list[tuple[np.ndarray, weakref.ref]] = []
_lock = threading.Lock()


def fresh(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised (rows, columns) on the CPU."""
    size = rows * columns * dtype.itemsize
    if size < LEAST:
        return torch.empty(rows, columns, dtype=dtype)
    return torch.from_numpy(_array(size)).view(dtype).view(rows, columns)


def _array(size: int) -> np.ndarray:
    """`size` bytes: of a block that is free and fits, else of a new one, which is kept in the place of a free one."""
    with _lock:
        free = [index for index, (_, user) in enumerate(_blocks) if user() is None]
        fitting = [index for index in free if size <= _blocks[index][0].nbytes <= 2 * size]
        if fitting:
            index = min(fitting, key=lambda one: _blocks[one][0].nbytes)
            block = _blocks[index][0]
        else:
            # numpy asks the system for large pages. A little more than is needed: pictures differ in size.
            block = np.empty(-(-size // LEAST) * LEAST, np.uint8)
            index = len(_blocks) if len(_blocks) < KEPT else next(iter(free), None)
        array = block[:size]
        if index is not None and block.nbytes <= MOST:
            _blocks[index : index + 1] = [(block, weakref.ref(array))]
        return array
