"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def ema_of(model: nn.Module) -> nn.Module:
    """A copy of `model` that no optimiser touches."""
    average = copy.deepcopy(model)
    return average.requires_grad_(False)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move `average` towards `model` after update number `step` (from 1).

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that the first, random weights are soon forgotten.
    Buffers are statistics and are copied.
    """
    weight = 1.0 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)  # pyright: ignore[reportPrivateImportUsage]
    for mean, current in zip(average.buffers(), model.buffers()):
        mean.copy_(current)
