"""What processes that train together must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from tracesight.ops.precision import full_precision

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def ranks() -> int:
    """How many processes compute together now; 1 without a process group and inside `alone()`."""
    if not (dist.is_available() and dist.is_initialized()) or _alone.get():
        return 1
    return dist.get_world_size()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes as if it had no peers: nothing waits for them.

    So one rank may compute a validation loss while the others do something else. It holds for this thread. What a
    backward exchanges was settled in the forward pass: both belong inside.
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def mean_loss(total: Tensor, count: Tensor) -> Tensor:
    """`total` / `count`, the count summed over ranks and the result scaled so that averaged gradients are exact.

    DDP averages gradients over ranks, so each rank's share of the global mean is multiplied by their number. A count of
    0 over all ranks counts as 1. total and count are scalars; the result is float32 where `total` is in half precision,
    which could not hold the count.
    """
    total = full_precision(total)
    count = count.detach().to(total.dtype)
    number = ranks()
    if number > 1:
        count = count.clone()
        dist.all_reduce(count)
    return total * number / torch.clamp(count, min=1)
