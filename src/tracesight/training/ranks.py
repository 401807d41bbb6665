"""The processes that train together, started by `torchrun`: how they find each other, share, and fail together.

Everything here also works for one process, which then needs no process group. Small things travel over gloo on the CPU,
also where gradients travel over NCCL.
"""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from tracesight.errors import PartialFailure, UserError
from tracesight.training.liveness import ElsewhereError, one_line, patient, watching
from tracesight.training.precision import choose_device

T = TypeVar("T")

_TO_FIND_EACH_OTHER = timedelta(minutes=10)
# The first rank may check data for hours while the others wait in a collective; who is dead is found by `liveness`.
_TO_WAIT = timedelta(hours=12)


class Ranks(NamedTuple):
    """This process (`rank`) among the `count` that train together; `local` is its number on its host."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0


ALONE = Ranks()


@contextmanager
def joined(device_name: str) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's place among those that `torchrun` started, and its device; they watch each other in the block.

    Without torchrun, or with one process, it is `ALONE`, there is no process group and nothing is watched.

    Args:
        device_name: "auto", "cpu" or "cuda"; with several ranks each has the GPU of its local number.

    Raises:
        UserError: the device is not there, or there are more ranks on this host than GPUs.
        PartialFailure: the other processes cannot be reached.
        ElsewhereError: another rank has died or failed.
    """
    ranks = ranks_here()
    if ranks.count == 1:
        yield ALONE, choose_device(device_name)
        return
    device = _device(device_name, ranks)
    _find_each_other(ranks, device)
    clean = False
    try:
        with watching(ranks.rank, ranks.count, share(ranks, uuid.uuid4().hex)):
            yield ranks, device
        clean = True
    finally:
        _part(clean)


def ranks_here() -> Ranks:
    """What torchrun has written into the environment; `ALONE` if it has not started this process."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return ALONE
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Ranks(rank, count, int(os.environ.get("LOCAL_RANK", rank))) if count > 1 else ALONE


def share(ranks: Ranks, value: T) -> T:
    """The value that the first rank has, on every rank."""
    if ranks.count == 1:
        return value
    box = [value if ranks.first else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[return-value]


def gathered(ranks: Ranks, value: T) -> list[T] | None:
    """Every rank's value, in the order of ranks, on the first one; None on the others."""
    if ranks.count == 1:
        return [value]
    values: list[Any] | None = [None] * ranks.count if ranks.first else None
    dist.gather_object(value, values, dst=0)
    return values


def greatest(ranks: Ranks, values: Sequence[int]) -> list[int]:
    """The greatest of all ranks' values, one by one."""
    if ranks.count == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def of_first(ranks: Ranks, work: Callable[[], T]) -> T:
    """What `work` returns on the first rank, which alone does it; all ranks must call, and what it returns is pickled.

    Raises:
        ElsewhereError: on the others, when `work` raised on the first, where the error goes on as it is.
    """
    if ranks.count == 1:
        return work()
    if not ranks.first:
        packed, failure = share(ranks, (b"", ""))
        if failure:
            raise ElsewhereError(failure)
        return pickle.loads(packed)  # of our own process group
    try:
        with patient():
            value = work()
            packed = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        with suppress(RuntimeError):  # nobody is left to hear it
            share(ranks, (b"", f"rank 0 has stopped: {one_line(error)}"))
        raise
    share(ranks, (packed, ""))
    return value


def _device(name: str, ranks: Ranks) -> torch.device:
    """The device of this rank; on GPUs the current one from now on."""
    device = choose_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(f"device={name} is one GPU for {ranks.count} processes; use device=cuda: each takes its own")
    there, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", ranks.local + 1))
    if max(wanted, ranks.local + 1) > there:
        raise UserError(
            f"{wanted} processes on this host and {there} GPU{'s' if there != 1 else ''}: "
            f"use torchrun --nproc-per-node {there}, or device=cpu"
        )
    device = torch.device("cuda", ranks.local)
    torch.cuda.set_device(device)
    return device


def _find_each_other(ranks: Ranks, device: torch.device) -> None:
    """Make the process group: gloo for what is on the CPU, NCCL for what is on GPUs."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        # Finding each other has a limit of its own: a wrong address shall not take as long as the longest work.
        store, _, _ = next(dist.rendezvous("env://", timeout=_TO_FIND_EACH_OTHER))  # type: ignore[attr-defined]
        if int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == ranks.count:
            # After `torchrun --max-restarts` its store still holds the addresses of those that have died. (Over several
            # hosts the counts of restarts may differ, so that this would part the ranks.)
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=_TO_WAIT)
    except dist.DistError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise PartialFailure(f"rank {ranks.rank} cannot reach the others at {where}: {one_line(error)}") from error


def _part(clean: bool) -> None:
    """Take the process group down; after an error not for longer than ten seconds, since others may be gone."""
    if clean:
        dist.destroy_process_group()
        return
    thread = threading.Thread(target=dist.destroy_process_group, daemon=True)
    thread.start()
    thread.join(10)
