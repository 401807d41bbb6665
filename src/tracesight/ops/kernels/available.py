"""Whether a GPU's kernels can be built here."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable

import torch


@functools.cache
def triton_works(device: torch.device, attempt: Callable[[torch.device], None]) -> bool:
    """Whether Triton is there and can build the kernel that `attempt` runs; for that it needs a C compiler.

    Where it is there and cannot, a warning says so, once.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        attempt(device)
    except Exception as error:
        warnings.warn(f"an operation on {device} is slow: Triton cannot build its kernel ({error})", stacklevel=2)
        return False
    return True
