"""One network over several processes: DDP, which copies it, or FSDP2, which shards it; and its whole state again.

Li et al., "PyTorch Distributed" (VLDB 2020), and Zhao et al., "PyTorch FSDP" (VLDB 2023). Both average gradients over
the ranks; losses are scaled for that by `ops.collectives.mean_loss`.

A state is always the whole one, gathered through `torch.distributed.checkpoint.state_dict` with the names of the
parameters as keys, so that a checkpoint written by four processes with FSDP2 is read by one, or by two with DDP.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from tracesight.training.compiled import uncompiled
from tracesight.training.ranks import Ranks

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_GIVEN = StateDictOptions(full_state_dict=True)


def shard(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Leave each rank its share of the parameters; they are gathered block by block where they are needed.

    To be called before an optimiser is made, since the parameters are replaced.
    """
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other
    mesh = init_device_mesh(device.type, (ranks.count,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def copied(model: nn.Module) -> nn.Module:
    """`model` as DDP runs it: a copy in each rank, gradients averaged while backward runs.

    Buffers are not sent around: batch norm takes its statistics over all ranks as it is.
    """
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    options: dict[str, Any] = {option: False}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def is_sharded(model: nn.Module) -> bool:
    """Whether each rank holds only its share of the parameters."""
    return isinstance(model, FSDPModule)


def average_gradients(network: nn.Module, wanted: bool) -> None:
    """Whether the next backward averages gradients over ranks; only that of a batch's last part needs to."""
    network = uncompiled(network)
    if isinstance(network, DistributedDataParallel):
        network.require_backward_grad_sync = wanted
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(wanted)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is spread over ranks, gathered; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def model_state(model: nn.Module) -> dict[str, Any]:
    """The whole state on the CPU. Where the model is sharded all ranks must ask, and only the first is answered."""
    return get_model_state_dict(model, options=_WHOLE) if is_sharded(model) else model.state_dict()


def optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The same for the optimiser of `model`, by names of parameters."""
    return get_optimizer_state_dict(model, optimiser, options=_WHOLE)


def load_model_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Take up a whole state, which every rank has. Raises RuntimeError naming what does not fit."""
    set_model_state_dict(model, state, options=_GIVEN)


def load_optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The same for the optimiser of `model`."""
    fused = [group["fused"] for group in optimiser.param_groups]
    set_optimizer_state_dict(model, optimiser, state, options=_GIVEN)
    # Which kernel updates is a matter of where the parameters are now, not of where they were.
    for group, own in zip(optimiser.param_groups, fused):
        group["fused"] = own
    # The fused kernels walk through memory, and take for granted that a parameter's state lies in it as the parameter
    # does. Shards are contiguous and whole networks channels last, so what was written by the one does not.
    for parameter, held in optimiser.state.items():
        for name, value in held.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """What is gathered at a time: the composite members of sequences, such as blocks of residual networks and ViTs."""
    for module in model.modules():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for member in module:
                if any(True for _ in member.children()) and any(True for _ in member.parameters()):
                    yield member
