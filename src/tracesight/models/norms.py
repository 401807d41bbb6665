"""Normalisation layers by the name that recipes and builders use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

NORMS = ("frozen", "batch", "group")


def norm_layer(name: str, eps: float = 1e-5) -> Callable[[int], nn.Module]:
    """A function from channels to a layer: "frozen" batch norm (statistics and scale fixed), "batch", or "group".

    Groups have at least 4 channels and there are at most 32 of them (Wu and He, "Group Normalization", 2018).
    Raises ValueError for another name.
    """
    if name == "frozen":
        return partial(FrozenBatchNorm2d, eps=eps)
    if name == "batch":
        return partial(nn.BatchNorm2d, eps=eps)
    if name == "group":
        return lambda channels: nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=max(eps, 1e-5))
    raise ValueError(f"norm is {name!r}; it can be " + ", ".join(map(repr, NORMS)))
