"""Blocks are used again when nothing lies in them any more, and not before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tracesight.ops import memory
from tracesight.ops.memory import KEPT, LEAST, MOST, fresh

ROWS = LEAST // 4 // 256


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(memory, "_blocks", [])


def test_a_block_is_used_again_only_when_all_views_are_gone():
    one = fresh(ROWS, 256, torch.float32)
    place, view = one.data_ptr(), one[3:].permute(1, 0)
    del one
    other = fresh(ROWS, 256, torch.float32)
    assert other.data_ptr() != place
    del view
    assert fresh(ROWS, 128, torch.float64).data_ptr() == place
    assert other.shape == (ROWS, 256)


def test_tensors_that_live_at_once_never_share_memory():
    def work(number):
        for _ in range(30):
            tensors = [fresh(ROWS, 256, torch.float32) for _ in range(KEPT + 1)]
            for index, tensor in enumerate(tensors):
                tensor[::512].fill_(number * 10 + index)
            if any((tensor[::512] != number * 10 + index).any() for index, tensor in enumerate(tensors)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert len(memory._blocks) <= KEPT


def test_small_ones_and_huge_ones_are_not_kept():
    assert fresh(10, 256, torch.bfloat16).shape == (10, 256)
    assert fresh(0, 256, torch.float32).shape == (0, 256)
    assert fresh(MOST // 1024 + 1, 1024, torch.uint8).shape[1] == 1024
    assert memory._blocks == []
