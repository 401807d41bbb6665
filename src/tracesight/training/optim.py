"""Optimisers: one rule for what decays, and the fused kernels wherever torch has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tracesight.training.lars import LARS


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights, which decay, and the rest (biases, norms' scales: one-dimensional), which do not.

    Parameters that do not ask for a gradient are in neither.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimiser(
    name: str, model: nn.Module, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """`"sgd"` (with momentum), `"lars"`, or `"adamw"` (betas 0.9 and 0.999) over `parameter_groups`, fused but LARS."""
    groups = parameter_groups(model, weight_decay)
    if name == "lars":
        return LARS(groups, lr=lr, momentum=momentum)
    if name == "sgd":
        # Parameters that are sharded have no fused kernel of it.
        whole = not any(hasattr(parameter, "full_tensor") for group in groups for parameter in group["params"])
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=whole)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the same learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr
