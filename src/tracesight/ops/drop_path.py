"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth" (2016), section 3.

N pictures, L blocks. Deviations: a block is left out picture by picture and not for the whole batch, by keyed random
numbers; and what stays is divided by its probability in training, instead of being multiplied by it in testing, so
that testing needs to know nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tracesight.ops.random import keyed_uniform


def drop_path_scales(keys: Tensor, blocks: int, rate: float) -> Tensor:
    """What to multiply each block's residual by, (L, N) float32: 0 where it is left out, 1 / probability elsewhere.

    keys: (N, 2) int64, (seed, draw number). Block l of L is left out with probability l / L × rate (equation 4).
    """
    survival = 1 - rate * torch.arange(1, blocks + 1, device=keys.device, dtype=torch.float32) / blocks
    kept = keyed_uniform(keys, "drop path", blocks) < survival
    return (kept / survival).t()
