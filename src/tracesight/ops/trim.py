"""Dropping what is not valid, where reading a count costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def may_read(tensor: Tensor) -> bool:
    """Whether a count may be read from `tensor`: eager mode on the CPU, where there is no host copy and no graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def exporting() -> bool:
    """Whether a program is exported. In torch 2.11 `torch.compiler.is_exporting()` is true while compiling too."""
    return torch.compiler._is_exporting_flag


def trim(valid: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`valid` (R,) and tensors (R, ...) without the rows that are not valid.

    The identity on other devices and while compiling or exporting, so that shapes stay fixed there.
    """
    if not may_read(valid):
        return valid, *tensors
    index = valid.nonzero().squeeze(1)
    if len(index) == len(valid):
        return valid, *tensors
    return valid[index], *(tensor[index] for tensor in tensors)


def trim_tail(valid: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`valid` (N, K) and tensors (N, K, ...) without the last columns in which no row is valid.

    Keeps the rectangle; at least one column stays. The identity where `trim` is.
    """
    if not may_read(valid):
        return valid, *tensors
    columns = valid.any(0).nonzero()
    count = int(columns[-1]) + 1 if len(columns) else 1
    return valid[:, :count], *(tensor[:, :count] for tensor in tensors)
