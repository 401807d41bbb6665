"""Several processes that form a group over gloo, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def on_ranks(work: Callable[..., Any], *args: Any, count: int = 2) -> list[Any]:
    """What `work(rank, *args)` returns in each of `count` processes; `work` is a module's function.

    Raises what a process raised, and after a minute in which one waits for another.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_joined, (count, folder, work, args), count)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(count)]


def _joined(rank: int, count: int, folder: str, work: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(1)
    store = Path(folder, "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=timedelta(minutes=1))
    try:
        torch.save(work(rank, *args), Path(folder, f"{rank}.pt"))
        dist.barrier()
    finally:
        dist.destroy_process_group()
