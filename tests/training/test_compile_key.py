"""A network that is compiled learns what it would learn otherwise; where it cannot be, one line says so."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from small_step import batch, network
from torch import nn
from torchvision_peer import doubled_batch

from tracesight.data.batch import moved
from tracesight.errors import UserError
from tracesight.models.mae import MAE
from tracesight.models.moco_v3 import MoCoV3
from tracesight.models.vit import ViT
from tracesight.ops.random import keyed_uniform
from tracesight.training.begin import begin
from tracesight.training.compiled import compiled, uncompiled
from tracesight.training.optim import build_optimiser
from tracesight.training.ranks import ALONE, Ranks
from tracesight.training.signals import Stop

CPU = torch.device("cpu")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
METHODS: dict[str, Any] = {
    "mae": lambda: MAE(12, 2, 3, patch=2, image_size=8, decoder=(8, 1, 2)),
    "moco-v3-vit": lambda: MoCoV3(
        lambda: ViT(12, 2, 3, None, patch=2, image_size=8, positions="sincos-yx"), dim=5, hidden=7, temperature=0.5
    ),
}


def traced(monkeypatch):
    """torch.compile as it is without a compiler for C++: everything but the making of kernels."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: real(function, backend="aot_eager"))
    torch.compiler.reset()


def begun(parts: int = 1, ranks: Ranks = ALONE, **how: str):
    return begin(
        nn.Linear(2, 2), partial(build_optimiser, "sgd", lr=0.1), device=CPU, ranks=ranks, stop=Stop(at_once=False),
        batch_size=4, parts=parts, half=False, ema=False, total=1, identity={}, **{"distributed": "ddp", **how},
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_compiled_learns_the_same(monkeypatch, name):
    traced(monkeypatch)
    found = {}
    for how in ("none", "kernels"):
        torch.manual_seed(0)
        model = METHODS[name]().double().train()
        called, losses = compiled(model, how, CPU), []
        assert (called is model) == (how == "none")
        optimiser = build_optimiser("sgd", model, lr=0.01)
        for step in range(3):
            keys = torch.tensor([[11, step * 4 + row] for row in range(4)])
            drawn = torch.Generator().manual_seed(step)
            views = torch.randn(model.views, 4, 3, 8, 8, generator=drawn, dtype=torch.float64)
            made = called(*views, keys)
            loss = sum(made.losses.values())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            if hasattr(model, "advance"):
                model.advance(made.keys, keys, 0.9)
            losses.append(float(loss.detach()))
        found[how] = losses, {**model.state_dict()}
    assert found["kernels"][0] == pytest.approx(found["none"][0], rel=1e-9)
    assert found["kernels"][1].keys() == found["none"][1].keys()
    for tensor_name, tensor in found["none"][1].items():
        assert torch.allclose(found["kernels"][1][tensor_name], tensor, rtol=1e-6, atol=1e-9), tensor_name


def test_the_run_keeps_the_network_itself(monkeypatch):
    traced(monkeypatch)
    run = begun(compile="kernels")
    assert run.network is not run.model and uncompiled(run.network) is run.model
    assert run.state()["model"].keys() == {"weight", "bias"}
    plain = begun(compile="none")
    assert plain.network is plain.model and uncompiled(plain.network) is plain.model


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(UserError, match="compile=graphs: CUDA graphs are for NVIDIA's GPUs, and this runs on cpu"):
        begun(compile="graphs")
    with pytest.raises(UserError, match="accumulate=2 cuts it; use compile=kernels"):
        begun(compile="graphs", parts=2)
    with pytest.raises(UserError, match="compile=kernels is for distributed=ddp; with fsdp use compile=none"):
        begun(compile="kernels", distributed="fsdp", ranks=Ranks(0, 2))

    def nothing(function, mode=None):
        def call(values):
            raise RuntimeError("\nNo working C++ compiler found in [c++]\nsee the manual")

        return call

    monkeypatch.setattr(torch, "compile", nothing)
    with pytest.raises(UserError, match=r"compile=kernels: .* a C\+\+ compiler \(No working C\+\+ compiler found in"):
        begun(compile="kernels")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("how", ("kernels", "graphs"))
def test_detector_on_a_gpu(how):
    """In double precision: in float32 a GPU rounds a convolution otherwise than the product that it may become."""
    device, found = torch.device("cuda"), {}
    loaded = [moved(part, device) for part in doubled_batch(batch().batch, batch().targets)]
    for compile in ("none", how):
        torch.manual_seed(0)
        model = network().double().to(device)
        called, optimiser = compiled(model, compile, device), build_optimiser("sgd", model, lr=1e-3)
        rows = found[compile] = []
        for _ in range(4):  # graphs are recorded in the second step
            losses = called(*loaded)
            sum(losses.values()).backward()
            optimiser.step()
            optimiser.zero_grad()
            rows.append(torch.stack(list(losses.values())).tolist())
    assert torch.tensor(found[how]) == pytest.approx(torch.tensor(found["none"]), rel=1e-6)


@pytest.mark.gpu
@gpu
def test_keyed_numbers_on_a_gpu():
    """With indices of 32 bits the first product would not fit, and nothing compiled."""
    keys = torch.tensor([[7, 0], [7, 2**40 + 5]], device="cuda")
    assert torch.equal(torch.compile(keyed_uniform)(keys, "mask", 1001), keyed_uniform(keys, "mask", 1001))
