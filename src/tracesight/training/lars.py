"""LARS: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (2017), algorithm 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose steps are as long as the weights they change, whatever the gradient's length.

    For each weight of more than one dimension, g = gradient + weight_decay × w is multiplied by `trust` × |w| / |g|,
    and by 1 where either is 0; biases and the scales of norms take plain steps, as MoCo v3 has it. Then v = momentum ×
    v + g, w = w − lr × v.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        # "fused": who saves and loads optimisers asks for it; there is no such kernel of this one.
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "fused": False}
        super().__init__(params, numbers)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. closure: not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        move = parameter.grad
        assert move is not None
        if parameter.ndim > 1:
            move = move.add(parameter, alpha=group["weight_decay"])
            weight, length = parameter.norm(), move.norm()
            trust = group["trust"] * weight / length
            move = move * torch.where((weight > 0) & (length > 0), trust, torch.ones_like(trust))
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(move)
        parameter.add_(velocity, alpha=-group["lr"])
