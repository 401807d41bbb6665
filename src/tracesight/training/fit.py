"""Memory and disk that are not enough: recognising it, and a size that would fit."""

from __future__ import annotations

import errno
import math
import os
import sys
from pathlib import Path

import torch

# Of the memory there is, what a suggestion counts on: allocators lose some between blocks.
USABLE = 0.9
STEP = 32  # pictures are padded to multiples of it
# What torch, oneDNN, CUDA, cuDNN, cuBLAS and MPS say, each in a RuntimeError: they have no exception of their own.
_SAID = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "status_alloc_failed",
    "memoryerror in dataloader",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the machine or of a device, is exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that a disk has no room left, or that its user may have no more of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def suggestion(
    *,
    pictures: int,
    pixels: int,
    parts: int,
    image_size: int,
    batch: int | None = None,
    crop_size: int | None = None,
    fitted: tuple[int, float] | None = None,
    available: float | None = None,
) -> str:
    """What to change so that a part of a batch, which was too large for the memory, would fit: a clause for a message.

    First the batch is cut into more parts, which changes nothing that is learned; where a part is one picture already,
    pictures must become smaller. What fits is estimated from the largest part that did fit, its memory taken to grow in
    proportion to its pixels. Weights do not grow with them, so the estimate for a larger part errs on the safe side.
    Where it says nothing, half of what failed is suggested.

    Args:
        pictures: in the part that did not fit.
        pixels: N × H × W of that part, padding included.
        parts: each batch is cut into so many now, as evenly as can be.
        image_size: the short side of a picture; crop_size: the side of the pieces that are cut from them, if they are.
        batch: pictures in the whole batch (of this rank); None: parts × pictures.
        fitted: pixels of the largest part that did fit, and the bytes that were in use with it.
        available: bytes that this process can have.
    """
    most = _most_pixels(pixels, fitted, available)
    if pictures > 1:
        whole = batch or pictures * parts
        held = max(1, math.floor(most * pictures / pixels)) if most else math.ceil(pictures / 2)
        more = math.ceil(whole / held)
        left = math.ceil(whole / more)
        return (
            f"--resume accumulate={more} cuts each batch into {more} parts of "
            f"{'one picture' if left == 1 else f'at most {left} pictures'} and learns nearly the same"
        )
    factor = math.sqrt((most or pixels / 2) / pixels)
    key, side = ("image_size", image_size) if crop_size is None else ("crop_size", crop_size)
    smaller = min(math.floor(side * factor / STEP), math.ceil(side / STEP) - 1) * STEP
    if smaller < STEP:
        return "pictures cannot be much smaller: choose a smaller model"
    pieces = f" (max_size in proportion), or crop_size={smaller} to learn from pieces" if crop_size is None else ""
    return (
        f"parts are of one picture already: begin a new run in another --out with {key}={smaller}{pieces}; "
        "--init takes over this run's best or last"
    )


def _most_pixels(pixels: int, fitted: tuple[int, float] | None, available: float | None) -> float | None:
    """Pixels that a part may have by the estimate; None where it says nothing, or that what failed should have fit."""
    if fitted is None:
        return None
    most = float(fitted[0])
    if available is not None and fitted[1] > 0:
        most = max(most, most * USABLE * available / fitted[1])
    return most if most < pixels else None


def memory_used(device: torch.device) -> int | None:
    """The most bytes that were in use at once so far; None where the system does not say.

    On CUDA what tensors hold. On the CPU resident memory, or the address space where that is what is limited.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    status = _status()
    key = "VmHWM" if _address_limit() is None else "VmPeak"
    if key in status:
        return status[key]
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def available(device: torch.device) -> int | None:
    """The bytes that this process can have, with those it has; None where the system does not say.

    On CUDA what no other process holds. On the CPU the limit of the address space if there is one, else the least of
    the machine's memory and the limits of the control groups that the process is in.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    if (limit := _address_limit()) is not None:
        return limit
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    return min(limits + _group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))


def _address_limit() -> int | None:
    """The limit of the address space (`ulimit -v`), None where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _status() -> dict[str, int]:
    """The lines of Linux's /proc/self/status that are amounts of memory, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    rows = (line.replace(":", " ").split() for line in lines if line.endswith(" kB"))
    return {row[0]: int(row[1]) * 1024 for row in rows}


def _group_limits(membership: Path, root: Path) -> list[int]:
    """The limits of memory, in bytes, of the control groups in `membership` and of all groups above them."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        place, name = (root / "memory", "memory.limit_in_bytes") if kinds else (root, "memory.max")
        inside = Path(group.lstrip("/"))
        for folder in (inside, *inside.parents):
            try:
                limits.append(int((place / folder / name).read_text(encoding="ascii")))
            except (OSError, ValueError):  # not visible from a container, or "max": no limit
                continue
    return limits
