"""Encoders as pretraining uses them: pooled features, heads in the place of the classifier, batch norm in groups.

N pictures, D width of the last stage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from tracesight.models.norms import BatchNorm2d
from tracesight.ops.collectives import alone, ranks


class Made(NamedTuple):
    """What a method makes of the views of n pictures: losses by name.

    Of one that compares views besides the queries (n, dim) and the keys (n, V, dim), of length 1.
    """

    losses: dict[str, Tensor]
    queries: Tensor | None = None
    keys: Tensor | None = None


class Norm1d(BatchNorm2d):
    """Batch norm of vectors (N, channels), over all ranks; without scale and shift where `affine` is False."""

    def __init__(self, channels: int, eps: float = 1e-5, *, affine: bool = True) -> None:
        super().__init__(channels, eps)
        if not affine:
            for name in ("weight", "bias"):
                fixed = getattr(self, name).detach()
                delattr(self, name)
                self.register_buffer(name, fixed, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, :, None, None])[:, :, 0, 0]


def pooled(encoder: nn.Module, images: Tensor) -> Tensor:
    """The mean over the cells of the last stage (N, D), in float32."""
    stages: Any = encoder.features
    return torch.flatten(F.adaptive_avg_pool2d(stages(images)[-1], 1), 1).float()


def without_head(encoder: nn.Module) -> dict[str, Tensor]:
    """The tensors of an encoder whose classifier's place (`fc`, `head`) a head has taken, without that head."""
    return {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith(("fc.", "head."))}


def width_of(encoder: nn.Module) -> int:
    """D."""
    channels: Any = encoder.channels
    return int(channels[-1])


def grouped(network: nn.Module, images: Tensor, size: int) -> Tensor:
    """`network` on each `size` pictures of (N, C, H, W) by themselves, as if each group were on a GPU of its own.

    Running statistics move once, towards the mean over the groups: group g of G moves them by momentum / G of what the
    groups before have left.
    """
    groups = images.split(size)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [0.1 if layer.momentum is None else layer.momentum for layer in layers]
    made = []
    try:
        with alone():
            for number, group in enumerate(groups, start=1):
                for layer, momentum in zip(layers, momenta):
                    share = momentum / len(groups)
                    layer.momentum = share / (1 - momentum + number * share)
                made.append(network(group))
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
    return torch.cat(made)


@torch.no_grad()
def agree(*networks: nn.Module) -> None:
    """Running statistics become their mean over ranks: those of `grouped` over the groups of all of them."""
    if ranks() == 1:
        return
    held = [b for network in networks for name, b in network.named_buffers() if name.endswith(("_mean", "_var"))]
    if held:
        flat = torch.cat([buffer.flatten() for buffer in held])
        dist.all_reduce(flat)
        flat /= ranks()
        for buffer, values in zip(held, flat.split([buffer.numel() for buffer in held])):
            buffer.copy_(values.view_as(buffer))


def gathered_rows(rows: Tensor) -> Tensor:
    """Rows (n, …) of all ranks, (N, …), in the order of ranks; without gradients."""
    if ranks() == 1:
        return rows.detach()
    rows = rows.detach().contiguous()
    every = rows.new_empty((ranks() * rows.shape[0], *rows.shape[1:]))
    dist.all_gather_into_tensor(every, rows)
    return every


def own_rows(rows: Tensor) -> Tensor:
    """This rank's share (n, …) of (N, …)."""
    if ranks() == 1:
        return rows
    share = rows.shape[0] // ranks()
    return rows[dist.get_rank() * share : (dist.get_rank() + 1) * share]


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Each parameter of `slow` becomes momentum × itself + (1 - momentum) × that of `fast`; buffers stay.

    Where both are sharded over ranks, alike, each rank moves its own shards.
    """
    pairs = zip(slow.parameters(), fast.parameters(), strict=True)
    ours, theirs = (list(map(_held, parameters)) for parameters in zip(*pairs))
    torch._foreach_lerp_(ours, theirs, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]


def _held(parameter: Tensor) -> Tensor:
    """What this rank has of a parameter."""
    shard = getattr(parameter, "to_local", None)
    return parameter if shard is None else shard()
