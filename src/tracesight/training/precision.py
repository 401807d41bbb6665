"""Devices and number formats: bf16 only where the hardware computes in it, and results that repeat on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tracesight.errors import UserError


def choose_device(name: str) -> torch.device:
    """`"auto"` is the GPU if there is one. Raises UserError if the named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not a device; use auto, cpu or cuda") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name} is not there: torch sees {torch.cuda.device_count()} GPUs; use device=cpu")
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies matrices in bf16: AVX-512 BF16 or AMX on x86, BF16 on ARM, Ampere or later.

    Elsewhere torch computes in fp32 and rounds, which is slower than fp32 and less precise.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return any(
        bool(getattr(torch.cpu, name, bool)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """`torch.bfloat16`, `torch.float16` or None (fp32) for `precision` "auto", "fp32", "bf16" or "fp16".

    "auto" never chooses fp16, which needs its losses scaled: it is for GPUs older than Ampere, asked for by name.

    Raises:
        UserError: bf16 was asked for by name where the hardware does not have it.
    """
    if precision == "fp32":
        return None
    if precision == "fp16":
        return torch.float16
    native = has_native_bf16(device)
    if precision == "bf16" and not native:
        raise UserError(f"precision=bf16: this {device.type} does not compute in bf16; use precision=auto or fp32")
    return torch.bfloat16 if native else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to `dtype`; None leaves everything in fp32."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def describe(device: torch.device, precision: str) -> str:
    """What a run computed on, for people: "CPU, 2 threads, bf16"."""
    number = {None: "fp32", torch.bfloat16: "bf16"}.get(autocast_dtype(precision, device), "fp16")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {number}"
    count = torch.get_num_threads()
    return f"{device.type.upper()}, {count} thread{'s' if count != 1 else ''}, {number}"


@contextmanager
def repeatable(device: torch.device, threads: int = 0) -> Iterator[None]:
    """Deterministic algorithms on the CPU, and `threads` threads (0 leaves torch's number), restored afterwards.

    On GPUs some backward passes have no deterministic form, so nothing is asked of them.
    """
    before, warned, count = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        if device.type == "cpu":
            # Every new tensor would be filled with NaN, which costs time and changes no result that is right.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(True, warn_only=True)
        if threads:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.set_num_threads(count)
