"""Pretraining over two processes with FSDP2: MAE, and MoCo on both kinds of networks, learn what one process learns."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import on_ranks

from tracesight.models.build import build
from tracesight.models.mae import MAE
from tracesight.models.moco import MoCo
from tracesight.models.moco_v3 import MoCoV3
from tracesight.models.vit import ViT
from tracesight.training.begin import begin
from tracesight.training.optim import build_optimiser
from tracesight.training.ranks import Ranks
from tracesight.training.run import Run
from tracesight.training.signals import Stop
from tracesight.training.spread import is_sharded, whole_tensor

BATCH, STEPS, HALF = 8, 4, 2
METHODS: dict[str, Any] = {
    "mae": lambda: MAE(12, 2, 3, patch=2, image_size=8, decoder=(8, 1, 2)),
    "moco-v3-vit": lambda: MoCoV3(
        lambda: ViT(12, 2, 3, None, patch=2, image_size=8, positions="sincos-yx"), dim=5, hidden=7, temperature=0.5
    ),
    "moco-v2": lambda: MoCo(partial(build, "cifar_resnet20", 0), dim=5, queue=16, bn_group=2),
}


def started(name: str, ranks: Ranks) -> Run:
    torch.manual_seed(3)
    return begin(
        METHODS[name]().double(),
        partial(build_optimiser, "adamw", lr=0.01, weight_decay=0.1, beta2=0.95),
        device=torch.device("cpu"), ranks=ranks, stop=Stop(at_once=False), distributed="fsdp", compile="none",
        batch_size=BATCH, parts=1, half=False, ema=False, total=STEPS, identity={},
    )  # fmt: skip


def learned(run: Run, until: int) -> list[float]:
    """Losses of the steps up to `until`, each of a batch that belongs to its number."""
    rank, count, losses = *run.ranks[:2], []
    model: Any = run.model
    while run.step < until:
        drawn = torch.Generator().manual_seed(run.step)
        views = torch.randn(2, BATCH, 3, 8, 8, generator=drawn, dtype=torch.float64)[: model.views]
        keys = torch.tensor([[11, run.step * BATCH + row] for row in range(BATCH)])
        mine = torch.arange(BATCH).chunk(count)[rank]
        made = run.network(*(view[mine] for view in views), keys[mine])
        loss = sum(made.losses.values())
        loss.backward()
        run.optimiser.step()
        run.optimiser.zero_grad()
        if hasattr(model, "advance"):
            model.advance(made.keys, keys[mine], 0.9)
        run.step += 1
        total = loss.detach().clone()
        if count > 1:
            dist.all_reduce(total)
        losses.append(float(total) / count)
    return losses


def at(run: Run) -> dict[str, Any]:
    """What a checkpoint holds now."""
    return copy.deepcopy({"format": 2, "step": run.step, **run.state()})


def of_rank(rank: int, states: dict[str, Any]) -> dict[str, Any]:
    """Of each method: losses, the state half way and at the end, and the end of one that took `states` up."""
    found = {}
    for name in METHODS:
        run = started(name, Ranks(rank, 2))
        assert is_sharded(run.model)
        losses = learned(run, HALF)
        half = at(run)
        losses += learned(run, STEPS)
        other = started(name, Ranks(rank, 2))
        other.restore(copy.deepcopy(states[name]))  # its memory is shared by both
        learned(other, STEPS)
        found[name] = losses, half, run.result.state_dict(), other.result.state_dict()
    return found


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    """Of each method what one process has, and what two have."""
    alone, states = {}, {}
    for name in METHODS:
        run = started(name, Ranks())
        losses = learned(run, HALF)
        states[name] = at(run)
        losses += learned(run, STEPS)
        alone[name] = losses, run.result.state_dict()
    spread = on_ranks(of_rank, states)
    return {name: (alone[name], [rank[name] for rank in spread]) for name in METHODS}


def assert_near(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(
                whole_tensor(state[name]), tensor, rtol=0, atol=1e-6, msg=lambda text, at=name: f"{at}: {text}"
            )


@pytest.mark.parametrize("name", METHODS)
def test_shards_learn_what_one_process_learns(both, name):
    (losses, state), spread = both[name]
    for own, _, whole, _ in spread:
        assert own == pytest.approx(losses, abs=1e-6)
        assert_near(whole, state)


@pytest.mark.parametrize("name", METHODS)
def test_checkpoints_move_both_ways(both, name):
    (losses, state), spread = both[name]
    for _, _, _, moved in spread:
        assert_near(moved, state)
    run = started(name, Ranks())
    run.restore(spread[0][1])
    assert learned(run, STEPS) == pytest.approx(losses[HALF:], abs=1e-6)
    assert_near(run.result.state_dict(), state)
