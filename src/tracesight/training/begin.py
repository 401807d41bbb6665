"""A run before its first step: the network on its device and over its ranks, its average, its optimiser."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tracesight.errors import UserError
from tracesight.training.compiled import compiled
from tracesight.training.ema import ema_of
from tracesight.training.ranks import Ranks
from tracesight.training.run import Run
from tracesight.training.signals import Stop
from tracesight.training.spread import copied, shard


def begin(
    model: nn.Module,
    optimiser_of: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    device: torch.device,
    ranks: Ranks,
    stop: Stop,
    distributed: str,
    compile: str,
    batch_size: int,
    parts: int,
    half: bool,
    ema: bool,
    **numbers: Any,
) -> Run:
    """A run of `model` from step 0.

    Args:
        optimiser_of: the optimiser of a model, made once its parameters are where they stay.
        distributed: over several ranks "ddp" copies the network, "fsdp" shards it.
        compile: "none", "kernels" or "graphs", see `compiled`.
        batch_size: pictures an update over all ranks. parts: how many parts a rank cuts its share into.
        half: fp16, whose losses a scaler keeps out of underflow.
        ema: whether an average of the weights is kept.
        numbers: the other fields of `Run`: total, identity, patience.

    Raises:
        UserError: ranks cannot share the batch evenly, or cannot cut their share into so many parts; or the network
            cannot be compiled.
    """
    sharded = ranks.count > 1 and distributed == "fsdp"
    _check(ranks, batch_size, parts, compile, sharded)
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = ema_of(model) if ema else None
    plain = copy.deepcopy(model) if sharded else None
    if sharded:
        for network in filter(None, (model, average)):
            shard(network, ranks, device)
    network = copied(model) if ranks.count > 1 and not sharded else model
    return Run(
        model=model,
        network=compiled(network, compile, device),
        optimiser=optimiser_of(model),
        ema=average,
        plain=plain,
        scaler=torch.amp.GradScaler(device.type) if half else None,
        ranks=ranks,
        stop=stop,
        parts=parts,
        **numbers,
    )


def _check(ranks: Ranks, batch_size: int, parts: int, compile: str, sharded: bool) -> None:
    """Raise UserError for numbers and ways that do not go together."""
    if batch_size % ranks.count:
        raise UserError(
            f"batch_size={batch_size} cannot be shared evenly by {ranks.count} processes: "
            f"use batch_size={-(-batch_size // ranks.count) * ranks.count}"
        )
    if batch_size // ranks.count < parts:
        share = f" on each of {ranks.count} ranks" if ranks.count > 1 else ""
        raise UserError(
            f"accumulate={parts}: a batch of {batch_size // ranks.count}{share} has no so many parts; "
            f"use accumulate={max(1, batch_size // ranks.count)} or less"
        )
    if compile != "none" and sharded:
        raise UserError(f"compile={compile} is for distributed=ddp; with fsdp use compile=none")
    if compile == "graphs" and parts > 1:
        # A graph's gradients lie where its next replay writes, so they cannot wait for those of the next part.
        raise UserError(f"compile=graphs takes a batch at once, and accumulate={parts} cuts it; use compile=kernels")
