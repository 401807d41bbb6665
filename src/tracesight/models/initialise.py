"""Random weights to begin from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def initialise(module: nn.Module, fill: Callable[[Tensor], Tensor]) -> None:
    """Fill the weights of every convolution and linear layer in `module` with `fill`, and their biases with 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
