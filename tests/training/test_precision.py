from __future__ import annotations

import pytest
import torch

from tracesight.errors import UserError
from tracesight.training import precision


def test_bf16_only_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: False)
    assert precision.autocast_dtype("auto", cpu) is None
    with pytest.raises(UserError, match="precision=bf16"):
        precision.autocast_dtype("bf16", cpu)
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: True)
    assert precision.autocast_dtype("auto", cpu) is torch.bfloat16
    assert precision.autocast_dtype("fp32", cpu) is None


def test_autocast_off_is_off():
    with precision.autocast(torch.device("cpu"), None):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


def test_repeatable_restores_what_was_set():
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with precision.repeatable(torch.device("cpu"), threads=1):
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before


def test_unknown_device_is_named():
    with pytest.raises(UserError, match="device=banana"):
        precision.choose_device("banana")
