"""Losses over ranks: the whole batch's mean, also where a rank has nothing to count, and no waiting in `alone`."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import on_ranks

from tracesight.ops.collectives import alone, mean_loss, ranks

# What three ranks have to add up: the last one nothing.
VALUES = ([1.0, 2.0, 4.0], [8.0], [])


def over_ranks(rank):
    weight = torch.tensor(3.0, requires_grad=True)
    values = torch.tensor(VALUES[rank])
    loss = mean_loss((weight * values).sum(), torch.tensor(len(values)))
    loss.backward()
    found = {"loss": loss.item(), "gradient": weight.grad, "ranks": ranks()}
    nothing = mean_loss(weight * 0, torch.tensor(0))
    found["nothing"] = nothing.item()
    half = mean_loss(weight.detach().bfloat16(), torch.tensor(257))  # bfloat16 knows 256 and 258
    found["half"] = half.item()
    if rank == 0:  # the others are in no collective: whatever is not local hangs
        with alone():
            with alone():
                found["alone"] = mean_loss(values.sum(), torch.tensor(len(values))).item(), ranks()
            found["still alone"] = ranks()
        with pytest.raises(KeyError), alone():
            raise KeyError
    found["again"] = ranks()
    total = torch.ones(())
    dist.all_reduce(total)
    assert total == 3
    return found


@pytest.fixture(scope="module")
def found():
    return on_ranks(over_ranks, count=3)


def test_averaged_over_ranks_loss_and_gradient_are_those_of_all_values(found):
    every = torch.tensor([value for values in VALUES for value in values])
    assert sum(part["loss"] for part in found) / 3 == pytest.approx(float(3 * every.mean()))
    assert sum(float(part["gradient"]) for part in found) / 3 == pytest.approx(float(every.mean()))
    assert found[2]["loss"] == 0 and found[2]["gradient"] == 0
    assert {part["nothing"] for part in found} == {0.0}


def test_counts_are_exact_whatever_the_precision_of_a_loss(found):
    assert [part["half"] for part in found] == pytest.approx([3 * 3 / (3 * 257)] * 3, rel=1e-6)


def test_alone_there_are_no_others(found):
    assert found[0]["alone"] == (pytest.approx(7 / 3), 1)
    assert found[0]["still alone"] == 1
    assert [part["ranks"] for part in found] == [part["again"] for part in found] == [3, 3, 3]


def test_one_process_is_alone():
    assert ranks() == 1
    total = torch.tensor(7.0, requires_grad=True)
    assert mean_loss(total, torch.tensor(2)).item() == 3.5
    assert mean_loss(total, torch.tensor(0)).item() == 7.0
    with alone():
        assert ranks() == 1
