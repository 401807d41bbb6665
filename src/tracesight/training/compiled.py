"""The network of a training as `torch.compile` makes it (Ansel et al., "PyTorch 2", ASPLOS 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from tracesight.errors import UserError

Compile = Literal["none", "kernels", "graphs"]


def compiled(network: nn.Module, how: str, device: torch.device) -> nn.Module:
    """`network` as losses are computed with it; weights, names and what is saved stay those of `network` itself.

    how: "kernels" joins operations into fewer kernels, which are made in the first step; "graphs" replays these as CUDA
    graphs too, one of each shape that comes, so that a step is launched at once.

    Raises:
        UserError: "graphs" without a GPU, or a machine on which nothing can be compiled.
    """
    if how == "none":
        return network
    if how == "graphs" and device.type != "cuda":
        raise UserError(f"compile=graphs: CUDA graphs are for NVIDIA's GPUs, and this runs on {device}; use kernels")
    try:
        torch.compile(_trial)(torch.zeros(8, device=device))
    except Exception as error:  # what is missing is said in as many ways as there are compilers
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise UserError(
            f"compile={how}: torch cannot compile here, for which it needs {needed} ({said[:120]}); use compile=none"
        ) from None
    return torch.compile(network, mode="reduce-overhead" if how == "graphs" else None)  # type: ignore[return-value]


def uncompiled(network: nn.Module) -> nn.Module:
    """What `compiled` was given."""
    return getattr(network, "_orig_mod", network)


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + 1
