"""Fresh memory on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def fresh(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised (rows, columns) on the CPU, for results of many megabytes.

    numpy asks the system for large pages: half the time of filling fresh memory is spent on small ones.
    """
    if rows * columns == 0:
        return torch.empty(rows, columns, dtype=dtype)
    return torch.from_numpy(np.empty((rows, columns * dtype.itemsize), np.uint8)).view(dtype)
