"""What is computed in full precision while the convolutions may run in half of it."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where they are bfloat16 or float16, else as they are: for losses, scores and geometry."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
