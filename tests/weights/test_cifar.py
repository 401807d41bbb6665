from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tracesight as ts
from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE
from tracesight.weights import cifar, conventions_of
from tracesight.weights.cifar import from_tracesight


def made(depth: int) -> dict[str, Tensor]:
    """Random tensors under the source's names, statistics and scales included."""
    torch.manual_seed(depth)
    state: dict[str, Tensor] = {}

    def block(conv: str, norm: str, c_in: int, c_out: int) -> None:
        state[f"{conv}.weight"] = torch.randn(c_out, c_in, 3, 3) * (2 / (9 * c_out)) ** 0.5
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.rand(c_out) + 0.5, torch.randn(c_out) * 0.1
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = torch.randn(c_out) * 0.1, torch.rand(c_out) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(9)

    block("conv1", "bn1", 3, 16)
    before = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for index in range((depth - 2) // 6):
            block(f"layer{stage}.{index}.conv1", f"layer{stage}.{index}.bn1", before, width)
            block(f"layer{stage}.{index}.conv2", f"layer{stage}.{index}.bn2", width, width)
            before = width
    state["linear.weight"], state["linear.bias"] = torch.randn(10, 64), torch.randn(10)
    return state


def theirs(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the source's network says, written out from its description."""

    def convolved(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        out = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        return F.batch_norm(out, *(state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu(convolved(x, "conv1", "bn1", 1))
    for stage in (1, 2, 3):
        index = 0
        while f"layer{stage}.{index}.conv1.weight" in state:
            name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            out = convolved(
                F.relu(convolved(x, f"{name}.conv1", f"{name}.bn1", stride)), f"{name}.conv2", f"{name}.bn2", 1
            )
            if stride == 2:  # option A: a quarter of the new channels is 0 on either side
                none = torch.zeros_like(out[:, : out.shape[1] // 4])
                x = torch.cat((none, x[:, :, ::2, ::2], none), 1)
            x, index = F.relu(out + x), index + 1
    return F.linear(F.avg_pool2d(x, x.shape[3]).flatten(1), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_logits_are_theirs(depth: int, tmp_path: Path) -> None:
    state = made(depth)
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"best_prec1": 91.7, "state_dict": wrapped}, tmp_path / "w.th")
    ours = ts.build(f"cifar_resnet{depth}").eval()
    receipt = ts.load_weights(ours, tmp_path / "w.th", source="cifar")
    assert len(receipt.matched) + len(receipt.dropped) == len(state)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(state, x), rtol=1e-4, atol=1e-4)
        assert theirs(state, x).std() > 0.1


def test_both_ways_with_and_without_wrapping() -> None:
    state, ours = made(20), ts.build("cifar_resnet20")
    for given in (state, {"state_dict": state}, {f"module.{n}": t for n, t in state.items()}):
        nn.init.zeros_(ours.conv1.weight)
        ts.load_weights(ours, given, source="cifar")
        back = from_tracesight(ours.state_dict())
        assert back.keys() == {name for name in state if not name.endswith("num_batches_tracked")}
        assert all(torch.equal(tensor, state[name]) for name, tensor in back.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"linear.bias": None}, "'fc.bias' of the model is missing"),
        ({"layer1.0.conv1.weight": torch.zeros(16, 16, 1, 1)}, r"'layer1.0.conv1.weight' has shape \(16, 16, 1, 1\)"),
        ({"layer2.0.shortcut.0.weight": torch.zeros(1)}, "'layer2.0.shortcut.0.weight' of the checkpoint has no place"),
        ({"lr": 0.1}, "'lr' is not a tensor but float"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, said: str) -> None:
    state = {name: tensor for name, tensor in {**made(20), **change}.items() if tensor is not None}
    with pytest.raises(UserError, match=said):
        ts.load_weights(ts.build("cifar_resnet20"), state, source="cifar")


def test_published_files_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": made(20)}, tmp_path / "w.th")
    digest = ts.load_weights(ts.build("cifar_resnet20"), tmp_path / "w.th", "cifar").sha256
    monkeypatch.setitem(cifar.PUBLISHED, digest[:8], cifar.PUBLISHED["12fca82f"])
    receipt = ts.load_weights(ts.build("cifar_resnet20"), tmp_path / "w.th", "cifar")
    assert receipt.licence == (
        "BSD-2-Clause (pytorch_resnet_cifar10's resnet20); the pictures of CIFAR-10 have terms of their own"
    )
    assert conventions_of(tmp_path / "w.th", "cifar") == "torchvision"


def test_every_network_that_takes_them_has_a_published_file() -> None:
    names = [name.removeprefix("cifar_") for name, entry in CATALOGUE.items() if "cifar" in entry.weights]
    assert names == [known.name for known in cifar.PUBLISHED.values()]
