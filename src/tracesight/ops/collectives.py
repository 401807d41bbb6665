"""What processes that train together must agree on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_loss(total: Tensor, count: Tensor) -> Tensor:
    """`total` / `count`, the count summed over ranks and the result scaled so that averaged gradients are exact.

    DDP averages gradients over ranks, so each rank's share of the global mean is multiplied by their number.
    """
    count = count.detach().to(total.dtype)
    ranks = 1
    if dist.is_available() and dist.is_initialized():
        ranks = dist.get_world_size()
        count = count.clone()
        dist.all_reduce(count)
    return total * ranks / torch.clamp(count, min=1)
