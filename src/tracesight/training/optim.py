"""Optimisers: one rule for what decays, and the fused kernels wherever torch has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tracesight.errors import UserError
from tracesight.training.lars import LARS

# A transformer's class token, mask token and positions, which do not decay either.
_TOKENS = ("cls_token", "mask_token", "pos_embed")


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Two groups: weights, which decay, and the rest (biases, norms' scales: one-dimensional; tokens), which do not.

    Parameters that do not ask for a gradient are in neither. layer_decay: below 1 there are two groups a layer, whose
    rate is multiplied by their "lr_scale", layer_decay ** (layers that lie behind this one).
    """
    places = layers_of(model) if layer_decay < 1 else {}
    found: dict[tuple[int, bool], list[nn.Parameter]] = {(0, True): [], (0, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(_TOKENS)
            found.setdefault((places.get(name, 0), decays), []).append(parameter)
    last = max(places.values(), default=0)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            **({"lr_scale": layer_decay ** (last - place)} if places else {}),
        }
        for (place, decays), parameters in found.items()
        if parameters or not places
    ]


def layers_of(model: nn.Module) -> dict[str, int]:
    """Which layer of a vision transformer each parameter belongs to, as BEiT and MAE count for layer decay.

    Patches, positions and tokens are layer 0, block b (from 0) is b + 1, and what follows the blocks is one more.
    Raises UserError: the network has no blocks.
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    if not blocks:
        raise UserError("layer_decay is for vision transformers, which have layers of one kind; leave it 1")
    first = ("patch_embed.", "cls_token", "pos_embed")
    return {
        name: int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0 if name.startswith(first) else
        max(blocks) + 2
        for name in names
    }  # fmt: skip


def build_optimiser(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    beta2: float = 0.999,
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """`"sgd"` (with momentum), `"lars"`, or `"adamw"` (betas 0.9 and `beta2`) over `parameter_groups`, fused but LARS.

    Raises UserError: `layer_decay` below 1 for a network without layers of one kind.
    """
    groups = parameter_groups(model, weight_decay, layer_decay)
    if name == "lars":
        return LARS(groups, lr=lr, momentum=momentum)
    if name == "sgd":
        # Parameters that are sharded have no fused kernel of it.
        whole = not any(hasattr(parameter, "full_tensor") for group in groups for parameter in group["params"])
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=whole)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group this learning rate, times its "lr_scale" where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
