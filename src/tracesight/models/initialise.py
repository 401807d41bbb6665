"""Random weights to begin from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def initialise(module: nn.Module, fill: Callable[[Tensor], Tensor]) -> None:
    """Fill the weights of every convolution and linear layer in `module` with `fill`, and their biases with 0.

    On the meta device, where networks are counted, there is nothing to fill, and it would take most of the time.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not layer.weight.is_meta:
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
